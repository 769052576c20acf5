"""The drift Dag: what it is made of, when it starts, and whole looks run by ``dag.test()``."""

from __future__ import annotations

from datetime import timedelta

import pytest
from shop_bench import DRIFT, SPEC, load_dag, load_dags

from bnpipe import steps
from bnpipe.airflow.drift import LookOperator

LOOKED = "2026-02-14T07:00"
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


def test_a_calm_look_does_nothing_and_tells_nobody(live, alerts):
    """Small references in XCom; the MLflow run says that it is a look, and leads back to Airflow."""
    run = live.look(LOOKED)
    assert (run.state, run.tasks["start_training"]) == ("success", "skipped")
    assert {run.tasks[step] for step in [*CHAIN, "report"]} == {"success"}
    assert (run.xcom("report")["outcome"], run.xcom("decide")["alert"]) == ("nothing", False)
    assert set(run.xcom("snapshot")) == {"model", "key", "run_id", "actor"}
    assert all(len(str(run.xcom(step))) < 2000 for step in [*CHAIN, "report"])
    tags = live.registry.run_tags(run.xcom("snapshot")["run_id"])
    assert tags["bnpipe.kind"] == "drift"
    assert tags["bnpipe.airflow_run"] == f"bn_drift__{live.name}/{run.dag_run.run_id}"
    assert alerts == []
    assert live.trainings() == []


def test_a_changed_distribution_starts_a_refit_and_tells_people(changed, alerts):
    """The training has what to refit and why in its conf; the alert names node, effect, action and report."""
    run = changed.look(LOOKED)
    assert (run.state, run.tasks["start_training"]) == ("success", "success")
    assert (run.xcom("report")["outcome"], run.xcom("decide")["families"]) == ("refit", ["back"])
    [training] = changed.trainings()
    assert training.run_id == f"drift__{run.xcom('snapshot')['key'][:32]}"
    assert (training.conf["refit"], training.conf["end"], training.conf["refit_of"]) == (["back"], "2026-02-14", 1)
    assert training.conf["reason"].startswith("drift: 1 of 4 CPDs changed")
    [alert] = alerts
    assert (alert["model"], alert["action"]) == (changed.name, "refit")
    assert alert["headline"] == f"{changed.name}: 1 of 4 CPDs changed, refit of back"
    assert [change["node"] for change in alert["changes"]] == ["back"]
    assert alert["changes"][0]["effect"] == pytest.approx(0.5, abs=0.15)
    assert alert["link"].endswith("/plugin/bnpipe_report")
    report = run.xcom("report", LookOperator.operator_extra_links[1].xcom_key)
    assert report == alert["link"]
    assert run.xcom("snapshot")["run_id"] in run.xcom("compare", LookOperator.operator_extra_links[0].xcom_key)


def test_the_report_is_a_page_of_the_run(changed, client, viewer):
    """Behind Airflow's login, Evidently's beside it, neither with the rights of who looks at it."""
    run = changed.look(LOOKED).dag_run
    base = f"/bnpipe/dags/{run.dag_id}/runs/{run.run_id}"
    page = client.get(f"{base}/report", headers=viewer)
    assert (page.status_code, "refit. 1 of 4 CPDs changed" in page.text) == (200, True)
    for name in ("report.html", "evidently.html"):
        assert f'"files/{name}"' in page.text
        file = client.get(f"{base}/files/{name}", headers=viewer)
        assert (file.status_code, "</html>" in file.text) == (200, True)
        policy = file.headers["content-security-policy"]
        assert policy.startswith("sandbox")
        assert "allow-same-origin" not in policy
        assert client.get(f"{base}/files/{name}").status_code == 401
    assert client.get(f"{base}/files/look.json", headers=viewer).status_code == 404


def test_the_refit_that_a_look_asks_for_can_be_run(changed):
    """Its conf is what the training takes; only the family that changed is another one."""
    changed.look(LOOKED)
    [training] = changed.trainings()
    run = changed.run(LOOKED, training.conf)
    assert run.state == "success"
    first, second = (changed.registry.load_network(changed.registry.version(changed.name, n)) for n in (1, 2))
    assert {node for node in first.nodes if first.family_hash(node) != second.family_hash(node)} == {"back"}


def test_advice_is_told_and_nothing_is_started(changed, alerts):
    """The form may ask for less than the spec allows."""
    run = changed.look(LOOKED, {"actions": "advise", "reason": "only looking"})
    assert (run.state, run.tasks["start_training"]) == ("success", "skipped")
    assert changed.trainings() == []
    [alert] = alerts
    assert alert["headline"] == f"{changed.name}: 1 of 4 CPDs changed, advised: refit of back"
    assert changed.registry.run_tags(run.xcom("snapshot")["run_id"])["bnpipe.reason"] == "only looking"


def test_the_same_look_again_starts_no_second_training(changed):
    """By hand over the same days, while the first training waits: its run is there already."""
    changed.look(LOOKED)
    again = changed.look("2026-02-20T07:00", {"to": "2026-02-14"})
    assert (again.state, again.tasks["start_training"]) == ("success", "skipped")
    assert len(changed.trainings()) == 1


