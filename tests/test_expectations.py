"""The Great Expectations gate: what stops a run, what is recorded, and how it is told."""

from __future__ import annotations

import html.parser
import json
import logging
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bnpipe.errors import SpecError
from bnpipe.expectations import FeatureRule, ValidationReport, validate
from bnpipe.source import window_at

WINDOW = window_at(date(2013, 1, 11), time_zone="America/New_York", train_days=7, held_out_days=3)
RULES = (
    FeatureRule("carrier", "states", states=("AA", "UA"), max_missing=0.05),
    FeatureRule("seats", "states", states=("2", "3"), max_missing=0.0),
    FeatureRule("wind", "numeric", minimum=0.0, maximum=100.0, max_missing=0.2, missing_severity="warning"),
    FeatureRule("gust", "numeric", minimum=0.0, unknown_severity="warning"),
)


def _frame(rows: int = 240) -> pd.DataFrame:
    """Rows that meet every rule, one an hour of the window."""
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "carrier": pd.Categorical(random.choice(["AA", "UA"], rows)),
            "seats": pd.Series(random.choice([2, 3], rows), dtype="float64"),
            "wind": random.uniform(0, 40, rows).round(1),
            "gust": [None] * rows,
            "_time": pd.date_range(WINDOW.start, periods=rows, freq="h").tz_convert("UTC"),
            "_cluster": "x",
        }
    )


def _ask(frame: pd.DataFrame, **changes: Any) -> ValidationReport:
    asked = {"variables": RULES, "min_rows": 100, "max_duplicate_share": 0.01, "window": WINDOW, "name": "flights"}
    return validate(frame, **{**asked, **changes})


def _told(report: ValidationReport) -> list[str]:
    return [f"{failure.severity} {failure}" for failure in report.failures]


def test_good_rows_pass() -> None:
    """Whole numbers kept as floats are states; a column of nulls alone is no text."""
    report = _ask(_frame())
    assert not report.failures
    assert not report.critical
    assert [verdict.gate for verdict in report.verdicts] == ["validation"]
    assert report.verdicts[0].passed
    assert "240 rows" in report.verdicts[0].reason


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("carrier", "ZZ", "critical carrier: 6 of 240 values are others, such as ZZ; expected only AA, UA"),
        ("carrier", None, None),
        ("seats", 2.5, "critical seats: 6 of 240 values are others, such as 2.5; expected only 2, 3"),
        ("seats", None, "critical seats: 2.5 % nulls; expected at most 0 % nulls"),
        ("wind", 101.0, "critical wind: 6 of 240 values are others, such as 101; expected values from 0 to 100"),
        ("gust", -1.0, "warning gust: 6 of 240 values are others, such as -1; expected values from 0"),
    ],
)
def test_values_that_do_not_fit_are_shown(column: str, values: object, told: str | None) -> None:
    """Unknown states, nulls beyond the share allowed and numbers out of bounds, by the severity of the rule."""
    frame = _frame()
    frame[column] = frame[column].astype(object)
    frame.loc[frame.index[:6], column] = values
    if column == "gust":
        frame[column] = frame[column].astype("float64")
    if column == "wind":
        frame[column] = frame[column].astype("float64")
    report = _ask(frame)
    assert _told(report) == ([told] if told else [])
    assert report.critical == (told is not None and told.startswith("critical"))


def test_more_nulls_than_allowed_may_be_a_warning() -> None:
    """A warning is recorded as a verdict that passes."""
    frame = _frame()
    frame.loc[:100, "wind"] = None
    report = _ask(frame)
    assert _told(report) == ["warning wind: 42.1 % nulls; expected at most 20 % nulls"]
    assert [(verdict.gate, verdict.outcome) for verdict in report.verdicts] == [
        ("validation wind", "pass"),
        ("validation", "pass"),
    ]
    assert report.verdicts[0].reason.startswith("warning: wind")


@pytest.mark.parametrize("as_category", [False, True])
def test_numbers_that_arrive_as_text_stop_the_run(as_category: bool) -> None:
    """A changed type is one clear failure, and nothing more is asked of that column."""
    frame = _frame()
    frame["wind"] = frame["wind"].astype(str).astype("category" if as_category else object)
    mean = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "wind", "min_value": 1}}
    report = _ask(frame, extra=[mean])
    assert _told(report) == [f"critical wind: text such as {frame['wind'].iloc[0]!r}; expected numbers"]
    assert report.critical


