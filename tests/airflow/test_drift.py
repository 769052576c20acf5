"""The drift Dag: what it is made of, when it starts, and whole looks run by ``dag.test()``."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shop_bench import DRIFT, SPEC, load_dags

CHAIN = ["snapshot", "validate", "compare", "decide", "act"]


def drift_dag(models, more: str = DRIFT):
    """Parse the drift Dag of one spec."""
    (models / "alpha.yaml").write_text(SPEC.format(name="alpha") + more)
    return load_dags()["bn_drift__alpha"]


def test_drift_dag_is_what_the_spec_says(models):
    """Steps in order, report and training start side by side, one run at a time, owner, tags, retries."""
    dag = drift_dag(models)
    order = [task.task_id for task in dag.topological_sort()]
    assert order[:5] == CHAIN
    assert set(order[5:]) == {"report", "start_training"}
    assert dag.get_task("act").downstream_task_ids == {"report", "start_training"}
    assert not dag.catchup
    assert dag.max_active_runs == 1
    assert {"bnpipe", "drift", "alpha"} <= set(dag.tags)
    assert {task.owner for task in dag.tasks} == {"sales-team"}
    assert {task.retries for task in dag.tasks} == {3}
    assert "it does what it decides" in dag.doc_md


def test_drift_dag_starts_by_the_clock_and_when_rows_are_announced(models):
    """Cron in the spec's time zone with a day's interval, or the asset of live rows; never a champion."""
    timetable = drift_dag(models).timetable
    assert timetable.timetable.expression == "30 6 * * *"
    assert str(timetable.timetable.timezone) == "Europe/Berlin"
    assert timetable.timetable.interval == timedelta(days=1)
    [asset] = timetable.asset_condition.objects
    assert (asset.name, asset.uri) == ("live rows of alpha", "bnpipe://live/alpha")
    assert not asset.watchers


def test_drift_dag_without_schedule_waits_for_announcements(models):
    """There is no cron, the asset alone starts it."""
    timetable = drift_dag(models, "drift: {window: 7d}\n").timetable
    [asset] = timetable.asset_condition.objects
    assert asset.uri == "bnpipe://live/alpha"
    assert not hasattr(timetable, "timetable")


def test_drift_form_is_typed_and_means_as_in_the_spec_when_left_blank(models):
    """Every field has a title; defaults validate; a wrong value is refused."""
    from airflow.sdk.exceptions import ParamValidationError

    params = drift_dag(models).params
    params.validate()
    assert set(params) == {"from", "to", "actions", "reason"}
    for name in params:
        assert params.get_param(name).schema["title"]
        assert params.get_param(name).value is None
    assert params.get_param("actions").schema["values_display"] == {"null": "as in the spec: auto"}
    for name, wrong in {"from": "yesterday", "to": "31.12.2026", "actions": "maybe"}.items():
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(wrong)
