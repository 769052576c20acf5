"""The training Dag, run whole by ``dag.test()`` on a real SQLite Airflow and a real MLflow."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest
from shop_bench import Run, load_dag

from bnpipe import steps
from bnpipe.airflow.tasks import StepOperator

STEPS = ["snapshot", "validate", "learn", "audit", "fit", "evaluate", "register", "promote"]


def closed_port() -> int:
    """Find a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def versions(shop) -> list[int]:
    """Numbers of the versions in MLflow."""
    return sorted(version.number for version in shop.registry.versions(shop.name))


def test_first_run_is_promoted_and_second_night_too(shop):
    """Snapshot to champion; XCom holds small references; the ledger says who did it."""
    first = shop.run("2026-02-05T02:00")
    assert first.state == "success"
    assert {first.tasks[step] for step in STEPS} == {"success"}
    assert first.tasks["ask_for_approval"] == "skipped"
    outcome = first.xcom("promote")
    assert (outcome["outcome"], outcome["version"], outcome["champion"]) == ("promoted", 1, None)
    training = first.xcom("snapshot")
    assert set(training) == {"model", "key", "run_id", "actor"}
    assert all(len(str(first.xcom(step))) < 2000 for step in STEPS)

    second = shop.run("2026-02-06T02:00")
    assert (second.state, second.xcom("promote")["outcome"]) == ("success", "promoted")
    assert shop.registry.champion(shop.name).number == 2
    entries = shop.registry.history(shop.name)
    assert [(entry.to, entry.actor) for entry in entries] == [(1, "dag_test"), (2, "dag_test")]


def test_each_airflow_run_has_its_mlflow_run(shop):
    """Tags lead from MLflow to Airflow, the task's button from Airflow to MLflow."""
    run = shop.run("2026-02-05T02:00", {"reason": "after the move"})
    run_id = run.xcom("snapshot")["run_id"]
    tags = shop.registry.run_tags(run_id)
    assert tags["bnpipe.airflow_run"] == f"bn_train__{shop.name}/{run.dag_run.run_id}"
    assert tags["bnpipe.airflow_url"].startswith(f"http://airflow.test:8080/dags/bn_train__{shop.name}/runs/")
    assert tags["bnpipe.actor"] == "dag_test"
    assert tags["bnpipe.reason"] == "after the move"
    assert tags["bnpipe.outcome"] == "promoted"
    link = run.xcom("fit", StepOperator.operator_extra_links[0].xcom_key)
    assert run_id in link


def test_same_date_twice_gives_one_version(trained):
    """The second run of a date finds the version that the first one made."""
    again = trained.run("2026-02-05T01:30", {"end": "2026-02-05"})
    assert again.state == "success"
    assert again.xcom("promote")["outcome"] == "already champion"
    assert versions(trained) == [1]


def test_task_killed_after_its_effect_and_tried_again_gives_one_version(shop, monkeypatch):
    """The connection breaks when the version is made but the task is not done: the retry finds it."""
    register = steps.register
    lost = []

    def register_and_lose_the_answer(training):
        version = register(training)
        if not lost:
            lost.append(version)
            raise ConnectionError("the worker lost its network")
        return version

    monkeypatch.setattr(steps, "register", register_and_lose_the_answer)
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.tries["register"], run.tries["fit"]) == ("success", 2, 1)
    assert versions(shop) == [1]


def test_losing_is_a_success_with_outcome_held(trained):
    """With no room for noise the second night can't be shown to be no worse: held, and the run is green."""
    trained.edit_spec("rope: 0.5", "rope: 0.000001")
    run = trained.run("2026-02-06T02:00")
    assert run.state == "success"
    outcome = run.xcom("promote")
    assert (outcome["outcome"], outcome["champion"]) == ("held", 1)
    assert outcome["reason"]
    assert trained.registry.champion(trained.name).number == 1


