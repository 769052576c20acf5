"""MLflow's protocol of ``/invocations``, read without pandas: rows of cells, as the version's pyfunc would see them.

A frame has every column in every row, so a cell that a record leaves out is a null there, not unobserved, as soon as
another record has it; columns that no record has are unobserved. NaN, which JSON does not know but pandas' users write,
is a null. CSV tells text from numbers by the network's states: what names one is that state.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from bnpipe.errors import QuestionError, WrongMediaType, shorten
from bnpipe.schema import Schema
from bnpipe.serving.cells import Cell
from bnpipe.serving.misread import wrong_body
from bnpipe.serving.questions import refuse_repeated

CSV: Final = "text/csv"
JSON: Final = "application/json"
_NULLS: Final = frozenset({"", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>"})
_TRUTH: Final = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}

Row = dict[str, Cell]


class Split(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A frame as `DataFrame.to_dict(orient="split")` gives it; the index says nothing."""

    columns: list[str]
    data: list[list[Cell]]
    index: list[Cell] | None = None


class Invocation(msgspec.Struct, frozen=True):
    """A body: exactly one of the four forms of a frame. `params` are MLflow's; these models have none."""

    dataframe_split: Split | UnsetType = UNSET
    dataframe_records: list[Row] | UnsetType = UNSET
    instances: list[Row] | UnsetType = UNSET
    inputs: list[Row] | dict[str, Cell | list[Cell]] | UnsetType = UNSET
    params: dict[str, Any] | UnsetType | None = UNSET


_DECODER: Final = msgspec.json.Decoder(Invocation)
_FORMS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def media_type(content_type: str | None) -> str:
    """Tell CSV from JSON.

    Raises
    ------
    WrongMediaType
    """
    kind, _, parameters = (content_type or "").partition(";")
    kind, charset = kind.strip().lower(), parameters.partition("charset=")[2].strip().strip('"').lower()
    if kind not in (CSV, JSON) or charset not in ("", "utf-8", "utf8"):
        raise WrongMediaType(f"Content-Type: {JSON} or {CSV} is needed, in UTF-8")
    return kind


def read_invocation(body: bytes, *, most_rows: int) -> list[Row]:
    """Decode a JSON body.

    Raises
    ------
    QuestionError
        Not JSON, not one of the forms of a frame, cells that are lists or objects, too many rows.
    """
    try:
        invocation = _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_body(error, body, Split) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        invocation = _with_nan(body)
    forms = [form for form in _FORMS if getattr(invocation, form) is not UNSET]
    if len(forms) != 1:
        raise QuestionError(f"exactly one of {', '.join(_FORMS)} is needed, got {', '.join(forms) or 'none'}")
    rows, keys = _rows(getattr(invocation, forms[0]), forms[0], most_rows)
    refuse_repeated(body, keys + 1 + (invocation.params is not UNSET))
    return _framed(rows)


def _with_nan(body: bytes) -> Invocation:
    """Read JSON as Python writes it: NaN is a null."""

    def constant(name: str) -> float | None:
        return None if name == "NaN" else float(name)

    try:
        read = json.loads(body, parse_constant=constant)
        msgspec.json.encode(read)  # half a surrogate pair is no text
        return msgspec.convert(read, Invocation)
    except msgspec.ValidationError as error:
        raise wrong_body(error, body, Split) from None
    except (ValueError, RecursionError, msgspec.MsgspecError, OverflowError):
        raise QuestionError("the body is not JSON in UTF-8, or is nested too deeply") from None


def _rows(frame: Any, form: str, most_rows: int) -> tuple[list[Row], int]:
    """Give a frame's rows, and how many keys its JSON has."""
    if isinstance(frame, Split):
        _check_count(len(frame.data), most_rows, form)
        width = len(frame.columns)
        if len(set(frame.columns)) < width:
            raise QuestionError(f"{form}.columns: one is given twice", at=f"{form}.columns")
        for place, cells in enumerate(frame.data):
            if len(cells) != width:
                where = f"{form}.data[{place}]"
                raise QuestionError(f"{where}: {len(cells)} cells in {width} columns", at=where)
        return [dict(zip(frame.columns, cells, strict=True)) for cells in frame.data], 3 - (frame.index is None)
    if isinstance(frame, dict):
        columns = {name: cells if isinstance(cells, list) else [cells] for name, cells in frame.items()}
        counts = {len(cells) for cells in columns.values()}
        if len(counts) > 1:
            raise QuestionError(f"{form}: columns of {min(counts)} to {max(counts)} cells", at=form)
        _check_count(rows := max(counts, default=0), most_rows, form)
        return [{name: cells[row] for name, cells in columns.items()} for row in range(rows)], len(frame)
    _check_count(len(frame), most_rows, form)
    return frame, sum(map(len, frame))


def read_csv(body: bytes, schema: Schema, *, most_rows: int) -> list[Row]:
    """Decode a CSV body with a header.

    Raises
    ------
    QuestionError
        Not UTF-8, not CSV, a column given twice, a line longer than the header, too many rows.
    """
    try:
        text = io.StringIO(body.decode("utf-8-sig"), newline="")
        lines = [line for line in csv.reader(text, strict=True) if line]
    except (UnicodeDecodeError, csv.Error):
        raise QuestionError("the body is not CSV in UTF-8") from None
    if not lines:
        raise QuestionError("the body is empty: a line with the names of the columns is needed")
    header, data = lines[0], lines[1:]
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise QuestionError(f"columns given twice: {shorten(repeated)}")
    _check_count(len(data), most_rows, "lines")
    states = {name: frozenset(schema[name].states) if name in schema else frozenset() for name in header}
    rows: list[Row] = []
    for number, line in enumerate(data, start=2):
        if len(line) > len(header):
            raise QuestionError(f"line {number}: {len(line)} cells in {len(header)} columns", at=f"line {number}")
        texts = [*line, *[""] * (len(header) - len(line))]
        rows.append({name: _typed(text, states[name]) for name, text in zip(header, texts, strict=True)})
    return rows


def _typed(text: str, states: frozenset[str]) -> Cell:
    if text in states:
        return text
    if text in _NULLS:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if abs(number) < float("inf") else text


def _check_count(rows: int, most: int, form: str) -> None:
    if rows > most:
        raise QuestionError(f"{form}: {rows} rows, {most} are allowed; ask in parts", at=form, too_large=True)


def _framed(rows: Sequence[Row]) -> list[Row]:
    """Give each row every column that any of them has."""
    columns: dict[str, None] = dict.fromkeys(name for row in rows for name in row)
    width = len(columns)
    return [row if len(row) == width else {name: row.get(name) for name in columns} for row in rows]