def test_a_look_at_other_days_waits_for_the_training_that_the_first_one_started(changed, alerts):
    """What changed is told again, but nothing is learned twice."""
    changed.look(LOOKED)
    later = changed.look("2026-02-15T07:00")
    assert (later.state, later.xcom("decide")["action"]) == ("success", "nothing")
    assert "a training of this model is running" in later.xcom("decide")["reason"]
    assert len(changed.trainings()) == 1
    assert alerts[1]["headline"] == f"{changed.name}: 1 of 4 CPDs changed, nothing is done"


def test_tasks_killed_after_their_effect_and_tried_again_do_nothing_twice(changed, alerts, monkeypatch):
    """In each, the connection breaks when the work is done but the task is not: one training, alert and MLflow run."""
    from mlflow import MlflowClient

    lost = set()

    def lose_the_first_answer(verb):
        real = getattr(steps, verb)

        def lose(*arguments, **options):
            answer = real(*arguments, **options)
            if verb not in lost:
                lost.add(verb)
                raise ConnectionError("the worker lost its network")
            return answer

        monkeypatch.setattr(steps, verb, lose)

    verbs = [*CHAIN, "report"]
    for verb in verbs:
        lose_the_first_answer(f"look_{verb}")
    run = changed.look(LOOKED)
    assert (run.state, [run.tries[verb] for verb in verbs]) == ("success", [2] * 6)
    assert (len(changed.trainings()), len(alerts)) == (1, 1)
    client = MlflowClient(changed.tracking_uri)
    experiment = client.get_experiment_by_name(f"bnpipe/{changed.name}")
    looks = client.search_runs([experiment.experiment_id], "tags.`bnpipe.kind` = 'drift'")
    assert [look.info.status for look in looks] == ["FINISHED"]


def test_an_empty_window_is_held_and_told(live, alerts):
    """Rows that are late are no failure of the run, and no reason to learn."""
    run = live.look("2026-05-01T07:00")
    assert (run.state, run.xcom("report")["outcome"]) == ("success", "hold")
    assert "the live window is empty" in run.xcom("report")["reason"]
    assert live.trainings() == []
    assert [alert["action"] for alert in alerts] == ["hold"]


def test_a_model_without_champion_has_nothing_to_compare_with(shop, alerts):
    """A drift Dag that is older than the first training is no failure either."""
    shop.spec.write_text(shop.spec.read_text() + DRIFT)
    run = shop.look(LOOKED)
    assert (run.state, run.xcom("report")["outcome"]) == ("success", "nothing")
    assert "no champion yet" in run.xcom("report")["reason"]
    assert alerts == []


def test_a_form_chooses_the_days(changed):
    """From the first day on and before the end; January is what the champion learned from."""
    run = changed.look("2026-02-20T07:00", {"from": "2026-02-02", "to": "2026-02-07"})
    assert run.xcom("report")["outcome"] == "nothing"
    tags = changed.registry.run_tags(run.xcom("snapshot")["run_id"])
    assert (tags["bnpipe.tested_from"][:10], tags["bnpipe.window_end"][:10]) == ("2026-02-02", "2026-02-07")


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"until": "2026-02-07"}, "until: no such field; a drift run takes from, to, actions, reason"),
        ({"to": "2126-01-01"}, "the latest end is"),
        ({"from": "2026-02-14", "to": "2026-02-14"}, "choose an earlier start"),
    ],
)
def test_a_form_that_can_not_be_meant_fails_at_once_and_is_told(live, alerts, conf, told):
    """Not tried again; the reason is in Airflow, in MLflow's failed run and in the alert."""
    run = live.look("2026-02-20T07:00", conf)
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert told in run.xcom("snapshot", "error")
    [alert] = alerts
    assert alert["headline"] == f"{live.name}: the task snapshot of bn_drift__{live.name} failed"
    assert told in alert["reason"]


def test_a_refused_form_has_a_failed_mlflow_run_of_a_look(live):
    """Who looks in MLflow finds it with its reason, and not among the trainings."""
    run = live.look("2026-02-20T07:00", {"until": "2026-02-07"})
    key = f"{run.dag_run.dag_id}/{run.dag_run.run_id}"
    tags = live.registry.run_tags(live.registry.find_run(model=live.name, key=key))
    assert (tags["bnpipe.outcome"], tags["bnpipe.kind"]) == ("failed", "drift")


def test_rows_that_were_announced_are_looked_at(changed, client, admin, monkeypatch):
    """An outside system posts an event, Airflow's scheduler makes the run, which tests the days before its `to`."""
    load_dag(f"bn_drift__{changed.name}")
    run = changed.announce(client, admin, monkeypatch, {"to": "2026-02-13", "rows": 40})
    assert (run.state, str(run.dag_run.run_type)) == ("success", "asset_triggered")
    assert (run.xcom("report")["outcome"], run.xcom("snapshot")["actor"]) == ("refit", "asset event")
    tags = changed.registry.run_tags(run.xcom("snapshot")["run_id"])
    assert tags["bnpipe.window_end"][:10] == "2026-02-13"


def test_an_announcement_that_can_not_be_read_is_said(live, client, admin, monkeypatch, alerts):
    """Whoever posts events must hear of it."""
    run = live.announce(client, admin, monkeypatch, {"to": "13.2.2026"})
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert "an event says to: 13.2.2026; write a day as 2026-02-01" in run.xcom("snapshot", "error")
    assert len(alerts) == 1
