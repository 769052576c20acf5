"""What may be asked of `/v1`, and its decoding: strict, quick, and with nothing of the rows in an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

import msgspec
import numpy as np

from bnpipe.answers import records
from bnpipe.errors import QuestionError, shorten
from bnpipe.serving.cells import Cell
from bnpipe.serving.misread import not_json, wrong_body
from bnpipe.serving.table import Table, TableReader

Kind: TypeAlias = records.Kind
_LARGE: Final = 10_000
KINDS: Final[tuple[Kind, ...]] = ("posterior", "predict", "explanation", "likelihood")
"""Kinds of :class:`Question`; `invocations` has bodies of its own."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a body may have beside its rows."""

    targets: tuple[str, ...] | None = None
    interval: float | None = None
    abstain_below: float | None = None
    key: str | None = None


class QuestionBody(_Asked, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a question; :class:`Question` says what its fields are."""

    rows: list[dict[str, Cell]]


class Question(_Asked, frozen=True, kw_only=True):
    """A question, the same for all four kinds.

    Parameters
    ----------
    rows : list of dict of str to cell, or Table
        Evidence: variables and their values. What is absent is unobserved; a null is missing, which some variables have
        a state for and which is unobserved for the others.
    body : bytes
        JSON with ``rows`` in it that it was read from; empty if it came otherwise.
    targets : tuple of str, optional
        What to ask of; left out: the model's own targets. Not for likelihoods.
    interval : float, optional
        Level of the posteriors' intervals, such as 0.95. Only for posteriors.
    abstain_below : float, optional
        A prediction whose probability is lower is none. Only for predictions.
    key : str, optional
        What the share of a canary goes by: a customer, an order. Left out: the request's id.
    """

    rows: list[dict[str, Cell]] | Table
    body: bytes = b""

    def cells(self) -> list[dict[str, Cell]]:
        """Give the rows as dicts."""
        return self.rows.rows() if isinstance(self.rows, Table) else self.rows


class Feedback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What turned out, for one row of an earlier answer."""

    model: str
    request_id: str
    labels: dict[str, Cell]
    row: int = 0


_LONGEST_ID: Final = 200

_QUESTION: Final = msgspec.json.Decoder(QuestionBody)
_FEEDBACK: Final = msgspec.json.Decoder(list[Feedback] | Feedback)


def table_reader() -> TableReader:
    """Make what reads bodies of many rows of the same variables more quickly, once it has seen some."""
    return TableReader(_Asked)


def read_question(body: bytes, *, most_rows: int, tables: TableReader | None = None) -> Question:
    """Decode a question.

    Parameters
    ----------
    body : bytes
    most_rows : int
    tables : TableReader, optional

    Raises
    ------
    QuestionError
        Not JSON, not UTF-8, a key given twice, another type than asked for, no rows or too many.
    """
    quick = tables.read(body) if tables is not None and len(body) >= _LARGE else None
    found, rows = quick if quick is not None else _decoded(body)
    if not rows:
        raise QuestionError("rows: at least one row is needed, an empty one asks for the marginals", at="rows")
    if len(rows) > most_rows:
        raise QuestionError(f"rows: {len(rows)} rows, {most_rows} are allowed; ask in parts", at="rows", too_large=True)
    question = Question(
        rows=rows, body=body, targets=found.targets, interval=found.interval, abstain_below=found.abstain_below,
        key=found.key,
    )  # fmt: skip
    refuse_repeated(body, _keys(rows) + len(_given(found)), _texts(question))
    _check_level("interval", question.interval)
    _check_level("abstain_below", question.abstain_below)
    if tables is not None and isinstance(rows, list):
        tables.learn(rows)
    return question


def _decoded(body: bytes) -> tuple[QuestionBody, list[dict[str, Cell]]]:
    found: QuestionBody = _decode(_QUESTION, body, QuestionBody)
    return found, found.rows


def _keys(rows: list[dict[str, Cell]] | Table) -> int:
    return len(rows.columns) * len(rows) if isinstance(rows, Table) else sum(map(len, rows))


def _texts(question: Question) -> Iterator[Any]:
    """Give what was decoded, in no order."""
    yield question.key
    yield from question.targets or ()
    for row in question.cells():
        yield from row
        yield from row.values()


def read_feedback(body: bytes, *, most_rows: int) -> list[Feedback]:
    """Decode labels that arrived later.

    Raises
    ------
    QuestionError
        As :func:`read_question`.
    """
    found = _decode(_FEEDBACK, body, Feedback)
    every: list[Feedback] = found if isinstance(found, list) else [found]
    if len(every) > most_rows:
        raise QuestionError(f"{len(every)} labelled rows, {most_rows} are allowed; send them in parts", too_large=True)
    refuse_repeated(body, 0)
    for item in every:
        if not 0 <= item.row < most_rows:
            raise QuestionError(f"row: got {item.row}; rows are counted from 0 to {most_rows - 1}", at="row")
        if not 0 < len(item.request_id) <= _LONGEST_ID:
            raise QuestionError(f"request_id: 1 to {_LONGEST_ID} characters are an id", at="request_id")
        if not item.labels:
            raise QuestionError("labels: give at least one variable and its value", at="labels")
    return every


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes, struct: type[msgspec.Struct]) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_body(error, body, struct) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise not_json(error, body) from None
    except RecursionError:
        raise QuestionError("the body is nested too deeply") from None


def _given(found: _Asked) -> list[str]:
    return [name for name in found.__struct_fields__ if getattr(found, name) is not None]


def _check_level(name: str, level: float | None) -> None:
    if level is not None and not 0.0 < level < 1.0:
        raise QuestionError(f"{name}: got {level:g}; a number between 0 and 1 is needed", at=name)


def _colons(body: bytes) -> int:
    """Count; ``bytes.count`` is the slower the more there are."""
    if len(body) < _LARGE:
        return body.count(b":")
    return int(np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == ord(":")))


def refuse_repeated(body: bytes, keys: int, texts: Iterable[Any] = ()) -> None:
    """Refuse a key that is given twice: which one was meant is not for us to say.

    A body has a colon for each key, and those inside of its texts. With no more than that no key can be there twice;
    only where this does not settle it, as an escape may be a colon, is the body read a second time, more slowly.

    Parameters
    ----------
    body : bytes
        JSON that could be decoded.
    keys : int
        How many keys were decoded.
    texts : iterable
        What was decoded: its texts' colons count, names of keys too.
    """
    colons = _colons(body)
    if colons == keys:
        return
    if b"\\u" not in body and colons == keys + sum(text.count(":") for text in texts if text.__class__ is str):
        return

    def once(pairs: list[tuple[str, Any]]) -> None:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise QuestionError(f"keys given twice: {shorten(sorted({n for n in names if names.count(n) > 1}))}")

    json.loads(body, object_pairs_hook=once)
