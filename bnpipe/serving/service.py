"""The service of one worker, without HTTP: who asks what of which version, and the way of an answer.

The way: access, decoding, choice of the version (pin, canary), codes, remembered answers, breaker, batch, log, reply.
An answer leaves only after it is logged; one that comes from elsewhere than the version chosen says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
import numpy as np

from bnpipe.answers.records import AnswerRecord, Arm, FeedbackRecord, Record, evidence_hash, new_request_id
from bnpipe.config.serving import ServedModelSpec, ServingSpec
from bnpipe.errors import BnpipeError, DeadlineExceeded, NotServed, QuestionError, ServiceBusy, shorten
from bnpipe.schema import state_name
from bnpipe.serving.access import Access, Caller
from bnpipe.serving.answering import Options, check_options, encode_answers
from bnpipe.serving.batching import Answers, Batcher
from bnpipe.serving.breaker import Breaker
from bnpipe.serving.cells import Encoded
from bnpipe.serving.observing import Observer
from bnpipe.serving.questions import Kind, Question, read_feedback, read_question
from bnpipe.serving.remembering import AnswerCache
from bnpipe.serving.routing import choose_arm, is_shadowed
from bnpipe.serving.shelf import ServedModel, Shelf
from bnpipe.serving.tracing import leave, step
from bnpipe.serving.versions import ServedVersion

_REMEMBERED_ROWS: Final = 16
"""Questions of more rows are not worth remembering whole."""
_TOLD: Final = 20
"""Cells that an answer names as unseen at most."""
_SHADOWS: Final = 32
"""Shadow questions under way at most; the real ones come first."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode


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
    """Answers, and the version that gave them; `version` None: the marginal."""

    text: bytes
    version: ServedVersion
    arm: Arm
    fallback: dict[str, Any] | None = None


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
        self.batcher = Batcher(self.spec.batch, on_batch=self.observer.batch)
        self.remembered = AnswerCache(self.spec.answers_cached)
        self._breakers: dict[tuple[str, int], Breaker] = {}
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
            question = read_question(body, most_rows=self.spec.limits.rows)
        return await self.answer(kind, name, question, caller, version=version, arrived=arrived)

    async def answer(
        self, kind: Kind, name: str, question: Question, caller: Caller, *, version: int | None, arrived: float
    ) -> Reply:
        """Answer a decoded question; see :meth:`ask`."""
        asked = self._prepare(kind, name, question, caller, version=version, arrived=arrived)
        answered = await self._answered(asked)
        if answered.fallback is None:
            self.observer.answered(answered.version, kind, answered.text)
        self._keep(asked, answered)
        self._shadow(asked, answered)
        rows = len(question.rows)
        return Reply(_body(asked, answered), asked.id, answered.version.number, answered.arm, rows)

    def _prepare(
        self, kind: Kind, name: str, question: Question, caller: Caller, *, version: int | None, arrived: float
    ) -> _Asked:
        model, request_id = self.shelf.model(name), new_request_id(datetime.now(UTC))
        key = question.key if question.key is not None else request_id
        chosen, arm = choose_version(model, caller, version, key)
        options = _options(kind, question, chosen)
        with step("encode"):
            encoded = chosen.encoder.encode(question.rows)
        _check_evidence(encoded, self.spec.served(name))
        cost = encoded.codes.shape[1] * chosen.cost * (len(chosen.network.nodes) if kind == "explanation" else 1)
        if cost > self.spec.limits.cost:
            raise QuestionError(
                f"rows: {len(question.rows)} rows of {name} would touch {cost:.2g} cells, "
                f"{self.spec.limits.cost:.2g} are allowed; ask in parts",
                at="rows",
                too_large=True,
            )
        self.observer.evidence(chosen, encoded)
        deadline = arrived + self.spec.limits.deadline
        return _Asked(request_id, kind, question, caller, model, chosen, arm, options, encoded, key, deadline)

    async def _answered(self, asked: _Asked) -> _Answered:
        try:
            return _Answered(await self._from_version(asked, asked.version, asked.encoded), asked.version, asked.arm)
        except (DeadlineExceeded, QuestionError):
            raise
        except Exception as error:  # noqa: BLE001  whatever the engine does, the caller gets a marked answer or a 503
            reason = str(error) if isinstance(error, BnpipeError) else f"it failed ({type(error).__name__})"
            if not isinstance(error, ServiceBusy):
                _log.exception("%s version %d failed", asked.model.name, asked.version.number)
            return await self._fall_back(asked, reason)

    async def _from_version(self, asked: _Asked, version: ServedVersion, encoded: Encoded) -> bytes:
        codes = encoded.codes
        key = None
        if codes.shape[1] <= _REMEMBERED_ROWS:
            key = (version.about.content_hash, asked.kind, asked.options, codes.tobytes())
            found = self.remembered.get(key)
            self.observer.cached(hit=found is not None)
            if found is not None:
                return found
        answers = await self._guarded(version, asked.kind, asked.options, codes, asked.deadline)
        text = encode_answers(answers)
        if key is not None:
            self.remembered.put(key, text)
        return text

    async def _guarded(
        self, version: ServedVersion, kind: Kind, options: Options, codes: Any, deadline: float
    ) -> Answers:
        breaker = self._breaker(version)
        before = breaker.state
        if not breaker.allows():
            raise ServiceBusy(
                f"{version.model} version {version.number} rests after failures", retry_after=self.spec.breaker.pause
            )
        began, failed = self.clock(), True
        try:
            answers = await self.batcher.submit(version, kind, options, codes, deadline=deadline)
            failed = False
            return answers
        except DeadlineExceeded:
            failed = False
            raise
        finally:
            breaker.record(seconds=self.clock() - began, failed=failed)
            if breaker.state != before:
                self.observer.breaker(version, breaker.state)

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
                text = await self._from_version(asked, other, other.encoder.encode(asked.question.rows))
            except Exception:  # noqa: BLE001  the next one, then the marginal
                continue
            return _Answered(text, other, "fallback", {**note, "answered_by": f"version {other.number}"})
        if asked.kind not in ("posterior", "predict"):
            raise refused
        text = marginal_answers(asked.version, asked.kind, asked.options, len(asked.question.rows))
        return _Answered(text, asked.version, "fallback", {**note, "answered_by": "marginal"})

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
        if asked.arm != "champion" or not is_shadowed(asked.key, canary) or len(self._shadows) >= _SHADOWS:
            return
        assert canary is not None
        challenger = asked.model.versions[canary.version]
        task = asyncio.get_running_loop().create_task(self._ask_shadow(asked, challenger, answered))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _ask_shadow(self, asked: _Asked, challenger: ServedVersion, answered: _Answered) -> None:
        leave()
        try:
            check_options(challenger.engine, asked.options)
            text = await self._from_version(asked, challenger, challenger.encoder.encode(asked.question.rows))
            self._keep(asked, _Answered(text, challenger, "shadow"))
            if asked.kind == "posterior":
                self.observer.shadow(asked.model.name, challenger.number, apart=_apart(answered.text, text))
        except Exception as error:  # noqa: BLE001  a shadow must not be seen
            self.observer.error(kind=f"shadow {type(error).__name__}", model=asked.model.name)

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
        found, at = read_feedback(body), datetime.now(UTC)
        records: list[Record] = []
        for place, one in enumerate(found):
            model = self.shelf.model(one.model)
            caller.check("feedback", one.model)
            _check_labels(model, one.labels, f"[{place}].labels" if len(found) > 1 else "labels")
            labels = {name: state_name(value) for name, value in one.labels.items()}
            records.append(FeedbackRecord(one.request_id, one.row, at, caller.name, one.model, labels))
        self._append(records)
        return len(records)

    # -- the log

    def _keep(self, asked: _Asked, answered: _Answered) -> None:
        if self.log is None:
            return
        keep = self.spec.answers.evidence == "keep"
        question = msgspec.to_builtins(asked.options)
        if answered.fallback is not None:
            question["fallback"] = answered.fallback
        record = AnswerRecord(
            id=asked.id,
            at=datetime.now(UTC),
            model=asked.model.name,
            version=answered.version.number,
            content_hash=answered.version.about.content_hash,
            arm=answered.arm,
            caller=asked.caller.name,
            key=asked.question.key,
            kind=asked.kind,
            question=question,
            rows=asked.question.rows if keep else None,
            answer=answered.text,
            evidence_hash="" if keep else evidence_hash(asked.question.rows),
        )
        self._append([record])

    def _append(self, records: list[Record]) -> None:
        try:
            assert self.log is not None
            with step("log"):
                self.log.append(records)
            self.observer.logged(len(records), refused=False)
        except BnpipeError as error:
            self.observer.logged(len(records), refused=True)
            if self.spec.answers.required:
                raise
            _log.error("an answer was given that could not be logged: %s", error)

    async def drain(self) -> None:
        """Wait for what is under way."""
        if self._shadows:
            await asyncio.wait(self._shadows, timeout=1.0)


