"""What Airflow's tasks and callbacks tell people."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from shop_bench import Run, load_dag

from bnpipe.airflow.alerts import AlertNotifier, failure_alert
from bnpipe.errors import SourceUnavailable

TASK = SimpleNamespace(task_id="fit", dag_id="bn_train__shop", log_url="http://airflow.test/log")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SourceUnavailable("no answer from postgresql://u:s3cret@host"), "SourceUnavailable: no answer from postgres"),
        (ValueError("row ada,1984,s3cret"), "ValueError; see its log"),
        (None, "it was stopped from outside; see its log"),
    ],
)
def test_a_failure_says_why_and_quotes_neither_secrets_nor_rows(error, told):
    """An error that bnpipe did not write may hold anything."""
    alert = failure_alert("shop", {"ti": TASK, "exception": error})
    assert alert.headline == "shop: the task fit of bn_train__shop failed"
    assert alert.reason.startswith(told)
    assert alert.link == TASK.log_url
    assert "s3cret" not in alert.text


def test_a_notifier_says_what_its_template_says(alerts):
    """In any callback of a team's own Dag."""
    AlertNotifier(model="shop", text="{{ ti.task_id }} is late")({"ti": TASK})
    assert [(alert["kind"], alert["headline"]) for alert in alerts] == [("message", "shop: fit is late")]


def test_a_notifier_without_text_tells_of_the_failure(alerts):
    """As the Dags of bnpipe do."""
    AlertNotifier(model="shop")({"ti": TASK})
    assert [alert["kind"] for alert in alerts] == ["failure"]


def test_a_training_that_failed_for_good_is_told_once(shop, alerts):
    """Of four tries none but the last, and nothing of the tasks that were not tried."""
    shop.edit_spec("gates: {min_rows: 200}", "gates: {min_rows: 100000}")
    run = shop.run("2026-02-05T02:00")
    assert run.state == "failed"
    [alert] = alerts
    assert alert["headline"] == f"{shop.name}: the task evaluate of bn_train__{shop.name} failed"
    assert alert["reason"].startswith("GateFailed: ")
    assert alert["link"].startswith(f"http://airflow.test:8080/dags/bn_train__{shop.name}/runs/")


def test_an_alert_that_fails_changes_nothing(shop, monkeypatch, caplog):
    """The run ends as it would have, and the log says that nobody was told."""
    monkeypatch.setenv("BNPIPE_ALERT_WEBHOOK", "http://127.0.0.1:9/s3cret")
    shop.edit_spec("gates: {min_rows: 200}", "gates: {min_rows: 100000}")
    run = shop.run("2026-02-05T02:00")
    assert (run.state, run.tries["evaluate"]) == ("failed", 1)
    assert "GateFailed" in run.xcom("evaluate", "error")
    assert "the alert could not be sent by webhook" in caplog.text
    assert "s3cret" not in caplog.text


def test_warnings_of_the_registry_are_told(trained, alerts):
    """A champion that was taken away in MLflow needs a person, once."""
    from mlflow import MlflowClient

    MlflowClient(trained.tracking_uri).delete_registered_model_alias(trained.name, "champion")
    for _ in range(2):
        assert Run(load_dag("bn_registry").test()).state == "success"
    [alert] = alerts
    assert alert["headline"] == "bn_registry: a champion needs a look"
    assert f"champion of '{trained.name}' was removed in MLflow" in alert["reason"]
