"""Traces reach through to the call of the engine, join those of the caller, and cost nothing where they are off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otlp_receiver import receiver
from pydantic import ValidationError
from watched import garden, lay_out, shelf_of

from bnpipe.answers.records import Record
from bnpipe.config.serving import ServingSpec, TracingSpec
from bnpipe.serving.access import Access
from bnpipe.serving.app import create_app
from bnpipe.serving.observing import Finished
from bnpipe.serving.routing import Canary
from bnpipe.serving.service import Service
from bnpipe.serving.tracing import OtlpTracing, Tracing, current, make_tracing, step

CALLERS_TRACE, CALLERS_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class _Log:
    """Keeps records."""

    def append(self, records: list[Record]) -> None:
        pass


class Traced:
    """An application and the spans it ended."""

    def __init__(self, cache: Path, share: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        spec = ServingSpec(tracing=TracingSpec(endpoint="http://127.0.0.1:9/v1/traces", share=share))
        self.tracing = OtlpTracing(spec.tracing, "worker-1", self.exporter)
        self.service = Service(spec, shelf_of(cache, spec), Access((), anonymous=True), _Log())
        self.app = create_app(self.service, tracing=self.tracing)

    def ask(
        self, *questions: Sequence[Mapping[str, Any]], headers: Mapping[str, str] | None = None
    ) -> Sequence[ReadableSpan]:
        """Ask for posteriors, all at once; give all spans so far."""

        async def together() -> None:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://bnpipe") as client:
                answers = await asyncio.gather(
                    *(
                        client.post("/v1/models/garden/posterior", json={"rows": rows}, headers=headers)
                        for rows in questions
                    )
                )
            assert [answer.status_code for answer in answers] == [200] * len(questions)
            await self.service.drain()

        asyncio.run(together())
        self.tracing._provider.force_flush()
        return self.exporter.get_finished_spans()


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    """A garden, every request of which is traced."""
    lay_out(tmp_path, {1: garden()})
    return Traced(tmp_path)


def roots(spans: Sequence[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.name == "posterior"]


def test_a_trace_shows_where_the_time_of_a_request_went(traced: Traced):
    """The steps lie within their request, in order, without overlap, and name what was asked but not its values."""
    spans = traced.ask([{"rain": "yes"}, {"rain": "no"}])
    (root,) = roots(spans)
    steps = sorted((span for span in spans if span is not root), key=lambda span: span.start_time or 0)
    assert [span.name for span in steps] == ["decode", "encode", "wait", "engine", "log"]
    ends = [root.start_time]
    for span in steps:
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert span.context.trace_id == root.context.trace_id
        assert ends[-1] <= span.start_time <= span.end_time
        ends.append(span.end_time)
    assert ends[-1] <= root.end_time
    assert dict(steps[3].attributes) == {"rows": 2, "questions": 1}
    about = dict(root.attributes)
    assert (about["bnpipe.model"], about["bnpipe.version"], about["bnpipe.arm"]) == ("garden", 1, "champion")
    assert (about["bnpipe.rows"], about["http.response.status_code"]) == (2, 200)
    assert about["bnpipe.request_id"]
    assert root.resource.attributes["service.name"] == "bnpipe"
    assert root.resource.attributes["service.instance.id"] == "worker-1"


def test_a_trace_goes_on_that_of_the_caller(traced: Traced):
    """`traceparent` (W3C): the span is a child of the caller's."""
    (root,) = roots(traced.ask([{}], headers={"traceparent": f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01"}))
    assert format(root.context.trace_id, "032x") == CALLERS_TRACE
    assert format(root.parent.span_id, "016x") == CALLERS_SPAN


@pytest.mark.parametrize(
    ("share", "traceparent", "spans"),
    [
        (0.0, None, 0),
        (0.0, f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-01", 1),
        (1.0, f"00-{CALLERS_TRACE}-{CALLERS_SPAN}-00", 0),
        (1.0, "00-nonsense", 1),
        (0.0, "00-nonsense", 0),
        (1.0, f"00-{'0' * 32}-{CALLERS_SPAN}-01", 1),
    ],
)
def test_who_is_traced(tmp_path: Path, share: float, traceparent: str | None, spans: int):
    """The caller decides for its own requests, the share for all others; a header that is none counts as absent."""
    lay_out(tmp_path, {1: garden()})
    found = Traced(tmp_path, share).ask([{}], headers={"traceparent": traceparent} if traceparent else None)
    assert len(roots(found)) == spans


def test_questions_answered_together_each_have_the_call(traced: Traced):
    """Two traces show one call of the engine, and that it was for two."""
    spans = traced.ask([{"rain": "yes"}], [{"rain": "no"}, {}])
    assert len({span.context.trace_id for span in roots(spans)}) == 2
    engine = [span for span in spans if span.name == "engine"]
    assert [dict(span.attributes) for span in engine] == [{"rows": 3, "questions": 2}] * 2
    assert len({span.start_time for span in engine}) <= 2


def test_a_shadow_is_no_step_of_the_request(tmp_path: Path):
    """What the challenger does unseen takes no time of the caller's, so it is not in its trace."""
    lay_out(tmp_path, {1: garden(), 2: garden(0.3)}, canary=Canary(2, 0.0, 1.0, "salt"))
    names = [span.name for span in Traced(tmp_path).ask([{"rain": "yes"}])]
    assert names.count("engine") == 1
    assert names.count("log") == 1


def test_a_failed_request_is_an_error(traced: Traced):
    """A refusal of ours (5xx) marks the span; a mistake of the caller's does not."""

    async def both() -> None:
        transport = httpx.ASGITransport(app=traced.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://bnpipe") as client:
            assert (await client.post("/v1/models/garden/posterior", json={"rows": 3})).status_code == 422
            traced.service.shelf.models = {}
            assert (await client.get("/ready")).status_code == 503

    asyncio.run(both())
    traced.tracing._provider.force_flush()
    found = {span.name: span.status.is_ok for span in traced.exporter.get_finished_spans()}
    assert found["posterior"]
    assert not found["ready"]


def test_spans_reach_a_collector(tmp_path: Path):
    """What is sent is OTLP over HTTP, and `close` sends what is left."""
    lay_out(tmp_path, {1: garden()})
    with receiver() as collector:
        tracing = make_tracing(TracingSpec(endpoint=collector.address, share=1.0), "worker-7")
        trace = tracing.begin({})
        assert trace is not None
        with step("decode"):
            pass
        tracing.end(trace, Finished("predict", 200, 0.001, "garden", 1, "champion", "an-id", "somebody", 1))
        tracing.close()
        assert sorted(collector.spans()) == ["decode", "predict"]
        assert b"worker-7" in b"".join(collector.bodies)


def test_a_collector_that_is_away_keeps_nobody_from_stopping():
    """Spans are worth less than a stop in time."""
    tracing = make_tracing(TracingSpec(endpoint="http://127.0.0.1:9/v1/traces", share=1.0), "worker-1")
    trace = tracing.begin({})
    assert trace is not None
    tracing.end(trace, Finished("predict", 200, 0.001))
    began = time.monotonic()
    tracing.close()
    assert time.monotonic() - began < 5.0


_QUIET = """
import json, sys
from bnpipe.config.serving import ServingSpec
from bnpipe.serving.app import create_app
from bnpipe.serving.tracing import make_tracing, Tracing
from bnpipe.serving import worker
assert type(make_tracing(ServingSpec().tracing, "worker-1")) is Tracing
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""


def test_nothing_of_opentelemetry_is_imported_where_it_is_off():
    """By default nothing phones anywhere: the library that could is not even there."""
    done = subprocess.run([sys.executable, "-c", _QUIET], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_request_that_is_not_traced_pays_next_to_nothing():
    """Beginning and six steps take under 20 µs of this thread; on an idle core 1 µs was measured. The best of five."""
    tracing, headers, best = Tracing(), {"host": "bnpipe"}, np.inf
    for _ in range(5):
        began = time.thread_time()
        for _ in range(1000):
            assert tracing.begin(headers) is None
            for name in ("decode", "encode", "wait", "engine", "log", "write"):
                with step(name):
                    pass
        best = min(best, (time.thread_time() - began) / 1000)
    assert current() is None
    assert best < 20e-6


@pytest.mark.parametrize("endpoint", ["localhost:4318", "http://localhost:4318", "grpc://localhost:4317/v1/traces"])
def test_an_address_without_its_path_is_refused(endpoint: str):
    """Spans sent there would be lost, with a line in the log for each batch."""
    with pytest.raises(ValidationError, match="endpoint"):
        TracingSpec(endpoint=endpoint)
