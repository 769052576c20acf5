"""A line for each request that needs one; nothing of a row and no secret in whatever the service writes or sends."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
from otlp_receiver import receiver
from watched import ASKING_KEY, KEY, METRICS_KEY, garden, lay_out, serving

from bnpipe.config.serving import LogSpec
from bnpipe.serving.access_log import AccessLog
from bnpipe.serving.observing import Finished
from bnpipe.serving.process import _JsonLines

CANARY = "canary-7231-in-a-mine"


def lines(caplog: pytest.LogCaptureFixture, log: AccessLog, *requests: Finished) -> list[dict[str, Any]]:
    """Fields of the lines that requests get."""
    caplog.clear()
    caplog.set_level(logging.INFO)
    for done in requests:
        log(done)
    return [record.fields for record in caplog.records]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "logged"),
    [
        ({}, [404, 503, 201]),
        ({"requests": "all"}, [200, 404, 503, 201]),
        ({"requests": "none"}, [201]),
        ({"requests": "none", "slow": 3.0}, []),
        ({"slow": 3.0}, [404, 503]),
    ],
)
def test_which_requests_get_a_line(caplog: pytest.LogCaptureFixture, spec: dict[str, Any], logged: list[int]):
    """By default those that failed or took half a second; 201 is the slow one here."""
    done = [Finished("posterior", status, 0.01, "garden") for status in (200, 404, 503)]
    found = lines(caplog, AccessLog(LogSpec.model_validate(spec)), *done, Finished("posterior", 201, 0.7, "garden"))
    assert [line["status"] for line in found] == logged


def test_a_line_says_who_asked_what_of_whom(caplog: pytest.LogCaptureFixture):
    """Request id, model, version, arm, caller, rows and time; what is not known is left out."""
    done = Finished("predict", 200, 0.0125, "garden", 3, "challenger", "an-id", "asker", 7, "a-trace")
    (line,) = lines(caplog, AccessLog(LogSpec(requests="all")), done)
    assert line == {
        "endpoint": "predict",
        "status": 200,
        "seconds": 0.0125,
        "model": "garden",
        "version": 3,
        "arm": "challenger",
        "request_id": "an-id",
        "caller": "asker",
        "rows": 7,
        "trace": "a-trace",
    }
    (line,) = lines(caplog, AccessLog(LogSpec()), Finished("posterior", 401, 0.001))
    assert line == {"endpoint": "posterior", "status": 401, "seconds": 0.001}


def test_a_flood_of_failures_is_no_flood_of_lines(caplog: pytest.LogCaptureFixture):
    """Fifty a second; the next line says how many got none."""
    now = 0.0
    log = AccessLog(LogSpec(), lambda: now)
    flood = [Finished("posterior", 401, 0.001)] * 1000
    assert len(lines(caplog, log, *flood)) == 50
    now = 1.0
    assert lines(caplog, log, flood[0], flood[0]) == [
        {"endpoint": "posterior", "status": 401, "seconds": 0.001, "withheld": 950},
        {"endpoint": "posterior", "status": 401, "seconds": 0.001},
    ]


@pytest.mark.parametrize(("process", "quoted"), [("worker-1", False), ("follower", True)])
def test_a_worker_tells_where_it_failed_and_not_with_what(process: str, quoted: bool):
    """The text of an exception may be a value of a row; where rows are never seen, it is told."""
    try:
        {"yes": 1}[CANARY]
    except KeyError:
        record = logging.LogRecord("any", logging.ERROR, "any", 1, "it failed", None, sys.exc_info())
    line = _JsonLines(process).format(record)
    assert (CANARY in line.replace("[CANARY]", "")) == quoted
    assert json.loads(line)["error"] == "KeyError"
    assert "test_access_log.py" in json.loads(line)["exception"]


def ask_with_canaries(address: str) -> list[requests.Response]:
    """Put the canary wherever a caller may put something."""
    key = {"Authorization": f"Bearer {KEY}"}
    model = f"{address}/v1/models/garden"
    kinds = ("posterior", "predict", "explanation", "likelihood")
    bodies = [
        {"rows": [{"rain": CANARY}]},
        {"rows": [{"rain": "yes", "wet": CANARY}], "key": CANARY},
        {"rows": [{CANARY: "yes"}]},
        {"rows": [{"rain": [CANARY]}]},
        {"rows": [{"rain": "yes"}], CANARY: 1},
        {"rows": CANARY},
        {"rows": [{"rain": "yes", "gauge": 1e300}], "targets": [CANARY]},
    ]
    answers = [
        requests.post(f"{model}/{kind}", json=body, headers=key, timeout=20) for kind in kinds for body in bodies
    ]
    raw = ('{"rows":[{"rain":"' + CANARY, '{"rows":[{"rain":"' + CANARY + '","rain":"no"}]}', CANARY)
    answers += [requests.post(f"{model}/posterior", data=text, headers=key, timeout=20) for text in raw]
    feedback = {"model": "garden", "request_id": CANARY, "labels": {"rain": CANARY}}
    answers.append(requests.post(f"{address}/v1/feedback", json=feedback, headers=key, timeout=20))
    answers.append(requests.get(f"{model}?version={CANARY}", headers=key, timeout=20))
    answers.append(requests.get(f"{address}/v1/models/{CANARY}", headers=key, timeout=20))
    answers.append(requests.get(f"{address}/{CANARY}?{CANARY}", headers=key, timeout=20))
    answers.append(requests.get(f"{address}/metrics", headers={"X-API-Key": f"bnp_{CANARY}"}, timeout=20))
    answers.append(requests.get(f"{address}/metrics", headers={"X-API-Key": ASKING_KEY}, timeout=20))
    return answers


@pytest.mark.timeout(180)
def test_neither_rows_nor_keys_leave_by_logs_metrics_or_traces(tmp_path: Path):
    """A value that callers put everywhere, and the keys, are in no line, metric or span, whatever is logged."""
    lay_out(tmp_path / "cache", {1: garden()})
    with receiver() as collector:
        tracing = {"endpoint": collector.address, "share": 1.0}
        with serving(tmp_path, tmp_path / "cache", workers=1, tracing=tracing, log={"requests": "all"}) as served:
            answers = ask_with_canaries(served.address)
            metrics = served.wait_for(lambda: "node_unseen" in (text := served.metrics()) and text)
        written = served.log.read_text()
    statuses = [answer.status_code for answer in answers]
    assert {200, 401, 403, 404, 422} <= set(statuses), statuses
    assert not [status for status in statuses if status >= 500], written[-3000:]
    lines = [json.loads(line) for line in written.splitlines()]
    access = [line for line in lines if line["logger"] == "bnpipe.serving.access"]
    assert len([line for line in access if line["endpoint"] not in {"ready", "metrics"}]) == len(statuses) - 2
    named = {answer.headers["X-Request-Id"] for answer in answers if answer.status_code in {200, 422}}
    assert named <= {line.get("request_id") for line in access}
    assert {line["caller"] for line in access if "caller" in line} == {"watcher", "asker", "metrics"}
    assert 'bnpipe_requests_total{endpoint="other",model="",status="404"} 1.0' in metrics
    assert len(collector.spans()) > len(statuses)
    sent = b"".join(collector.bodies).decode("utf-8", "replace")
    for secret in (CANARY, KEY, ASKING_KEY, METRICS_KEY):
        assert secret not in written
        assert secret not in metrics
        assert secret not in sent
