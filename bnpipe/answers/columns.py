"""Records as Arrow tables: a line for each row of evidence, a column for each variable.

A variable's cells are laid out so that the network's schema gives them the same codes as the request's: a column of
doubles where numbers fall into bins, else text. A null there is a null of the request, or a cell left out; where a
variable has a state for nulls the two differ, and ``_unobserved`` names those of which nothing was said. The cells as
they were sent are in ``_evidence``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
import numpy as np

from bnpipe.answers.records import AnswerRecord, Cell, FeedbackRecord, Record
from bnpipe.schema import Schema, Variable, state_name

if TYPE_CHECKING:
    import pyarrow as pa

SchemaOf: TypeAlias = Callable[[str, str], Schema | None]
"""Gives the schema of a model's network by content hash; None if nobody knows it any more."""

UNOBSERVED: Final = "_unobserved"
"""Column with a JSON list of variables that have a state for nulls and of which nothing was said."""

Answered: TypeAlias = tuple[AnswerRecord, Sequence[str]]
"""An answer, and what it says of each of its rows."""

_JSON: Final = msgspec.json.Encoder(order="deterministic")
_NUMBERS: Final = frozenset({float, int, type(None)})
_TEXTS: Final = frozenset({str, type(None)})


def no_schema(model: str, content_hash: str) -> Schema | None:
    """Know no schema: all cells are text."""
    return None


@cache
def _about_answers() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("_at", pa.timestamp("us", tz="UTC")),
            ("_request", pa.string()),
            ("_row", pa.int32()),
            ("_version", pa.int32()),
            ("_content_hash", pa.string()),
            ("_arm", pa.string()),
            ("_caller", pa.string()),
            ("_key", pa.string()),
            ("_kind", pa.string()),
            ("_question", pa.string()),
            ("_evidence", pa.string()),
            ("_evidence_hash", pa.string()),
            ("_answer", pa.string()),
            ("_seconds", pa.float64()),
            ("_batch", pa.int32()),
            (UNOBSERVED, pa.string()),
        ]
    )