def test_dates_where_numbers_belong_stop_the_run() -> None:
    """Any type but numbers."""
    frame = _frame()
    frame["wind"] = frame["_time"]
    assert [failure.expectation for failure in _ask(frame).failures] == ["expect_column_values_to_be_in_type_list"]


def test_states_that_arrive_as_numbers_stop_the_run() -> None:
    """Codes instead of names are no states."""
    frame = _frame()
    frame["carrier"] = frame["carrier"].cat.codes
    (told,) = _told(_ask(frame))
    assert told.startswith("critical carrier: 240 of 240 values are others, such as ")


def test_a_column_that_is_gone_stops_the_run() -> None:
    """It is named, once."""
    assert _told(_ask(_frame().drop(columns="wind"))) == ["critical wind: it is gone; expected the column"]


def test_few_and_repeated_rows_stop_the_run() -> None:
    """Rows are counted, and those that repeat an earlier one in every column."""
    assert _told(_ask(_frame(), min_rows=241)) == ["critical rows: 240; expected rows from 241"]
    frame = pd.concat([_frame(), _frame()[:60]], ignore_index=True)
    assert _told(_ask(frame)) == ["critical rows: 20 % repeated rows; expected at most 1 % repeated rows"]
    unasked = "warning rows: 20 % repeated rows; expected at most 1 % repeated rows"
    assert _told(_ask(frame, max_duplicate_share=1.0)) == [unasked]
    dates = frame.assign(_time=frame["_time"].dt.tz_convert(WINDOW.time_zone).dt.normalize().dt.tz_convert("UTC"))
    dates["wind"] = 1.0 + dates["wind"] % 2
    assert not _told(_ask(dates.drop(columns="gust"), variables=RULES[:3], max_duplicate_share=1.0))


def test_one_value_is_a_warning_and_stops_for_a_target() -> None:
    """Nulls are a second value where missing is a state, that is where any share of them is allowed."""
    frame = _frame()
    frame["carrier"] = "AA"
    found = "carrier: the one value AA in this window: "
    assert _told(_ask(frame)) == [f"warning {found}it tells nothing, gets no arcs; expected more than one value"]
    report = _ask(frame, variables=(replace(RULES[0], target=True),))
    assert report.critical
    posterior = "its posterior would be that value, whatever is known"
    assert _told(report) == [f"critical {found}{posterior}; expected more than one value"]
    frame.loc[:5, "carrier"] = None
    assert len(_told(_ask(frame))) == 1
    assert not _told(_ask(frame, variables=(replace(RULES[0], max_missing=1.0),)))


def test_infinite_values_are_counted() -> None:
    """A warning; where both bounds are set they tell it already."""
    frame = _frame()
    frame["gust"] = frame["wind"]
    frame.loc[:2, "gust"] = np.inf
    assert _told(_ask(frame)) == ["warning gust: 3 infinite values; expected finite numbers"]
    frame.loc[:2, ["gust", "wind"]] = 1.0, np.inf
    (told,) = _told(_ask(frame))
    assert told.startswith("critical wind: 3 of 240 values are others, such as inf")


def test_days_without_rows_are_a_warning() -> None:
    """Where days are the clusters; a weekday that never has rows is a day of rest."""
    window = window_at(date(2013, 4, 3), time_zone="America/New_York", train_days=78, held_out_days=14)
    times = pd.date_range(window.start, window.end, freq="7h", inclusive="left")
    frame = pd.DataFrame({"_time": times.tz_convert("UTC"), "wind": np.arange(len(times), dtype="float64")})
    frame["_cluster"] = times.strftime("%Y-%m-%d")
    asked = {"variables": (FeatureRule("wind", "numeric"),), "window": window}
    assert not _told(_ask(frame, **asked))
    rested = frame[times.weekday < 5]
    assert not _told(_ask(rested, **asked))
    gap = rested[(rested["_cluster"] < "2013-02-04") | (rested["_cluster"] > "2013-02-06")]
    (told,) = _told(_ask(gap, **asked))
    assert told.startswith(
        "warning rows: 63 of 66 days have rows, not 2013-02-04, 2013-02-05, 2013-02-06; expected rows on every day"
    )
    assert not _told(_ask(gap.assign(_cluster="plant"), **asked))
    own = {"type": "expect_column_unique_value_count_to_be_between", "kwargs": {"column": "_cluster", "min_value": 50}}
    assert not _told(_ask(gap, **asked, extra=[own]))


