"""The service over HTTP: routes, limits of bodies, problem documents. What is asked is `service`'s business."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bnpipe.answers.records import new_request_id
from bnpipe.config.scalars import did_you_mean
from bnpipe.errors import (
    AccessDenied,
    BnpipeError,
    JournalError,
    QuestionError,
    ServiceBusy,
    ServiceError,
    SlowBody,
    WrongMediaType,
    shorten,
)
from bnpipe.serving import descriptions
from bnpipe.serving.access import ANONYMOUS, Caller, check_local
from bnpipe.serving.direct import Direct, Handler
from bnpipe.serving.invocations import media_type
from bnpipe.serving.observing import Finished
from bnpipe.serving.overview import describe_health, describe_idle, describe_model, describe_models, only_model
from bnpipe.serving.problems import MEDIA_TYPE, encode_problem, plain_problem, problem_of
from bnpipe.serving.questions import KINDS, Kind
from bnpipe.serving.service import Reply, Service, where_failed
from bnpipe.serving.shedding import Shedding
from bnpipe.serving.tracing import Tracing

_JSON: Final = "application/json"
_ID: Final = "X-Request-Id"
_TOLD: Final = (ServiceError, JournalError)
"""Errors whose texts hold nothing of a row when they are the service's own doing."""
_TEXT: Final = "text/plain; charset=utf-8"
_MLFLOW: Final = metadata.version("mlflow-skinny")

_log = logging.getLogger(__name__)


def create_app(
    service: Service,
    *,
    metrics: Callable[[], bytes] | None = None,
    tracing: Tracing | None = None,
    access_log: Callable[[Finished], None] | None = None,
) -> Shedding:
    """Make the ASGI application of one worker.

    Parameters
    ----------
    service : Service
    metrics : callable, optional
        Gives the text for ``/metrics``; called in a thread.
    tracing : Tracing, optional
    access_log : callable, optional
        Told of every request.
    """
    routes = _Routes(service, metrics, tracing or Tracing(), access_log)
    return Shedding(Direct(routes.app, routes.questions), service.spec.limits.waiting, service.observer)


