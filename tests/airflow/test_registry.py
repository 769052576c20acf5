"""The registry Dag, run by `dag.test()` over a real MLflow with the events that its watchers send."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from shop_bench import Run, load_dag

from bnpipe.airflow.registry import ReconcileOperator
from bnpipe.registry import Registry
from bnpipe.registry.ledger import Ledger


class Event:
    """An asset event as a Dag run sees it: what the watcher saw is its payload."""

    def __init__(self, version, previous, at, missing=False, model="alpha") -> None:
        payload = {"version": version, "previous": previous, "seen": at.isoformat(), "missing": missing}
        self.extra = {"payload": {"model": model} | payload, "from_trigger": True}


@pytest.fixture
def registry(airflow_db, mlflow_uri):
    """A registry with five versions of `alpha` that passed their gates, number 1 champion since an hour."""
    registry = Registry(mlflow_uri, clock=(datetime.now(UTC) - timedelta(hours=1)).timestamp)
    Ledger(registry.connection).ensure("alpha")
    for _ in range(5):
        registry.connection.client.create_model_version("alpha", "file:///nowhere", tags={"bnpipe.verdict": "pass"})
    registry.promote("alpha", 1, actor="eve", reason="first")
    return registry


def reconcile(*events, model=None):
    """What the task answers to a run that these events started."""
    ti = SimpleNamespace(log_url="http://airflow.test:8080/dags/bn_registry/runs/1/tasks/reconcile")
    context = {"params": {"model": model}, "triggering_asset_events": {"champion of alpha": list(events)}, "ti": ti}
    return ReconcileOperator(task_id="reconcile").execute(context)


def test_two_moves_that_started_one_run_are_both_entered(registry):
    """Airflow hands all events that came meanwhile to one run; run again, it finds nothing to do."""
    seen = datetime.now(UTC)
    client = registry.connection.client
    client.set_model_version_tag("alpha", "2", "bnpipe.barred", "it was wrong")
    for number in ("2", "3"):
        client.set_registered_model_alias("alpha", "champion", number)
    events = [Event(2, 1, seen), Event(3, 2, seen + timedelta(seconds=5))]
    report = reconcile(*events)
    assert [line.split("by hand: ")[1].split(" by ")[0] for line in report["by_hand"]] == [
        "version 1 -> version 2",
        "version 2 -> version 3",
    ]
    assert report["warnings"] == ["champion of 'alpha' was set to version 2 in MLflow, but it is barred: it was wrong"]
    assert reconcile(*events) == {"closed": [], "voided": [], "by_hand": [], "warnings": []}
    assert [entry.to for entry in registry.history("alpha")] == [1, 2, 3]


def test_our_own_moves_are_events_and_nothing_more(registry):
    """A promotion and a rollback that the watcher announces change nothing."""
    registry.promote("alpha", 2, actor="eve", reason="better")
    events = [Event(2, 1, datetime.now(UTC))]
    assert reconcile(*events) == {"closed": [], "voided": [], "by_hand": [], "warnings": []}


@pytest.mark.parametrize("fate", ["renamed", "deleted"])
def test_a_model_that_is_gone_is_said_clearly(registry, fate, caplog):
    """The run is a success with a warning that tells a renamed model from a deleted one."""
    client = registry.connection.client
    if fate == "renamed":
        client.rename_registered_model("alpha", "omega")
    else:
        client.delete_registered_model("alpha")
    report = reconcile(Event(None, 1, datetime.now(UTC), missing=True))
    (warning,) = report.pop("warnings")
    assert warning.startswith(f"'alpha' was {fate}")
    assert warning in caplog.text
    assert report == {"closed": [], "voided": [], "by_hand": []}


def test_the_alias_removed_and_the_champion_deleted(registry):
    """Both leave no champion; the warnings tell which it was."""
    client = registry.connection.client
    client.delete_registered_model_alias("alpha", "champion")
    assert reconcile(Event(None, 1, datetime.now(UTC)))["warnings"] == [
        "champion of 'alpha' was removed in MLflow; it was version 1"
    ]
    client.set_registered_model_alias("alpha", "champion", "3")
    reconcile()
    client.delete_model_version("alpha", "3")
    assert reconcile(Event(None, 3, datetime.now(UTC)))["warnings"] == [
        "version 3 of 'alpha', the champion, was deleted in MLflow; there is none now"
    ]


def test_events_of_others_are_no_sightings(registry):
    """Somebody may post an event to the asset by hand: it starts a run, which goes by the alias."""
    event = Event(2, 1, datetime.now(UTC))
    event.extra = {"note": "please look"}
    assert reconcile(event)["by_hand"] == []


def test_the_dag_answers_a_move_by_hand_with_its_entry(registry, models):
    """Started without any event it finds what was done by hand all the same."""
    registry.connection.client.set_registered_model_alias("alpha", "champion", "4")
    run = Run(load_dag("bn_registry").test())
    assert run.state == "success"
    (line,) = run.xcom("reconcile")["by_hand"]
    assert "version 1 -> version 4 by unknown (MLflow)" in line
