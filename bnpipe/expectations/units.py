"""Whether the values of a variable came in another unit: told by which values occur, not by how large they are.

Weather, seasons and fleets move values about, but not the grid that a sensor, a register or a clock puts them on. A
converted column lies on another grid: as they are, hardly any of its values were ever seen before; turned back by the
right factor nearly all of them were. So a storm is never taken for a unit, and one day is enough. Values that were
rounded to a grid of their own after the conversion, or that hardly ever recur, tell nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.errors import shorten

Floats = NDArray[np.float64]

FEWEST_VALUES: Final = 5
"""Distinct values that the conversion moves, below which a day tells nothing."""
MOST_KNOWN: Final = 1 / 3
LEAST_KNOWN_BACK: Final = 0.7
"""Shares of a day's distinct values that the reference has: as they are, and turned back."""
MOST_COVERED: Final = 0.2
"""Share of the range that is near a known value: on a denser grid any factor hits many, and not independently."""
CHANCE: Final = 1e-6
"""Largest probability that a wrong factor hits as many known values."""
TIGHT: Final = 1e-6
"""Of the largest value: what arithmetic loses."""
LOOSE: Final = 5e-4
"""Of the value: what a factor written with four digits loses."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A conversion: ``converted = factor · value + offset``."""

    name: str
    factor: float
    offset: float = 0.0

    @property
    def inverse(self) -> Unit:
        """The way back."""
        one, other = self.name.split(" to ")
        return Unit(f"{other} to {one}", 1 / self.factor, -self.offset / self.factor)


