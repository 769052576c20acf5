"""Values in another unit are told by the grid they lie on, and not by how large they are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bnpipe.expectations import Unit, unit_changed
from bnpipe.expectations.units import UNITS

Floats = NDArray[np.float64]


def knots(days: int, seed: int, mean: float = 8.0) -> dict[str, Floats]:
    """Hourly wind of three stations: whole knots, told in miles an hour to five digits; each day has its own mean."""
    rng = np.random.default_rng(seed)
    means = mean * np.exp(rng.normal(0.0, 0.4, days))
    return {
        f"2026-03-{day + 1:02}": np.round(np.round(rng.gamma(4.0, each / 4.0, 72)) * 1.150779, 5)
        for day, each in enumerate(means)
    }


REFERENCE = np.concatenate(list(knots(90, seed=1).values()))
WEEK = knots(7, seed=2)


def converted(
    days: dict[str, Floats], factor: float, offset: float = 0.0, digits: int | None = None
) -> dict[str, Floats]:
    """Deliver all days in another unit, rounded if asked for."""
    turned = {day: values * factor + offset for day, values in days.items()}
    return turned if digits is None else {day: np.round(values, digits) for day, values in turned.items()}


@pytest.mark.parametrize(
    ("factor", "offset", "digits", "name"),
    [
        (1.609344, 0.0, None, "miles to kilometres"),
        (1.609344, 0.0, 1, "miles to kilometres"),
        (1.609, 0.0, 3, "miles to kilometres"),  # a factor of four digits
        (0.44704, 0.0, 2, "miles an hour to metres a second"),
        (1 / 1.150779, 0.0, None, "miles to nautical miles"),
        (1000.0, 0.0, None, "thousands to ones"),
        (1.0, 273.15, 2, "degrees Celsius to kelvin"),
        (5 / 9, -160 / 9, 4, "Fahrenheit to degrees Celsius"),
    ],
)
def test_a_converted_week_is_named(factor: float, offset: float, digits: int | None, name: str) -> None:
    """Each day by itself shows it, also if rounded to a grid finer than that of the values."""
    found = unit_changed(converted(WEEK, factor, offset, digits), REFERENCE)
    assert found is not None
    assert found.unit.name == name
    assert found.days == tuple(WEEK)
    assert f"from {name}" in str(found)


def test_one_converted_day_is_enough() -> None:
    """The morning after the change is told from the six days before."""
    last = list(WEEK)[-1]
    found = unit_changed(WEEK | {last: WEEK[last] * 1.609344}, REFERENCE)
    assert found is not None
    assert found.days == (last,)
    assert found.known < 0.2
    assert found.known_back > 0.8


def test_few_values_a_day_are_asked_together() -> None:
    """Three readings a day show nothing; a week of them does."""
    few = {day: values[:3] * 2.54 for day, values in WEEK.items()}
    found = unit_changed(few, REFERENCE)
    assert found is not None
    assert (found.unit.name, found.days) == ("inches to centimetres", ())


@pytest.mark.parametrize("mean", [2.0, 4.0, 16.0, 32.0])
def test_a_storm_or_a_lull_is_no_unit(mean: float) -> None:
    """Forty weeks, as far from the usual as a unit would be: none is told. The grid decides, not luck."""
    assert [found for seed in range(40) if (found := unit_changed(knots(7, 100 + seed, mean), REFERENCE))] == []


def test_values_that_never_recur_tell_nothing() -> None:
    """Amounts to many digits are never seen twice, in no unit."""
    rng = np.random.default_rng(3)
    reference = rng.gamma(2.0, 100.0, 5000)
    week = {str(day): rng.gamma(2.0, 100.0, 500) for day in range(7)}
    assert unit_changed(week, reference) is None
    assert unit_changed(converted(week, 2.54), reference) is None


def test_more_digits_are_no_unit() -> None:
    """A sensor that tells another digit is a change of its grid, but no factor turns it back."""
    rng = np.random.default_rng(4)
    reference = np.round(rng.normal(0.0, 10.0, 8000), 2)
    week = {str(day): np.round(rng.normal(0.0, 10.0, 200), 4) for day in range(7)}
    assert unit_changed(week, reference) is None


def test_a_dense_grid_hides_a_rounded_conversion() -> None:
    """Where every whole number occurs, whole numbers tell nothing; the same unrounded do."""
    rng = np.random.default_rng(5)
    reference = np.round(rng.normal(300.0, 60.0, 20000))
    week = {str(day): np.round(rng.normal(300.0, 60.0, 200)) for day in range(7)}
    assert unit_changed(converted(week, 1.609344, digits=0), reference) is None
    assert unit_changed(converted(week, 1.609344), reference) is not None


def test_nought_is_nought_in_any_unit() -> None:
    """Days without rain, and cells without a value, neither show a unit nor hide one."""
    dry = np.zeros(100)
    rain = np.round(np.random.default_rng(6).gamma(0.5, 0.1, 4000), 2)
    assert unit_changed({"a": dry, "b": np.full(9, np.nan)}, rain) is None
    wet = np.concatenate([dry, rain[:40] * 25.4, [np.nan]])
    found = unit_changed({"a": dry, "b": wet}, rain)
    assert found is not None
    assert (found.unit.name, found.days) == ("inches to millimetres", ("b",))
    assert unit_changed({}, rain) is None
    assert unit_changed({"a": wet}, dry) is None


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_and_its_inverse_undo_each_other(unit: Unit) -> None:
    """There and back gives the value, and the names say so."""
    back = unit.inverse
    assert (21.5 * unit.factor + unit.offset) * back.factor + back.offset == pytest.approx(21.5)
    assert back.name == " to ".join(reversed(unit.name.split(" to ")))
