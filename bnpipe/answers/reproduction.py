"""A logged answer asked for again, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bnpipe.answers.records import AnswerRecord, Cell, evidence_hash
from bnpipe.errors import EvidenceError, NetworkError
from bnpipe.network import Network

Ask: TypeAlias = Callable[[Network, str, Mapping[str, Any], Sequence[Mapping[str, Cell]]], bytes]
"""Answers rows: network, kind of question, question, rows; the JSON bytes the service would send."""


@dataclass(frozen=True)
class Reproduction:
    """What came of asking again.

    Parameters
    ----------
    expected, got : bytes
        The answer as it was logged, and as it is now.
    """

    expected: bytes
    got: bytes

    @property
    def same(self) -> bool:
        """Whether they are the same, bit for bit."""
        return self.expected == self.got


def reproduce(
    record: AnswerRecord, network: Network, ask: Ask, *, rows: Sequence[Mapping[str, Cell]] | None = None
) -> Reproduction:
    """Ask a version again what it was asked.

    Parameters
    ----------
    record : AnswerRecord
    network : Network
        The registered version that answered.
    ask : callable
        The service's way from rows to JSON bytes.
    rows : sequence of mapping, optional
        The evidence, where the log holds only its hash.

    Raises
    ------
    NetworkError
        Another network than the one that answered.
    EvidenceError
        No evidence, or other evidence than was sent: its hash differs.
    """
    if network.content_hash != record.content_hash:
        raise NetworkError(
            f"request {record.id} was answered by network {record.content_hash[:12]}, "
            f"{record.model} version {record.version} is {network.content_hash[:12]} now"
        )
    given = rows if rows is not None else record.opened().rows
    if given is None:
        raise EvidenceError(f"the log holds only the hash of request {record.id}'s evidence: give the evidence itself")
    if (found := evidence_hash(given)) != record.hash:
        raise EvidenceError(
            f"the evidence of request {record.id} has the hash {record.hash[:12]}, what was given {found[:12]}"
        )
    return Reproduction(record.answer, ask(network, record.kind, record.question, given))
