"""What a canary's step reads is what the service writes: one worker's answers, judged as they lie in its log."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from registry_bench import make_network
from serving_bench import ask, make_service, send
from test_service import break_version

from bnpipe.answers import Journal, labelled, rows
from bnpipe.answers.reading import ALL_ARMS
from bnpipe.release.canary import CanaryPolicy, CanaryState, begin
from bnpipe.serving.routing import Canary, choose_arm
from bnpipe.serving.service import Service
from bnpipe.steps.outcomes import Log

OLD, NEW = make_network(200), make_network(400)
POLICY = CanaryPolicy(stages=(0.5, 1.0))


def served(folder: Path, canary: Canary) -> Service:
    """A service of version 1 with a canary of version 2, logging into a folder."""
    journal = Journal(folder / "journal", "worker")
    return make_service(folder / "cache", [OLD, NEW], champion=1, canary=canary, log=journal)  # type: ignore[arg-type]


def judged(folder: Path, state: CanaryState) -> Log:
    return Log(state, POLICY, {"champion": OLD, "challenger": NEW}, ("late",), "UTC")


@pytest.mark.parametrize("failing", [False, True])
def test_a_workers_log_is_judged(tmp_path: Path, failing: bool) -> None:
    """Arms, failures by whom they were meant for, labels by feedback, log-loss of what was really said, and pairs."""
    began = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    state = begin(version=2, champion=1, policy=POLICY, now=began, salt="s")
    canary = Canary.of(state)
    assert canary is not None
    service = served(tmp_path, canary)
    if failing:
        break_version(service, 2)
    losses: dict[str, list[float]] = {"champion": [], "challenger": []}
    for number in range(40):
        row = {"rain": "yes" if number % 3 else "no", "wind": 1 + number % 3}
        reply = ask(service, "posterior", [row], key=f"customer {number}")
        arm = choose_arm(f"customer {number}", canary)
        assert reply["arm"] == ("fallback" if failing and arm == "challenger" else arm)
        late = "true" if number % 2 else "false"
        body = {"model": "flights", "request_id": reply["request_id"], "labels": {"late": late}}
        assert send(service, "POST", "/v1/feedback", json=body).status_code < 300
        losses[arm].append(-math.log(max(reply["answers"][0]["posterior"]["late"][late], 1e-6)))
    end = datetime.now(UTC) + timedelta(minutes=1)
    tables = [read(tmp_path, "flights", began, end, arms=ALL_ARMS) for read in (rows, labelled)]
    found = judged(tmp_path, state).outcomes(*tables)
    champion = [one.champion for one in found]
    challenger = [one.challenger for one in found]
    assert sum(arm.rows for arm in champion) == len(losses["champion"])
    assert sum(arm.rows for arm in challenger) == len(losses["challenger"])
    assert sum(arm.errors for arm in champion) == 0
    assert sum(arm.errors for arm in challenger) == (len(losses["challenger"]) if failing else 0)
    heard = {"champion": champion} if failing else {"champion": champion, "challenger": challenger}
    for arm, outcomes in heard.items():
        total = sum(one.losses["late"].rows * one.losses["late"].mean for one in outcomes if one.losses)
        assert total == pytest.approx(sum(losses[arm]))
    assert sum(one.pairs["late"].rows for one in found) == (len(losses["champion"]) if failing else 40)
    if failing:
        assert not any(one.losses for one in challenger)
