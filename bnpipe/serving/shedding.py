"""The outermost layer: who comes when too much is held is turned away at once, before anything is read."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from bnpipe.serving.observing import Observer
from bnpipe.serving.problems import MEDIA_TYPE, encode_problem, plain_problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

Headers = list[tuple[bytes, bytes]]


def _refusal(status: int, detail: str, header: tuple[bytes, bytes]) -> tuple[Headers, bytes]:
    body = encode_problem(plain_problem(status, detail))
    return [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", b"%d" % len(body)), header], body


def _written(status: int, headers: Headers, body: bytes) -> bytes:
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, HTTPStatus(status).phrase.encode(), lines, body)


_HEADERS, _BODY = _refusal(503, "too many requests are waiting; ask again in a second", (b"retry-after", b"1"))
RESPONSE: Final = _written(503, _HEADERS, _BODY)
"""The same, for who writes to the connection itself."""


def farewell(status: int, detail: str) -> bytes:
    """Write a refusal after which the connection is closed."""
    return _written(status, *_refusal(status, detail, (b"connection", b"close")))


class Shedding:
    """Counts questions under way and refuses those beyond a bound.

    Parameters
    ----------
    app : ASGI application
    most : int
        Questions (POST) held at once.
    observer : Observer
    """

    def __init__(self, app: Asgi, most: int, observer: Observer) -> None:
        self.app, self.most, self.observer = app, most, observer
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if self.held >= self.most:
            self.observer.shed()
            await send({"type": "http.response.start", "status": 503, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})
            return
        self.held += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.held -= 1