@cache
def _about_feedback() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("_at", pa.timestamp("us", tz="UTC")),
            ("_request", pa.string()),
            ("_row", pa.int32()),
            ("_caller", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Layout:
    """Columns of a file, the same for each part of its records that is laid out.

    Parameters
    ----------
    schemas : mapping of str to Schema or None
        By content hash of the network; None where nobody knows it any more.
    numbers : mapping of str to bool
        By variable: whether its cells are doubles, else text.
    """

    schemas: Mapping[str, Schema | None]
    numbers: Mapping[str, bool]

    @classmethod
    def of(cls, schemas: Mapping[str, Schema | None], names: Iterable[str] = ()) -> Layout:
        """Take the variables of these schemas and, as text, those of these names."""
        variables: dict[str, list[Variable]] = {}
        for variable in (variable for schema in schemas.values() for variable in schema or ()):
            variables.setdefault(variable.name, []).append(variable)
        all_known = None not in schemas.values()
        numbers = {name: all_known and all(map(is_number, found)) for name, found in variables.items()}
        return cls(schemas, numbers | dict.fromkeys(names, False))

    def answers(self, records: Sequence[Answered]) -> pa.Table:
        """Lay out answers, in their order."""
        nullable = {place: _nullable(schema) for place, schema in self.schemas.items()}
        lines: list[AnswerRecord] = []
        cells: list[dict[str, Cell]] = []
        questions: list[str] = []
        hashes: list[str] = []
        evidence: list[str | None] = []
        unobserved: list[str | None] = []
        for record, answers in records:
            count = len(answers)
            lines += [record] * count
            questions += [_text(record.question)] * count
            hashes += [record.hash] * count
            if record.rows is None:
                cells += [{}] * count
                evidence += [None] * count
                unobserved += [None] * count
            else:
                cells += record.rows
                evidence += map(_text, record.rows)
                unobserved += [_unobserved(row, nullable[record.content_hash]) for row in record.rows]
        places = [record.content_hash for record in lines]
        return self._table(
            _about_answers(),
            {
                "_at": [record.at for record in lines],
                "_request": [record.id for record in lines],
                "_row": [row for _, answers in records for row in range(len(answers))],
                "_version": [record.version for record in lines],
                "_content_hash": places,
                "_arm": [record.arm for record in lines],
                "_caller": [record.caller for record in lines],
                "_key": [record.key for record in lines],
                "_kind": [record.kind for record in lines],
                "_question": questions,
                "_evidence": evidence,
                "_evidence_hash": hashes,
                "_answer": [answer for _, answers in records for answer in answers],
                "_seconds": [record.seconds for record in lines],
                "_batch": [record.batch for record in lines],
                UNOBSERVED: unobserved,
            },
            cells,
            places,
        )

    def labels(self, records: Sequence[FeedbackRecord]) -> pa.Table:
        """Lay out labels, in their order; all of them text."""
        return self._table(
            _about_feedback(),
            {
                "_at": [record.at for record in records],
                "_request": [record.request for record in records],
                "_row": [record.row for record in records],
                "_caller": [record.caller for record in records],
            },
            [record.labels for record in records],
            [""] * len(records),
        )

    def _table(
        self,
        about: pa.Schema,
        lines: Mapping[str, Sequence[Any]],
        cells: Sequence[Mapping[str, Cell]],
        places: Sequence[str],
    ) -> pa.Table:
        """Put the variables' columns behind those of the records; each row comes with the name of its schema."""
        import pyarrow as pa

        shared = {name: pa.array(values, about.field(name).type) for name, values in lines.items()}
        variables = {name: self._column(name, cells, places) for name in self.numbers}
        return pa.table(shared | variables)

    def _column(self, name: str, cells: Sequence[Mapping[str, Cell]], places: Sequence[str]) -> pa.Array:
        import pyarrow as pa

        values = [row.get(name) for row in cells]
        kinds, number = set(map(type, values)), self.numbers[name]
        variables = {place: schema[name] for place, schema in self.schemas.items() if schema and name in schema}
        if number and kinds <= _NUMBERS and len(variables) == len(self.schemas):
            with suppress(OverflowError):  # an integer of more than 308 digits
                return pa.array(np.array(values, dtype=np.float64), from_pandas=True)
        if not number and kinds <= _TEXTS:
            return pa.array(values, pa.string())
        layout: Callable[[Cell, Variable | None], float | str | None] = number_of if number else text_of
        laid_out = [layout(value, variables.get(place)) for value, place in zip(values, places, strict=True)]
        return pa.array(laid_out, pa.float64() if number else pa.string())


def strangers(records: Iterable[Record], schemas: Mapping[str, Schema | None]) -> dict[str, None]:
    """Name the variables of labels, and of answers whose schema nobody knows, each once."""
    names: dict[str, None] = {}
    for record in records:
        if isinstance(record, FeedbackRecord):
            names.update(dict.fromkeys(record.labels))
        elif schemas[record.content_hash] is None:
            names.update(dict.fromkeys(name for row in record.rows or () for name in row))
    return names


def answers_table(records: Sequence[AnswerRecord], schema_of: SchemaOf = no_schema) -> pa.Table:
    """Lay out answers of one model, in their order.

    Raises
    ------
    FormatError
        An answer is not one JSON array with an element for each row.
    """
    models = {record.content_hash: record.model for record in records}
    schemas = {content_hash: schema_of(model, content_hash) for content_hash, model in models.items()}
    layout = Layout.of(schemas, strangers(records, schemas))
    return layout.answers([(record, record.row_answers()) for record in records])


def feedback_table(records: Sequence[FeedbackRecord]) -> pa.Table:
    """Lay out labels, in their order; all of them text."""
    return Layout.of({"": None}, strangers(records, {})).labels(records)


def _text(value: Mapping[str, Any]) -> str:
    return _JSON.encode(value).decode()


def _nullable(schema: Schema | None) -> list[tuple[Variable, bool]]:
    """Give the variables that have a state for nulls, and whether they are numbers."""
    return [(variable, is_number(variable)) for variable in schema or () if variable.missing is not None]


def _unobserved(row: Mapping[str, Cell], nullable: Sequence[tuple[Variable, bool]]) -> str:
    """Name the variables whose cell was left out, or is text where numbers are needed."""
    names = [
        variable.name for variable, number in nullable
        if ((value := row.get(variable.name)) is None and variable.name not in row)
        or (number and value is not None and value != variable.missing and number_of(value, variable) is None)
    ]  # fmt: skip
    return _JSON.encode(names).decode() if names else "[]"


def is_number(variable: Variable) -> bool:
    """Whether every code of a variable can be written as a number or null: all its states but `missing` are bins."""
    if variable.edges is None or variable.other is not None:
        return False
    return set(variable.states[len(variable.edges) + 1 :]) <= {variable.missing}


def number_of(value: Cell, variable: Variable | None) -> float | None:
    """Give a cell as a number with the same code; None where nothing is known, or where it is no number at all."""
    if value is None or variable is None:
        return None
    if isinstance(value, str) and value in variable.states:
        return _inside(variable, variable.states.index(value))
    try:
        number = float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer of more than 308 digits
        number = inf if int(value) > 0 else -inf
    return None if number != number else number  # noqa: PLR0124  NaN


def _inside(variable: Variable, code: int) -> float | None:
    """Give a number in a bin: its lower edge, or what is just below the lowest; None for the state of nulls."""
    edges = variable.edges or ()
    if code > len(edges):
        return None
    if code > 0:
        return edges[code - 1]
    return nextafter(edges[0], -inf) if edges else 0.0


def text_of(value: Cell, variable: Variable | None) -> str | None:
    """Give a cell as text with the same code."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return None
    if variable is None or variable.edges is None or isinstance(value, str):
        return state_name(value)
    number = number_of(value, variable)
    return None if number is None else variable.states[bisect_right(variable.edges, number)]