def test_a_window_must_have_rows_to_learn_from_and_to_prove_on() -> None:
    """Times are told in the window's zone; a late feed is a warning before it is an emptiness."""
    frame = _frame()
    assert _told(_ask(frame[: 24 * 8])) == [
        "warning rows: 2013-01-08 23:00 -0500; expected the last row from 2013-01-10 00:00 -0500"
    ]
    old = _ask(frame[: 24 * 7])
    assert old.critical
    assert "expected the last row from 2013-01-08 00:00 -0500" in _told(old)[0]
    young = _ask(frame[24 * 7 :], min_rows=1)
    assert "expected the first row before 2013-01-08 00:00 -0500" in _told(young)[0]


def test_further_expectations_are_asked_with_their_severity() -> None:
    """Any of Great Expectations, also such as can't be answered."""
    extra = [
        {
            "type": "expect_column_mean_to_be_between",
            "kwargs": {"column": "wind", "max_value": 1},
            "severity": "warning",
        },
        {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "_cluster"}, "severity": "critical"},
        {
            "type": "expect_column_kl_divergence_to_be_less_than",
            "kwargs": {
                "column": "carrier",
                "partition_object": {"values": ["AA", "ZZ"], "weights": [0.5, 0.5]},
                "threshold": 0.1,
            },
            "severity": "warning",
        },
        {"type": "expect_column_median_to_be_between", "kwargs": {"column": "elsewhere"}, "severity": "warning"},
    ]
    report = _ask(_frame(), extra=extra)
    told = _told(report)
    assert len(told) == 4
    assert told[0].startswith("warning wind: ")
    assert "column mean to be between (max_value=1)" in told[0]
    assert told[1].startswith("critical _cluster: 240 of 240")
    assert told[2].startswith("warning carrier: ")
    assert told[3].startswith("warning elsewhere: could not be asked: ")
    assert all(len(line) < 600 for line in told)
    assert "Traceback" not in report.json + report.html


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ({"type": "expect_miracles"}, "knows no 'expect_miracles'"),
        (
            {"type": "expect_column_mean_to_be_between", "kwargs": {"colum": "wind"}},
            "expect_column_mean_to_be_between: column field required",
        ),
    ],
)
def test_an_expectation_that_does_not_exist_is_a_mistake_of_the_spec(extra: dict[str, Any], match: str) -> None:
    """Not a failure of the rows."""
    with pytest.raises(SpecError, match=match):
        _ask(_frame(), extra=[extra])


class _Page(html.parser.HTMLParser):
    """Everything a page would fetch, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what has an address."""
        self.fetched += [f"{tag} {value}" for name, value in attrs if name in ("src", "href", "data") and value]

    def handle_data(self, data: str) -> None:
        """Collect the text."""
        self.text += data


def test_the_page_needs_nothing_from_elsewhere() -> None:
    """One file, every expectation in words, what was found escaped."""
    frame = _frame()
    frame["carrier"] = frame["carrier"].astype(object)
    frame.loc[0, "carrier"] = "<script>alert(1)</script>"
    report = _ask(frame)
    page = _Page()
    page.feed(report.html)
    assert not page.fetched
    assert "<script" not in report.html
    assert "url(" not in report.html
    assert "@import" not in report.html
    assert "Stopped: 1 critical" in page.text
    assert "<script>alert(1)</script>" in page.text
    assert report.html.count("<tr") == 1 + len(report.checks) + 2


def test_the_json_is_great_expectations_own_result() -> None:
    """Its fields, its statistics, and only numbers that JSON knows."""
    result = json.loads(_ask(_frame()).json, parse_constant=pytest.fail)
    assert result["success"] is True
    assert result["suite_name"] == "flights"
    assert result["statistics"]["evaluated_expectations"] == len(result["results"])


def test_a_file_is_validated_like_a_frame(tmp_path: Path) -> None:
    """A snapshot's Parquet file; a column it lacks is a failure, not an error."""
    frame = _frame().drop(columns="gust")
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    assert _told(validate(tmp_path / "rows.parquet", variables=RULES, window=WINDOW)) == [
        "critical gust: it is gone; expected the column"
    ]


def test_validating_is_quiet_and_tells_nobody(tmp_path: Path) -> None:
    """No progress bars, no log lines, and usage statistics switched off, in a process that logs everything."""
    frame = _frame()
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    program = f"""
import logging, os, sys
os.environ.pop("GX_ANALYTICS_ENABLED", None)
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from pathlib import Path
from bnpipe.expectations import FeatureRule, validate
report = validate(Path({str(tmp_path / "rows.parquet")!r}), variables=[FeatureRule("wind", "numeric")])
assert not report.failures
assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
    assert logging.getLogger("great_expectations").level >= logging.WARNING
