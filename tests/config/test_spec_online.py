"""What `bnpipe check` asks of the source itself."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from claims_spec import GOOD

from bnpipe.config import check_spec


@pytest.fixture
def check(tmp_path, monkeypatch, write):
    """Lay out 120 days of claims and check a spec against them."""
    rng = np.random.default_rng(2)
    days = pd.date_range("2013-01-01", periods=120, freq="D")
    at = np.repeat(days, 5) + pd.to_timedelta(np.tile([1, 7, 11, 15, 21], 120), unit="h")
    rows = pd.DataFrame(
        {
            "at": at,
            "region": rng.choice(["SE", "DK", "NO"], len(at)),
            "hour": at.hour,
            "premium": rng.gamma(2.0, 100.0, len(at)),
            "size": rng.choice(["small", "large"], len(at)),
            "paid": rng.random(len(at)) < 0.5,
        }
    )
    (tmp_path / "data" / "claims").mkdir(parents=True)
    rows.to_parquet(tmp_path / "data" / "claims" / "all.parquet")
    monkeypatch.chdir(tmp_path)

    def check(text, **options):
        return [str(problem).replace(f"{tmp_path}/", "") for problem in check_spec(write(text), **options)]

    return check


def test_a_source_that_answers_is_no_problem(check):
    """Its own last day is taken where the spec neither ends nor schedules it."""
    assert check(GOOD) == []
    assert check(GOOD.replace("timestamp: at", "timestamp: at, until: 2013-04-20")) == []
    going_on = GOOD.replace("timestamp: at", "timestamp: at, until: 2099-12-31")
    assert check(going_on, now=datetime(2013, 5, 1, 6, tzinfo=UTC)) == []
    assert check(GOOD + "schedule: '@daily'\n", now=datetime(2013, 5, 1, 6, tzinfo=UTC)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('path: "claims/*', 'path: "claim/*', "claims.yaml:3: source.path: no files match 'claim/*.parquet'"),
        ('path: "claims/*.parquet"', "sql: SELEC 1", "claims.yaml:3: source.sql: "),
        (
            'path: "claims/*.parquet"',
            "connection: shop, sql: SELECT 1",
            "claims.yaml:3: source.connection: connection 'shop'",
        ),
        (
            "timestamp: at",
            "timestamp: att",
            "claims.yaml:3: source.timestamp: the source has no column 'att', did you mean",
        ),
        ("timestamp: at", "timestamp: size", "claims.yaml:3: source.timestamp: the column is VARCHAR, not a time"),
        (
            "timestamp: at",
            "timestamp: at, cluster: shop",
            "3: source.cluster: the source has no column 'shop'; it has at,",
        ),
        (
            "  hour:",
            "  hours:",
            "claims.yaml:7: variables.hours: the source has no column 'hours', did you mean 'hour'?",
        ),
        ("4}", "4, column: prem}", "claims.yaml:8: variables.premium.column: the source has no column 'prem'"),
        ("4}", "4, column: region}", "claims.yaml:8: variables.premium: the column is VARCHAR, bins need numbers"),
        (
            "{states: [small, large]}",
            "{states: [yes, no], column: paid}",
            "the column is BOOLEAN, whose values never read 'yes'",
        ),
        (
            "{states: [small, large]}",
            "{states: [01, 2], column: hour}",
            "whose values never read '01'; write whole numbers",
        ),
        ("{states: [small, large]}", "{states: [1.0, 2], column: premium}", "never read '1.0'; write 3 for 3.0"),
    ],
)
def test_what_the_source_does_not_have_is_told_at_its_key(check, old, new, expected):
    """The SQL, the connection, columns and their types."""
    (mistake,) = check(GOOD.replace(old, new, 1))
    assert expected in mistake


def test_a_window_without_rows_is_told(check):
    """With what the source does hold, and what to do."""
    text = GOOD.replace("timestamp: at", "timestamp: at, until: 2014-06-30")
    held_out, train = check(text)
    assert train.startswith("claims.yaml:4: window.train: ")
    assert held_out.startswith("claims.yaml:4: window.held_out: ")
    assert "2013-01-01" in train
    scheduled = check(GOOD + "schedule: 0 6 * * *\n", now=datetime(2013, 5, 20, tzinfo=UTC))
    assert len(scheduled) == 1
    assert "if the source has ended, say so by `source.until`" in scheduled[0]
    (short,) = check(GOOD.replace("timestamp: at", "timestamp: at, until: 2013-01-13"))
    assert "window.train" in short


def test_an_empty_source_is_told(check, tmp_path):
    """Files without rows."""
    path = tmp_path / "data" / "claims" / "all.parquet"
    pd.read_parquet(path).iloc[:0].to_parquet(path)
    (mistake,) = check(GOOD)
    assert "claims.yaml:3: source: the source has no rows at all" in mistake


def test_the_source_is_not_asked_offline_or_for_a_broken_spec(check):
    """No file is opened, and the spec's own mistakes come first."""
    assert check(GOOD.replace("claims/*", "none/*"), online=False) == []
    (mistake,) = check(GOOD.replace("claims/*", "none/*").replace("90d", "x"))
    assert "window.train" in mistake


