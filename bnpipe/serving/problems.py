"""Errors as problem documents (RFC 9457): what was received, what is allowed; never a row's values in a log line."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import msgspec

from bnpipe.errors import (
    AccessDenied,
    BnpipeError,
    DeadlineExceeded,
    JournalError,
    NotServed,
    QuestionError,
    ServiceBusy,
    SlowBody,
    WrongMediaType,
)

MEDIA_TYPE: Final = "application/problem+json"
Headers = dict[str, str]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document.

    Parameters
    ----------
    title : str
        What kind of thing went wrong, the same each time.
    status : int
    detail : str
        This time: the variable, what was received, what is allowed.
    type : str
    at : str
        Path of the part of the body that is meant.
    """

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    at: str = ""


_TITLES: Final[dict[type[BnpipeError], tuple[str, HTTPStatus]]] = {
    WrongMediaType: ("Not read here", HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    SlowBody: ("Too slow", HTTPStatus.REQUEST_TIMEOUT),
    NotServed: ("Not served here", HTTPStatus.NOT_FOUND),
    ServiceBusy: ("Busy", HTTPStatus.SERVICE_UNAVAILABLE),
    DeadlineExceeded: ("Too late", HTTPStatus.GATEWAY_TIMEOUT),
    JournalError: ("Not answered, since it could not be logged", HTTPStatus.SERVICE_UNAVAILABLE),
}


def problem_of(error: Exception) -> tuple[Problem, Headers]:
    """Say an error as a problem document, with the headers that belong to it."""
    if isinstance(error, QuestionError):
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if error.too_large else HTTPStatus.UNPROCESSABLE_ENTITY
        return Problem("The question can't be answered", status, str(error), at=error.at), {}
    if isinstance(error, AccessDenied):
        if error.known:
            return Problem("Not allowed", HTTPStatus.FORBIDDEN, str(error)), {}
        return Problem("Who are you?", HTTPStatus.UNAUTHORIZED, str(error)), {"WWW-Authenticate": "Bearer"}
    for kind, (title, status) in _TITLES.items():
        if isinstance(error, kind):
            detail = _without_path(str(error)) if kind is JournalError else str(error)
            return Problem(title, status, detail), _retry_after(error)
    detail = str(error) if isinstance(error, BnpipeError) else "an error in the service; its log says more"
    return Problem("Failed", HTTPStatus.INTERNAL_SERVER_ERROR, detail), {}


def _without_path(text: str) -> str:
    """Leave out where the log of answers lies, which such errors begin with: that is nothing for callers."""
    return text.partition(": ")[2] or "it could not be logged; the service's log says why"


def _retry_after(error: Exception) -> Headers:
    if isinstance(error, ServiceBusy):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    return {"Retry-After": "5"} if isinstance(error, JournalError) else {}


def plain_problem(status: int, detail: str) -> Problem:
    """Say a refusal of the HTTP layer as a problem document."""
    return Problem(HTTPStatus(status).phrase, status, detail)


def encode_problem(problem: Problem) -> bytes:
    """Write a problem document."""
    return msgspec.json.encode(problem)