def choose_version(model: ServedModel, caller: Caller, asked: int | None, key: str) -> tuple[ServedVersion, Arm]:
    """Choose who answers: the version asked for, the caller's pin, the canary's arm, or the champion.

    Raises
    ------
    NotServed
        That version is not here, or there is no champion.
    """
    pinned = asked if asked is not None else caller.pins.get(model.name)
    if pinned is not None:
        return model.version(pinned), "pinned"
    if model.champion is None:
        fault = next(iter(model.faults.values()), "no version is champion in the registry")
        raise NotServed(f"{model.name} has no champion to answer: {fault}")
    if model.canary is not None and choose_arm(key, model.canary) == "challenger":
        return model.version(model.canary.version), "challenger"
    return model.champion, "champion"


def marginal_answers(version: ServedVersion, kind: Kind, options: Options, rows: int) -> bytes:
    """Answer as if nothing were observed."""
    from bnpipe.serving.answering import posterior_answers, predictions

    tables = {target: np.array([list(version.marginals[target].values())]) for target in options.targets}
    (one,) = (
        predictions(version.engine, options, tables) if kind == "predict" else posterior_answers(version.engine, tables)
    )
    return encode_answers([one] * rows)


def _options(kind: Kind, question: Question, version: ServedVersion) -> Options:
    if kind == "likelihood":
        if question.targets:
            raise QuestionError("targets: a likelihood has none; leave them out", at="targets")
        options = Options()
    else:
        options = Options(targets=version.targets(question.targets))
    for name, its in (("interval", "posterior"), ("abstain_below", "predict")):
        value = getattr(question, name)
        if value is not None:
            if kind != its:
                raise QuestionError(f"{name}: only for {its}, this is {kind}", at=name)
            options = msgspec.structs.replace(options, **{name: value})
    check_options(version.engine, options)
    return options


