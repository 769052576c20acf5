"""Journals become Parquet: nothing lost, nothing twice, whenever it is killed; and the same codes as the request."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tracemalloc
from collections import Counter
from datetime import timedelta
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from answer_records import NOON, answer, clinic, feedback
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.answers import Journal, compact, compaction, evidence_hash
from bnpipe.answers.columns import answers_table
from bnpipe.answers.journal import journals
from bnpipe.answers.reading import rows
from bnpipe.data import Dataset
from bnpipe.errors import JournalError
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable

TESTS = Path(__file__).parent


def schema_of(model: str, content_hash: str) -> Schema | None:
    network = clinic()
    return network.schema if (model, content_hash) == ("clinic", network.content_hash) else None


def write(folder: Path, *records, worker: str = "w") -> Path:
    with Journal(folder / "journal", worker) as journal:
        journal.append(records)
        return journal.path


def lines(folder: Path, part: str = "answers") -> Counter:
    """Requests and rows in all Parquet files of a part."""
    tables = [
        pq.read_table(path, partitioning=None) for path in sorted((folder / part).glob("model=*/day=*/*.parquet"))
    ]
    return Counter((line["_request"], line["_row"]) for table in tables for line in table.to_pylist())


def test_a_line_for_each_row_a_file_for_each_day(tmp_path) -> None:
    """The drift run, or who looks for an answer, would read rows of other days, models, or of shadows."""
    tomorrow = NOON + timedelta(hours=12)
    write(
        tmp_path,
        answer(1, [{"age": 30}, {"age": 70, "ward": "9"}], key="customer 7"),
        answer(2, at=tomorrow, arm="challenger"),
        answer(1, arm="shadow", version=4),
        answer(3, model="../odd name"),
        feedback("request-1", 1, back="yes"),
    )
    done = compact(tmp_path, schema_of)
    assert (done.journals, done.records, done.torn, done.aside) == (1, 5, 0, ())
    assert not journals(tmp_path / "journal")
    found = sorted(str(path.parent.relative_to(tmp_path)) for path in tmp_path.glob("*/model=*/day=*/*.parquet"))
    assert found == [
        "answers/model=..%2Fodd%20name/day=2026-03-01",
        "answers/model=clinic/day=2026-03-01",
        "answers/model=clinic/day=2026-03-02",
        "feedback/model=clinic/day=1970-01-01",
        "feedback/model=clinic/day=2026-03-01",
        "shadow/model=clinic/day=2026-03-01",
    ]
    (file,) = (tmp_path / "answers/model=clinic/day=2026-03-01").glob("*.parquet")
    first, second = pq.read_table(file, partitioning=None).to_pylist()
    assert first["_at"] == NOON + timedelta(minutes=1)
    assert (first["_row"], first["_version"], first["_arm"], first["_key"]) == (0, 3, "champion", "customer 7")
    assert first["_question"] == '{"targets":["back"]}'
    assert [line["_answer"] for line in (first, second)] == ['{"number":1,"row":0}', '{"number":1,"row":1}']
    assert first["_evidence_hash"] == evidence_hash([{"age": 30}, {"age": 70, "ward": "9"}])
    assert second["_evidence"] == '{"age":70,"ward":"9"}'
    assert (first["age"], second["age"], first["ward"], second["ward"]) == (30.0, 70.0, None, "9")
    (said,) = pq.read_table(next((tmp_path / "feedback").glob("*/day=2026*/*.parquet")), partitioning=None).to_pylist()
    assert (said["_request"], said["_row"], said["back"]) == ("request-1", 1, "yes")


def test_labels_can_be_joined_before_there_are_any(tmp_path) -> None:
    """SQL that joins them would fail, and with it every drift run, until the first label came."""
    said = (
        f"SELECT _request, back FROM read_parquet('{tmp_path}/feedback/model=clinic/day=*/*.parquet', "
        "union_by_name = true, hive_partitioning = false)"
    )
    write(tmp_path, answer(1))
    compact(tmp_path, schema_of)
    assert duckdb.sql(said).fetchall() == []
    write(tmp_path, answer(2), feedback("request-1", back="yes"))
    compact(tmp_path, schema_of)
    assert duckdb.sql(said).fetchall() == [("request-1", "yes")]
    assert lines(tmp_path, "feedback") == Counter({("request-1", 0): 1})


def test_by_policy_only_the_hash_is_kept(tmp_path) -> None:
    """What the caller sent would be on disk although it must not."""
    record = answer(1, evidence_hash=evidence_hash([{"age": 12.5}]))
    write(tmp_path, msgspec.structs.replace(record, rows=None, answer=b"[1,2]"))
    compact(tmp_path, schema_of)
    (file,) = tmp_path.glob("answers/*/*/*.parquet")
    found = pq.read_table(file, partitioning=None).to_pylist()
    assert [line["_answer"] for line in found] == ["1", "2"]
    assert {line["_evidence_hash"] for line in found} == {record.evidence_hash}
    assert {line[name] for line in found for name in ("_evidence", "_unobserved", "age", "ward", "back")} == {None}


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.sampled_from([40, 40.0, 39.999, 65, 120.0])
NAMES = {
    "age": st.none() | NUMBERS | st.booleans() | st.sampled_from(["<40", "40..65", ">=65", "41", "1e2"]),
    "pressure": st.none() | NUMBERS | st.sampled_from(["low", "high", "missing", "odd"]),
    "ward": st.none() | NUMBERS | st.booleans() | st.sampled_from(["1", "2", "elsewhere", "x", ""]),
    "smokes": st.none() | st.booleans() | st.sampled_from(["true", "false", "perhaps"]),
    "back": st.none() | st.sampled_from(["no", "yes"]),
    "stranger": st.text(max_size=3),
}
ROWS = st.lists(st.fixed_dictionaries({}, optional=NAMES), min_size=1, max_size=6)


def sent_codes(given_rows: list[dict[str, object]], schema: Schema) -> np.ndarray:
    """Codes of each row alone, so that a cell left out is no null."""
    frames = [pd.DataFrame([row], index=[0], dtype=object) for row in given_rows]
    return np.concatenate([Dataset.from_pandas(frame, schema).codes for frame in frames], axis=1)


def kept_codes(table: pa.Table, schema: Schema) -> np.ndarray:
    """Codes of lines of Parquet: by the schema, but for what `_unobserved` names."""
    codes = Dataset.from_pandas(table.to_pandas(), schema).codes.copy()
    for line, names in enumerate(table["_unobserved"].to_pylist()):
        codes[[schema.index(name) for name in json.loads(names)], line] = MISSING
    return codes


@given(ROWS)
def test_a_row_of_parquet_has_the_codes_of_the_request(given_rows) -> None:
    """The drift run would compare other rows than the ones that were answered."""
    schema = clinic().schema
    table = answers_table([answer(1, given_rows)], schema_of)
    assert table.schema.field("age").type == "double"
    assert table.schema.field("ward").type == "string"
    np.testing.assert_array_equal(kept_codes(table, schema), sent_codes(given_rows, schema))


@given(ROWS.map(lambda found: [{k: v for k, v in row.items() if (k, type(v)) != ("age", bool)} for row in found]))
def test_without_a_schema_all_cells_are_text_with_the_same_codes(given_rows) -> None:
    """A version nobody has any more would leave rows that say something else (but for a truth sent for a number)."""
    schema = clinic().schema.project(("age", "ward", "smokes", "back"))
    np.testing.assert_array_equal(
        kept_codes(answers_table([answer(1, given_rows)]), schema), sent_codes(given_rows, schema)
    )


ODD = Schema(
    (Variable("x", ("low", "high", "7", "spare"), edges=(10.0,), other="7"), Variable("one", ("any",), edges=()))
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "x": st.none() | NUMBERS | st.sampled_from(["low", "7", "7.0", "z", "spare"]),
                "one": st.none() | NUMBERS | st.just("any"),
            },
        ),
        min_size=1,
    )
)
def test_bins_with_further_states_are_text(given_rows) -> None:
    """A state that is no bin could not be told from a number, or 7 from the state named 7."""
    network = Network(ODD, {}, tables={"x": np.full(4, 0.25), "one": np.ones(1)})
    table = answers_table([answer(1, given_rows, content_hash=network.content_hash)], lambda *_: ODD)
    np.testing.assert_array_equal(kept_codes(table, ODD), sent_codes(given_rows, ODD))


def test_what_is_no_number_is_null_among_numbers() -> None:
    """One caller who sends text for a number would make text of the column for all."""
    table = answers_table([answer(1, [{"age": "old"}, {"age": math.nan}, {"age": 10**400}])], schema_of)
    assert table["age"].to_pylist() == [None, None, math.inf]


def test_a_cell_left_out_is_told_from_a_null() -> None:
    """To the drift run, what nobody asked about would be a missing value: a state of its own."""
    table = answers_table(
        [answer(1, [{}, {"pressure": None}, {"pressure": "odd"}, {"pressure": "missing"}])], schema_of
    )
    assert table["pressure"].to_pylist() == 4 * [None]
    assert table["_unobserved"].to_pylist() == ['["pressure"]', "[]", '["pressure"]', "[]"]


def test_versions_of_other_schemas_share_a_file() -> None:
    """The day on which a new version took over could not be compacted, or would lose its new variables."""
    newer = Schema((Variable("age", ("young", "old")), Variable("height", ("<1", ">=1"), edges=(1.0,))))
    records = [answer(1, [{"age": 41}]), answer(2, [{"age": "old", "height": 2}], content_hash="newer")]
    table = answers_table(records, lambda _, content_hash: newer if content_hash == "newer" else clinic().schema)
    assert table["age"].to_pylist() == ["40..65", "old"]
    assert table["height"].to_pylist() == [None, 2.0]


def test_a_journal_laid_out_in_parts_is_as_if_laid_out_at_once(tmp_path, monkeypatch) -> None:
    """A long journal could not be compacted, or columns would differ within a file: it names them before its lines."""
    cells = [{"age": 40.5, "ward": 1}, {"age": "old"}, {"pressure": None, "smokes": True}, {"odd": "x", "age": 10**20}]
    records = [
        *(answer(n, cells[n % 4 :]) for n in range(9)),
        *(answer(n, [{"age": n, f"new {n}": n}, {}], model="gone", content_hash="unknown") for n in range(9)),
        *(answer(n, arm="shadow", content_hash="unknown" if n == 8 else clinic().content_hash) for n in range(9)),
        *(feedback("request-1", n, **{f"label {n}": "yes"}) for n in range(9)),
        answer(9, answer=b"[1,2]"),
        msgspec.structs.replace(answer(10, evidence_hash="abc"), rows=None),
    ]
    found = []
    for name, piece in (("whole", 10**9), ("parts", 1)):
        monkeypatch.setattr(compaction, "_PIECE", piece)
        done = compact(write(tmp_path / name, *records).parent.parent, schema_of)
        assert (done.records, len(done.aside)) == (len(records) - 1, 1)
        paths = sorted((tmp_path / name).glob("*/model=*/day=2*/*.parquet"))
        found.append([pq.read_table(path, partitioning=None) for path in paths])
        groups = [pq.read_metadata(path).num_row_groups for path in paths]
        assert groups == ([1, 1, 1, 1] if name == "whole" else [10, 9, 9, 9])
    assert all(one.equals(other) for one, other in zip(*found, strict=True))


def test_memory_does_not_go_with_the_length_of_a_journal(tmp_path, monkeypatch) -> None:
    """The follower would grow by ten times the length of a journal, and each long request would add to that."""
    monkeypatch.setattr(compaction, "_PIECE", 50_000)
    path = write(tmp_path, *(answer(n, [{"age": n, "ward": "x" * (n % 50)}]) for n in range(5000)))
    size = path.stat().st_size
    compact(write(tmp_path / "first", answer(1)).parent.parent, schema_of)
    tracemalloc.start()
    compact(tmp_path, schema_of)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 1_000_000
    assert most < 3 * size


def test_a_living_journal_is_left_alone(tmp_path) -> None:
    """Answers of a worker at work would be deleted."""
    with Journal(tmp_path / "journal", "w") as journal:
        journal.append([answer(1)])
        assert compact(tmp_path, schema_of).journals == 0
        journal.append([answer(2)])
    assert compact(tmp_path, schema_of).records == 2
    assert lines(tmp_path) == Counter({("request-1", 0): 1, ("request-2", 0): 1})


def test_a_torn_journal_is_compacted_and_set_aside(tmp_path) -> None:
    """What could not be read would be gone for good, or stop all that comes after it."""
    path = write(tmp_path, answer(1), answer(2))
    path.write_bytes(path.read_bytes()[:-5])
    write(tmp_path, answer(3), answer(4, answer=b"[1,2]"), worker="z")
    done = compact(tmp_path, schema_of)
    assert (done.journals, done.records, len(done.aside)) == (2, 2, 2)
    assert done.torn > 0
    assert set(lines(tmp_path)) == {("request-1", 0), ("request-3", 0)}
    assert sorted(path.name for path in (tmp_path / "aside").iterdir()) == sorted(done.aside)
    assert compact(tmp_path, schema_of).journals == 0


def test_a_newer_journal_waits_for_a_newer_bnpipe(tmp_path) -> None:
    """After a downgrade the newer version's answers would be lost, or all compaction would stop."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "0.log").write_bytes(b"BNPIPE-JOURNAL-2\n" + bytes(9))
    write(tmp_path, answer(1))
    done = compact(tmp_path, schema_of)
    assert (done.journals, done.aside) == (1, ("0.log",))
    assert (tmp_path / "journal" / "0.log").exists()


