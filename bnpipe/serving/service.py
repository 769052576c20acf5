"""The service of one worker, without HTTP: who asks what of which version, and the way of an answer.

The way: access, decoding, choice of the version (pin, canary), codes, remembered answers, breaker, batch, log, reply.
An answer leaves only after it is logged; one that comes from elsewhere than the version chosen says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from bnpipe.answers.records import AnswerRecord, Arm, FeedbackRecord, Record, evidence_hash, new_request_id
from bnpipe.config.serving import ServingSpec
from bnpipe.errors import BnpipeError, DeadlineExceeded, QuestionError, ServiceBusy
from bnpipe.schema import state_name
from bnpipe.serving.access import Access, Caller
from bnpipe.serving.answering import Options, check_options, encode_answers, with_unseen
from bnpipe.serving.batching import Answers, Batched, Batcher, EngineCall
from bnpipe.serving.breaker import Breaker
from bnpipe.serving.cells import CellEncoder, Codes, Encoded, Row
from bnpipe.serving.invocations import CSV, read_csv, read_invocation
from bnpipe.serving.observing import Observer
from bnpipe.serving.questions import Kind, Question, read_feedback, read_question, table_reader
from bnpipe.serving.remembering import AnswerCache
from bnpipe.serving.routing import is_shadowed
from bnpipe.serving.rules import (
    check_answered,
    check_cost,
    check_evidence,
    check_labels,
    choose_version,
    make_options,
    marginal_answers,
    reply_body,
    total_variation,
)
from bnpipe.serving.shelf import ServedModel, Shelf
from bnpipe.serving.table import Table
from bnpipe.serving.tracing import leave, step
from bnpipe.serving.versions import ServedVersion

_REMEMBERED_ROWS: Final = 16
"""Questions of more rows are not worth remembering whole."""
_PART: Final = 1024
"""Rows that are encoded or written in one go."""
_SHADOWS: Final = 32
"""Shadow questions under way at most; the real ones come first."""

_log = logging.getLogger(__name__)


class AnswerLog(Protocol):
    """Where records go before answers leave."""

    def append(self, records: list[Record]) -> None:
        """Keep records, or raise JournalError."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A JSON body, and where it came from."""

    body: bytes
    request_id: str
    version: int = 0
    arm: str = ""
    rows: int = 0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question on its way."""

    id: str
    kind: Kind
    question: Question
    caller: Caller
    model: ServedModel
    version: ServedVersion
    arm: Arm
    options: Options
    encoded: Encoded
    key: str
    deadline: float


@dataclass(frozen=True, slots=True)
class _Answered:
    """Answers, and the version that gave them, or whose marginals they are.

    Parameters
    ----------
    call : EngineCall or None
        What it came from; None: it was remembered, or no engine was asked.
    failed : str
        Why a shadow answered nothing.
    """

    text: bytes
    version: ServedVersion
    arm: Arm
    call: EngineCall | None = None
    fallback: dict[str, Any] | None = None
    failed: str = ""


@dataclass(eq=False)
class Service:
    """One worker's service; belongs to one event loop.

    Parameters
    ----------
    spec : ServingSpec
    shelf : Shelf
    access : Access
    log : AnswerLog, optional
        None: nothing is logged.
    observer : Observer
    clock : callable
        Seconds that only grow.
    """

    spec: ServingSpec
    shelf: Shelf
    access: Access
    log: AnswerLog | None = None
    observer: Observer = field(default_factory=Observer)
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.spec.batch, on_batch=self._called)
        self.remembered = AnswerCache(self.spec.answers_cached)
        self._breakers: dict[tuple[str, int], Breaker] = {}
        self._tables = table_reader()
        self._shadows: set[asyncio.Task[None]] = set()

    # -- questions

    async def ask(
        self, kind: Kind, name: str, body: bytes, caller: Caller, *, version: int | None = None, arrived: float
    ) -> Reply:
        """Answer a question.

        Parameters
        ----------
        kind : {"posterior", "predict", "explanation", "likelihood"}
        name : str
            Of the model.
        body : bytes
            JSON of a :class:`Question`.
        caller : Caller
        version : int, optional
            Asked for by number instead of the champion.
        arrived : float
            On the service's clock; the deadline counts from there.

        Raises
        ------
        ServiceError, JournalError
        """
        caller.check("ask", name)
        with step("decode"):
            question = read_question(body, most_rows=self.spec.limits.rows, tables=self._tables)
        return await self.answer(kind, name, question, caller, version=version, arrived=arrived)

    async def answer(
        self, kind: Kind, name: str, question: Question, caller: Caller, *, version: int | None, arrived: float
    ) -> Reply:
        """Answer a decoded question; see :meth:`ask`."""
        asked = await self._prepare(kind, name, question, caller, version=version, arrived=arrived)
        answered = await self._answered(asked)
        if answered.fallback is None:
            self.observer.answered(answered.version, kind, answered.text)
        self._keep(asked, answered)
        self._shadow(asked, answered)
        rows = len(question.rows)
        body = reply_body(
            asked.id, name, kind, asked.encoded, by=asked.version, text=answered.text,
            version=answered.version.number, arm=answered.arm, fallback=answered.fallback,
        )  # fmt: skip
        return Reply(body, asked.id, answered.version.number, answered.arm, rows)

    async def invoke(
        self, name: str, body: bytes, media: str, caller: Caller, *, version: int | None, arrived: float
    ) -> Reply:
        """Answer a body of MLflow's protocol; see :meth:`ask`."""
        caller.check("ask", name)
        most = self.spec.limits.rows
        chosen, arm = choose_version(self.shelf.model(name), caller, version, "")
        with step("decode"):
            if media == CSV:
                rows = read_csv(body, chosen.network.schema, most_rows=most)
            else:
                rows = read_invocation(body, most_rows=most)
        if not rows:
            return Reply(b'{"predictions":[]}', new_request_id(datetime.now(UTC)), chosen.number, arm)
        return await self.answer("invocations", name, Question(rows=rows), caller, version=version, arrived=arrived)

    async def _prepare(
        self, kind: Kind, name: str, question: Question, caller: Caller, *, version: int | None, arrived: float
    ) -> _Asked:
        model, request_id = self.shelf.model(name), new_request_id(datetime.now(UTC))
        key = question.key if question.key is not None else request_id
        chosen, arm = choose_version(model, caller, version, key)
        options = make_options(kind, question, chosen)
        with step("encode"):
            encoded = await _encode(chosen.encoder, question.rows)
        check_evidence(kind, encoded, chosen.network.schema, self.spec.served(name))
        check_cost(chosen, kind, options, encoded.codes, self.spec.limits)
        self.observer.evidence(chosen, encoded)
        deadline = arrived + self.spec.limits.deadline
        return _Asked(request_id, kind, question, caller, model, chosen, arm, options, encoded, key, deadline)

    async def _answered(self, asked: _Asked) -> _Answered:
        try:
            return await self._from_version(asked, asked.version, asked.encoded)
        except (DeadlineExceeded, QuestionError):
            raise
        except Exception as error:  # noqa: BLE001  whatever the engine does, the caller gets a marked answer or a 503
            reason = str(error) if isinstance(error, BnpipeError) else f"it failed ({type(error).__name__})"
            if not isinstance(error, ServiceBusy):
                _log.error("%s version %d failed: %s", asked.model.name, asked.version.number, where_failed(error))
            return await self._fall_back(asked, reason)

    async def _from_version(
        self, asked: _Asked, version: ServedVersion, encoded: Encoded, *, fallback: dict[str, Any] | None = None
    ) -> _Answered:
        codes, key = encoded.codes, None
        arm: Arm = asked.arm if fallback is None else "fallback"
        if codes.shape[1] <= _REMEMBERED_ROWS:
            strange = tuple(row for row, _, _ in encoded.unseen) if asked.kind == "invocations" else ()
            made_of = (version.about.content_hash, version.about.likelihoods)
            key = (made_of, asked.kind, asked.options, codes.tobytes(), strange)
            found = self.remembered.get(key)
            self.observer.cached(hit=found is not None)
            if found is not None:
                return _Answered(found, version, arm, fallback=fallback)
        batched = await self._guarded(version, asked.kind, asked.options, codes, asked.deadline)
        text = await _written(with_unseen(asked.kind, batched.answers, encoded))
        if key is not None:
            self.remembered.put(key, text)
        return _Answered(text, version, arm, batched.call, fallback)

    async def _guarded(
        self, version: ServedVersion, kind: Kind, options: Options, codes: Codes, deadline: float
    ) -> Batched:
        breaker = self._breaker(version)
        if not breaker.allows():
            raise ServiceBusy(
                f"{version.model} version {version.number} rests after failures", retry_after=self.spec.breaker.pause
            )
        try:
            return await self.batcher.submit(version, kind, options, codes, deadline=deadline)
        except (DeadlineExceeded, asyncio.CancelledError):
            breaker.abandon()
            raise

    def _called(self, call: EngineCall) -> None:
        """Note how a call of the engine went; perhaps in another thread."""
        breaker = self._breaker(call.version)
        before = breaker.state
        breaker.record(seconds=call.seconds, failed=call.error is not None)
        if (now := breaker.state) != before:
            self.observer.breaker(call.version, now)
            _log.warning("%s version %d: its breaker is %s", call.version.model, call.version.number, now)
        self.observer.batch(call)

    async def _fall_back(self, asked: _Asked, reason: str) -> _Answered:
        """Answer by the previous version, else by the marginal, and say so; or not at all."""
        refused = ServiceBusy(
            f"{asked.model.name} version {asked.version.number} does not answer now: {reason}",
            retry_after=self.spec.breaker.pause,
        )
        if not self.spec.served(asked.model.name).fallback or asked.arm == "pinned":
            raise refused
        note = {"instead_of": asked.version.number, "reason": reason}
        for other in (asked.model.champion, asked.model.previous):
            if other is None or other is asked.version:
                continue
            try:
                check_options(other.engine, asked.options)
                encoded = await _encode(other.encoder, asked.question.rows)
                by = {**note, "answered_by": f"version {other.number}"}
                return await self._from_version(asked, other, encoded, fallback=by)
            except DeadlineExceeded:
                raise
            except Exception:  # noqa: BLE001  the next one, then the marginal
                continue
        if asked.kind not in ("posterior", "predict", "invocations"):
            raise refused
        version, rows = asked.version, len(asked.question.rows)
        text = marginal_answers(version.engine, version.marginals, asked.kind, asked.options, rows)
        return _Answered(text, asked.version, "fallback", fallback={**note, "answered_by": "marginal"})

    def breaker_state(self, version: ServedVersion) -> str:
        """Tell where a version's breaker is."""
        return self._breaker(version).state

    def _breaker(self, version: ServedVersion) -> Breaker:
        key = (version.model, version.number)
        if key not in self._breakers:
            self._breakers[key] = Breaker(self.spec.breaker, self.clock)
        return self._breakers[key]

    # -- shadows

    def _shadow(self, asked: _Asked, answered: _Answered) -> None:
        canary = asked.model.canary
        if asked.arm != "champion" or not is_shadowed(asked.key, canary):
            return
        if len(self._shadows) >= _SHADOWS:
            self.observer.unshadowed(asked.model.name)
            return
        assert canary is not None
        challenger = asked.model.versions[canary.version]
        task = asyncio.get_running_loop().create_task(self._ask_shadow(asked, challenger, answered))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _ask_shadow(self, asked: _Asked, challenger: ServedVersion, answered: _Answered) -> None:
        leave()
        mine = replace(asked, version=challenger, arm="shadow", deadline=self.clock() + self.spec.limits.deadline)
        try:
            found = await self._shadow_answer(mine)
            self._keep(mine, found)
            if asked.kind == "posterior" and not found.failed:
                apart = total_variation(answered.text, found.text)
                self.observer.shadow(asked.model.name, challenger.number, apart=apart)
        except Exception as error:  # noqa: BLE001  a shadow must not be seen
            self.observer.error(kind=f"shadow {type(error).__name__}", model=asked.model.name)

    async def _shadow_answer(self, asked: _Asked) -> _Answered:
        """Answer by the challenger, or tell why it did not: that is kept, too, and counts against it."""
        try:
            check_options(asked.version.engine, asked.options)
            encoded = await _encode(asked.version.encoder, asked.question.rows)
            return await self._from_version(asked, asked.version, encoded)
        except Exception as error:  # noqa: BLE001  whatever the engine does
            self.observer.error(kind=f"shadow {type(error).__name__}", model=asked.model.name)
            told = isinstance(error, (ServiceBusy, DeadlineExceeded, QuestionError))  # texts without a row's values
            reason = str(error) if told else f"it failed ({type(error).__name__})"
            nothing = b"[" + b",".join([b"null"] * len(asked.question.rows)) + b"]"
            return _Answered(nothing, asked.version, "shadow", failed=reason)

    # -- feedback

    def feedback(self, body: bytes, caller: Caller) -> int:
        """Keep labels that arrived; tell how many.

        Raises
        ------
        AccessDenied, QuestionError, NotServed, JournalError
        """
        caller.check("feedback")
        if self.log is None:
            raise ServiceBusy("answers are not logged here, so labels have nothing to join; set `answers.folder`")
        found, at = read_feedback(body, most_rows=self.spec.limits.rows), datetime.now(UTC)
        records: list[Record] = []
        for place, one in enumerate(found):
            caller.check("feedback", one.model)
            model = self.shelf.model(one.model)
            check_answered(one.request_id, at)
            check_labels(model, one.labels, f"[{place}].labels" if len(found) > 1 else "labels")
            labels = {name: state_name(value) for name, value in one.labels.items()}
            records.append(FeedbackRecord(one.request_id, one.row, at, caller.name, one.model, labels))
        self._append(records, required=True)
        for one in found:
            self.observer.labelled(one.model)
        return len(records)

    # -- the log

    def _keep(self, asked: _Asked, answered: _Answered) -> None:
        if self.log is None:
            return
        asked_of, keep = asked.question, self.spec.answers.evidence == "keep"
        question = msgspec.to_builtins(asked.options)
        if answered.fallback is not None:
            question["fallback"] = answered.fallback
        if answered.failed:
            question["failed"] = answered.failed
        record = AnswerRecord(
            id=asked.id,
            at=datetime.now(UTC),
            model=asked.model.name,
            version=answered.version.number,
            content_hash=answered.version.about.content_hash,
            arm=answered.arm,
            caller=asked.caller.name,
            key=asked_of.key,
            kind=asked.kind,
            question=question,
            rows=asked_of.cells() if keep and not asked_of.body else None,
            answer=answered.text,
            evidence_hash="" if keep else evidence_hash(asked_of.cells()),
            body=asked_of.body if keep else b"",
            seconds=None if answered.call is None else answered.call.seconds,
            batch=0 if answered.call is None else answered.call.rows,
        )
        self._append([record], required=self.spec.answers.required)

    def _append(self, records: list[Record], *, required: bool) -> None:
        try:
            assert self.log is not None
            with step("log"):
                self.log.append(records)
            self.observer.logged(len(records), refused=False)
        except BnpipeError as error:
            self.observer.logged(len(records), refused=True)
            if required:
                raise
            _log.error("an answer was given that could not be logged: %s", error)

    async def drain(self) -> None:
        """Wait for what is under way."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=1.0)
        self.batcher.close()


async def _encode(encoder: CellEncoder, rows: Sequence[Row] | Table) -> Encoded:
    """Encode rows; of many, part by part, so that others are answered in between."""
    if len(rows) <= _PART:
        return encoder.encode(rows)
    codes, unseen, unknown = [], [], []
    for first in range(0, len(rows), _PART):
        part = encoder.encode(rows[first : first + _PART])
        codes.append(part.codes)
        unseen += [(first + row, name, value) for row, name, value in part.unseen]
        unknown += [(first + row, name) for row, name in part.unknown]
        await asyncio.sleep(0)
    return Encoded(np.concatenate(codes, axis=1), tuple(unseen), tuple(unknown))


async def _written(answers: Answers) -> bytes:
    """Write answers as JSON; many, part by part."""
    if len(answers) <= _PART:
        return encode_answers(answers)
    parts = []
    for first in range(0, len(answers), _PART):
        parts.append(encode_answers(answers[first : first + _PART])[1:-1])
        await asyncio.sleep(0)
    return b"[" + b",".join(parts) + b"]"


def where_failed(error: Exception) -> str:
    """Tell an error's type and the lines it came from, without its text, which may hold values of rows."""
    return f"{type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}"