FURTHER = """validation:
  expectations:
    - {type: expect_column_mean_to_be_between, kwargs: {column: premium, min_value: 1}}
    - type: expect_column_mean_to_be_betwen
      kwargs: {column: premium}
    - type: expect_column_mean_to_be_between
      kwargs: {column: premium, min_valu: 1}
    - {type: expect_column_values_to_be_unique}
"""


def test_expectations_that_can_not_be_built_are_told(check):
    """Unknown types, unknown and absent arguments, each at its line; offline Great Expectations is not asked."""
    text = GOOD.rstrip() + "\n"
    first = text.count("\n") + 1
    kind, argument, absent = check(text + FURTHER)
    where = f"claims.yaml:{first + 3}: validation.expectations[1].type: Great Expectations knows no "
    assert where in kind
    assert "did you mean 'expect_column_mean_to_be_between'?" in kind
    assert f"claims.yaml:{first + 6}: validation.expectations[2].kwargs: " in argument
    assert "min_valu" in argument
    assert f"claims.yaml:{first + 7}: validation.expectations[3]: expect_column_values_to_be_unique: column" in absent
    assert check(text + FURTHER, online=False) == []


def test_yes_and_no_of_a_csv_are_states(check, tmp_path):
    """They are the texts they look like, so nothing is warned of."""
    rows = pd.read_parquet(tmp_path / "data" / "claims" / "all.parquet")
    rows.assign(paid=rows["paid"].map({True: "yes", False: "no"})).to_csv(tmp_path / "data" / "claims.csv", index=False)
    text = GOOD.replace("claims/*.parquet", "claims.csv")
    assert check(text.replace("{states: [small, large]}", '{states: ["no", "yes"], column: paid}')) == []


PATH = "{connection: answers, path: 'answers/*.parquet'"
AT = datetime(2013, 5, 1, tzinfo=UTC)
ROW = {"_at": AT, "region": "SE", "hour": 3, "premium": 2.0, "size": "small"}


@pytest.mark.parametrize(
    ("source", "row", "expected"),
    [
        (PATH, ROW, []),
        (PATH, {name: ROW[name] for name in ("_at", "region", "hour", "premium")}, []),
        (PATH, None, ["warning: drift.source.path: no files match 'answers/*.parquet'"]),
        (
            PATH,
            {"_at": AT, "region": "SE", "size": "small"},
            ["warning: drift.source.path: the source has no column 'hour', 'premium': unobserved in every look"],
        ),
        (PATH, {"_at": AT, "x": 1}, ["drift.source.path: the source has no variable of the spec; it has _at, x"]),
        (PATH + ", timestamp: when", ROW, ["drift.source.timestamp: the source has no column 'when'; it has _at,"]),
        (
            PATH + ", cluster: ward",
            ROW | {"_at": "then"},
            [
                "drift.source: the column is VARCHAR, not a time",
                "drift.source.cluster: the source has no column 'ward'",
            ],
        ),
        ("{connection: shop, path: 'a'", ROW, ["drift.source.connection: connection 'shop'"]),
        ("{connection: answers, sql: SELECT a FROM b", ROW, ["drift.source.sql: "]),
    ],
)
def test_the_source_of_live_rows_is_asked_too(check, tmp_path, source, row, expected):
    """A look would say so at night; here it is said with its line, and targets may be unknown."""
    (tmp_path / "log" / "answers").mkdir(parents=True)
    if row is not None:
        pd.DataFrame([row]).to_parquet(tmp_path / "log" / "answers" / "a.parquet")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("BNPIPE_CONN_ANSWERS", str(tmp_path / "log"))
        found = check(f"{GOOD}drift:\n  source: {source}}}\n")
    assert len(found) == len(expected), found
    for problem, says in zip(found, expected, strict=True):
        assert says in problem
        assert int(problem.split(":")[1]) > GOOD.count("\n")
