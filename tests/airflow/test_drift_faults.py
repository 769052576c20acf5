"""The drift Dag when something is gone, late, killed or moved by hand: no wrong action, and nothing half done."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from shop_bench import draw_day

from bnpipe import steps
from bnpipe.airflow import drift
from bnpipe.airflow.alerts import TOLD_TAG
from bnpipe.errors import RegistryUnavailable
from bnpipe.registry import Registry

LOOKED = "2026-02-14T07:00"
VERBS = ["snapshot", "validate", "compare", "decide", "act", "report"]
NOWHERE = "http://127.0.0.1:9"


def looks_of(shop) -> list:
    """The MLflow runs of looks, the newest first."""
    client = MlflowClient(shop.tracking_uri)
    experiment = client.get_experiment_by_name(f"bnpipe/{shop.name}")
    return client.search_runs([experiment.experiment_id], "tags.`bnpipe.kind` = 'drift'")


def before(monkeypatch, verb: str, fault) -> None:
    """Let a fault happen before a verb of the look is tried for the first time."""
    real, happened = getattr(steps, f"look_{verb}"), []

    def call(*arguments, **options):
        if not happened:
            happened.append(fault())
        return real(*arguments, **options)

    monkeypatch.setattr(steps, f"look_{verb}", call)


@pytest.fixture
def own_rows(live, tmp_path, monkeypatch):
    """The rows of a shop in a folder of this test's own."""
    folder = tmp_path / "data" / "shop"
    shutil.copytree(live.rows / "shop", folder)
    monkeypatch.setenv("BNPIPE_DATA", str(folder.parent))
    return folder


def edit(folder, change, *, since: str, until: str = "2026-12-31") -> None:
    """Rewrite the days ``[since, until)`` by a function of a frame."""
    for file in sorted(folder.glob("day=*/*.parquet")):
        if since <= file.parent.name.removeprefix("day=") < until:
            change(pd.read_parquet(file, partitioning=None)).to_parquet(file)


# What the look is made of is not there


def test_mlflow_away_at_each_step(changed, alerts, monkeypatch):
    """Each task finds MLflow gone and is tried again once it is back: one training, one alert, one run that ended."""
    for verb in VERBS:
        real = getattr(steps, f"look_{verb}")
        tried = []

        def call(*arguments, real=real, tried=tried, **options):
            tried.append(real)
            with monkeypatch.context() as patch:
                if len(tried) == 1:
                    patch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
                return real(*arguments, **options)

        monkeypatch.setattr(steps, f"look_{verb}", call)
    run = changed.look(LOOKED)
    assert (run.state, [run.tries[verb] for verb in VERBS]) == ("success", [2] * 6)
    assert run.xcom("report")["outcome"] == "refit"
    assert (len(changed.trainings()), len(alerts)) == (1, 1)
    assert [look.info.status for look in looks_of(changed)] == ["FINISHED"]


def test_mlflow_away_for_good_before_the_act(changed, alerts, monkeypatch):
    """The run fails and is told; nothing was started, and the look made again later does what was to be done."""
    with monkeypatch.context() as patch:
        before(patch, "decide", lambda: patch.setenv("MLFLOW_TRACKING_URI", NOWHERE))
        run = changed.look(LOOKED)
    assert (run.state, run.tries["decide"], run.tasks["act"]) == ("failed", 4, "upstream_failed")
    assert "did not answer" in run.xcom("decide", "error")
    assert [alert["kind"] for alert in alerts] == ["failure"]
    assert changed.trainings() == []
    again = changed.look("2026-02-20T07:00", {"to": "2026-02-14"})
    assert again.xcom("report")["outcome"] == "refit"
    assert len(changed.trainings()) == 1


def test_an_empty_table_is_held(own_rows, live, alerts):
    """Files without a row are a success that learns nothing."""
    edit(own_rows, lambda frame: frame.iloc[:0], since="2026-01-01")
    run = live.look(LOOKED)
    assert (run.state, run.xcom("report")["outcome"], run.tasks["start_training"]) == ("success", "hold", "skipped")
    assert [(alert["kind"], alert["action"]) for alert in alerts] == [("drift", "hold")]
    assert "the source holds no rows at all" in alerts[0]["reason"]
    assert live.trainings() == []


