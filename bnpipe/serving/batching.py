"""Concurrent questions of one kind to one version are one call of the engine.

A lone question never waits: what is asked in the same turn of the event loop goes together, and only while others are
under way may it wait for company (`BatchSpec.wait`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from bnpipe.config.serving import BatchSpec
from bnpipe.errors import DeadlineExceeded
from bnpipe.serving.answering import Options, answer, cells_touched
from bnpipe.serving.cells import Codes
from bnpipe.serving.questions import Kind
from bnpipe.serving.tracing import Trace, current
from bnpipe.serving.versions import ServedVersion

Answers = list[dict[str, Any]]
Ask = Callable[[ServedVersion, Kind, Options, Codes], Answers]

_INLINE_CELLS: Final = 8_000_000.0
"""Cells of messages up to which a call runs on the event loop: three milliseconds at most, about what decoding a
thousand rows takes; longer ones go to a thread."""
_PART_CELLS: Final = 1e8
"""Cells up to which one call goes; more rows are asked in parts, between which the deadline is looked at."""
_THREADS: Final = 2
"""Long calls at once; others wait, while short ones go on."""


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One call of the engine, as it went.

    Parameters
    ----------
    version : ServedVersion
    kind : str
    rows, questions : int
        How many rows, of how many requests.
    seconds : float
    error : Exception, optional
    """

    version: ServedVersion
    kind: Kind
    rows: int
    questions: int
    seconds: float
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Batched:
    """A question's answers, and the call they came from; of one that was made in parts the sum of them."""

    answers: Answers
    call: EngineCall


@dataclass(slots=True)
class _Waiting:
    codes: Codes
    deadline: float
    answer: asyncio.Future[Batched]
    trace: Trace | None
    since: float


@dataclass(slots=True)
class _Group:
    version: ServedVersion
    kind: Kind
    options: Options
    waiting: list[_Waiting] = field(default_factory=list)
    rows: int = 0


def ask_engine(version: ServedVersion, kind: Kind, options: Options, codes: Codes) -> Answers:
    """Ask a version's engine."""
    return answer(version.engine, kind, options, codes)


class Batcher:
    """Gathers questions; belongs to one event loop.

    Parameters
    ----------
    spec : BatchSpec
    ask : callable
        What answers a batch.
    on_batch : callable, optional
        Told of each call; perhaps by another thread.
    """

    def __init__(
        self,
        spec: BatchSpec,
        ask: Ask = ask_engine,
        on_batch: Callable[[EngineCall], None] | None = None,
    ) -> None:
        self.spec, self.ask, self.on_batch = spec, ask, on_batch
        self._groups: dict[tuple[int, Kind, Options], _Group] = {}
        self._running = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="engine")

    async def submit(
        self, version: ServedVersion, kind: Kind, options: Options, codes: Codes, *, deadline: float
    ) -> Batched:
        """Answer encoded rows.

        Parameters
        ----------
        version, kind, options, codes
        deadline : float
            On the clock of ``time.monotonic``.

        Raises
        ------
        DeadlineExceeded
            Its turn came too late, or it took too long.
        """
        loop = asyncio.get_running_loop()
        one = _Waiting(codes, deadline, loop.create_future(), current(), time.perf_counter())
        # A batch by itself: others need not wait for it; and the last bits of intervals depend on the rows together.
        if codes.shape[1] >= self.spec.rows or options.interval is not None:
            self._flush(None, _Group(version, kind, options, [one]))
            return await one.answer
        key = (id(version), kind, options)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(version, kind, options)
            if self.spec.wait and self._running:
                loop.call_later(self.spec.wait, self._flush, key, group)
            else:
                loop.call_soon(self._flush, key, group)
        group.waiting.append(one)
        group.rows += codes.shape[1]
        if group.rows >= self.spec.rows:
            self._flush(key, group)
        return await one.answer

    def close(self) -> None:
        """Let no more calls begin."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _flush(self, key: tuple[int, Kind, Options] | None, group: _Group) -> None:
        if key is not None and self._groups.get(key) is group:
            del self._groups[key]
        waiting, group.waiting = group.waiting, []
        now, live = time.monotonic(), []
        for one in waiting:
            if one.answer.done():  # the caller has gone
                continue
            if one.deadline <= now:
                one.answer.set_exception(DeadlineExceeded("the deadline passed before its turn came; ask again later"))
            else:
                live.append(one)
        if not live:
            return
        codes = live[0].codes if len(live) == 1 else np.concatenate([one.codes for one in live], axis=1)
        cells = cells_touched(group.version.engine, group.kind, group.options, codes)
        if cells <= _INLINE_CELLS:
            self._deliver(live, *self._call(group, codes, live))
        else:
            self._begin(group, codes, live, cells)

    def _begin(self, group: _Group, codes: Codes, live: list[_Waiting], cells: float) -> None:
        """Answer in a thread; whoever's deadline passes meanwhile is told so then."""
        loop, now, rows = asyncio.get_running_loop(), time.monotonic(), codes.shape[1]
        for one in live:
            timer = loop.call_later(max(0.0, one.deadline - now), _expire, one.answer)
            one.answer.add_done_callback(lambda _, timer=timer: timer.cancel())  # type: ignore[misc]
        step = max(1, min(self.spec.rows, int(_PART_CELLS * rows / cells)))
        parts = [codes[:, first : first + step] for first in range(0, rows, step)]
        self._running += 1
        task = loop.run_in_executor(self._threads, self._call_parts, group, parts, live)
        task.add_done_callback(lambda done: self._done(live, done))

    def _done(self, live: list[_Waiting], task: asyncio.Future[tuple[Answers, EngineCall]]) -> None:
        self._running -= 1
        if not task.cancelled():
            self._deliver(live, *task.result())

    def _call_parts(self, group: _Group, parts: list[Codes], live: list[_Waiting]) -> tuple[Answers, EngineCall]:
        answers: Answers = []
        whole = EngineCall(group.version, group.kind, 0, len(live), 0.0, None)
        for part in parts:
            if all(one.answer.done() for one in live):  # nobody waits any more
                return [], replace(whole, error=DeadlineExceeded("it took too long"))
            found, call = self._call(group, part, live)
            if call.error is not None:
                return [], call
            answers += found
            whole = replace(whole, rows=whole.rows + call.rows, seconds=whole.seconds + call.seconds)
        return answers, whole

    def _call(self, group: _Group, codes: Codes, live: list[_Waiting]) -> tuple[Answers, EngineCall]:
        began, error, answers = time.perf_counter(), None, []
        try:
            answers = self.ask(group.version, group.kind, group.options, codes)
        except Exception as caught:  # noqa: BLE001  handed to every waiting request
            error = caught
        ended, rows = time.perf_counter(), codes.shape[1]
        for one in live:
            if one.trace is not None:
                one.trace.add("wait", one.since, began)
                one.trace.add("engine", began, ended, rows=rows, questions=len(live))
        call = EngineCall(group.version, group.kind, rows, len(live), ended - began, error)
        if self.on_batch is not None:
            self.on_batch(call)
        return answers, call

    @staticmethod
    def _deliver(live: list[_Waiting], answers: Answers, call: EngineCall) -> None:
        place = 0
        for one in live:
            rows = one.codes.shape[1]
            if not one.answer.done():
                if call.error is not None:
                    one.answer.set_exception(call.error)
                else:
                    one.answer.set_result(Batched(answers[place : place + rows], call))
            place += rows


def _expire(answer: asyncio.Future[Batched]) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded("it took longer than the deadline; ask for less, or in parts"))
