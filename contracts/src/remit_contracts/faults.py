"""What is wrong with a message, field by field, in words for whoever wrote it: the one place that knows pydantic's."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from remit_contracts.errors import MalformedIdentifier

MAX_NAMED: Final = 5
"""Faults told at once."""

_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "no such field",
    "json_invalid": "is no JSON ({error})",
    "string_type": "must be text",
    "string_unicode": "must be text in Unicode",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "may have at most {max_length} characters",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length} of them",
    "too_long": "may hold at most {max_length} of them",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "may be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "datetime_type": "must be a time, such as 2026-01-31T12:00:00Z",
    "datetime_parsing": "must be a time, such as 2026-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a time, such as 2026-01-31T12:00:00Z",
}
"""Kind of fault -> words, with pydantic's own context filled in (2.14). None of it holds the bad value."""


def in_words(invalid: ValidationError, *, whole: str = "payload") -> str:
    """Each bad field, what is wrong with it, what is expected; never its value. `whole` names what holds the fields.

    Example: `prompt: must not be empty; sesion: no such field`.
    """
    told: dict[str, list[str]] = {}
    errors = invalid.errors(include_input=False, include_url=False)
    places = {error["loc"] for error in errors}
    for error in errors:
        place = error["loc"]
        if error["type"] == "too_short" and any(other[: len(place)] == place and other != place for other in places):
            continue  # too few are left because of those that are bad, which are told
        place = _without_alternative(place)
        words = told.setdefault(".".join(map(str, place)) or whole, [])
        if (said := _say(error)) not in words:
            words.append(said)
    return "; ".join(f"{place}: {' or '.join(words)}" for place, words in list(told.items())[:MAX_NAMED])


def _say(error: Any) -> str:
    context = error.get("ctx", {})
    if error["type"] in ("value_error", "assertion_error"):
        raised = context.get("error")
        return raised.expected if isinstance(raised, MalformedIdentifier) else str(raised)
    if context.get("min_length") == 1:
        return "must not be empty"
    words = _WORDS.get(error["type"])
    return words.format(**context) if words else f"is not as it must be ({error['type'].replace('_', ' ')})"


def _without_alternative(place: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """pydantic names each type that a value might have had as if it were a field of the value."""
    return place[:-1] if place and place[-1] in ("str", "int", "float", "bool") else place