def test_no_table_at_all_is_a_failure(own_rows, live, alerts):
    """A path that leads nowhere any more is somebody's mistake: said at once, and nothing follows."""
    shutil.rmtree(own_rows)
    run = live.look(LOOKED)
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert "no files match" in run.xcom("snapshot", "error")
    assert [alert["kind"] for alert in alerts] == ["failure"]
    assert [look.info.status for look in looks_of(live)] == ["FAILED"]
    assert live.trainings() == []


def test_half_of_the_columns_missing_is_held(own_rows, live, alerts):
    """No drift, whatever the rest looks like: nothing is compared, and the columns are named."""
    edit(own_rows, lambda frame: frame.drop(columns=["weather", "age"]), since="2026-01-01")
    run = live.look(LOOKED)
    assert (run.state, run.xcom("report")["outcome"], run.tasks["start_training"]) == ("success", "hold", "skipped")
    assert run.xcom("compare")["nodes"] == 0
    [alert] = alerts
    assert "weather" in alert["reason"]
    assert live.trainings() == []


# Somebody else moves things between two steps


def test_the_champion_deleted_between_two_steps(changed, alerts, monkeypatch):
    """The look ends with what it froze, says that nothing was done, and starts nothing."""
    before(monkeypatch, "compare", lambda: MlflowClient().delete_model_version(changed.name, "1"))
    run = changed.look(LOOKED)
    assert (run.state, run.tasks["start_training"]) == ("success", "skipped")
    assert not run.xcom("act")["done"]
    assert "nothing was done: there is no champion by now" in run.xcom("act")["reason"]
    [alert] = alerts
    assert alert["headline"].endswith("not done: refit of back")
    assert changed.trainings() == []


def test_a_model_frozen_between_two_steps(changed, alerts, monkeypatch):
    """A freeze counts from the moment it is made, whatever had been decided before."""
    before(monkeypatch, "act", lambda: changed.registry.freeze(changed.name, actor="ada", reason="audit"))
    run = changed.look(LOOKED)
    assert (run.state, run.xcom("decide")["action"], run.tasks["start_training"]) == ("success", "refit", "skipped")
    assert "was frozen meanwhile: by ada" in run.xcom("act")["reason"]
    assert changed.trainings() == []
    assert [alert["headline"].partition(", ")[2] for alert in alerts] == ["not done: refit of back"]


@pytest.mark.parametrize(("fate", "verb"), [("renamed", "snapshot"), ("deleted", "snapshot"), ("renamed", "act")])
def test_the_registered_model_is_gone(changed, alerts, monkeypatch, fate, verb):
    """Renamed or deleted in MLflow before the look or during it: a success that says so and does nothing."""
    client = MlflowClient()

    def fault():
        if fate == "renamed":
            client.rename_registered_model(changed.name, f"{changed.name}-old")
        else:
            client.delete_registered_model(changed.name)

    before(monkeypatch, verb, fault)
    run = changed.look(LOOKED)
    assert (run.state, run.tasks["start_training"]) == ("success", "skipped")
    assert not run.xcom("act")["done"]
    assert changed.trainings() == []
    [alert] = alerts
    said = f"'{changed.name}' was {fate}" if verb == "snapshot" else "there is no champion by now"
    assert said in alert["reason"]


# The champion is worse than its predecessor


@pytest.fixture
def bad_champion(own_rows, live):
    """Version 2, whose graph lacks two of three arcs, made champion in MLflow's page; ten times the rows since."""
    live.edit_spec("rope: 0.5", "rope: 0.02")
    text = live.spec.read_text()
    searched = "  max_parents: 2\n  tiers: [[weather, age], [basket], [back]]\n"
    live.edit_spec(searched, "  graph: {arcs: [[weather, back]]}\n")
    assert live.run("2026-02-06T02:00", {"promotion": "manual"}).xcom("promote")["version"] == 2
    live.spec.write_text(text)
    MlflowClient().set_registered_model_alias(live.name, "champion", "2")
    rng = np.random.default_rng(5)
    edit(own_rows, lambda frame: draw_day(frame["sold_at"].iloc[0].date(), 400, rng), since="2026-02-06")
    return live