def test_a_folder_that_cant_be_written_is_named(tmp_path) -> None:
    """The follower would die of an error that does not say where."""
    write(tmp_path, answer(1))
    (tmp_path / "answers").write_text("a file")
    with pytest.raises(JournalError, match="can't be compacted"):
        compact(tmp_path, schema_of)
    assert len(journals(tmp_path / "journal")) == 1


STEPS = 12
KILLED = """
import os, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from bnpipe.answers import compact
from test_compaction import schema_of
left = {step}
def checkpoint(step):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), 9)
compact(Path({folder!r}), schema_of, checkpoint=checkpoint)
"""


def test_killed_at_any_step_and_done_again_nothing_is_lost_or_twice(tmp_path) -> None:
    """An answer would be gone, or counted twice, after a crash; and who reads in between would see it so."""
    records = [answer(n, at=NOON + timedelta(hours=9 * n), arm="shadow" if n == 2 else "champion") for n in range(4)]
    expected = Counter((f"request-{n}", 0) for n in range(4))
    for step in range(1, STEPS + 2):
        folder = tmp_path / str(step)
        write(folder, *records[:3])
        write(folder, *records[3:], worker="z")
        code = KILLED.format(tests=str(TESTS), step=step, folder=str(folder))
        ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
        assert ended == (-9 if step <= STEPS else 0), step
        between = rows(folder, "clinic", NOON, NOON + timedelta(days=9), arms=("champion", "shadow")).to_pylist()
        assert Counter((line["_request"], line["_row"]) for line in between) == expected, step
        compact(folder, schema_of)
        assert lines(folder) + lines(folder, "shadow") == expected, step
        assert not journals(folder / "journal")
        assert not list(folder.glob("*/*/*/.*"))


def test_two_compactions_at_once_do_it_once(tmp_path) -> None:
    """Two would write the same file at the same time."""
    write(tmp_path, answer(1))
    inner = []
    done = compact(tmp_path, schema_of, checkpoint=lambda _: inner.append(compact(tmp_path, schema_of)))
    assert done.journals == 1
    assert {other.journals for other in inner} == {0}
    assert lines(tmp_path) == Counter({("request-1", 0): 1})
