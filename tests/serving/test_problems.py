"""Every error of the service is a problem document with the right status."""

from __future__ import annotations

import json

import pytest

from bnpipe import errors
from bnpipe.serving.problems import encode_problem, plain_problem, problem_of


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
