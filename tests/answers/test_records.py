"""What counts as the same evidence, and what an id tells."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, timedelta

import pytest
from answer_records import answer
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.answers import evidence_hash, new_request_id
from bnpipe.answers.records import day_of_id
from bnpipe.errors import FormatError

CELLS = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=3)
ROWS = st.lists(st.dictionaries(st.text(max_size=3), CELLS, max_size=5), max_size=3)


@given(ROWS, st.randoms())
def test_neither_order_nor_the_kind_of_number_change_the_hash(rows, random) -> None:
    """A client that sends the same evidence otherwise would be told that it is other evidence."""
    other = []
    for row in rows:
        pairs = [(name, float(value) if type(value) is int else value) for name, value in row.items()]
        random.shuffle(pairs)
        other.append({name: -0.0 if value == 0.0 and type(value) is float else value for name, value in pairs})
    assert evidence_hash(other) == evidence_hash(rows)


@given(ROWS, ROWS)
def test_other_evidence_has_another_hash(first, second) -> None:
    """Evidence that is other would pass for what was sent."""

    def told_apart(rows):
        return [{name: (type(v) is bool, isinstance(v, str), v) for name, v in row.items()} for row in rows]

    assert (evidence_hash(first) == evidence_hash(second)) == (told_apart(first) == told_apart(second))


@pytest.mark.parametrize("value", ["3", True, None, 3.5, -3, 10**400])
def test_types_are_told_apart(value) -> None:
    """A state named 3 and the number 3 would pass for one another, or a missing value for one never asked about."""
    assert len({evidence_hash([row]) for row in ({"a": value}, {"a": 3}, {})}) == 3


def test_the_hash_is_what_it_was() -> None:
    """Hashes kept in logs would no longer be found again."""
    assert evidence_hash([{"b": "x", "a": 3}, {}]) == hashlib.sha256(b'[{"a":3.0,"b":"x"},{}]').hexdigest()


def test_an_id_tells_its_day_and_is_its_own() -> None:
    """Looking for an answer would read every day, or two requests would share an id."""
    at = datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    ids = {new_request_id(at + timedelta(microseconds=place)) for place in range(500)} | {
        new_request_id(at) for _ in range(500)
    }
    assert len(ids) == 1000
    assert day_of_id(new_request_id(at)) == date(2026, 3, 1)
    assert day_of_id("order 4711") is None


@pytest.mark.parametrize("text", [b"[1,2]", b"[1", b"{}", b"[ 1]", b'["\xff"]'])
def test_an_answer_that_cant_be_taken_apart_is_refused(text) -> None:
    """Half of an answer would be logged as if it were one row's."""
    with pytest.raises(FormatError, match="request-1"):
        answer(1, answer=text).row_answers()
