"""``python -m benchmarks.units``: does a look tell a changed unit, and does it ever suspect one (5 minutes).

The numeric variables of the flights of 2013, each day's values as they came. Reference are the 90 days of a champion;
a week later, or its last day alone, is turned into another unit, and rounded. Writes a table into docs/decisions.md.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.year import ROOT, SPEC, YEAR
from bnpipe.config import load_spec
from bnpipe.examples.flights import prepare
from bnpipe.expectations import unit_changed
from bnpipe.source import Connection, find_time_zone, read_window
from bnpipe.store import load_frame

PAGE: Final = ROOT / "docs" / "decisions.md"
_MARKS: Final = ("<!-- units: begin -->", "<!-- units: end -->")
LEARNED: Final = 90
LAGS: Final = (0, 7, 14, 28, 60, 120)
DIGITS: Final = (None, 2, 1, 0)
CHANGES: Final = (
    ("distance", "kilometres", 1.609344),
    ("distance", "kilometres, by 1.609", 1.609),
    ("temperature", "Celsius (a difference)", 5 / 9),
    ("wind", "kilometres an hour", 1.609344),
    ("wind", "metres a second", 0.44704),
    ("wind", "knots", 1.609344 / 1.852),
    ("visibility", "kilometres", 1.609344),
    ("rain", "millimetres", 25.4),
    ("humidity", "share of one", 0.01),
    ("pressure", "inches of mercury", 1 / 33.86389),
    ("pressure", "kilopascals", 0.1),
    ("departure_delay", "seconds", 60.0),
    ("departure_delay", "hours", 1 / 60),
    ("plane_age", "months", 12.0),
    ("hour", "minutes", 60.0),
)

Floats = NDArray[np.float64]
Days = tuple[Floats, ...]


def read_values() -> dict[str, Days]:
    """Give each numeric variable's values, day by day."""
    spec = load_spec(SPEC)
    zone = find_time_zone(spec.source.time_zone)
    names = tuple(rule.name for rule in spec.feature_rules() if rule.kind == "numeric")
    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        prepare(Path(folder) / "flights")
        rows = Path(folder) / "rows.parquet"
        connection = Connection(spec.source.connection, "files", folder)
        begin, end = (datetime(year, 1, 1, tzinfo=zone) for year in (YEAR, YEAR + 1))
        read_window(connection, spec.query(), begin, end, rows)
        frame = load_frame(rows, (*names, "_cluster"))
    days = [part for _, part in frame.groupby(frame["_cluster"].astype(str))]
    return {name: tuple(day[name].dropna().to_numpy(float) for day in days) for name in names}


def asked(days: Days, first: int, lag: int) -> tuple[Floats, dict[str, Floats]]:
    """Give what a champion learned from, and the week that begins so many days later."""
    begin = first + LEARNED + lag
    return np.concatenate(days[first : first + LEARNED]), {str(day): days[day] for day in range(begin, begin + 7)}


def suspected(values: Mapping[str, Days]) -> tuple[int, int]:
    """Count weeks as they were, and those of them in which any variable is suspected."""
    weeks, found = 0, 0
    for first in range(0, len(values["hour"]) - LEARNED - 7, 5):
        for lag in LAGS:
            if first + LEARNED + lag + 7 <= len(values["hour"]):
                looks = (asked(days, first, lag) for days in values.values())
                weeks, found = weeks + 1, found + any(unit_changed(week, learned) for learned, week in looks)
    return weeks, found


def told(days: Days, factor: float, digits: int | None) -> tuple[float, float]:
    """Give the share of weeks that are told: all seven days converted, and the last day only."""

    def turned(values: Floats) -> Floats:
        return values * factor if digits is None else np.round(values * factor, digits)

    whole, last = [], []
    for first in range(0, 250, 12):
        learned, week = asked(days, first, 14)
        newest = max(week, key=int)
        whole.append(unit_changed({day: turned(values) for day, values in week.items()}, learned) is not None)
        last.append(unit_changed(week | {newest: turned(week[newest])}, learned) is not None)
    return float(np.mean(whole)), float(np.mean(last))


def lines(values: Mapping[str, Days]) -> Iterator[str]:
    """Give the lines of the table."""
    weeks, found = suspected(values)
    yield f"Of {weeks} weeks as they were, asked of all {len(values)} numeric variables, {found} are suspected."
    yield ""
    yield "| variable | comes in | as computed | 2 digits | 1 digit | whole numbers |"
    yield "|---|---|---|---|---|---|"
    for name, unit, factor in CHANGES:
        shares = [told(values[name], factor, digits) for digits in DIGITS]
        yield f"| {name} | {unit} | " + " | ".join(f"{whole:.0%}, {last:.0%}" for whole, last in shares) + " |"


def main() -> None:
    """Run from the command line."""
    body = "\n".join((_MARKS[0], *lines(read_values()), _MARKS[1]))
    begin, end = (re.escape(mark) for mark in _MARKS)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{begin}.*{end}", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
