"""The small types of a spec: durations, time zones, cron, names."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)


class Part(BaseModel):
    """A mapping of the YAML: frozen, without unknown keys; a key without a value counts as left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_strip_whitespace=True)

    @model_validator(mode="before")
    @classmethod
    def _left_out(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


def did_you_mean(word: str, known: Any) -> str:
    """Give ``, did you mean 'x'?`` or nothing."""
    close = get_close_matches(word, [str(item) for item in known], n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""


def _days(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
        value = f"{text}d"
    match = re.fullmatch(r"(\d{1,5})\s*(d|w)", str(value).strip())
    if match is None and str(value).strip() != "0":
        raise ValueError(f"got {str(value)!r}; write days as 90d, or weeks as 12w")
    return int(match[1]) * (7 if match[2] == "w" else 1) if match else 0


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        hint = did_you_mean(name, available_timezones())
        raise ValueError(f"unknown time zone {name!r}{hint or '; give an IANA name such as Europe/Berlin'}") from None
    return name


def _day(value: object) -> object:
    if isinstance(value, str):
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value.strip()):
            raise ValueError(f"got {value!r}; write a date as 2013-12-31")
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"there is no day {value!r}; write a date as 2013-12-31") from None
    return value


_MONTHS: Final = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_WEEKDAYS: Final = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_CRON: Final[tuple[tuple[str, int, int, Mapping[str, int]], ...]] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _WEEKDAYS),
)
_PRESETS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def cron_sets(cron: str) -> tuple[frozenset[int], ...]:
    """Expand five cron fields into the values each allows; Sunday is 0.

    Raises
    ------
    ValueError
        Not five fields, or one is out of its range.
    """
    fields = _PRESETS.get(cron, cron).split()
    if len(fields) != 5:
        raise ValueError(f"got {cron!r}; cron has 5 fields (minute hour day month weekday), such as 0 6 * * *")
    *rest, weekdays = (
        frozenset().union(*(_cron_item(item, *kind) for item in text.lower().split(",")))
        for text, kind in zip(fields, _CRON, strict=True)
    )
    return (*rest, frozenset(day % 7 for day in weekdays))


def _cron_item(item: str, kind: str, low: int, high: int, names: Mapping[str, int]) -> frozenset[int]:
    match = re.fullmatch(r"(\*|([0-9a-z]+)(?:-([0-9a-z]+))?)(?:/([0-9]+))?", item)
    wrong = ValueError(f"cron: {item!r} is no {kind}; allowed are {low} to {high}, *, a-b, */n and lists with commas")
    if match is None:
        raise wrong
    _, first, last, every = match.groups()
    try:
        start = low if first is None else names[first] if first in names else int(first)
        end = high if first is None or (every and last is None) else start
        end = end if last is None else names[last] if last in names else int(last)
    except ValueError:
        raise wrong from None
    step = int(every) if every else 1
    if not low <= start <= end <= high or step < 1:
        raise wrong
    return frozenset(range(start, end + 1, step))


def looks_per_year(cron: str | None) -> int:
    """Count how often a year (2023, no leap day) a cron fires, at most once a day; without one: 365."""
    if cron is None:
        return 365
    _, _, days, months, weekdays = cron_sets(cron)
    by_day, by_weekday = len(days) < 31, len(weekdays) < 7
    fires = 0
    for month in months:
        for day in range(1, calendar.monthrange(2023, month)[1] + 1):
            on_day, on_weekday = day in days, (calendar.weekday(2023, month, day) + 1) % 7 in weekdays
            fires += (on_day or on_weekday) if by_day and by_weekday else (on_day and on_weekday)
    return max(fires, 1)


def _cron(value: str) -> str:
    text = " ".join(value.split())
    cron_sets(text)
    return text


Days = Annotated[
    int,
    BeforeValidator(_days),
    PlainSerializer(lambda days: f"{days}d", return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,5}\s*[dw]$", "examples": ["90d", "12w"]}),
]
"""Whole days, written ``90d`` (or ``12w``)."""

TimeZone = Annotated[str, AfterValidator(_zone)]
"""An IANA name."""

Day = Annotated[date, BeforeValidator(_day)]
"""A date, written ``2013-12-31``."""

Cron = Annotated[str, AfterValidator(_cron)]
"""Five fields, or ``@daily`` and its like."""

ModelName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]
"""Name of a network: part of Dag ids, of the registered model's name, of paths."""

VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,99}$")]
"""Name of a variable."""

Text = Annotated[str, StringConstraints(min_length=1)]
"""Not empty."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""Between 0 and 1."""
