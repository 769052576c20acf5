"""JSON cells become the codes that the network's own schema gives them."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bnpipe.data import Dataset
from bnpipe.schema import MISSING, Schema, Variable, bin_labels
from bnpipe.serving.cells import Cell, CellEncoder

EDGES = (-1.5, 0.0, 3.0, 1e6)
SCHEMA = Schema(
    (
        Variable("plain", ("no", "yes", "true", "1", "0.5", "3", "", "é")),
        Variable("forgiving", ("a", "1", "rest"), other="rest", missing="rest"),
        Variable("holes", ("1", "false", "none"), missing="none"),
        Variable("bins", bin_labels(EDGES), edges=EDGES),
        Variable("bins_with_roles", (*bin_labels(EDGES), "odd", "gone"), edges=EDGES, other="odd", missing="gone"),
        Variable("any", ("any",), edges=()),
    )
)
NAMES = SCHEMA.names

texts = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["no", "true", "1", "0.5", "rest", "none", "<-1.5", ">=1000000", "odd", "gone", "any"]),
    st.sampled_from(["3.5", " 3 ", "1_000", "nan", "inf", "-Infinity", "1e400", "0x10", "٣", "x" * 300]),
)
numbers = st.one_of(
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([2**63, -(2**63) - 1, 10**22, 10**400, -(10**400), 0, 1, 3]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-0.0, 1.0, 3.0, 0.5, -1.5, 1e300, 5e-324, 1e6]),
)
cells = st.one_of(texts, numbers, st.booleans(), st.none())
rows = st.lists(st.dictionaries(st.sampled_from(NAMES), cells), min_size=1, max_size=8)


def expected(row: dict[str, Cell], variable: Variable) -> tuple[int, bool]:
    """Encode a cell by itself as `Dataset.from_pandas` does; what is left out is a column that is not there."""
    frame = pd.DataFrame({name: pd.Series([value], dtype=object) for name, value in row.items()}, index=[0])
    data = Dataset.from_pandas(frame, schema=SCHEMA)
    place = SCHEMA.index(variable.name)
    return int(data.codes[place, 0]), bool(data.unseen is not None and data.unseen[place, 0])


def check(encoder: CellEncoder, table: list[dict[str, Cell]]) -> None:
    """Compare every cell."""
    encoded = encoder.encode(table)
    unseen = {(row, name) for row, name, _ in encoded.unseen}
    for place, row in enumerate(table):
        for variable in SCHEMA:
            code, strange = expected(row, variable)
            found = int(encoded.codes[SCHEMA.index(variable.name), place]), (place, variable.name) in unseen
            assert found == (code, strange), (variable.name, row.get(variable.name, "left out"))


@given(rows)
@example([{"plain": True}, {"plain": 1}, {"plain": 1.0}, {"plain": "1"}])
@example([{"holes": 1}, {"holes": True}, {"holes": False}, {"holes": 0}])
@example([{"bins": 10**400}, {"bins": -(10**400)}, {"bins": "1e400"}, {"bins": True}])
def test_codes_are_those_of_the_schema(table: list[dict[str, Cell]]) -> None:
    """Any JSON value, alone or among others, has the code and the strangeness that `Variable.encode` gives it."""
    check(CellEncoder(SCHEMA), table)


@given(st.lists(rows, min_size=2, max_size=4))
def test_what_was_asked_before_does_not_matter(tables: list[list[dict[str, Cell]]]) -> None:
    """An encoder that remembers gives what a fresh one gives."""
    encoder = CellEncoder(SCHEMA)
    for table in tables:
        check(encoder, table)


@given(st.lists(cells, min_size=1, max_size=5), st.integers(64, 90), st.sampled_from(NAMES))
def test_many_rows_are_encoded_as_few(values: list[Cell], count: int, name: str) -> None:
    """Quick ways for many rows change nothing, with every column in every row or not."""
    few: list[dict[str, Cell]] = [{name: value, "plain": "no"} for value in values]
    many = [few[place % len(few)] for place in range(count)]
    encoder = CellEncoder(SCHEMA)
    found, one_by_one = encoder.encode(many), [CellEncoder(SCHEMA).encode([row]) for row in many]
    np.testing.assert_array_equal(found.codes, np.concatenate([each.codes for each in one_by_one], axis=1))
    assert len(found.unseen) == sum(len(each.unseen) for each in one_by_one)
    with_hole = encoder.encode([*many, {}])
    np.testing.assert_array_equal(with_hole.codes[:, :-1], found.codes)
    assert (with_hole.codes[:, -1] == MISSING).all()


@given(cells)
def test_json_keeps_what_a_cell_is(value: Cell) -> None:
    """A cell that went through JSON and the service's decoder has the same code as before."""
    try:
        body = json.dumps({"plain": value, "bins": value})
        decoded = msgspec.json.decode(body, type=dict[str, Cell])
    except msgspec.MsgspecError:  # half a surrogate pair, an integer of more digits than are read
        return
    encoder = CellEncoder(SCHEMA)
    np.testing.assert_array_equal(
        encoder.encode([decoded]).codes, CellEncoder(SCHEMA).encode([{"plain": value, "bins": value}]).codes
    )


def test_a_stream_of_strange_values_is_told_and_forgotten() -> None:
    """More strange values than are remembered are all told, and neither they nor long texts pile up."""
    encoder = CellEncoder(SCHEMA)
    table: list[dict[str, Cell]] = [{"plain": f"strange {n}"} for n in range(9000)]
    assert len(encoder.encode(table).unseen) == 9000
    assert len(encoder.encode([{"plain": "strange 0"}]).unseen) == 1
    long = "x" * 1_000_000
    encoder.encode([{"plain": long}])
    encoder.encode([{"plain": "no"}])
    column: Any = encoder._columns[0]
    assert len(column.known) < 20
    assert long not in column.odd


@pytest.mark.parametrize("rows_", [1, 200])
def test_variables_of_others_are_named(rows_: int) -> None:
    """Cells of variables that the network does not have are told, with their rows, and change nothing."""
    table: list[dict[str, Cell]] = [{"plain": "no", "rain": "yes"}] * rows_
    encoded = CellEncoder(SCHEMA).encode(table)
    assert encoded.unknown == tuple((row, "rain") for row in range(rows_))
    assert (encoded.codes[0] == 0).all()
