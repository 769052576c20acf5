"""Every error of the service is a problem document with the right status."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving_bench import Kept, make_service, over_http, send

from bnpipe import errors
from bnpipe.serving.access import hash_key
from bnpipe.serving.observing import Finished
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


def test_where_the_log_lies_is_not_told() -> None:
    """Callers are told why, and no paths of the server."""
    told = [
        problem_of(errors.JournalError(text))[0].detail
        for text in (
            "/srv/secret place/answers/journal: no journal can be begun here: Permission denied",
            "/srv/secret",
        )
    ]
    assert told[0] == "no journal can be begun here: Permission denied"
    assert "secret" not in told[1]


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


def test_a_line_says_why(tmp_path: Path) -> None:
    """The class of the error; where the service failed the reason, too, which may hold paths: callers are not told."""
    log, told = Kept(), list[Finished]()
    service = make_service(tmp_path, log=log)

    def status(path: str, **request: Any) -> int:
        async def use(client: httpx.AsyncClient) -> httpx.Response:
            return await client.post(path, **request)

        found: httpx.Response = over_http(service, use, access_log=told.append)
        assert "space" not in found.text
        return found.status_code

    question = {"json": {"rows": [{"rain": "yes"}]}}
    assert status("/v1/models/flights/posterior", **question) == 200
    log.full = True
    assert status("/v1/models/flights/posterior", **question) == 503
    assert status("/v1/models/flights/posterior", json={"rows": [{"rain": "hail", "gate": 1}]}) == 422
    assert status("/v1/models/trains/posterior", **question) == 404
    assert status("/v1/nowhere", **question) == 404
    assert [(done.error, done.reason) for done in told] == [
        ("", ""),
        ("JournalError", "no space left on device"),
        ("QuestionError", ""),
        ("NotServed", ""),
        ("HTTPException", ""),
    ]


@pytest.mark.parametrize("path", ["/v1/models/flights/posterior", "/invocations", "/v1/feedback"])
def test_a_packed_body_is_refused_as_such(tmp_path: Path, path: str) -> None:
    """415, not JSON that can't be read."""
    service = make_service(tmp_path, log=Kept())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    found = send(service, "POST", path, content=gzip.compress(b'{"rows": [{}]}'), headers=headers)
    assert found.status_code == 415
    assert found.json()["detail"].startswith("Content-Encoding: got 'gzip'")
    plain = {"content-type": "application/json", "content-encoding": "identity"}
    assert send(service, "POST", path, content=b"{}", headers=plain).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("POST", "/v1/models/flights/posterior?versoin=1", "'versoin' is known here, did you mean 'version'?"),
        ("POST", "/invocations?v=1", "'v' is known here; there is version"),
        ("POST", "/v1/models/flights/posterior?version=1&version=1", "version: given twice"),
        ("POST", "/v1/models/flights/posterior?version=", "version: got ''"),
        ("GET", "/v1/models/flights?versoin=1", "did you mean 'version'?"),
        ("GET", "/v1/models?version=1", "there is none"),
        ("POST", "/v1/feedback?version=1", "there is none"),
    ],
)
def test_parameters_that_say_nothing_are_refused(tmp_path: Path, method: str, path: str, says: str) -> None:
    """Who misspells `version` must not be answered by the champion."""
    found = send(make_service(tmp_path, log=Kept()), method, path, json={"rows": [{}]})
    assert found.status_code == 422
    assert says in found.json()["detail"]


def test_probes_may_bring_parameters(tmp_path: Path) -> None:
    """Some put a number into the address so that nobody answers from memory."""
    service = make_service(tmp_path)
    assert [send(service, "GET", f"/{path}?_=1").status_code for path in ("health", "ready", "ping")] == [200] * 3
