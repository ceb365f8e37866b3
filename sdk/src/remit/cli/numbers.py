"""Numbers as options: out of bounds they are a usage error, told before anything is asked or waited for."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from remit_contracts.runs import MAX_LISTED_RUNS
from remit_contracts.trails import MAX_INDEX

LONGEST_SECONDS = 365 * 86_400
"""More is taken for a slip: timers of the event loop and of the client library take no such number."""

Count = Annotated[int | None, Parameter(validator=Number(gte=1))]
"""How many; None for all."""
After = Annotated[int | None, Parameter(validator=Number(gte=0, lte=MAX_INDEX))]
"""The index of an entry to start behind; None for the beginning."""
Index = Annotated[int, Parameter(validator=Number(gte=0, lte=MAX_INDEX))]
Rows = Annotated[int, Parameter(validator=Number(gte=1, lte=MAX_LISTED_RUNS))]
"""How many runs are listed."""
Port = Annotated[int | None, Parameter(validator=Number(gte=1, lte=65_535))]
"""None for a free one."""
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=LONGEST_SECONDS))]
Speed = Annotated[float, Parameter(validator=Number(gte=0, lte=1_000_000))]
"""How many times as fast as it was; 0 for as fast as possible."""
