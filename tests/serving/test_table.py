"""Bodies of many rows of the same variables: read and encoded column by column, and nothing else is different."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bnpipe.errors import QuestionError
from bnpipe.schema import Schema, Variable
from bnpipe.serving.cells import CellEncoder
from bnpipe.serving.questions import Question, read_question, table_reader
from bnpipe.serving.table import MANY, Table, TableReader

ROWS = 600
CELLS: dict[str, list[Any]] = {
    "bins": [1, 1.5, 2.99, 3, -1e300, -0.0],
    "gaps": [1, None, 10**300, "low", "2.5", "?"],
    "word": ["a", "b", "10:30", "new", 3, None],
    "stranger": ["x", 1, None],
}
SCHEMA = Schema(
    (
        Variable("absent", ("no", "yes")),
        Variable("bins", ("low", "mid", "high"), edges=(1.5, 3.0)),
        Variable("gaps", ("low", "mid", "high", "none"), edges=(1.5, 3.0), missing="none"),
        Variable("word", ("a", "b", "10:30", "other", "3"), other="other"),
    )
)


def rows_of(seed: int, names: list[str], count: int = ROWS) -> list[dict[str, Any]]:
    """Draw rows."""
    rng = np.random.default_rng(seed)
    return [{name: CELLS[name][rng.integers(len(CELLS[name]))] for name in names} for _ in range(count)]


def body_of(rows: list[dict[str, Any]], **more: Any) -> bytes:
    """Write a body."""
    return json.dumps({"rows": rows, **more}).encode()


def read(body: bytes, tables: TableReader | None = None) -> Question:
    """Decode a question."""
    return read_question(body, most_rows=2 * ROWS, tables=tables)


def taught(names: list[str]) -> TableReader:
    """Make a reader that has seen two bodies of these variables."""
    tables = table_reader()
    for seed in (100, 101):
        assert isinstance(read(body_of(rows_of(seed, names)), tables).rows, list)
    return tables


def test_it_says_the_same_as_dicts() -> None:
    """Cells, what else is asked, codes, unseen and unknown cells, whole and in parts."""
    tables, encoder = taught(list(CELLS)), CellEncoder(SCHEMA)
    for seed in range(5):
        rows = rows_of(seed, [*CELLS][:: -1 if seed % 2 else 1])
        body = body_of(rows, targets=["word"], key="k", abstain_below=0.5)
        quick, plain = read(body, tables), read(body)
        assert isinstance(quick.rows, Table)
        assert quick.cells() == plain.rows == rows
        assert [list(map(type, row.values())) for row in quick.rows[3:9].rows()] == [
            [type(row[name]) for name in quick.rows.columns] for row in rows[3:9]
        ]
        assert (quick.targets, quick.key, quick.abstain_below, quick.interval) == (("word",), "k", 0.5, None)
        found, expected = encoder.encode(quick.rows), CellEncoder(SCHEMA).encode(rows)
        np.testing.assert_array_equal(found.codes, expected.codes)
        assert set(found.unseen) == set(expected.unseen)
        assert any(name == "gaps" for _, name, _ in found.unseen)
        assert sorted(found.unknown) == sorted(expected.unknown) == [(place, "stranger") for place in range(ROWS)]
        np.testing.assert_array_equal(encoder.encode(quick.rows[7:300]).codes, expected.codes[:, 7:300])
        assert len(set(found.codes[1].tolist())) > 2


LAST: dict[str, tuple[str, bool]] = {
    "as the others": ('{"bins": 1, "word": "a"}', True),
    "in another order": ('{"word": "a", "bins": 1}', True),
    "a boolean": ('{"bins": true, "word": "a"}', False),
    "one variable less": ('{"bins": 1}', False),
    "one more": ('{"bins": 1, "word": "a", "gaps": 1}', False),
    "a huge integer": ('{"bins": 1' + "0" * 400 + ', "word": "a"}', True),
}


@pytest.mark.parametrize("last", LAST)
def test_a_row_of_another_kind(last: str) -> None:
    """It is read as if there were no tables; what was learned stays."""
    text, is_table = LAST[last]
    tables = taught(["bins", "word"])
    body = body_of(rows_of(0, ["bins", "word"]))[:-2] + b"," + text.encode() + b"]}"
    for _ in range(2):
        found = read(body, tables)
        assert isinstance(found.rows, Table) == is_table
        assert found.cells() == read(body).rows
    assert isinstance(read(body_of(rows_of(1, ["word", "bins"])), tables).rows, Table)


WRONG: dict[str, bytes] = {
    "a variable twice": b'{"bins": 1, "bins": 1, "word": "a"}]}',
    "a variable twice, after colons": b'{"bins": 1, "word": "::", "word": "::"}]}',
    "a list": b'{"bins": [1], "word": "a"}]}',
    "NaN": b'{"bins": NaN, "word": "a"}]}',
    "no end": b'{"bins": 1, "word": "a"}]',
    "no UTF-8": b'{"bins": 1, "word": "\xff"}]}',
    "two bodies": b'{"bins": 1, "word": "a"}]} {}',
    "rows twice": b'{"bins": 1, "word": "a"}], "rows": [{"bins": 1, "word": "a"}]}',
    "something more": b'{"bins": 1, "word": "a"}], "target": "word"}',
    "no level": b'{"bins": 1, "word": "a"}], "interval": 2}',
    "too many rows": b",".join([b'{"bins": 1, "word": "a"}'] * 2 * ROWS) + b"]}",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_refused_in_the_same_words(wrong: str) -> None:
    """With tables and without."""
    tables = taught(["bins", "word"])
    body = body_of(rows_of(0, ["bins", "word"]))[:-2] + b"," + WRONG[wrong]
    with pytest.raises(QuestionError) as expected:
        read(body)
    with pytest.raises(QuestionError) as refused:
        read(body, tables)
    assert (str(refused.value), refused.value.at) == (str(expected.value), expected.value.at)


def test_no_rows_of_a_body_that_is_large_otherwise() -> None:
    """An empty list fits every decoder."""
    with pytest.raises(QuestionError, match="at least one row"):
        read(body_of([], key="k" * 20_000), taught(["bins", "word"]))


@pytest.mark.parametrize("names", [["a", "b", "c", "d", "e", 'quo"ted'], ["only"], [f"v{n}" for n in range(300)]])
def test_names_that_no_struct_can_have(names: list[str]) -> None:
    """Too many or with quotes: decoded as dicts each time; a single one is no difficulty."""
    body, tables = body_of([dict.fromkeys(names, "x" * 100)] * MANY * 2), table_reader()
    for _ in range(4):
        found = read(body, tables)
    assert isinstance(found.rows, Table) == (names == ["only"])
    assert found.cells() == read(body).rows


def test_only_what_comes_again_is_learned_and_little_of_it() -> None:
    """Bodies of ever other variables leave nothing behind; of those that came twice the last four stay."""
    tables = table_reader()
    pad = "x" * 300

    def body(number: int) -> bytes:
        return body_of([{f"name {number}": pad}] * MANY)

    for number in (*range(20), *range(20)):
        assert isinstance(read(body(number), tables).rows, list)
    for number in range(6):
        for _ in range(2):
            read(body(number), tables)
    assert [isinstance(read(body(number), tables).rows, Table) for number in (2, 3, 4, 5)] == [True] * 4
    assert isinstance(read(body(0), tables).rows, list)
