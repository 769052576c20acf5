"""Ask Great Expectations, and say in one sentence each what failed."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import pandas as pd

from bnpipe.errors import SpecError, shorten
from bnpipe.expectations.page import Row, render
from bnpipe.expectations.rules import (
    CLUSTER,
    NUMBERS,
    REPEATED,
    TIME,
    Expectation,
    FeatureRule,
    Severity,
    expectations_of,
    finer_than_days,
    further,
    prepared,
)
from bnpipe.source import Window
from bnpipe.store import load_frame
from bnpipe.verdict import Verdict

TYPE: Final = "expect_column_values_to_be_in_type_list"
_SNAKE: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Failure:
    """One expectation that was not met.

    Parameters
    ----------
    expectation : str
        Its name in Great Expectations.
    column : str or None
        None for the table as a whole.
    severity : {"critical", "warning"}
        Critical stops the run.
    observed : str
        What was found instead, in a few words.
    expected : str
        What was expected, in a few words.
    """

    expectation: str
    column: str | None
    severity: Severity
    observed: str
    expected: str = ""

    def __str__(self) -> str:
        return f"{self.column or 'rows'}: {self.observed}; expected {self.expected or self.expectation}"


@dataclass(frozen=True)
class ValidationReport:
    """Everything that was asked and answered.

    Parameters
    ----------
    name : str
        Network.
    rows : int
        Rows that were asked about.
    checks : tuple of Row
        Every expectation in words, met or not.
    failures : tuple of Failure
        Those not met.
    json : str
        Great Expectations' own result.
    window : Window or None
        What the rows are to cover.
    """

    name: str
    rows: int
    checks: tuple[Row, ...]
    failures: tuple[Failure, ...]
    json: str
    window: Window | None = None

    @property
    def critical(self) -> bool:
        """Whether the run must stop."""
        return any(failure.severity == "critical" for failure in self.failures)

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """One verdict a failed expectation, and ``validation`` over all. A warning passes, and says so."""
        return (*map(_verdict, self.failures), self._summary())

    @cached_property
    def html(self) -> str:
        """One page that needs nothing from elsewhere."""
        return render(self.name, rows=self.rows, window=self.window, checks=self.checks)

    def _summary(self) -> Verdict:
        critical = sum(failure.severity == "critical" for failure in self.failures)
        asked, warned = len(self.checks), len(self.failures) - critical
        reason = f"{asked - critical - warned} of {asked} expectations met by {self.rows:,} rows"
        reason += f", {critical} failed" * bool(critical) + f", {warned} recorded as a warning" * bool(warned)
        return Verdict("validation", "fail" if critical else "pass", reason, statistic=float(critical), threshold=0.0)


def _verdict(failure: Failure) -> Verdict:
    stops = failure.severity == "critical"
    gate = f"validation {failure.column}" if failure.column else "validation rows"
    return Verdict(gate, "fail" if stops else "pass", str(failure) if stops else f"warning: {failure}")


def validate(
    rows: pd.DataFrame | Path,
    *,
    variables: Sequence[FeatureRule],
    min_rows: int = 1,
    max_duplicate_share: float = 1.0,
    window: Window | None = None,
    extra: Sequence[Mapping[str, Any]] = (),
    name: str = "features",
    time_zone: str = "UTC",
) -> ValidationReport:
    """Ask what the rules, and any further expectations, demand of the rows.

    Parameters
    ----------
    rows : DataFrame or Path
        A snapshot's rows, or its Parquet file.
    variables : sequence of FeatureRule
        One a column.
    min_rows : int
        Fewest rows.
    max_duplicate_share : float
        Largest share of rows that repeat an earlier one in every column; 1 sets no limit: above 1 % is a warning, if
        the rows have a time of day.
    window : Window or None
        Rows must lie on both sides of its ``train_end``; none in the last seventh of the held-out days is a warning.
        So is a day without rows, where days are the clusters and the window has two weeks or more.
    extra : sequence of mappings
        Expectations as Great Expectations writes them: ``type``, ``kwargs``, ``severity``.
    name : str
        What the report is about.
    time_zone : str
        Of the rows' days, where there is no window to say so.

    Raises
    ------
    SpecError
        A further expectation is none that Great Expectations knows, or its arguments are wrong.
    """
    frame = _read(rows, variables) if isinstance(rows, Path) else rows
    zone = window.time_zone if window else time_zone
    count_repeated = max_duplicate_share < 1.0 or finer_than_days(frame, zone)
    seen = prepared(frame, variables, count_repeated=count_repeated, time_zone=zone)
    asked = expectations_of(
        variables, seen, min_rows=min_rows, max_duplicate_share=max_duplicate_share, window=window, extra=extra
    )
    result = _ask(seen, asked, name)
    answers = {answer["expectation_config"]["meta"]["place"]: answer for answer in result["results"]}
    checks = tuple(_row(asked[place], answers[place]) for place in range(len(asked)))
    return ValidationReport(
        name=name,
        rows=len(frame),
        checks=checks,
        failures=tuple(_failure(check) for check in checks if not check.met),
        json=json.dumps(_without_tracebacks(result), indent=1),
        window=window,
    )


def _read(path: Path, variables: Sequence[FeatureRule]) -> pd.DataFrame:
    import pyarrow.parquet as pq

    held = pq.read_schema(path).names
    return load_frame(path, [*(rule.name for rule in variables if rule.name in held), TIME, CLUSTER])


def _ask(frame: pd.DataFrame, asked: Sequence[Expectation], name: str) -> dict[str, Any]:
    _quieten()
    import great_expectations as gx

    logging.getLogger("great_expectations.data_context.types.base").setLevel(logging.WARNING)  # it sets its own level
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    expectations = [_built(expectation, place) for place, expectation in enumerate(asked)]
    for problem in expectations:
        if isinstance(problem, ExpectationProblem):
            raise SpecError(f"validation.expectations: {problem.message}")
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
    rows = context.data_sources.add_pandas(name).add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(name=name, data=rows, suite=suite)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = definition.run(batch_parameters={"dataframe": frame}, result_format="BASIC")
    answers: dict[str, Any] = result.to_json_dict()
    return answers


@dataclass(frozen=True)
class ExpectationProblem:
    """One further expectation that Great Expectations can't build.

    Parameters
    ----------
    place : int
        Its place in the list.
    key : {"type", "kwargs"}
        What is wrong.
    message : str
        How, and what would be right.
    """

    place: int
    key: Literal["type", "kwargs"]
    message: str


def expectation_problems(extra: Sequence[Mapping[str, Any]]) -> tuple[ExpectationProblem, ...]:
    """Find the further expectations that :func:`validate` would refuse; no rows are needed.

    Parameters
    ----------
    extra : sequence of mappings
        As for :func:`validate`.
    """
    built = [_built(further(item), place) for place, item in enumerate(extra)]
    return tuple(problem for problem in built if isinstance(problem, ExpectationProblem))


def _built(expectation: Expectation, place: int) -> Any:
    """Give the expectation of Great Expectations, or why there is none."""
    kind, classes = expectation["type"], _classes()
    found = classes.get(_folded(kind))
    if found is None:
        near = get_close_matches(_folded(kind), classes, n=1)
        hint = f", did you mean {_SNAKE.sub('_', classes[near[0]].__name__).lower()!r}?" if near else ""
        return ExpectationProblem(place, "type", f"Great Expectations knows no {kind!r}{hint}")
    try:
        return found(**expectation["kwargs"], severity=expectation["severity"], meta={"place": place})
    except (TypeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines()]
        return ExpectationProblem(place, "kwargs", f"{kind}: {' '.join(lines[1:3]) or error}")


def _classes() -> dict[str, type[Any]]:
    _quieten()
    import great_expectations.expectations as known

    named = {
        name: value for name, value in vars(known).items() if name.startswith("Expect") and isinstance(value, type)
    }
    return {_folded(name): value for name, value in named.items() if name != "Expectation"}


def _folded(name: str) -> str:
    return name.replace("_", "").lower()


def _quieten() -> None:
    """Before the import: it logs hundreds of lines and reports its usage."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)