class _Routes:
    """The routes of one service."""

    def __init__(
        self,
        service: Service,
        metrics: Callable[[], bytes] | None,
        tracing: Tracing,
        access_log: Callable[[Finished], None] | None,
    ) -> None:
        self.service, self.metrics, self.tracing, self.access_log = service, metrics, tracing, access_log
        self._aside = ThreadPoolExecutor(1, "aside")  # long questions may keep all other threads busy
        self.app = FastAPI(
            title="bnpipe",
            version="1",
            lifespan=self._lifespan,
            docs_url=None,  # its pages load scripts from elsewhere
            redoc_url=None,
            openapi_url="/v1/openapi.json",
            redirect_slashes=False,
        )
        document = descriptions.document(anonymous=service.spec.open_to_all)
        self.app.openapi = lambda: document
        self.questions: dict[str, Handler] = {}
        for kind in KINDS:
            self.questions[kind] = self._route("POST", f"/v1/models/{{name}}/{kind}", self._asking(kind))
        self.questions["invocations"] = self._route("POST", "/v1/models/{name}/invocations", self._invocations)
        self._route("POST", "/invocations", self._invocations)
        self._route("POST", "/v1/feedback", self._feedback)
        self._route("GET", "/v1/models", self._models)
        self._route("GET", "/v1/models/{name}", self._model)
        self._route("GET", "/health", self._health)
        self._route("GET", "/ready", self._ready)
        self._route("GET", "/ping", self._ping)
        self._route("GET", "/version", self._protocol)
        self._route("GET", "/metrics", self._metrics)
        self.app.add_exception_handler(HTTPException, self._refused)

    def _route(self, method: str, path: str, handler: Handler) -> Handler:
        guarded = self._guarded(path, handler)
        # HEAD for load balancers that ask so; the server leaves the body out
        self.app.add_api_route(path, guarded, methods=[method, "HEAD"] if method == "GET" else [method])
        return guarded

    def _guarded(self, path: str, handler: Handler) -> Handler:
        """Turn what a handler raises into a problem document, and tell the observer."""
        endpoint = path.rpartition("/")[2] if not path.endswith("}") else "model"

        async def guarded(request: Request) -> Response:
            arrived = time.monotonic()
            request.state.arrived = arrived
            trace = self.tracing.begin(request.headers)
            name = request.path_params.get("name", "")
            failed: Exception | None = None
            try:
                response = await handler(request)
            except asyncio.CancelledError:  # by the server, whose time to drain is over
                failed = ServiceBusy("the service stops; ask again", retry_after=1.0)
            except Exception as error:  # noqa: BLE001  told as a problem document
                failed = error
            if failed is not None:
                response = self._problem(failed, name)
            reply: Reply | None = getattr(request.state, "reply", None)
            done = Finished(
                endpoint=endpoint,
                status=response.status_code,
                seconds=time.monotonic() - arrived,
                model=name if name in self.service.shelf.models else "",
                version=reply.version if reply else 0,
                arm=reply.arm if reply else "",
                request_id=response.headers.get("x-request-id", ""),
                caller=getattr(request.state, "caller", ""),
                rows=reply.rows if reply else 0,
                trace=trace.id if trace else "",
                error=type(failed).__name__ if failed is not None else "",
                reason=str(failed) if response.status_code >= 500 and isinstance(failed, _TOLD) else "",
            )
            self._tell(done)
            if trace is not None:
                self.tracing.end(trace, done)
            return response

        return guarded

    def _tell(self, done: Finished) -> None:
        self.service.observer.request(done)
        if self.access_log is not None:
            self.access_log(done)

    def _problem(self, error: Exception, name: str) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)
        request_id = new_request_id(datetime.now(UTC))
        known = name if name in self.service.shelf.models else ""
        self.service.observer.error(kind=type(error).__name__, model=known)
        if not isinstance(error, BnpipeError):
            where = {"fields": {"request_id": request_id}}
            _log.error("a request to %s failed: %s", known or "no model", where_failed(error), extra=where)
        problem, headers = problem_of(error)
        return Response(encode_problem(problem), problem.status, {**headers, _ID: request_id}, MEDIA_TYPE)

    async def _refused(self, _: Request, error: HTTPException) -> Response:
        """Refuse what no route takes."""
        problem = plain_problem(error.status_code, str(error.detail))
        self._tell(Finished("other", problem.status, 0.0, error=type(error).__name__))
        return Response(encode_problem(problem), problem.status, dict(error.headers or {}), MEDIA_TYPE)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        yield
        await self.service.drain()
        await asyncio.get_running_loop().run_in_executor(self._aside, self.tracing.close)
        self._aside.shutdown()

    def _caller(self, request: Request) -> Caller:
        headers = request.headers
        caller = self.service.access.caller(headers.get("authorization"), headers.get("x-api-key"))
        if caller is ANONYMOUS and self.service.spec.anonymous is None:
            check_local(headers.raw)
        request.state.caller = caller.name
        return caller

    async def _body(self, request: Request) -> bytes:
        """Read a body, no further than is allowed."""
        coding = request.headers.get("content-encoding", "identity").strip().lower()
        if coding != "identity":
            raise WrongMediaType(f"Content-Encoding: got {coding[:20]!r}; send the body as it is, without one")
        most = self.service.spec.limits.body
        declared = request.headers.get("content-length", "0")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > most):
            raise QuestionError(f"the body has {declared[:20]} bytes, {most} are allowed", too_large=True)
        chunks, read = [], 0
        try:
            async with asyncio.timeout(self.service.spec.limits.deadline):
                async for chunk in request.stream():
                    chunks.append(chunk)
                    read += len(chunk)
                    if read > most:
                        raise QuestionError(f"the body has more than the {most} bytes allowed", too_large=True)
        except TimeoutError:
            raise SlowBody(
                f"the body did not come within the {self.service.spec.limits.deadline:g} seconds allowed"
            ) from None
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    # -- questions

    def _asking(self, kind: Kind) -> Handler:
        async def handler(request: Request) -> Response:
            caller = self._caller(request)
            _check_json(request)
            reply = await self.service.ask(
                kind,
                request.path_params["name"],
                await self._body(request),
                caller,
                version=_version(request),
                arrived=request.state.arrived,
            )
            return _answer(request, reply)

        return handler

    async def _invocations(self, request: Request) -> Response:
        caller = self._caller(request)
        media = media_type(request.headers.get("content-type"))
        reply = await self.service.invoke(
            request.path_params.get("name") or only_model(self.service, caller),
            await self._body(request),
            media,
            caller,
            version=_version(request),
            arrived=request.state.arrived,
        )
        response = _answer(request, reply)
        response.headers["X-Model-Version"] = str(reply.version)
        return response

    async def _feedback(self, request: Request) -> Response:
        caller = self._caller(request)
        _check_json(request)
        _parameters(request)
        kept = self.service.feedback(await self._body(request), caller)
        return _json({"kept": kept}, status=202)

    # -- what is there

    async def _models(self, request: Request) -> Response:
        caller = self._caller(request)
        _parameters(request)
        return _json(describe_models(self.service, caller))

    async def _model(self, request: Request) -> Response:
        caller, name = self._caller(request), request.path_params["name"]
        caller.check("ask", name)
        number = _version(request)
        return _json(describe_model(self.service.shelf.model(name), self.service, caller, number))

    async def _health(self, request: Request) -> Response:
        try:
            caller = self._caller(request)
        except AccessDenied:  # whoever balances load has no key
            return _json({"status": "ok"})
        return _json(describe_health(self.service, caller))

    async def _ready(self, request: Request) -> Response:
        if self.service.shelf.ready:
            return _json({"ready": True})
        why = "no model answers yet"
        with suppress(AccessDenied):  # names of models are for who may ask them
            caller = self._caller(request)
            why = f"{why}: {describe_idle(self.service, caller)}"
        raise ServiceBusy(why, retry_after=2.0)

    async def _ping(self, request: Request) -> Response:
        """MLflow's name of readiness."""
        await self._ready(request)
        return Response("\n", media_type=_TEXT)

    async def _protocol(self, _: Request) -> Response:
        """Tell the version of MLflow whose protocol this is, as its own servers do."""
        return Response(_MLFLOW, media_type=_TEXT)

    async def _metrics(self, request: Request) -> Response:
        self._caller(request).check("operate")
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(self._aside, self.metrics) if self.metrics else b""
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _check_json(request: Request) -> None:
    """Refuse another type of body: a page in somebody's browser may send those to a local address unasked."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongMediaType(f"Content-Type: {_JSON} is needed")


def _answer(request: Request, reply: Reply) -> Response:
    request.state.reply = reply
    return Response(reply.body, headers={_ID: reply.request_id}, media_type=_JSON)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=_JSON)


def _parameters(request: Request, *known: str) -> dict[str, str]:
    """Give the query's parameters; one that is misspelt would be passed over, and answered as if it were not there.

    Raises
    ------
    QuestionError
    """
    if not request.scope.get("query_string"):
        return {}
    given = request.query_params.multi_items()
    for name, _ in given:
        if name not in known:
            hint = did_you_mean(name[:60], known) or f"; there is {shorten(known) or 'none'}"
            raise QuestionError(f"no parameter {name[:60]!r} is known here{hint}", at=f"?{name[:60]}")
    if len(given) > 1:
        raise QuestionError("version: given twice", at="version")
    return dict(given)


def _version(request: Request) -> int | None:
    text = _parameters(request, "version").get("version")
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10:
        raise QuestionError(f"version: got {text[:20]!r}; a number is needed, as in ?version=3", at="version")
    return int(text)
