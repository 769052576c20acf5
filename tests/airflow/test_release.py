"""The release Dag: what a person is shown, and what the answer does. The answers come in over Airflow's own API."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import pytest
from shop_bench import Run

from bnpipe.airflow.release import approver_of, brief, comment_of
from bnpipe.registry import Version
from bnpipe.steps import Release
from bnpipe.verdict import Verdict

PATIENCE = 60.0  # seconds until a request must have appeared


class Person(threading.Thread):
    """Waits for the request of one Dag run, reads it, and answers."""

    def __init__(self, client, header, dag_id: str, choice: str, comment: str | None = None) -> None:
        super().__init__(daemon=True)
        self.client, self.header, self.dag_id = client, header, dag_id
        self.answer = {"chosen_options": [choice], "params_input": {"comment": comment}}
        self.seen: dict = {}
        self.status: int | None = None

    def run(self) -> None:
        """Answer the first open request."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for request in self._open():
                self.seen = request
                instance = request["task_instance"]
                path = (
                    f"/api/v2/dags/{self.dag_id}/dagRuns/{instance['dag_run_id']}/taskInstances/approval/-1/hitlDetails"
                )
                self.status = self.client.patch(path, headers=self.header, json=self.answer).status_code
                return
            time.sleep(0.2)

    def _open(self) -> list[dict]:
        path = f"/api/v2/dags/{self.dag_id}/dagRuns/~/hitlDetails?response_received=false"
        found = self.client.get(path, headers=self.header).json()["hitl_details"]
        return [request for request in found if request["task_instance"]["state"] == "awaiting_input"]


def release(shop, client, admin, conf, *answer):
    """Run the release Dag while a person answers."""
    dag = shop.dag("release")
    person = Person(client, admin, dag.dag_id, *answer)
    person.start()
    run = Run(dag.test(logical_date=datetime.now(UTC), run_conf=conf))
    person.join(PATIENCE)
    assert person.status == 200
    return run, person.seen


def test_reject_leaves_everything_and_approve_moves_the_champion(shop, client, admin):
    """The ledger has the person as actor, the comment and why it won as reason."""
    shop.edit_spec("policy: auto", "policy: approval")
    shop.run("2026-02-05T02:00")

    run, seen = release(shop, client, admin, {"version": 1, "compared_with": 0}, "Reject")
    assert (run.state, run.tasks["approve"]) == ("success", "skipped")
    assert shop.registry.champion(shop.name) is None
    assert seen["subject"] == f"Make {shop.name} version 1 the champion?"
    assert "There was no champion when it was judged." in seen["body"]
    assert "These verdicts are against" not in seen["body"]
    assert "| min_rows | pass |" in seen["body"]
    assert seen["defaults"] == ["Reject"]

    run, _ = release(shop, client, admin, {"version": 1}, "Approve", "looks right")
    assert run.xcom("approve")["outcome"] == "promoted"
    assert shop.registry.champion(shop.name).number == 1
    last = shop.registry.history(shop.name)[-1]
    assert (last.to, last.actor) == (1, "grace")
    assert last.reason.startswith("looks right (")


def test_approval_is_refused_when_the_champion_is_another_one_by_then(trained, client, admin):
    """The task fails with the reason, is not tried again, and nothing was moved."""
    trained.run("2026-02-06T02:00", {"promotion": "approval"})
    run, seen = release(trained, client, admin, {"version": 2, "compared_with": 0}, "Approve")
    assert (run.state, run.tasks["approve"], run.tries["approve"]) == ("failed", "failed", 1)
    assert run.xcom("approve", "error").startswith("PromotionRefused")
    assert seen["body"].startswith("**These verdicts are against version 1, the request is about no version")
    assert trained.registry.champion(trained.name).number == 1


