"""Windows of time: whole local days to learn from, then whole local days to prove on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from bnpipe.errors import DataError, FormatError, SettingsError


@dataclass(frozen=True)
class Window:
    """Days to learn from and days to prove on: training ``[start, train_end)``, held out ``[train_end, end)``.

    Parameters
    ----------
    start, train_end, end : datetime
        Local midnights in `time_zone`, each with its offset.
    time_zone : str
        IANA name.
    """

    start: datetime
    train_end: datetime
    end: datetime
    time_zone: str

    def __post_init__(self) -> None:
        if not self.start < self.train_end <= self.end:
            raise SettingsError(
                f"a window needs start < train_end <= end, got {self.start}, {self.train_end}, {self.end}"
            )

    def __str__(self) -> str:
        return f"[{self.start.date()}, {self.end.date()}) in {self.time_zone}"

    @property
    def train_days(self) -> int:
        """Local days to learn from."""
        return (self.train_end.date() - self.start.date()).days

    @property
    def held_out_days(self) -> int:
        """Local days kept from learning."""
        return (self.end.date() - self.train_end.date()).days

    def to_dict(self) -> dict[str, str]:
        """Give ISO texts with offsets, and the time zone."""
        return {
            "start": self.start.isoformat(),
            "train_end": self.train_end.isoformat(),
            "end": self.end.isoformat(),
            "time_zone": self.time_zone,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Window:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or no time.
        """
        try:
            zone = find_time_zone(fields["time_zone"])
            start, train_end, end = (
                datetime.fromisoformat(fields[name]).astimezone(zone) for name in ("start", "train_end", "end")
            )
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            raise FormatError(f"not a window: {error}") from error
        return cls(start, train_end, end, fields["time_zone"])


def find_time_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises
    ------
    SettingsError
        No such zone.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SettingsError(f"unknown time zone {name!r}: give an IANA name such as Europe/Berlin") from error


def window_at(
    at: datetime | date,
    *,
    time_zone: str,
    lag_days: int = 0,
    train_days: int,
    held_out_days: int,
) -> Window:
    """Place a window before a moment.

    Parameters
    ----------
    at : datetime or date
        A date is taken at its word: the window ends at that local midnight. A datetime (without an offset: local time)
        ends it at the last local midnight at or before `at`, less `lag_days`.
    time_zone : str
        IANA name; days are calendar days there, 23 to 25 hours long.
    lag_days : int
        Days that rows need to arrive. Not applied to a date.
    train_days, held_out_days : int
        Length of both parts.

    Raises
    ------
    SettingsError
        Unknown time zone, or no days to learn from.
    DataError
        The calendar does not go back that far.
    """
    zone = find_time_zone(time_zone)
    if isinstance(at, datetime):
        local = at.astimezone(zone) if at.tzinfo else at
        end = local.date() - timedelta(days=lag_days)
    else:
        end = at
    try:
        train_end = end - timedelta(days=held_out_days)
        start = train_end - timedelta(days=train_days)
    except OverflowError as error:
        raise DataError(
            f"a window of {train_days} + {held_out_days} days can't end on {end}: choose a later date"
        ) from error
    start_at, train_end_at, end_at = (datetime.combine(day, time(), zone) for day in (start, train_end, end))
    return Window(start_at, train_end_at, end_at, time_zone)