def test_failing_gate_ends_the_run_with_its_reason(shop):
    """Fewer rows than the gate wants: the task fails at once, says why in XCom and in MLflow; nothing is registered."""
    shop.edit_spec("gates: {min_rows: 200}", "gates: {min_rows: 100000}")
    run = shop.run("2026-02-05T02:00")
    assert run.state == "failed"
    assert (run.tasks["evaluate"], run.tries["evaluate"]) == ("failed", 1)
    assert run.tasks["register"] == "upstream_failed"
    assert "min_rows" in run.xcom("evaluate", "error") or "100000" in run.xcom("evaluate", "error")
    run_id = run.xcom("snapshot")["run_id"]
    assert shop.registry.run_tags(run_id)["bnpipe.outcome"] == "failed"
    assert versions(shop) == []


def test_backfill_of_an_older_date_never_replaces_a_newer_champion(shop):
    """Superseded, whatever its scores."""
    shop.run("2026-02-10T02:00")
    run = shop.run("2026-02-06T02:00")
    assert (run.state, run.xcom("promote")["outcome"]) == ("success", "superseded")
    assert shop.registry.champion(shop.name).number == 1


def test_mlflow_down_is_tried_again_then_fails(shop, monkeypatch):
    """An outage may heal: four tries in all; then the run fails with the address in its reason."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.tasks["snapshot"], run.tries["snapshot"]) == ("failed", "failed", 4)
    assert run.xcom("snapshot", "error").startswith("RegistryUnavailable")


def test_a_snapshot_that_fails_for_good_ends_its_mlflow_run(shop, monkeypatch):
    """The source never answers: nothing was handed on, yet no MLflow run is left as running."""
    from mlflow import MlflowClient

    from bnpipe import source
    from bnpipe.errors import SourceUnavailable

    def away(*_):
        raise SourceUnavailable("the warehouse does not answer")

    monkeypatch.setattr(source, "read_window", away)
    run = shop.run("2026-02-05T02:00")
    assert (run.tasks["snapshot"], run.tries["snapshot"], run.xcom("snapshot")) == ("failed", 4, None)
    client = MlflowClient(shop.tracking_uri)
    experiment = client.get_experiment_by_name(f"bnpipe/{shop.name}")
    [left] = client.search_runs([experiment.experiment_id])
    assert left.info.status == "FAILED"
    assert left.data.tags["bnpipe.error"] == "snapshot: the warehouse does not answer"


def test_the_failure_callback_never_raises(shop, monkeypatch, caplog):
    """Whatever is wrong: no run of that key, MLflow away, a context without a task."""
    from bnpipe.airflow.tasks import mark_failed

    instance = SimpleNamespace(dag_id="bn_train__x", run_id="never", task_id="fit")
    mark_failed(shop.name)({"ti": instance})
    assert "could not write" not in caplog.text
    mark_failed(shop.name)({})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    mark_failed(shop.name)({"ti": instance, "exception": ValueError("x")})
    assert caplog.text.count("could not write the failure into MLflow") == 2


def test_a_wrong_field_of_a_conf_is_an_error_of_its_own(shop):
    """Airflow lets unknown keys through; the XCom says which one is meant."""
    run = shop.run("2026-02-05T02:00", {"max_parent": 1})
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert "did you mean 'max_parents'" in run.xcom("snapshot", "error")


def test_mlflow_going_down_in_the_middle_fails_that_task_only(shop, monkeypatch):
    """What the earlier tasks kept is not lost; the failed task is tried again."""
    fit = steps.fit
    address = f"http://127.0.0.1:{closed_port()}"

    def fit_without_mlflow(training):
        with monkeypatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", address)
            return fit(training)

    monkeypatch.setattr(steps, "fit", fit_without_mlflow)
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.tasks["learn"], run.tasks["fit"], run.tries["fit"]) == ("failed", "success", "failed", 4)
    run_id = run.xcom("snapshot")["run_id"]
    assert shop.registry.run_tags(run_id)["bnpipe.outcome"] == "failed"
    assert versions(shop) == []


def test_no_rows_is_not_tried_again(shop):
    """A window before the first row stays empty however often one looks."""
    run = shop.run("2025-06-01T02:00")
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert run.xcom("snapshot", "error").startswith("EmptyWindowError")


def test_form_overrides_reach_the_training(shop):
    """What a person chose in the form is what is learned."""
    run = shop.run("2026-02-20T02:00", {"end": "2026-02-05", "max_parents": 1, "estimator": "bayes"})
    assert run.state == "success"
    champion = shop.registry.champion(shop.name)
    assert champion.tags["bnpipe.end"].startswith("2026-02-05")
    network = shop.registry.load_network(champion)
    assert max(len(parents) for parents in network.parents.values()) == 1
    assert network.prior.equivalent_sample_size == 10.0


def test_end_in_the_future_is_refused(shop):
    """The form's date is checked against the run's start."""
    run = shop.run("2026-02-05T02:00", {"end": "2126-01-01"})
    assert (run.state, run.tries["snapshot"]) == ("failed", 1)
    assert "the latest end is" in run.xcom("snapshot", "error")


def test_a_refused_form_has_a_failed_mlflow_run(shop, monkeypatch, caplog):
    """Who looks in MLflow finds it with its reason; MLflow being away does not hide the reason from Airflow."""
    run = shop.run("2026-02-05T02:00", {"max_parent": 1})
    key = f"{run.dag_run.dag_id}/{run.dag_run.run_id}"
    tags = shop.registry.run_tags(shop.registry.find_run(model=shop.name, key=key))
    assert (tags["bnpipe.outcome"], tags["bnpipe.airflow_run"]) == ("failed", key)
    assert tags["bnpipe.error"].startswith("snapshot: ")
    assert "did you mean 'max_parents'" in tags["bnpipe.error"]

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    run = shop.run("2026-02-06T02:00", {"max_parent": 1})
    assert "did you mean 'max_parents'" in run.xcom("snapshot", "error")
    assert "could not write the refusal into MLflow" in caplog.text


def test_approval_policy_queues_a_release_run(shop):
    """The winner waits; the release Dag has a run with the version and whom it was compared with."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    shop.edit_spec("policy: auto", "policy: approval")
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.tasks["ask_for_approval"]) == ("success", "success")
    assert run.xcom("promote")["outcome"] == "await approval"
    assert shop.registry.champion(shop.name) is None
    with create_session() as session:
        asked = session.scalars(select(DagRun).where(DagRun.dag_id == f"bn_release__{shop.name}")).all()
    conf = {"version": 1, "compared_with": 0, "run_id": run.xcom("snapshot")["run_id"]}
    assert [(release.state, release.conf) for release in asked] == [("queued", conf)]
    assert asked[0].run_id == f"{run.dag_run.run_id}__version_1_over_0"


