"""The typed functions that tools may be made of. Their signatures are their contracts: arguments are checked against
the type hints, and the JSON Schema that a model reads is generated from them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

Length = Literal["metre", "kilometre", "mile", "nautical-mile", "foot"]
Temperature = Literal["celsius", "fahrenheit", "kelvin"]
Finite = Annotated[float, Meta(ge=-1e15, le=1e15)]
Latitude = Annotated[float, Meta(ge=-90, le=90, description="Degrees north.")]
Longitude = Annotated[float, Meta(ge=-180, le=180, description="Degrees east.")]

METRES: Final[dict[str, float]] = {
    "metre": 1.0,
    "kilometre": 1_000.0,
    "mile": 1_609.344,
    "nautical-mile": 1_852.0,
    "foot": 0.3048,
}
EARTH_RADIUS_KILOMETRES: Final = 6_371.0088
"""Mean radius (IUGG)."""


class BadArguments(ValueError):
    """Arguments that do not fit the function's signature."""


def convert_length(value: Finite, from_unit: Length, to_unit: Length) -> dict[str, Any]:
    """Converts a length from one unit to another."""
    return {"value": value * METRES[from_unit] / METRES[to_unit], "unit": to_unit}


def convert_temperature(value: Finite, from_unit: Temperature, to_unit: Temperature) -> dict[str, Any]:
    """Converts a temperature from one unit to another."""
    kelvin = {"celsius": value + 273.15, "fahrenheit": (value + 459.67) * 5 / 9, "kelvin": value}[from_unit]
    converted = {"celsius": kelvin - 273.15, "fahrenheit": kelvin * 9 / 5 - 459.67, "kelvin": kelvin}[to_unit]
    return {"value": round(converted, 9), "unit": to_unit}


def miles_to_km(miles: Finite) -> dict[str, Any]:
    """Converts statute miles to kilometres."""
    return {"kilometres": miles * METRES["mile"] / METRES["kilometre"]}


def days_between(start: date, end: date) -> dict[str, Any]:
    """Counts the days from one date (YYYY-MM-DD) to another; negative when the second is earlier."""
    return {"days": (end - start).days}


def great_circle(from_lat: Latitude, from_lon: Longitude, to_lat: Latitude, to_lon: Longitude) -> dict[str, Any]:
    """Measures the shortest way over the Earth's surface between two points, in kilometres."""
    a, b = math.radians(from_lat), math.radians(to_lat)
    half = math.sin((b - a) / 2) ** 2
    half += math.cos(a) * math.cos(b) * math.sin(math.radians(to_lon - from_lon) / 2) ** 2
    return {"kilometres": 2 * EARTH_RADIUS_KILOMETRES * math.asin(min(1.0, math.sqrt(half)))}


FUNCTIONS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    function.__name__: function
    for function in (convert_length, convert_temperature, days_between, great_circle, miles_to_km)
}


def call(entry: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Check the arguments and call the function; raises BadArguments."""
    shape = _SHAPES[entry]
    try:
        checked = msgspec.convert(arguments, shape)
    except msgspec.ValidationError as fault:
        raise BadArguments(str(fault)) from None
    return FUNCTIONS[entry](**{name: getattr(checked, name) for name in shape.__struct_fields__})


def schema_of(entry: str) -> tuple[str, dict[str, Any]]:
    """What the function says of itself, and the JSON Schema of its arguments."""
    (_, definitions) = msgspec.json.schema_components([_SHAPES[entry]])
    schema = {key: value for key, value in definitions[_SHAPES[entry].__name__].items() if key != "title"}
    return inspect.getdoc(FUNCTIONS[entry]) or "", schema


def _shape(function: Callable[..., Any]) -> type[msgspec.Struct]:
    hints = get_type_hints(function, include_extras=True)
    fields = [(name, hints[name]) for name in inspect.signature(function).parameters]
    return msgspec.defstruct(f"{function.__name__}_arguments", fields, forbid_unknown_fields=True, kw_only=True)


_SHAPES: Final = {name: _shape(function) for name, function in FUNCTIONS.items()}
