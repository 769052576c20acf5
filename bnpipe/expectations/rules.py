"""From rules for variables to expectations of Great Expectations, and a frame they can be asked of."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from bnpipe.errors import shorten
from bnpipe.schema import state_name
from bnpipe.source import Window

Severity = Literal["critical", "warning"]
Expectation = dict[str, Any]

REPEATED: Final = "_repeated"
TIME: Final = "_time"
CLUSTER: Final = "_cluster"
UNIQUE: Final = "expect_column_unique_value_count_to_be_between"
REPEATED_UNASKED: Final = 0.01
"""Share of repeated rows that is worth a warning where the spec has no limit."""
SHORTEST_WINDOW: Final = 14
"""Days of a window from which on days without rows are worth a warning: two of each weekday."""
NUMBERS: Final = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


@dataclass(frozen=True)
class FeatureRule:
    """What one column must fulfil.

    Parameters
    ----------
    name : str
        Column of the snapshot.
    kind : {"states", "numeric"}
        Whether it holds states or numbers.
    states : tuple of str or None
        Values allowed, by their canonical text; None allows any.
    minimum, maximum : float or None
        Bounds of numbers, both included.
    max_missing : float
        Largest share of nulls.
    missing_severity, unknown_severity : {"critical", "warning"}
        How bad more nulls are, and a value that is no state or out of bounds.
    target : bool
        Whether its posterior is served: with one value only there is nothing to learn, which stops the run.
    """

    name: str
    kind: Literal["states", "numeric"]
    states: tuple[str, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    max_missing: float = 1.0
    missing_severity: Severity = "critical"
    unknown_severity: Severity = "critical"
    target: bool = False


def prepared(
    frame: pd.DataFrame, rules: Sequence[FeatureRule], *, count_repeated: bool, time_zone: str = "UTC"
) -> pd.DataFrame:
    """Give the frame that expectations see: states as categories of their canonical text, repeated rows marked."""
    columns = {str(name): frame[name] for name in frame.columns}
    for rule in rules:
        if rule.name in columns and rule.kind == "states":
            columns[rule.name] = _as_states(columns[rule.name])
        elif rule.name in columns:
            columns[rule.name] = _as_numbers(columns[rule.name])
    if TIME in columns:
        columns[TIME] = columns[TIME].dt.tz_convert(time_zone)
    seen = pd.DataFrame(columns, index=frame.index)
    if count_repeated:
        seen[REPEATED] = frame.duplicated().astype("float64")
    return seen


def finer_than_days(frame: pd.DataFrame, time_zone: str) -> bool:
    """Whether rows have a time of day; where they have none, equal rows are no sign of a mistake."""
    if TIME not in frame:
        return False
    local = frame[TIME].dt.tz_convert(time_zone).dt.tz_localize(None)
    return bool((local != local.dt.normalize()).any())


def _as_numbers(values: pd.Series[Any]) -> pd.Series[Any]:
    """Nulls alone have no type to complain about; text stays text."""
    if values.isna().all():
        return pd.Series(float("nan"), index=values.index)
    return values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values


def _as_states(values: pd.Series[Any]) -> pd.Series[Any]:
    places, uniques = pd.factorize(values)
    names = [state_name(value) for value in uniques]
    distinct = sorted(set(names))
    place_of = {name: place for place, name in enumerate(distinct)}
    codes = [place_of[name] for name in names]
    chosen = [-1 if place < 0 else codes[place] for place in places.tolist()]
    return pd.Series(pd.Categorical.from_codes(chosen, categories=pd.Index(distinct, dtype=object)), index=values.index)


def expectations_of(
    rules: Sequence[FeatureRule],
    frame: pd.DataFrame,
    *,
    min_rows: int = 1,
    max_duplicate_share: float = 1.0,
    window: Window | None = None,
    extra: Sequence[Mapping[str, Any]] = (),
) -> list[Expectation]:
    """Write the expectations; of a column that is gone or has the wrong type, nothing more is asked.

    Parameters
    ----------
    frame : DataFrame
        As :func:`prepared` gave it.
    """
    table = [_expectation("expect_table_row_count_to_be_between", "critical", min_value=min_rows)]
    if REPEATED in frame and max_duplicate_share < 1.0:
        table.append(_mean_at_most(REPEATED, max_duplicate_share, "critical"))
    elif REPEATED in frame:
        table.append(_mean_at_most(REPEATED, REPEATED_UNASKED, "warning"))
    if window is not None and TIME in frame:
        table += _freshness(window)
        if not any(item["type"] == UNIQUE and item.get("kwargs", {}).get("column") == CLUSTER for item in extra):
            table += _days_with_rows(window, frame)
    columns = [expectation for rule in rules for expectation in _of_column(rule, frame)]
    broken = {rule.name for rule in rules if not _usable(rule, frame)}
    return table + columns + [further(item) for item in extra if item.get("kwargs", {}).get("column") not in broken]


def further(item: Mapping[str, Any]) -> Expectation:
    """Give an expectation of the spec, whose severity and arguments may be left out."""
    return {
        "type": item["type"],
        "severity": item.get("severity", "critical"),
        "kwargs": dict(item.get("kwargs", {})),
    }


def _usable(rule: FeatureRule, frame: pd.DataFrame) -> bool:
    return rule.name in frame and (rule.kind == "states" or str(frame[rule.name].dtype) in NUMBERS)


def _of_column(rule: FeatureRule, frame: pd.DataFrame) -> Iterator[Expectation]:
    yield _expectation("expect_column_to_exist", "critical", column=rule.name)
    if rule.name not in frame:
        return
    if rule.kind == "numeric":
        types = list(NUMBERS)
        yield _expectation("expect_column_values_to_be_in_type_list", "critical", column=rule.name, type_list=types)
        if not _usable(rule, frame):
            return
        if rule.minimum is not None or rule.maximum is not None:
            bounds = {"min_value": rule.minimum, "max_value": rule.maximum}
            yield _expectation("expect_column_values_to_be_between", rule.unknown_severity, column=rule.name, **bounds)
        if rule.minimum is None or rule.maximum is None:
            yield _finite(rule, frame[rule.name])
    elif rule.states is not None:
        allowed = list(rule.states)
        yield _expectation(
            "expect_column_values_to_be_in_set", rule.unknown_severity, column=rule.name, value_set=allowed
        )
    if rule.max_missing < 1.0:
        mostly = round(1.0 - rule.max_missing, 12)
        yield _expectation(
            "expect_column_values_to_not_be_null", rule.missing_severity, column=rule.name, mostly=mostly
        )
    yield from _more_than_one_value(rule, frame[rule.name])


def _finite(rule: FeatureRule, values: pd.Series[Any]) -> Expectation:
    largest = sys.float_info.max
    asked = _expectation(
        "expect_column_values_to_be_between", "warning", column=rule.name, min_value=-largest, max_value=largest
    )
    return asked | {"expected": "finite numbers", "observed": f"{int(np.isinf(values).sum()):,} infinite values"}


def _more_than_one_value(rule: FeatureRule, values: pd.Series[Any]) -> Iterator[Expectation]:
    """Nulls count as a value where any share of them is allowed, since there missing is a state."""
    present = values.dropna()
    if present.empty or (rule.max_missing >= 1.0 and len(present) < len(values)):
        return
    told = "its posterior would be that value, whatever is known" if rule.target else "it tells nothing, gets no arcs"
    asked = _expectation(UNIQUE, "critical" if rule.target else "warning", column=rule.name, min_value=2)
    observed = f"the one value {shorten([state_name(present.iloc[0])])} in this window: {told}"
    yield asked | {"expected": "more than one value", "observed": observed}


def _days_with_rows(window: Window, frame: pd.DataFrame) -> Iterator[Expectation]:
    """Every local day has rows, but for weekdays that never have; only where days are the clusters."""
    days = pd.date_range(window.start.date(), window.end.date(), inclusive="left")
    if CLUSTER not in frame or len(days) < SHORTEST_WINDOW:
        return
    local = frame[TIME].dt.tz_localize(None).dt.normalize()
    pairs = pd.DataFrame({"day": local, "cluster": frame[CLUSTER].astype(str)}).drop_duplicates()
    if (pairs["day"].dt.strftime("%Y-%m-%d") != pairs["cluster"]).any():
        return
    held = pd.DatetimeIndex(pairs["day"].to_numpy())
    open_days = days[days.weekday.isin(held.weekday.unique())]
    empty = [str(day.date()) for day in open_days.difference(held)]
    asked = _expectation(UNIQUE, "warning", column=CLUSTER, min_value=len(open_days))
    yield asked | {
        "expected": "rows on every day (weekdays without any are taken for days of rest)",
        "observed": f"{len(open_days) - len(empty)} of {len(open_days)} days have rows, not {shorten(empty, limit=5)}",
    }


def _freshness(window: Window) -> Iterator[Expectation]:
    """There are rows in both parts; and, less gravely, in the last seventh of the held-out days."""
    newest = window.end - max(timedelta(days=1), (window.end - window.train_end) / 7)
    bound = "expect_column_max_to_be_between"
    yield _expectation(
        "expect_column_min_to_be_between", "critical", column=TIME, max_value=window.train_end, strict_max=True
    )
    yield _expectation(bound, "critical", column=TIME, min_value=window.train_end)
    yield _expectation(bound, "warning", column=TIME, min_value=newest)


def _mean_at_most(column: str, share: float, severity: Severity) -> Expectation:
    return _expectation("expect_column_mean_to_be_between", severity, column=column, max_value=share)


def _expectation(kind: str, severity: str, **kwargs: Any) -> Expectation:
    return {"type": kind, "severity": severity, "kwargs": kwargs}
