"""OpenTelemetry traces of a share of the requests, through to the call of the engine.

The steps of a traced request are noted with two readings of the clock each and become spans when it has ended. Without
an endpoint nothing of OpenTelemetry is imported, and a step costs a look at a context variable.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Final

import bnpipe
from bnpipe.config.serving import TracingSpec

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from bnpipe.serving.observing import Finished

Attribute = str | int | float | bool

_PATIENCE: Final = 2.0
"""Seconds for sending one batch, repetitions included: a stop may have to wait so long."""
_NOTHING: Final = nullcontext()
_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class Trace:
    """The steps of one request."""

    __slots__ = ("began", "epoch", "id", "span", "steps")

    def __init__(self, span: Span) -> None:
        self.span, self.id = span, format(span.get_span_context().trace_id, "032x")
        self.epoch, self.began = time.time_ns(), time.perf_counter()
        self.steps: list[tuple[str, float, float, Mapping[str, Attribute]]] = []

    def add(self, name: str, began: float, ended: float, **attributes: Attribute) -> None:
        """Note a step; its times are ``time.perf_counter``'s."""
        self.steps.append((name, began, ended, attributes))

    def at(self, moment: float) -> int:
        """Give a moment in nanoseconds of the epoch."""
        return self.epoch + int((moment - self.began) * 1e9)


class _Step:
    """A step while it lasts."""

    __slots__ = ("began", "name", "trace")

    def __init__(self, trace: Trace, name: str) -> None:
        self.trace, self.name, self.began = trace, name, 0.0

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.trace.add(self.name, self.began, time.perf_counter())


def current() -> Trace | None:
    """Give the trace of the request that is being answered, if it has one."""
    return _current.get()


def step(name: str) -> AbstractContextManager[None]:
    """Make a step of the request that is being answered, if it is traced."""
    trace = _current.get()
    return _NOTHING if trace is None else _Step(trace, name)


def leave() -> None:
    """Go on outside the request: what a task does that outlives it is none of its steps."""
    _current.set(None)


class Tracing:
    """Begins and ends traces; this one never does."""

    def begin(self, headers: Mapping[str, str]) -> Trace | None:
        """Begin the trace of a request, if it is to have one."""
        return None

    def end(self, trace: Trace, done: Finished) -> None:
        """End the trace of a request."""

    def close(self) -> None:
        """Send what is left."""


class OtlpTracing(Tracing):
    """Sends spans to a collector, in a thread of its own; what the collector does not take in time is dropped.

    A request that comes with a ``traceparent`` is traced if its caller traces it, any other with probability `share`.

    Parameters
    ----------
    spec : TracingSpec
    process : str
        Such as ``worker-1``.
    exporter : SpanExporter, optional
        Where spans go instead of `spec.endpoint`.
    """

    def __init__(self, spec: TracingSpec, process: str, exporter: SpanExporter | None = None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        about = {"service.name": "bnpipe", "service.version": bnpipe.__version__, "service.instance.id": process}
        self._provider = TracerProvider(ALWAYS_ON, Resource.create(about), shutdown_on_exit=False)
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter or OTLPSpanExporter(spec.endpoint, timeout=_PATIENCE))
        )
        self._tracer = self._provider.get_tracer("bnpipe.serving", bnpipe.__version__)
        self._share, self._propagator = spec.share, TraceContextTextMapPropagator()

    def begin(self, headers: Mapping[str, str]) -> Trace | None:
        """Begin the trace of a request, if it is to have one."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, get_current_span

        context = Context()
        if "traceparent" in headers:
            context = self._propagator.extract(headers, context)
        caller = get_current_span(context).get_span_context()
        if not (caller.trace_flags.sampled if caller.is_valid else random.random() < self._share):
            return None
        trace = Trace(self._tracer.start_span("request", context, SpanKind.SERVER))
        _current.set(trace)
        return trace

    def end(self, trace: Trace, done: Finished) -> None:
        """End the trace of a request: its steps become spans."""
        from opentelemetry.trace import StatusCode, set_span_in_context

        leave()
        ended, inside, span = time.perf_counter(), set_span_in_context(trace.span), trace.span
        for name, began, until, attributes in trace.steps:
            part = self._tracer.start_span(name, inside, attributes=attributes, start_time=trace.at(began))
            part.end(trace.at(until))
        span.update_name(done.endpoint)
        span.set_attributes(
            {
                "http.response.status_code": done.status,
                "bnpipe.request_id": done.request_id,
                "bnpipe.model": done.model,
                "bnpipe.version": done.version,
                "bnpipe.arm": done.arm,
                "bnpipe.rows": done.rows,
                "bnpipe.caller": done.caller,
            }
        )
        if done.status >= 500:
            span.set_status(StatusCode.ERROR)
        span.end(trace.at(ended))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def make_tracing(spec: TracingSpec, process: str) -> Tracing:
    """Trace as the serving file says."""
    return Tracing() if spec.endpoint is None else OtlpTracing(spec, process)
