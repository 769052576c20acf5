"""The tab of a Dag run, served by Airflow's own application with its own login."""

from __future__ import annotations

import subprocess
import sys

import pytest
from shop_bench import REPOSITORY

from bnpipe.airflow.pages import ending
from bnpipe.registry import Registry

PAGES = ("report", "files/report.html", "files/evidently.html")


@pytest.mark.parametrize("page", PAGES)
def test_pages_ask_for_a_login(client, page):
    """A plugin's route is public unless it says otherwise; these are not."""
    assert client.get(f"/bnpipe/dags/bn_train__x/runs/r/{page}").status_code == 401


def test_run_without_training_says_so(client, viewer):
    """The tab is on every Dag's runs, also on those of others."""
    answer = client.get("/bnpipe/dags/somebodys/runs/manual__1/report", headers=viewer)
    assert (answer.status_code, "No training or look in this run" in answer.text) == (200, True)
    assert client.get("/bnpipe/dags/somebodys/runs/manual__1/files/report.html", headers=viewer).status_code == 404


def test_training_is_shown_with_its_report(client, viewer, shop):
    """Outcome in a sentence; the report in a frame that can run nothing."""
    run = shop.run("2026-02-05T02:00").dag_run
    base = f"/bnpipe/dags/{run.dag_id}/runs/{run.run_id}"
    page = client.get(f"{base}/report", headers=viewer)
    assert page.status_code == 200
    assert "version 1, promoted." in page.text
    assert '<iframe src="files/report.html"' in page.text
    report = client.get(f"{base}/files/report.html", headers=viewer)
    assert report.status_code == 200
    assert "</html>" in report.text
    assert report.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_a_snapshot_that_failed_is_told_with_its_mlflow_run(client, viewer, shop, monkeypatch):
    """The error as the task gave it, escaped; without the link if MLflow is away, and never without a login."""
    run = shop.run("2026-02-05T02:00", {"<b>": 1}).dag_run
    path = f"/bnpipe/dags/{run.dag_id}/runs/{run.run_id}/report"
    monkeypatch.setattr(Registry, "run_url", lambda _, run_id: f"http://mlflow.test/{run_id}")
    page = client.get(path, headers=viewer)
    found = shop.registry.find_run(model=shop.name, key=f"{run.dag_id}/{run.run_id}")
    assert (page.status_code, f'<a href="http://mlflow.test/{found}"' in page.text) == (200, True)
    assert "the snapshot failed. SpecError: " in page.text
    assert "&lt;b&gt;" in page.text
    assert client.get(path).status_code == 401
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    page = client.get(path, headers=viewer)
    assert ("the snapshot failed. SpecError: " in page.text, "<a " in page.text) == (True, False)


def test_mlflow_away_is_said_and_not_a_traceback(client, viewer, shop, monkeypatch):
    """The page names the address and answers 503."""
    run = shop.run("2026-02-05T02:00", mark_success_pattern="validate|learn|audit|fit|evaluate|register|promote|ask.*")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    answer = client.get(f"/bnpipe/dags/{run.dag_run.dag_id}/runs/{run.dag_run.run_id}/report", headers=viewer)
    assert (answer.status_code, "127.0.0.1:9" in answer.text) == (503, True)


def test_ending_in_words():
    """From the MLflow run's tags to a sentence."""
    assert ending({}) == "has not ended yet."
    assert ending({"bnpipe.outcome": "failed", "bnpipe.error": "fit: no"}) == "failed. fit: no"
    held = {
        "bnpipe.error": "of an earlier try",
        "bnpipe.outcome": "held",
        "bnpipe.outcome_reason": "too few days.",
        "bnpipe.version": "3",
    }
    assert ending(held) == "version 3, held. too few days."
    refit = {"bnpipe.outcome": "refit", "bnpipe.outcome_reason": "It changed.", "bnpipe.acted_reason": "It changed."}
    assert ending(refit) == "refit. It changed."
    assert ending({**refit, "bnpipe.acted_reason": "Nothing was done."}) == "refit. It changed. Nothing was done."


def test_loading_the_plugin_builds_no_web_application():
    """Scheduler and workers load plugins too; only the API server pays for pages."""
    script = "import sys, bnpipe_plugin; print('bnpipe.airflow.pages' in sys.modules, 'mlflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY / "plugins",
        env={"PYTHONPATH": str(REPOSITORY), "AIRFLOW_HOME": "/nonexistent", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["False", "False"], done.stderr