def test_manual_policy_leaves_it_to_mlflow(shop):
    """The version is there, the alias is not moved."""
    shop.edit_spec("policy: auto", "policy: manual")
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.xcom("promote")["outcome"]) == ("success", "left to MLflow")
    assert shop.registry.champion(shop.name) is None
    assert versions(shop) == [1]


def test_connection_comes_from_airflow_and_is_not_logged(shop, monkeypatch, caplog):
    """A spec's connection that the environment does not know is looked up in Airflow."""
    rows = shop.spec.parent.parent / "elsewhere"
    rows.symlink_to(shop.rows)
    shop.edit_spec("connection: local", "connection: shop feed")
    monkeypatch.setenv("AIRFLOW_CONN_SHOP FEED", f'{{"conn_type": "fs", "extra": {{"path": "{rows}"}}}}')
    run = shop.run("2026-02-05T02:00")
    assert run.state == "success"
    assert str(rows) not in caplog.text


@pytest.mark.parametrize("kind", ["release", "registry"])
def test_other_dags_have_no_training_params(shop, kind):
    """Each form asks only what its Dag uses."""
    dag = load_dag("bn_registry") if kind == "registry" else shop.dag("release")
    assert set(dag.params) == ({"model"} if kind == "registry" else {"version", "compared_with", "run_id"})


def test_registry_dag_writes_moves_by_hand_into_the_ledger(shop):
    """The alias moved in MLflow, past bnpipe: reconciling makes it an entry, once."""
    from mlflow import MlflowClient

    shop.edit_spec("policy: auto", "policy: manual")
    shop.run("2026-02-05T02:00")
    MlflowClient(shop.tracking_uri).set_registered_model_alias(shop.name, "champion", "1")
    for _ in range(2):
        run = Run(load_dag("bn_registry").test())
        assert run.state == "success"
    entries = shop.registry.history(shop.name)
    assert [(entry.to, entry.actor, entry.kind) for entry in entries] == [(1, "unknown (MLflow)", "by hand")]