_FORTH: Final = (
    Unit("degrees Celsius to Fahrenheit", 1.8, 32.0),
    Unit("differences in degrees Celsius to Fahrenheit", 1.8),
    Unit("degrees Celsius to kelvin", 1.0, 273.15),
    Unit("miles to kilometres", 1.609344),
    Unit("nautical miles to kilometres", 1.852),
    Unit("nautical miles to miles", 1.852 / 1.609344),
    Unit("feet to metres", 0.3048),
    Unit("yards to metres", 0.9144),
    Unit("inches to centimetres", 2.54),
    Unit("inches to millimetres", 25.4),
    Unit("metres to kilometres an hour", 3.6),
    Unit("miles an hour to metres a second", 0.44704),
    Unit("knots to metres a second", 1.852 / 3.6),
    Unit("pounds to kilograms", 0.45359237),
    Unit("ounces to grams", 28.349523125),
    Unit("US gallons to litres", 3.785411784),
    Unit("imperial gallons to litres", 4.54609),
    Unit("inches of mercury to hectopascals", 33.86389),
    Unit("millimetres of mercury to hectopascals", 1.33322387),
    Unit("pounds a square inch to kilopascals", 6.894757293),
    Unit("minutes to seconds", 60.0),
    Unit("hours to seconds", 3600.0),
    Unit("days to hours", 24.0),
    Unit("days to minutes", 1440.0),
    Unit("weeks to days", 7.0),
    Unit("years to months", 12.0),
    Unit("tens to ones", 10.0),
    Unit("hundreds to ones", 100.0),
    Unit("thousands to ones", 1000.0),
)
UNITS: Final = (*_FORTH, *(unit.inverse for unit in _FORTH))


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A unit that the values look as if they had come in.

    Parameters
    ----------
    unit : Unit
        What the values seem to have been converted by.
    days : tuple of str
        On which days; empty where only all days together show it.
    known, known_back : float
        Share of the distinct values that the reference has: as they are, and turned back.
    """

    unit: Unit
    days: tuple[str, ...]
    known: float
    known_back: float

    def __str__(self) -> str:
        when = f"on {len(self.days)} days ({shorten(self.days)})" if self.days else "on all days together"
        formula = f"{self.unit.factor:.6g} x" + (f" {self.unit.offset:+.6g}" if self.unit.offset else "")
        return (
            f"looks as if converted from {self.unit.name} ({formula}) {when}: {self.known:.0%} of its values were seen "
            f"before, {self.known_back:.0%} if turned back"
        )


def unit_changed(days: Mapping[str, Floats], reference: Floats) -> Suspicion | None:
    """Ask whether the values of any day, or of all together, are those of the reference in another unit.

    Parameters
    ----------
    days : mapping of str to float64 (rows,)
        Values of each day; what is not finite is left out.
    reference : float64 (rows,)
        Values that were learned from.
    """
    known = np.unique(reference[np.isfinite(reference)])
    if known.size < FEWEST_VALUES:
        return None
    seen = {day: np.unique(values[np.isfinite(values)]) for day, values in days.items()}
    found = [(day, suspicion) for day, values in seen.items() for suspicion in _suspicions(values, known)]
    if not found:
        whole = np.unique(np.concatenate(list(seen.values()))) if seen else known
        return max(_suspicions(whole, known), key=lambda each: each.known_back, default=None)
    counted = {unit: [each for _, each in found if each.unit == unit] for unit in {each.unit for _, each in found}}
    unit = max(
        counted, key=lambda unit: (len(counted[unit]), sum(each.known_back for each in counted[unit]), unit.name)
    )
    told = counted[unit]
    labels = tuple(day for day, each in found if each.unit == unit)
    return Suspicion(unit, labels, max(each.known for each in told), min(each.known_back for each in told))


def _suspicions(values: Floats, known: Floats) -> Iterator[Suspicion]:
    """Give each unit in which distinct `values` are known although they are not as they are."""
    tight = TIGHT * float(np.abs(known).max())
    if values.size < FEWEST_VALUES or _share(values, known, tight) > MOST_KNOWN:
        return
    step = _step(values) / 2
    for unit in UNITS:
        back = (values - unit.offset) / unit.factor
        moved = np.abs(back - values) > tight  # nought is nought in any unit
        if moved.sum() < FEWEST_VALUES:
            continue
        plain, back = _share(values[moved], known, tight), np.sort(back[moved])
        rounded = step / unit.factor
        allowed = ((tight, 0.0), (rounded, 0.0), (rounded, LOOSE))
        shares = [_share(back, known, *distance) for distance in allowed if _beyond_chance(back, known, *distance)]
        if shares and plain <= MOST_KNOWN:
            yield Suspicion(unit, (), plain, max(shares))


def _beyond_chance(back: Floats, known: Floats, allowed: float, relative: float) -> bool:
    """Whether enough values are hit, and more than any values of that range would hit on a grid so dense."""
    from scipy.special import bdtrc

    share, (low, high) = _share(back, known, allowed, relative), np.quantile(back, [0.05, 0.95])
    if share < LEAST_KNOWN_BACK or high <= low:
        return False
    grid = np.concatenate([[low], known[(known > low) & (known < high)], [high]])
    reach = allowed + relative * np.abs(grid[1:])
    covered = float(np.minimum(np.diff(grid), 2 * reach).sum() / (high - low))
    return covered <= MOST_COVERED and bool(bdtrc(round(share * back.size) - 1, back.size, covered) < CHANCE)


def _share(values: Floats, known: Floats, allowed: float, relative: float = 0.0) -> float:
    """Give how many known values have one of the distinct `values` as near as allowed, by the number of these."""
    after = np.clip(np.searchsorted(known, values), 1, known.size - 1)
    nearest = np.where(values - known[after - 1] < known[after] - values, after - 1, after)
    hit = np.abs(values - known[nearest]) <= allowed + relative * np.abs(values)
    return float(np.unique(nearest[hit]).size / values.size)


def _step(values: Floats) -> float:
    """Give the power of ten that all values are whole multiples of, as they were rounded; 0 where there is none."""
    for digits in range(5):
        step = 10.0**-digits
        if np.abs(values / step - np.round(values / step)).max() < 1e-6 * max(1.0, float(np.abs(values).max()) / step):
            return step
    return 0.0
