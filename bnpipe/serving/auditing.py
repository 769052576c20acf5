"""What ``bnpipe audit`` does: finds a logged answer, asks the registered version again, and compares the bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec

import bnpipe
from bnpipe.answers import AnswerRecord, Reproduction, find, find_by_key, reproduce
from bnpipe.answers.records import Cell, day_of_id
from bnpipe.errors import BnpipeError, JournalError, NetworkError, SettingsError
from bnpipe.inference import TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.registry import Registry, Version
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.questions import Kind
from bnpipe.serving.rules import marginal_answers
from bnpipe.serving.usual import TRAINING_ROWS, set_usual

Rows = list[dict[str, Cell]]

_MOST: Final = 20
"""Answers to requests with one key that are told at most."""


@dataclass(frozen=True)
class Finding:
    """One logged answer, and what came of asking again.

    Parameters
    ----------
    record : AnswerRecord
    reproduction : Reproduction or None
        None: it could not be asked again.
    obstacle : str
        Why not; '' if it could.
    """

    record: AnswerRecord
    reproduction: Reproduction | None
    obstacle: str = ""

    @property
    def same(self) -> bool:
        """Whether the answer came out the same, bit for bit, or there was none: of a shadow that failed."""
        return bool(self.record.failed) or (self.reproduction is not None and self.reproduction.same)


def audit(request_id: str, *, answers: Path, registry: Registry, evidence: Path | None = None) -> tuple[Finding, ...]:
    """Find what was answered to a request, and ask the versions that answered it again.

    Parameters
    ----------
    request_id : str
        Or the `key` that requests came with; of those on the last day with any, the last 20 answers.
    answers : Path
        Folder of the log.
    registry : Registry
    evidence : Path or None
        JSON file with the request's body or its list of rows, where the log holds only their hash.

    Raises
    ------
    JournalError
        No such request, or the log can't be read.
    SettingsError
        The file of evidence is none.
    """
    rows = None if evidence is None else read_evidence(evidence)
    records = find(answers, request_id)
    if not records and day_of_id(request_id) is None:
        records = find_by_key(answers, request_id)[-_MOST:]
    if not records:
        raise JournalError(f"{answers}: no answer to a request or key {request_id!r} is logged here; see --answers")
    return tuple(_ask(record, registry, rows) for record in records)


def read_evidence(path: Path) -> Rows:
    """Read rows from a JSON file: a list of them, one, or a request's body.

    Raises
    ------
    SettingsError
        It can't be read, or holds something else.
    """
    try:
        held = msgspec.json.decode(path.read_bytes())
        if isinstance(held, dict):
            held = held.get("rows", [held])
        return msgspec.convert(held, Rows)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: a JSON list of rows is needed, or a request's body: {error}") from error


def _ask(record: AnswerRecord, registry: Registry, rows: Rows | None) -> Finding:
    if record.failed:
        return Finding(record, None, record.failed)
    try:
        version = registry.version(record.model, record.version)
        network, trained = registry.load_network(version), _trained(record, version, registry)
        return Finding(record, reproduce(record, network, partial(ask_again, trained=trained), rows=rows))
    except BnpipeError as error:
        if error.retryable:
            raise
        return Finding(record, None, str(error))


def _trained(record: AnswerRecord, version: Version, registry: Registry) -> TrainingLikelihoods | None:
    """Load the likelihoods of training rows that an answer is relative to; None where it says that it is not."""
    if record.kind != "likelihood" or TRAINING_ROWS.encode() not in record.answer:
        return None
    found = registry.load_likelihoods(version)
    if found is None:
        raise NetworkError(
            f"request {record.id} was answered relative to {TRAINING_ROWS}, whose likelihoods "
            f"{version.model} version {version.number} no longer has"
        )
    return found


def ask_again(
    network: Network,
    kind: str,
    question: Mapping[str, Any],
    rows: Sequence[Mapping[str, Cell]],
    *,
    trained: TrainingLikelihoods | None = None,
) -> bytes:
    """Answer a logged question as the service did, also where it fell back to the marginal."""
    engine, asked = bnpipe.compile(network), cast("Kind", kind)
    set_usual(engine, trained)
    options = msgspec.convert({name: value for name, value in question.items() if name != "fallback"}, Options)
    if question.get("fallback", {}).get("answered_by") != "marginal":
        return answer_rows(engine, asked, options, rows)
    schema = network.schema
    marginals = {
        name: dict(zip(schema[name].states, table.tolist(), strict=True)) for name, table in engine.marginals().items()
    }
    return marginal_answers(engine, marginals, asked, options, len(rows))


def tell(finding: Finding) -> Iterator[str]:
    """Tell a finding in lines."""
    record = finding.record
    question = {name: value for name, value in record.question.items() if name not in ("fallback", "failed")}
    encode = msgspec.json.encode
    yield f"request   {record.id}"
    yield f"when      {record.at.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
    yield f"who       {record.caller}" + ("" if record.key is None else f", key {record.key}")
    yield f"version   {record.model} {record.version} as {record.arm}, network {record.content_hash[:12]}"
    if "fallback" in record.question:
        yield f"fallback  {encode(record.question['fallback']).decode()}"
    yield f"question  {record.kind} {encode(question).decode()}"
    yield f"evidence  sha256 {record.hash}"
    for row in record.rows or ():
        yield f"          {encode(row).decode()}"
    if record.rows is None:
        yield "          only the hash is kept"
    if record.failed:
        yield f"answer    none: {record.failed}"
        return
    yield f"answer    {record.answer.decode()}"
    if record.seconds is not None:
        yield f"took      {record.seconds * 1e3:.3g} ms, a call of the engine with {record.batch} rows"
    if finding.reproduction is None:
        yield f"again     NOT asked: {finding.obstacle}"
    elif finding.same:
        yield "again     the same, bit for bit"
    else:
        yield f"again     NOT the same: {finding.reproduction.got.decode()}"