def _check_evidence(encoded: Encoded, spec: ServedModelSpec) -> None:
    if encoded.unknown and spec.unknown_variables == "refuse":
        names = sorted({name for _, name in encoded.unknown})
        row, name = encoded.unknown[0]
        raise QuestionError(
            f"rows[{row}]: no variable {shorten(map(repr, names))} in the network", at=f"rows[{row}].{name}"[:100]
        )
    if encoded.unseen and spec.unknown_states == "refuse":
        row, name, value = encoded.unseen[0]
        raise QuestionError(
            f"rows[{row}].{name}: {shorten([repr(value)])} is no state, in {len(encoded.unseen)} cells",
            at=f"rows[{row}].{name}",
        )


def _check_labels(model: ServedModel, labels: Mapping[str, Any], at: str) -> None:
    if model.champion is None:
        return
    schema = model.champion.network.schema
    for name, value in labels.items():
        if name not in schema:
            raise QuestionError(f"{at}: no variable {name[:60]!r}; there are {shorten(schema.names)}", at=at)
        if value is None:
            raise QuestionError(f"{at}.{name}: a label must have a value", at=f"{at}.{name}")


def _body(asked: _Asked, answered: _Answered) -> bytes:
    head: dict[str, Any] = {
        "request_id": asked.id,
        "model": asked.model.name,
        "version": answered.version.number,
        "arm": answered.arm,
    }
    if answered.fallback is not None:
        head["fallback"] = answered.fallback
    encoded = asked.encoded
    if encoded.unseen:
        head["unseen"] = [{"row": row, "variable": name, "value": value} for row, name, value in encoded.unseen[:_TOLD]]
    if encoded.unknown:
        head["ignored"] = sorted({name for _, name in encoded.unknown})[:_TOLD]
    return _encode(head)[:-1] + b',"answers":' + answered.text + b"}"


def _apart(given: bytes, shadow: bytes) -> float:
    """Total variation between two answers, mean over rows and targets."""
    parts = []
    for one, other in zip(msgspec.json.decode(given), msgspec.json.decode(shadow), strict=True):
        for target, belief in one["posterior"].items():
            its: Mapping[str, float] | None = other["posterior"].get(target)
            if belief is not None and its is not None and belief.keys() == its.keys():
                parts.append(sum(abs(belief[state] - its[state]) for state in belief) / 2.0)
    return float(np.mean(parts)) if parts else float("nan")
