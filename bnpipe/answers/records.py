"""What is kept of an answer: who asked what of which version, and what it said; and the labels that came later."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec

from bnpipe.errors import FormatError

Cell: TypeAlias = str | float | int | bool | None
Arm: TypeAlias = Literal["champion", "challenger", "pinned", "shadow", "fallback"]
Kind: TypeAlias = Literal["posterior", "predict", "explanation", "likelihood", "invocations"]

RETURNED: Final[tuple[Arm, ...]] = ("champion", "challenger", "pinned", "fallback")
"""Arms whose answers were given to the caller."""

_OWN_ID: Final = re.compile(r"[0-9a-f]{14}-[0-9a-f]{16}")


class AnswerRecord(msgspec.Struct, frozen=True, tag="answer"):
    """One request and what one version answered.

    Parameters
    ----------
    id : str
        Of the request; a shadow's answer has the id of the request it shadows.
    at : datetime
        When it was answered, UTC, to the microsecond.
    model, version, content_hash : str, int, str
        Who answered.
    arm : str
        Why this version: ``champion``, ``challenger``, ``pinned``, ``shadow`` (compared, not returned), ``fallback``.
    caller : str
        Name of the API key, or of the peer.
    key : str or None
        What the request was routed by.
    kind : str
        ``posterior``, ``predict``, ``explanation``, ``likelihood`` or ``invocations``.
    question : mapping
        All that is needed to ask again, beside the rows; JSON-able. ``fallback`` in it tells what an answer stands in
        for, ``failed`` why a shadow answered nothing: its `answer` is a null for each row.
    rows : sequence of mappings or None
        The cells as sent. None by policy: only their hash is kept.
    answer : bytes
        JSON array with an element for each row, exactly as it was sent.
    evidence_hash : str
        See :func:`evidence_hash`. Where `rows` are kept it may be left empty, as the request need not wait for it:
        the compaction fills it in.
    body : bytes
        JSON of the request with the cells in its ``rows``, instead of `rows`, as the request need not wait until they
        are written once more. A journal that is read gives :meth:`opened` records.
    seconds : float or None
        Of the engine's call that answered it, without what it waited for. None: no engine was called, as the answer was
        remembered or is the marginal; or it is from before this was logged.
    batch : int
        Rows in that call, others' too; 0: see `seconds`.
    """

    id: str
    at: datetime
    model: str
    version: int
    content_hash: str
    arm: Arm
    caller: str
    key: str | None
    kind: Kind
    question: dict[str, Any]
    rows: list[dict[str, Cell]] | None
    answer: bytes
    evidence_hash: str = ""
    body: bytes = b""
    seconds: float | None = None
    batch: int = 0

    def opened(self) -> AnswerRecord:
        """Give the record with its `rows` instead of the `body` they are in.

        Raises
        ------
        msgspec.DecodeError
            There are none in it.
        """
        return msgspec.structs.replace(self, rows=_BODY.decode(self.body).rows, body=b"") if self.body else self

    @property
    def day(self) -> date:
        """Day of the answer, UTC."""
        return self.at.astimezone(UTC).date()

    @property
    def hash(self) -> str:
        """Hash of the evidence, given or made from the rows."""
        return self.evidence_hash or evidence_hash(self.opened().rows or ())

    @property
    def failed(self) -> str:
        """Why a shadow answered nothing; '' if it did."""
        return str(self.question.get("failed", ""))

    def row_answers(self) -> list[str]:
        """Give each row's part of `answer`, as it was sent.

        Raises
        ------
        FormatError
            `answer` is not one JSON array, without spaces between its elements, of which there is one for each row.
        """
        try:
            parts = [bytes(part).decode() for part in _PARTS.decode(self.answer)]
        except ValueError as error:
            raise FormatError(f"request {self.id}: its answer is no JSON array: {error}") from error
        if len(parts) != len(parts if self.rows is None else self.rows) or join_answers(parts) != self.answer:
            raise FormatError(f"request {self.id}: its answer is not a compact JSON array with an element for each row")
        return parts


class _Body(msgspec.Struct):
    rows: list[dict[str, Cell]]


class FeedbackRecord(msgspec.Struct, frozen=True, tag="feedback"):
    """What turned out to be true of one row of a request.

    Parameters
    ----------
    request : str
        Id of the request.
    row : int
        Which of its rows, from 0.
    at : datetime
        When the labels came, UTC. Of several for the same row the last counts.
    caller, model : str
    labels : mapping of str to str
        State by variable.
    """

    request: str
    row: int
    at: datetime
    caller: str
    model: str
    labels: dict[str, str]

    @property
    def day(self) -> date:
        """Day the labels came, UTC."""
        return self.at.astimezone(UTC).date()


Record: TypeAlias = AnswerRecord | FeedbackRecord

_NO_NUMBER: Final = frozenset({str, bool, type(None)})
_BODY: Final = msgspec.json.Decoder(_Body)
_PARTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ENCODE: Final = msgspec.json.Encoder(order="deterministic").encode


def join_answers(parts: Iterable[str]) -> bytes:
    """Put the answers of rows together again."""
    return f"[{','.join(parts)}]".encode()


def evidence_hash(rows: Sequence[Mapping[str, Cell]]) -> str:
    """Hash what was observed, SHA-256 in hex.

    Rows count in their order; cells by name, type (text, number, truth, null) and value. Not told apart are: the order
    of cells, 3 and 3.0, 0.0 and -0.0 (numbers are taken as doubles). Told apart are 3, "3" and true, which may be
    different states, and a null and a cell left out: one says that the value is missing, the other says nothing.

    Examples
    --------
    >>> evidence_hash([{"a": 3, "b": "x"}]) == evidence_hash([{"b": "x", "a": 3.0}])
    True
    >>> evidence_hash([{"a": 3}]) == evidence_hash([{"a": "3"}])
    False
    """
    return hashlib.sha256(_ENCODE([_canonical(row) for row in rows])).hexdigest()


def _canonical(row: Mapping[str, Cell]) -> dict[str, Cell]:
    """Numbers as doubles; what is no number keeps its type."""
    # 0.0 is added because -0.0 + 0.0 is 0.0
    return {name: value if value.__class__ in _NO_NUMBER else _double(value) + 0.0 for name, value in row.items()}


def _double(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return float("inf") if value > 0 else float("-inf")


def new_request_id(at: datetime) -> str:
    """Make an id that no other request has and that tells its day, so that :func:`bnpipe.answers.find` is quick.

    Microseconds since 1970 and 64 random bits, in hex.
    """
    return f"{int(at.timestamp() * 1e6):014x}-{os.urandom(8).hex()}"


def day_of_id(request_id: str) -> date | None:
    """Tell the day (UTC) of an id made by :func:`new_request_id`; None for an id of another make."""
    made = time_of_id(request_id)
    return None if made is None else made.date()


def time_of_id(request_id: str) -> datetime | None:
    """Tell when an id was made by :func:`new_request_id` (UTC); None for an id of another make."""
    if not _OWN_ID.fullmatch(request_id):
        return None
    return datetime.fromtimestamp(int(request_id[:14], 16) / 1e6, UTC)
