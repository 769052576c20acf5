"""The log read back: each answer once, wherever it lies at that moment, and as it was given."""

from __future__ import annotations

import threading
from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answer_records import NOON, answer, clinic, feedback

from bnpipe.answers import Journal, compact, find, labelled, new_request_id, rows
from bnpipe.errors import DataError, JournalError
from bnpipe.schema import Schema

LATER = NOON + timedelta(days=30)


def schema_of(_: str, content_hash: str) -> Schema | None:
    network = clinic()
    return network.schema if content_hash == network.content_hash else None


def write(folder, *records) -> None:
    with Journal(folder / "journal", "w") as journal:
        journal.append(records)


def requests(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["_request"].to_pylist(), table["_row"].to_pylist(), strict=True))


@pytest.mark.parametrize("compacted", [False, True])
def test_an_answer_is_found_as_it_was_given(tmp_path, compacted) -> None:
    """`bnpipe audit` would ask another question, of other evidence, or compare with other bytes."""
    given = answer(
        1,
        [{"age": 3, "x": 0.1}, {"age": 3.0, "b": True, "n": None}],
        key="k",
        question={"interval": 0.9, "targets": ["back"]},
        seconds=0.0025,
        batch=7,
    )
    shadow = answer(1, given.rows, arm="shadow", version=4)
    write(tmp_path, shadow, given, answer(2))
    if compacted:
        compact(tmp_path, schema_of)
    found = find(tmp_path, "request-1")
    assert [record.arm for record in found] == ["champion", "shadow"]
    kept = found[0]
    for name in given.__struct_fields__:
        if name != "evidence_hash":
            assert getattr(kept, name) == getattr(given, name), name
    assert kept.hash == given.hash
    assert [type(value) for row in kept.rows for value in row.values()] == [int, float, float, bool, type(None)]
    assert find(tmp_path, "request-9") == ()


def test_by_policy_an_answer_is_found_without_its_evidence(tmp_path) -> None:
    """The answer of a row would be taken for that of all, or evidence made up."""
    write(tmp_path, answer(1, rows=[], answer=b"[]"))
    record = answer(2)
    write(
        tmp_path,
        record.__class__(
            **{name: getattr(record, name) for name in record.__struct_fields__}
            | {"rows": None, "evidence_hash": "abc"}
        ),
    )
    compact(tmp_path, schema_of)
    (found,) = find(tmp_path, "request-2")
    assert (found.rows, found.hash, found.answer) == (None, "abc", record.answer)


def test_an_id_that_tells_its_day_is_looked_for_there(tmp_path) -> None:
    """To find one answer of a year would take reading the year."""
    late = new_request_id(NOON + timedelta(hours=11, minutes=59))
    write(tmp_path, answer(1, id=late, at=NOON + timedelta(hours=12, seconds=1)), answer(2))
    compact(tmp_path, schema_of)
    other = tmp_path / "answers" / "model=clinic" / "day=2026-05-05"
    other.mkdir()
    (other / "broken.parquet").write_text("no Parquet")
    assert [record.id for record in find(tmp_path, late)] == [late]
    assert [record.id for record in find(tmp_path, "request-2", day=NOON.date())] == ["request-2"]
    with pytest.raises(JournalError, match=r"broken\.parquet"):
        find(tmp_path, "request-2")


def test_rows_are_the_same_before_and_after_compaction(tmp_path) -> None:
    """What has just been answered would be missing, or look otherwise an hour later."""
    records = [answer(n, [{"age": 20 + n, "ward": n}, {"smokes": n % 2 == 0}]) for n in range(5)]
    write(tmp_path, *records[:2])
    compact(tmp_path, schema_of)
    write(tmp_path, *records[2:], answer(9, model="other"), answer(3, arm="shadow"))
    before = rows(tmp_path, "clinic", NOON, LATER, schema_of=schema_of)
    compact(tmp_path, schema_of)
    after = rows(tmp_path, "clinic", NOON, LATER)
    assert before.equals(after)
    assert requests(after) == [(f"request-{n}", row) for n in range(5) for row in (0, 1)]
    assert after.schema.field("age").type == "double"


def test_rows_of_a_time_and_of_some_arms(tmp_path) -> None:
    """The canary would be judged by answers from before it began, or by those of fallbacks."""
    arms = ["champion", "challenger", "shadow", "fallback", "pinned"]
    write(tmp_path, *(answer(n, arm=arm) for n, arm in enumerate(arms)))
    compact(tmp_path, schema_of)
    found = rows(tmp_path, "clinic", NOON + timedelta(minutes=1), NOON + timedelta(minutes=4), arms=arms)
    assert found["_arm"].to_pylist() == ["challenger", "shadow", "fallback"]
    assert rows(tmp_path, "clinic", NOON, LATER, arms=["shadow"])["_request"].to_pylist() == ["request-2"]
    assert "shadow" not in rows(tmp_path, "clinic", NOON, LATER)["_arm"].to_pylist()
    assert rows(tmp_path, "nobody", NOON, LATER).num_rows == 0
    with pytest.raises(DataError, match="offset"):
        rows(tmp_path, "clinic", NOON.replace(tzinfo=None), LATER)


