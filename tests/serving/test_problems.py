"""Every error of the service is a problem document with the right status."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from serving_bench import make_service, send

from bnpipe import errors
from bnpipe.serving.access import hash_key
from bnpipe.serving.problems import encode_problem, plain_problem, problem_of
from bnpipe.serving.situation import ModelSituation, Situation, write_situation


@pytest.mark.parametrize(
    ("error", "status", "headers"),
    [
        (errors.QuestionError("no"), 422, {}),
        (errors.QuestionError("no", too_large=True), 413, {}),
        (errors.AccessDenied("no", known=True), 403, {}),
        (errors.AccessDenied("no", known=False), 401, {"WWW-Authenticate": "Bearer"}),
        (errors.NotServed("no"), 404, {}),
        (errors.WrongMediaType("no"), 415, {}),
        (errors.SlowBody("no"), 408, {}),
        (errors.ServiceBusy("no", retry_after=2.1), 503, {"Retry-After": "3"}),
        (errors.ServiceBusy("no", retry_after=0.0), 503, {"Retry-After": "1"}),
        (errors.DeadlineExceeded("no"), 504, {}),
        (errors.JournalError("no"), 503, {"Retry-After": "5"}),
        (errors.EvidenceError("no"), 500, {}),
        (ValueError("secret"), 500, {}),
    ],
)
def test_statuses(error: Exception, status: int, headers: dict[str, str]) -> None:
    """As RFC 9110 has them, with the headers that belong to them."""
    problem, found = problem_of(error)
    assert problem.status == status
    assert found == headers
    document = json.loads(encode_problem(problem))
    assert document["status"] == status
    assert "secret" not in document["detail"]


def test_no_error_of_the_service_is_left_out() -> None:
    """A new one must be given its status here."""
    for name in vars(errors).values():
        if isinstance(name, type) and issubclass(name, errors.ServiceError) and name is not errors.ServiceError:
            one = name("no", known=True) if name is errors.AccessDenied else name("no")
            assert problem_of(one)[0].status != 500, name


def test_what_is_empty_is_left_out() -> None:
    """A short document."""
    assert json.loads(encode_problem(plain_problem(404, "gone"))) == {
        "title": "Not Found",
        "status": 404,
        "detail": "gone",
    }


def test_who_is_not_ready_says_why(tmp_path: Path) -> None:
    """Models and reasons to who may ask them, nothing of them to others; one that is misspelt is told of everywhere."""
    clients = [{"name": "desk", "key_sha256": hash_key("k"), "models": ["flights"]}]
    guarded: dict[str, Any] = {"host": "0.0.0.0", "clients": clients}
    for more, told in ({}, True), (guarded, False):
        service = make_service(tmp_path, models={"flights": {}, "flihgts": {}}, **more)
        write_situation(tmp_path, Situation(datetime.now(UTC), {"flights": ModelSituation()}))
        assert service.shelf.refresh()
        for path in ("/ready", "/ping"):
            found = send(service, "GET", path)
            assert found.status_code == 503
            assert ("flights: no version is champion in the registry" in found.json()["detail"]) is told
            assert ("flihgts: the registry has no such model" in found.json()["detail"]) is told
        if told:
            assert "flihgts" in send(service, "GET", "/health").json()["warnings"][0]
            models = {model["name"]: model for model in send(service, "GET", "/v1/models").json()["models"]}
            assert "no such model" in models["flihgts"]["faults"]["model"]
        else:
            with_key = send(service, "GET", "/ready", headers={"x-api-key": "k"}).json()["detail"]
            assert "flights" in with_key
            assert "flihgts" not in with_key