def _without_tracebacks(value: Any) -> Any:
    """Leave the result as it is but for tracebacks, and numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {key: _without_tracebacks(item) for key, item in value.items() if key != "exception_traceback"}
    if isinstance(value, list):
        return [_without_tracebacks(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _row(expectation: Expectation, answer: Mapping[str, Any]) -> Row:
    column = expectation["kwargs"].get("column")
    return Row(
        column=None if column in (REPEATED, TIME) or (column == CLUSTER and "expected" in expectation) else column,
        kind=expectation["type"],
        expected=expectation.get("expected") or _expected(expectation),
        observed=_observed(expectation, answer),
        severity=expectation["severity"],
        met=bool(answer["success"]),
    )


def _failure(check: Row) -> Failure:
    return Failure(check.kind, check.column, check.severity, check.observed, check.expected)


# --- words ------------------------------------------------------------------------------------------------------------


def _expected(expectation: Expectation) -> str:
    kind, given = expectation["type"], expectation["kwargs"]
    words = {
        "expect_column_to_exist": "the column",
        TYPE: "numbers",
        "expect_column_values_to_be_in_set": f"only {shorten(given.get('value_set') or (), limit=20)}",
        "expect_column_values_to_be_between": f"values {_bounds(given)}",
        "expect_table_row_count_to_be_between": f"rows {_bounds(given)}",
    }
    if kind == "expect_column_values_to_not_be_null" and "mostly" in given:
        return f"at most {_percent(1 - given['mostly'])} nulls"
    if given.get("column") == REPEATED:
        return f"at most {_percent(given['max_value'])} repeated rows"
    if given.get("column") == TIME and kind in (
        "expect_column_min_to_be_between",
        "expect_column_max_to_be_between",
    ):
        which = "first" if "_min_" in kind else "last"
        return f"the {which} row {_bounds(given)}"
    if kind in words and (kind != TYPE or given.get("type_list") == list(NUMBERS)):
        return words[kind]
    arguments = ", ".join(f"{key}={shorten([value])}" for key, value in given.items() if key != "column")
    return f"{kind.removeprefix('expect_').replace('_', ' ')} ({arguments})"


def _bounds(given: Mapping[str, Any]) -> str:
    low, high = given.get("min_value"), given.get("max_value")
    texts = [f"from {_number(low)}"] if low is not None else []
    if high is not None:
        texts.append(f"{'before' if given.get('strict_max') else 'to'} {_number(high)}")
    return " ".join(texts) or "of any number"


def _observed(expectation: Expectation, answer: Mapping[str, Any]) -> str:
    if problem := _exception(answer):
        return f"could not be asked: {problem}"
    result, kind = answer.get("result") or {}, expectation["type"]
    if "observed" in expectation:
        return "as expected" if answer["success"] else str(expectation["observed"])
    if kind == "expect_column_to_exist":
        return "it is there" if answer["success"] else "it is gone"
    if kind == TYPE:
        return _type_seen(result)
    if kind == "expect_column_values_to_not_be_null":
        return f"{_percent((result.get('unexpected_percent') or 0.0) / 100)} nulls"
    if "unexpected_count" in result:
        return _unexpected(result)
    value = result.get("observed_value")
    if expectation["kwargs"].get("column") == REPEATED and value is not None:
        return f"{_percent(value)} repeated rows"
    return _number(value)


def _type_seen(result: Mapping[str, Any]) -> str:
    if examples := result.get("partial_unexpected_list"):
        return f"{type(examples[0]).__name__.replace('str', 'text')} such as {shorten(map(repr, examples[:1]))}"
    return str(result.get("observed_value"))


def _unexpected(result: Mapping[str, Any]) -> str:
    count = result["unexpected_count"]
    if not count:
        return "as expected"
    examples = dict.fromkeys(map(_number, result.get("partial_unexpected_list") or ()))
    return f"{count:,} of {result['element_count']:,} values are others, such as {shorten(examples)}"


def _exception(answer: Mapping[str, Any]) -> str:
    found = answer.get("exception_info") or {}
    each = [found] if "raised_exception" in found else list(found.values())
    texts = [str(item.get("exception_message")) for item in each if item.get("raised_exception")]
    return shorten(texts[:1])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    with contextlib.suppress(ValueError):
        return pd.Timestamp(text).strftime("%Y-%m-%d %H:%M %z").strip() if "-" in text[1:] and ":" in text else text
    return text