def test_a_bad_version_promoted_in_mlflow_is_rolled_back(bad_champion, alerts):
    """The next look compares with it, finds its predecessor better and goes back; the look after compares with that."""
    shop = bad_champion
    run = shop.look("2026-02-20T07:00")
    assert (run.state, run.tasks["start_training"]) == ("success", "skipped")
    assert (run.xcom("decide")["champion"], run.xcom("decide")["to"]) == (2, 1)
    assert run.xcom("act")["done"]
    assert shop.registry.champion(shop.name).number == 1
    assert "rolled back" in shop.registry.version(shop.name, 2).barred
    hand, back = shop.registry.history(shop.name)[-2:]
    assert (hand.kind, hand.to, back.kind, back.to, back.outcome) == ("by hand", 2, "rollback", 1, "done")
    assert back.evidence == shop.registry.run_url(run.xcom("snapshot")["run_id"])
    [alert] = alerts
    assert alert["headline"].endswith("roll back to version 1")
    later = shop.look("2026-02-20T08:00")
    assert (later.xcom("decide")["champion"], later.xcom("report")["outcome"]) == (1, "nothing")


# People hear of it, and not thirty times


def test_a_task_killed_after_its_alert_tells_nobody_twice(changed, alerts, monkeypatch):
    """The alert has gone out, the task has not ended: the retry finds that it was told."""
    lost, real = [], drift.tell_once

    def lose(*arguments):
        answer = real(*arguments)
        if not lost:
            lost.append(answer)
            raise ConnectionError("the worker lost its network")
        return answer

    monkeypatch.setattr(drift, "tell_once", lose)
    run = changed.look(LOOKED)
    assert (run.state, run.tries["act"], lost) == ("success", 2, [True])
    assert len(alerts) == 1


def test_what_is_not_marked_as_told_is_told_again(changed, alerts, monkeypatch):
    """MLflow goes away when the alert has gone out: the run ends well; the next look tells it once more."""
    real = Registry.log_tags

    def away(registry, run_id, tags):
        if TOLD_TAG in tags:
            raise RegistryUnavailable("MLflow did not answer")
        real(registry, run_id, tags)

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "log_tags", away)
        assert changed.look(LOOKED, {"actions": "advise"}).state == "success"
    changed.look("2026-02-15T07:00", {"actions": "advise", "to": "2026-02-14"})
    assert [alert["action"] for alert in alerts] == ["refit", "refit"]


def test_the_same_night_after_night_is_told_once(own_rows, live, alerts):
    """Rows stop coming: told once. They come again: nothing. They stop again: told again."""
    emptied = {}

    def stop():
        for file in own_rows.glob("day=2026-02-*/*.parquet"):
            emptied.setdefault(file, file.read_bytes())
        edit(own_rows, lambda frame: frame.iloc[:0], since="2026-02-01")

    def look(day):
        return live.look(f"2026-02-{day}T07:00").xcom("report")["outcome"]

    stop()
    assert [look(day) for day in (13, 14, 15)] == ["hold"] * 3
    assert [alert["action"] for alert in alerts] == ["hold"]
    for file, content in emptied.items():
        file.write_bytes(content)
    assert look(16) == "nothing"
    stop()
    assert [look(day) for day in (17, 18)] == ["hold"] * 2
    assert [alert["action"] for alert in alerts] == ["hold", "hold"]


def test_advice_is_told_once_until_it_changes(changed, alerts):
    """The same distribution in the next look is no news; that it may be learned now is."""
    for day in (14, 15):
        changed.look(f"2026-02-{day}T07:00", {"actions": "advise", "to": "2026-02-14"})
    assert [alert["action"] for alert in alerts] == ["refit"]
    changed.look("2026-02-16T07:00", {"to": "2026-02-14"})
    assert [alert["headline"].partition(", ")[2] for alert in alerts] == ["advised: refit of back", "refit of back"]


def test_an_alert_that_reached_nobody_is_not_told(changed, alerts, monkeypatch):
    """The webhook was down: the next look tells it, though nothing is new."""
    with monkeypatch.context() as patch:
        patch.setenv("BNPIPE_ALERT_WEBHOOK", NOWHERE)
        changed.look(LOOKED, {"actions": "advise"})
    changed.look("2026-02-15T07:00", {"actions": "advise", "to": "2026-02-14"})
    assert [alert["action"] for alert in alerts] == ["refit"]
