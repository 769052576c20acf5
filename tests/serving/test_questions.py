"""Bodies are decoded strictly; what is wrong is said with its place, and never with a row's values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.errors import QuestionError
from bnpipe.serving.problems import problem_of
from bnpipe.serving.questions import read_feedback, read_question


def read(body: str | bytes) -> Any:
    """Decode a question."""
    return read_question(body if isinstance(body, bytes) else body.encode(), most_rows=10)


def test_a_question() -> None:
    """Cells keep their types; what may be left out may be."""
    found = read('{"rows": [{"a": 1, "b": 1.0, "c": true, "d": null, "e": "x: y"}], "targets": ["t"], "key": "k:1"}')
    assert found.rows == [{"a": 1, "b": 1.0, "c": True, "d": None, "e": "x: y"}]
    assert [type(value) for value in found.rows[0].values()] == [int, float, bool, type(None), str]
    assert (found.targets, found.interval, found.abstain_below, found.key) == (("t",), None, None, "k:1")
    assert read('{"rows": [{}], "targets": null, "interval": null}').targets is None


@pytest.mark.parametrize(
    ("body", "says", "at"),
    [
        ('{"rows": [{"b": 1, "a": [1]}]}', "rows[0].a: got a list; a text, a number", "rows[0].a"),
        ('{"rows": [{}, {"b": 1, "a": {"x": 1}}]}', "rows[1].a: got an object", "rows[1].a"),
        ('{"rows": [{"b": 1, "a": -1e999}]}', "rows[0].a: the number is beyond", "rows[0].a"),
        ('{"rows": [{}, 3]}', "Expected `object`", "rows[1]"),
        ('{"rows": []}', "at least one row", "rows"),
        ("{}", "missing required field `rows`", ""),
        ('{"rows": [{}], "interval": 1.5}', "got 1.5", "interval"),
        ('{"rows": [{}], "target": ["x"]}', "no field 'target' is known, did you mean 'targets'? there are ", ""),
        ('{"row": [{}]}', "no field 'row' is known, did you mean 'rows'?", ""),
        ('{"rows": [{}], "frobnicate": 1}', "no field 'frobnicate' is known; there are ", ""),
        ('{"rows": [' + "{}," * 10 + "{}]}", "11 rows, 10 are allowed", "rows"),
        ('{"rows": [{"a": 1, "a": 1}]}', "keys given twice: a", ""),
        ('{"rows": [{"a": "::"}], "rows": [{}]}', "keys given twice: rows", ""),
        ('{"rows": [{"b": 1, "a": NaN}]}', "rows[0].a: NaN and Infinity are no JSON", "rows[0].a"),
        ('{"rows": [{"b": 1, "a": 1,}]}', "not JSON in UTF-8: trailing comma in object (byte 26)", ""),
        ('{"rows": [{"a": "', "not JSON", ""),
        ('{"rows": [{"a": "\\ud800"}]}', "not JSON", ""),
    ],
)
def test_what_is_wrong_is_said(body: str, says: str, at: str) -> None:
    """What was received, what is allowed, and where."""
    with pytest.raises(QuestionError, match=re.escape(says)) as refused:
        read(body)
    assert refused.value.at == at
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_long_body_is_not_read_twice() -> None:
    """The row is known anyway; to look for its cell would keep others waiting."""
    with pytest.raises(QuestionError, match=r"rows\[0\]: got a list") as refused:
        read(json.dumps({"rows": [{"a": [1]}, {"b": "x" * 1_000_000}]}))
    assert refused.value.at == "rows[0]"


pairs = st.lists(
    st.tuples(st.sampled_from(["a", "b", "a:", ":"]), st.sampled_from(["", "x", ":", "1:2:3", "\\"])), max_size=4
)


@given(
    st.lists(pairs, min_size=1, max_size=3),
    st.sampled_from([":", " : ", ":\n"]),
    st.booleans(),
    st.text("k:", max_size=3),
)
def test_keys_given_twice_are_found_whatever_the_colons(
    rows: list[list[tuple[str, str]]], colon: str, escaped: bool, key: str
) -> None:
    """Colons in names and values, spaces and escapes change nothing: refused exactly where a name is there twice."""

    def text(value: str) -> str:
        written = json.dumps(value)
        return written.replace(":", r"\u003a") if escaped else written

    objects = ["{" + ",".join(text(name) + colon + text(value) for name, value in row) + "}" for row in rows]
    body = '{"rows"' + colon + "[" + ",".join(objects) + '],"key"' + colon + text(key) + "}"
    if any(len({name for name, _ in row}) < len(row) for row in rows):
        with pytest.raises(QuestionError, match="keys given twice"):
            read(body)
    else:
        assert read(body).rows == [dict(row) for row in rows]


def test_colons_in_texts_cost_no_second_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of day, addresses: a body is read once."""
    monkeypatch.setattr(json, "loads", lambda *_, **__: pytest.fail("read a second time"))
    assert read('{"rows": [{"a": "12:30:00", "b:": ":"}], "targets": ["t:"], "key": "k:1"}').key == "k:1"


def test_values_are_not_repeated_in_errors() -> None:
    """An error of decoding names the place, not what stood there."""
    for body in (
        '{"rows": [{"a": ["secret"]}]}',
        '{"rows": ["secret"]}',
        '{"rows": [{"a": "secret}]}',
        '{"rows": [{"a": "secret", "b": NaN}]}',
    ):
        with pytest.raises(QuestionError) as refused:
            read(body)
        problem, _ = problem_of(refused.value)
        assert "secret" not in repr(problem)


def test_feedback() -> None:
    """One or a list; rows from 0, at least one label."""
    one = {"model": "m", "request_id": "r", "labels": {"late": True}}
    (found,) = read_feedback(json.dumps(one).encode(), most_rows=10)
    assert (found.row, found.labels) == (0, {"late": True})
    assert len(read_feedback(json.dumps([one, {**one, "row": 9}]).encode(), most_rows=10)) == 2
    for wrong in ({"row": -1}, {"row": 10}, {"labels": {}}, {"request_id": ""}, {"request_id": "x" * 201}, {"x": 1}):
        with pytest.raises(QuestionError):
            read_feedback(json.dumps({**one, **wrong}).encode(), most_rows=10)
    with pytest.raises(QuestionError, match="allowed"):
        read_feedback(json.dumps([one] * 11).encode(), most_rows=10)