def test_verdicts_are_those_of_the_run_that_asks(trained, client, admin):
    """The training that made version 2 is run again over another champion: its new verdicts count, not the first."""
    first = trained.run("2026-02-07T02:00", {"promotion": "approval"})
    trained.run("2026-02-06T02:00")
    assert trained.registry.champion(trained.name).number == 3

    run, seen = release(trained, client, admin, {"version": 2}, "Approve")
    assert seen["body"].startswith("**These verdicts are against version 1, the champion is version 3:")
    assert (run.state, run.tasks["approve"]) == ("failed", "failed")
    assert "its verdicts are against version 1, the request is about version 3" in run.xcom("approve", "error")
    assert trained.registry.champion(trained.name).number == 3

    again = trained.run("2026-02-07T01:30", {"promotion": "approval", "end": "2026-02-07"})
    outcome = again.xcom("promote")
    assert (outcome["outcome"], outcome["version"], outcome["champion"]) == ("await approval", 2, 3)
    assert outcome["run_id"] == again.xcom("snapshot")["run_id"] != first.xcom("snapshot")["run_id"]
    conf = {"version": 2, "compared_with": 3, "run_id": outcome["run_id"]}
    run, seen = release(trained, client, admin, conf, "Approve")
    assert "Compared with the champion, version 3." in seen["body"]
    assert (run.state, run.xcom("approve")["outcome"]) == ("success", "promoted")
    assert trained.registry.champion(trained.name).number == 2
    assert trained.registry.history(trained.name)[-1].evidence == trained.registry.run_url(outcome["run_id"])


def test_verdicts_of_another_training_are_not_shown(trained):
    """A run id that was mistaken fails before anybody is asked."""
    other = trained.run("2026-02-06T02:00").xcom("snapshot")["run_id"]
    conf = {"version": 1, "run_id": other}
    run = Run(trained.dag("release").test(logical_date=datetime.now(UTC), run_conf=conf))
    assert (run.tasks["brief"], run.tasks["approval"]) == ("failed", "upstream_failed")
    assert "did not train version 1" in run.xcom("brief", "error")


def test_unknown_version_fails_before_anybody_is_asked(trained):
    """A request by hand for a version that is not there."""
    run = Run(trained.dag("release").test(logical_date=datetime.now(UTC), run_conf={"version": 99}))
    assert (run.tasks["brief"], run.tasks["approval"]) == ("failed", "upstream_failed")
    assert run.xcom("brief", "error").startswith("VersionNotFound")


@pytest.fixture
def version():
    """A version as the registry gives it."""
    tags = {
        "bnpipe.window_start": "2026-01-01T00:00:00+01:00",
        "bnpipe.train_end": "2026-01-21T00:00:00+01:00",
        "bnpipe.end": "2026-02-02T00:00:00+01:00",
        "bnpipe.airflow_url": "http://airflow/dags/x/runs/y",
    }
    return Version("shop", 3, "run", tags, "key", "models:/shop/3", datetime(2026, 2, 2, tzinfo=UTC))


def test_brief_shows_verdicts_windows_and_links(version):
    """One row a gate; what could break the table is escaped."""
    verdict = Verdict("challenger", "pass", "better by 0.02 | nats/row", "relative")
    text = brief(version, Release(2, (verdict,)), compared_with=2, champion=2, run_url="http://mlflow/run")
    assert "learned from 2026-01-01 until 2026-01-21 and was proved on rows until 2026-02-02" in text
    assert "Compared with the champion, version 2." in text
    assert "| challenger | pass | better by 0.02 \\| nats/row |" in text
    assert "[MLflow run](http://mlflow/run) · [Airflow run](http://airflow/dags/x/runs/y)" in text


@pytest.mark.parametrize(
    ("judged", "compared_with", "champion", "told"),
    [
        (2, 2, 5, "against version 2, the champion is version 5: an"),
        (2, 5, 5, "against version 2, the champion is version 5: an"),
        (None, None, 5, "against no version, the champion is version 5: an"),
        (2, 4, 2, "against version 2, the request is about version 4, the champion is version 2: an"),
        (2, 2, None, "against version 2, the champion is no version: an"),
    ],
)
def test_brief_begins_with_what_makes_an_approval_void(version, judged, compared_with, champion, told):
    """In bold, before the sentence that everybody reads."""
    text = brief(version, Release(judged, ()), compared_with=compared_with, champion=champion, run_url="")
    assert text.startswith(f"**These verdicts are {told} approval will be refused.")


def test_who_answered_and_what_was_said():
    """A time-out has no user; an empty comment is none."""
    assert approver_of({"responded_by_user": {"id": "7", "name": "grace"}}) == "grace"
    assert approver_of({"responded_by_user": None}) is None
    assert comment_of({"params_input": {"comment": " fine "}}) == "fine"
    assert comment_of({"params_input": {"comment": None}}) is None
    assert comment_of({"params_input": None}) is None
