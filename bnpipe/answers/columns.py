"""Records as Arrow tables: a line for each row of evidence, a column for each variable.

A variable's cells are laid out so that the network's schema gives them the same codes as the request's: a column of
doubles where numbers fall into bins, else text. A null there is a null of the request, or a cell left out; where a
variable has a state for nulls the two differ, and ``_unobserved`` names those of which nothing was said. The cells as
they were sent are in ``_evidence``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import inf, nextafter
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from bnpipe.answers.records import AnswerRecord, Cell, FeedbackRecord
from bnpipe.schema import Schema, Variable, state_name

if TYPE_CHECKING:
    import pyarrow as pa

SchemaOf: TypeAlias = Callable[[str, str], Schema | None]
"""Gives the schema of a model's network by content hash; None if nobody knows it any more."""

UNOBSERVED: Final = "_unobserved"
"""Column with a JSON list of variables that have a state for nulls and of which nothing was said."""

_JSON: Final = msgspec.json.Encoder(order="deterministic")


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


def answers_table(records: Sequence[AnswerRecord], schema_of: SchemaOf = no_schema) -> pa.Table:
    """Lay out answers of one model, in their order.

    Raises
    ------
    FormatError
        An answer is not one JSON array with an element for each row.
    """
    lines: list[dict[str, Any]] = []
    cells: list[tuple[dict[str, Cell], str]] = []
    schemas: dict[str, Schema | None] = {}
    for record in records:
        if record.content_hash not in schemas:
            schemas[record.content_hash] = schema_of(record.model, record.content_hash)
        answers = record.row_answers()
        lines += _lines(record, answers, schemas[record.content_hash])
        cells += [(row, record.content_hash) for row in record.rows or [{}] * len(answers)]
    return _with_cells(lines, cells, schemas, _about_answers())


def _lines(record: AnswerRecord, answers: Sequence[str], schema: Schema | None) -> list[dict[str, Any]]:
    nullable = [variable for variable in schema or () if variable.missing is not None]
    shared = {
        "_at": record.at,
        "_request": record.id,
        "_version": record.version,
        "_content_hash": record.content_hash,
        "_arm": record.arm,
        "_caller": record.caller,
        "_key": record.key,
        "_kind": record.kind,
        "_question": _JSON.encode(record.question).decode(),
        "_evidence_hash": record.hash,
    }
    if record.rows is None:
        nothing = {"_evidence": None, UNOBSERVED: None}
        return [{**shared, **nothing, "_row": place, "_answer": answer} for place, answer in enumerate(answers)]
    return [
        {
            **shared,
            "_row": place,
            "_evidence": _JSON.encode(row).decode(),
            "_answer": answer,
            UNOBSERVED: _JSON.encode([v.name for v in nullable if _says_nothing(row, v)]).decode(),
        }
        for place, (row, answer) in enumerate(zip(record.rows, answers, strict=True))
    ]


def _says_nothing(row: Mapping[str, Cell], variable: Variable) -> bool:
    """Whether the cell of a variable with a state for nulls was left out, or is text where numbers are needed."""
    value = row.get(variable.name)
    if value is None:
        return variable.name not in row
    return is_number(variable) and value != variable.missing and number_of(value, variable) is None


def feedback_table(records: Sequence[FeedbackRecord]) -> pa.Table:
    """Lay out labels, in their order; all of them text."""
    lines = [
        {"_at": record.at, "_request": record.request, "_row": record.row, "_caller": record.caller}
        for record in records
    ]
    return _with_cells(lines, [(dict(record.labels), "") for record in records], {"": None}, _about_feedback())


def _with_cells(
    lines: Sequence[dict[str, Any]],
    cells: Sequence[tuple[dict[str, Cell], str]],
    schemas: Mapping[str, Schema | None],
    about: pa.Schema,
) -> pa.Table:
    """Put the columns of the variables behind those of the records; each row comes with the name of its schema."""
    import pyarrow as pa

    known = {place: schema for place, schema in schemas.items() if schema is not None}
    names = dict.fromkeys(name for schema in known.values() for name in schema.names)
    names.update(dict.fromkeys(name for row, place in cells if place not in known for name in row))
    columns: dict[str, pa.Array] = {}
    for name in names:
        variables = {place: schema[name] for place, schema in known.items() if name in schema}
        numbers = len(known) == len(schemas) and all(map(is_number, variables.values()))
        layout: Callable[[Cell, Variable | None], float | str | None] = number_of if numbers else text_of
        values = [layout(row.get(name), variables.get(place)) for row, place in cells]
        columns[name] = pa.array(values, pa.float64() if numbers else pa.string())
    shared = {name: pa.array([line[name] for line in lines], about.field(name).type) for name in about.names}
    return pa.table(shared | columns)


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