def test_columns_that_are_numbers_here_and_text_there_become_text(tmp_path) -> None:
    """A day whose version nobody has any more could not be read together with the next."""
    write(tmp_path, answer(1))
    compact(tmp_path)
    write(tmp_path, answer(2))
    compact(tmp_path, schema_of)
    assert rows(tmp_path, "clinic", NOON, LATER)["age"].to_pylist() == ["40.5", "40.5"]


def test_files_of_before_answers_were_timed_are_read_beside_others(tmp_path) -> None:
    """A canary, an audit or a look of the day after an upgrade would fail on the day before."""
    write(tmp_path, answer(1, seconds=0.001))
    compact(tmp_path, schema_of)
    (old,) = (tmp_path / "answers").rglob("*.parquet")
    pq.write_table(pq.read_table(old, partitioning=None).drop_columns(["_seconds", "_batch"]), old)
    write(tmp_path, answer(2, seconds=0.002), answer(3))
    compact(tmp_path, schema_of)
    assert rows(tmp_path, "clinic", NOON, LATER)["_seconds"].to_pylist() == [None, 0.002, None]
    assert [find(tmp_path, f"request-{number}")[0].seconds for number in (1, 2, 3)] == [None, 0.002, None]


def test_readers_during_compaction_see_each_row_once(tmp_path) -> None:
    """A canary judged, or a day tested, while journals are compacted would count answers twice or not at all."""
    for n in range(12):
        write(tmp_path, answer(n))
    expected, seen, done = [(f"request-{n}", 0) for n in range(12)], [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(requests(rows(tmp_path, "clinic", NOON, LATER)))

    reader = threading.Thread(target=read)
    reader.start()
    compact(tmp_path, schema_of, checkpoint=lambda _: done.wait(0.01))
    done.set()
    reader.join()
    assert len(seen) > 3
    assert all(found == expected for found in seen)


def test_labels_join_their_rows_and_the_last_one_counts(tmp_path) -> None:
    """The arms of a canary would be judged by labels that were put right later, or by those of other rows."""
    write(tmp_path, answer(1, [{"age": 30}, {"age": 70, "back": "no"}]), answer(2), answer(1, [{}, {}], arm="shadow"))
    write(
        tmp_path,
        feedback("request-1", 1, minutes=90, back="yes"),
        feedback("request-1", 1, minutes=60, back="no", age="71"),
        feedback("request-1", 1, minutes=90, back="yes"),
        feedback("request-7", 0, back="yes"),
    )
    compact(tmp_path, schema_of)
    write(tmp_path, feedback("request-2", 0, minutes=60 * 24 * 40, cause="storm"))
    found = labelled(tmp_path, "clinic", NOON, LATER)
    assert requests(found) == [("request-1", 1), ("request-1", 1), ("request-2", 0)]
    assert found["_arm"].to_pylist() == ["champion", "shadow", "champion"]
    assert found["back"].to_pylist() == ["yes", "yes", None]
    assert found["age"].to_pylist() == [71.0, 71.0, 40.5]
    assert found["cause"].to_pylist() == [None, None, "storm"]
    assert labelled(tmp_path, "clinic", NOON, LATER, arms=["champion"]).num_rows == 2


def test_a_label_that_is_no_number_makes_text_of_its_column(tmp_path) -> None:
    """One label that names a bin would make the labels unreadable."""
    write(tmp_path, answer(1), answer(2), feedback("request-1", age=">=65"))
    compact(tmp_path, schema_of)
    assert labelled(tmp_path, "clinic", NOON, LATER)["age"].to_pylist() == [">=65"]


def test_without_labels_nothing_is_labelled(tmp_path) -> None:
    """The first hours of a canary would raise an error."""
    write(tmp_path, answer(1))
    found = labelled(tmp_path, "clinic", NOON, LATER)
    assert found.num_rows == 0
    assert {"_arm", "_version", "_at", "_answer", "_key", "_request", "_row"} <= set(found.column_names)
    assert labelled(tmp_path / "nowhere", "clinic", NOON, LATER).num_rows == 0


def test_labels_that_match_no_answer_are_counted(tmp_path, caplog) -> None:
    """Who sent them was told that they are kept; nobody would learn that a canary never sees them."""
    ids = [new_request_id(NOON + timedelta(minutes=minute)) for minute in range(3)]
    write(tmp_path, answer(0, id=ids[0]), answer(1, id=ids[1], arm="shadow"), answer(2))
    strays = [feedback(ids[0], row=1, back="yes"), feedback(ids[2], back="yes"), feedback(ids[2], back="no")]
    earlier = feedback(new_request_id(NOON - timedelta(days=1)), back="yes")
    write(tmp_path, *(feedback(one, back="yes") for one in (*ids[:2], "request-2")), *strays, earlier)
    for arms in (("champion",), ("champion", "shadow")):
        caplog.clear()
        assert labelled(tmp_path, "clinic", NOON, LATER, arms=arms).num_rows == 1 + len(arms)
        assert [record.getMessage() for record in caplog.records] == [
            "clinic: labels of 2 rows belong to no answer: a wrong request_id, row or model"
        ]
