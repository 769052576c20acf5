"""As of when a run learns, and who started it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime

import pytest
from airflow.sdk.api.datamodels._generated import DagRunType
from shop_bench import DRIFT, SPEC

from bnpipe.airflow.forms import LookRequest, actor_of, moment_of, overrides_of
from bnpipe.config import load_spec
from bnpipe.errors import DataError, SpecError

NIGHT = datetime(2026, 2, 10, 2, 0, tzinfo=UTC)
LATER = datetime(2026, 3, 5, 9, 30, tzinfo=UTC)


@dataclass
class DagRun:
    """The fields of a Dag run that matter here, as the task SDK has them."""

    run_type: DagRunType = DagRunType.MANUAL
    data_interval_end: datetime | None = None
    logical_date: datetime | None = None
    run_after: datetime = LATER
    start_date: datetime | None = LATER
    triggering_user_name: str | None = None


@pytest.fixture
def spec(tmp_path):
    """A spec whose source goes on."""
    path = tmp_path / "shop.yaml"
    path.write_text(SPEC.format(name="shop"))
    return load_spec(path)


@pytest.fixture
def ended(tmp_path):
    """A spec whose source had its last day on 10 February."""
    path = tmp_path / "shop.yaml"
    path.write_text(SPEC.format(name="shop").replace("  time_zone:", '  until: "2026-02-10"\n  time_zone:'))
    return load_spec(path)


def test_a_scheduled_run_learns_as_of_the_end_of_its_interval(spec):
    """Not as of now: a backfill of February learns February."""
    assert moment_of(spec, DagRun(DagRunType.SCHEDULED, NIGHT, NIGHT), None) == NIGHT


def test_a_run_by_hand_learns_as_of_the_form_then_its_date_then_its_start(spec):
    """Runs started over REST may have neither interval nor logical date."""
    assert moment_of(spec, DagRun(DagRunType.MANUAL, NIGHT, NIGHT), date(2026, 2, 1)) == date(2026, 2, 1)
    assert moment_of(spec, DagRun(DagRunType.MANUAL, None, NIGHT), None) == NIGHT
    assert moment_of(spec, DagRun(DagRunType.MANUAL), None) == LATER


def test_an_end_that_has_not_come_yet_is_refused(spec):
    """The midnight at which today begins is the last one whose rows can be there."""
    assert moment_of(spec, DagRun(), date(2026, 3, 5)) == date(2026, 3, 5)
    with pytest.raises(DataError, match="can't end on 2026-03-06, in Europe/Berlin it is only 2026-03-05"):
        moment_of(spec, DagRun(), date(2026, 3, 6))


def test_midnight_is_that_of_the_specs_time_zone(spec):
    """At 23:30 UTC it is past midnight in Berlin: the new day's midnight has come."""
    late = datetime(2026, 3, 5, 23, 30, tzinfo=UTC)
    assert moment_of(spec, DagRun(run_after=late, start_date=late), date(2026, 3, 6)) == date(2026, 3, 6)


@pytest.mark.parametrize("run_type", [DagRunType.SCHEDULED, DagRunType.BACKFILL])
def test_runs_of_the_timetable_skip_when_the_source_has_ended(ended, run_type):
    """The skip says why; the night after the last day still learns it."""
    from airflow.sdk.exceptions import AirflowSkipException

    last = datetime(2026, 2, 11, 2, 0, tzinfo=UTC)
    assert moment_of(ended, DagRun(run_type, last), None) == last
    with pytest.raises(AirflowSkipException, match=r"source\.until is 2026-02-10"):
        moment_of(ended, DagRun(run_type, datetime(2026, 2, 12, 2, 0, tzinfo=UTC)), None)


def test_a_run_by_hand_of_an_ended_source_learns_its_last_days(ended):
    """A blank form is no reason to fail; a date after the end is."""
    assert moment_of(ended, DagRun(DagRunType.MANUAL), None) == date(2026, 2, 11)
    assert moment_of(ended, DagRun(DagRunType.MANUAL), date(2026, 2, 11)) == date(2026, 2, 11)
    with pytest.raises(DataError, match="latest end is 2026-02-11"):
        moment_of(ended, DagRun(DagRunType.MANUAL), date(2026, 2, 12))


def test_a_look_of_an_ended_source_waits_for_its_labels(tmp_path):
    """Labels take three days, so the last rows can be looked at three days after they came, and none later."""
    from airflow.sdk.exceptions import AirflowSkipException

    path = tmp_path / "shop.yaml"
    spec = SPEC.format(name="shop").replace("  time_zone:", '  until: "2026-02-10"\n  time_zone:')
    path.write_text(spec + DRIFT.replace("history: 14d", "history: 14d, label_lag: 3d"))
    spec = load_spec(path)
    last = DagRun(DagRunType.SCHEDULED, datetime(2026, 2, 14, 5, 30, tzinfo=UTC))
    after = DagRun(DagRunType.SCHEDULED, datetime(2026, 2, 15, 5, 30, tzinfo=UTC))
    assert moment_of(spec, last, None, live=True) == last.data_interval_end
    with pytest.raises(AirflowSkipException, match="this run's window would end on 2026-02-12"):
        moment_of(spec, after, None, live=True)
    assert moment_of(spec, DagRun(DagRunType.ASSET_TRIGGERED), None, live=True) == date(2026, 2, 11)


def test_actor_is_the_user_or_an_event_or_the_schedule():
    """Nobody's name is `None`."""
    assert actor_of(DagRun(triggering_user_name="ada")) == "ada"
    assert actor_of(DagRun(DagRunType.ASSET_TRIGGERED)) == "asset event"
    assert actor_of(DagRun()) == "schedule"


def test_a_blank_form_overrides_nothing():
    """None means as in the spec."""
    blank = overrides_of({"end": None, "score": None, "relearn_schema": False, "reason": None})
    assert blank.model_dump(exclude_defaults=True) == {}
    filled = overrides_of({"end": "2026-02-01", "score": "aic", "relearn_schema": True, "max_parents": 0})
    assert filled.end == date(2026, 2, 1)
    assert (filled.score, filled.relearn_schema, filled.max_parents) == ("aic", True, 0)


def test_a_field_that_the_form_does_not_have_is_refused():
    """Airflow lets any key of a conf through; a misspelt one would be ignored in silence."""
    with pytest.raises(SpecError, match=r"max_parent: .* did you mean 'max_parents'"):
        overrides_of({"max_parent": 2})


def test_the_form_of_a_look_is_read_by_its_own_words():
    """Blank fields mean as in the spec; a field that the form does not have is refused."""
    assert LookRequest.of({"from": None, "to": None, "actions": None, "reason": None}) == LookRequest()
    filled = LookRequest.of({"from": "2026-02-01", "to": "2026-02-08", "actions": "auto", "reason": "why"})
    assert filled == LookRequest(date(2026, 2, 1), date(2026, 2, 8), "auto", "why")
    with pytest.raises(SpecError, match="end: no such field; a drift run takes from, to, actions, reason"):
        LookRequest.of({"end": "2026-02-08"})
