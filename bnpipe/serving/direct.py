"""The short way to the questions: by their path alone, past the layers of the framework.

FastAPI's routing, its stack of exits and its solving of dependencies take longer than a question does, and a question
needs none of them. It still describes the routes, and serves everything else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request, Response

from bnpipe.serving.shedding import Asgi, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Direct:
    """Calls the handlers of ``POST /v1/models/NAME/KIND``; all other requests go to the application.

    Parameters
    ----------
    app : ASGI application
    handlers : mapping of str to callable
        By KIND; the same that `app` would call. They raise nothing.
    """

    def __init__(self, app: Asgi, handlers: Mapping[str, Handler]) -> None:
        self.app, self.handlers = app, handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection's event."""
        if scope["type"] == "http" and scope["method"] == "POST":
            match scope["path"].split("/"):
                case ["", "v1", "models", name, kind] if name and kind in self.handlers:
                    scope["path_params"] = {"name": name}
                    response = await self.handlers[kind](Request(scope, receive))
                    await response(scope, receive, send)
                    return
        await self.app(scope, receive, send)
