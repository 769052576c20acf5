"""What a worker has logged is there, whatever becomes of it; and what it could not log is refused whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from answer_records import answer, feedback

from bnpipe.answers import Journal, read_journal
from bnpipe.answers.journal import closed, journals, try_folder
from bnpipe.errors import JournalError

TESTS = Path(__file__).parent


def ids(folder: Path) -> list[str]:
    return [record.id for path in journals(folder) for record in read_journal(path).records]


def test_records_come_back_as_they_were(tmp_path) -> None:
    """An answer could not be made again from what was logged: a number changed its type, a text its letters."""
    rows = [{"a": 3, "b": 3.0, "c": 0.1 + 0.2, "d": True, "e": None, "ü": "\u0000ß", "f": -(2**63), "g": 5e-324}]
    given = [answer(1, rows, key="k", question={"targets": ["x"], "interval": 0.95}), feedback("request-1", back="yes")]
    given += [answer(2, rows=None, answer=b"[]"), answer(3, [])]
    with Journal(tmp_path, "w") as journal:
        journal.append(given)
    (path,) = journals(tmp_path)
    held = read_journal(path)
    assert list(held.records) == given
    assert held.torn == 0
    assert [type(value) for value in held.records[0].rows[0].values()] == [type(value) for value in rows[0].values()]


def test_a_body_comes_back_as_its_rows(tmp_path) -> None:
    """A record may hold the request's body: it is read as one that was made of the rows, the hash too."""
    rows = [{"age": 40, "ward": "1: \u00e9", "smokes": None}, {"age": 10**30}]
    made = answer(1, rows)
    body = json.dumps({"targets": ["back"], "rows": rows, "key": "rows"}).encode()
    kept = msgspec.structs.replace(made, rows=None, body=body)
    with Journal(tmp_path, "one") as journal:
        journal.append([kept, made])
    first, _ = read_journal(journal.path).records
    assert first == made
    assert first.rows == rows
    assert kept.hash == made.hash == first.hash
    assert made.opened() is made


def test_huge_integers_become_text(tmp_path) -> None:
    """A request with an integer of more than 64 bits could not be logged, or not as what was encoded."""
    with Journal(tmp_path, "w") as journal:
        journal.append([answer(1, [{"a": 10**30, "b": 2**63 - 1}])])
    assert read_journal(journals(tmp_path)[0]).records[0].rows == [{"a": str(10**30), "b": 2**63 - 1}]


@pytest.mark.parametrize("cut", [1, 3, 8, 9, 30, 100])
def test_a_torn_end_is_cut_and_counted(tmp_path, cut) -> None:
    """One killed worker would make all that its journal holds unreadable."""
    with Journal(tmp_path, "w") as journal:
        journal.append([answer(1)])
        journal.append([answer(2)])
    (path,) = journals(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    held = read_journal(path)
    assert [record.id for record in held.records] == ["request-1"]
    assert 0 < held.torn < len(whole) // 2


@pytest.mark.parametrize(
    "tail", [bytes(100), b"\x05\0\0\0\0\0\0\0hello", os.urandom(64)], ids=["zeros", "no CRC", "noise"]
)
def test_what_a_loss_of_power_leaves_is_no_record(tmp_path, tail) -> None:
    """Blocks that were allocated and never written would pass for a record."""
    with Journal(tmp_path, "w") as journal:
        journal.append([answer(1)])
    (path,) = journals(tmp_path)
    with path.open("ab") as file:
        file.write(tail)
    held = read_journal(path)
    assert [record.id for record in held.records] == ["request-1"]
    assert held.torn == len(tail)


@pytest.mark.parametrize("content", [b"", b"BNPIPE-JOU"])
def test_a_journal_that_was_hardly_begun_is_empty(tmp_path, content) -> None:
    """The compaction would stumble over a file whose process died in its first microseconds."""
    (tmp_path / "a.log").write_bytes(content)
    assert read_journal(tmp_path / "a.log").records == ()


@pytest.mark.parametrize("content", [b"BNPIPE-JOURNAL-2\n...", b"something else entirely"])
def test_what_is_no_journal_of_ours_is_refused(tmp_path, content) -> None:
    """A newer bnpipe's records would be taken for a torn end, and thrown away."""
    (tmp_path / "a.log").write_bytes(content)
    with pytest.raises(JournalError, match=r"a\.log"):
        read_journal(tmp_path / "a.log")


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from answer_records import answer
from bnpipe.answers import Journal
journal, number = Journal(Path({folder!r}), "w"), 0
while True:
    journal.append([answer(number, [{{"a": "x" * 50_000, "n": number}}])])
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("round_", range(3))
def test_kill_9_loses_nothing_that_was_answered(tmp_path, round_) -> None:
    """A caller would hold an answer of which there is no trace."""
    code = KILLED.format(tests=str(TESTS), folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(20 + 7 * round_):
            process.stdout.readline()
    finally:
        process.kill()
    said = process.communicate()[0].split()
    (path,) = journals(tmp_path)
    assert closed(path)
    held = read_journal(path)
    assert len(held.records) >= (int(said[-1]) if said else 0) + 1
    assert [record.rows[0]["n"] for record in held.records] == list(range(len(held.records)))


def test_a_full_disk_refuses_and_keeps_nothing_half(tmp_path) -> None:
    """A refused answer would be in the log, or half of it would hide all that is written after it."""
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(TESTS)!r})
from pathlib import Path
from answer_records import answer
from bnpipe.answers import Journal
from bnpipe.errors import JournalError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 100_000))
journal, kept = Journal(Path({str(tmp_path)!r}), "w"), []
for number in range(20):
    try:
        journal.append([answer(number)])
        kept.append(number)
    except JournalError as error:
        assert "could not be logged" in str(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
journal.append([answer(99)])
print(*kept, 99)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert 3 < len(said) < 20
    assert ids(tmp_path) == [f"request-{number}" for number in said]
    assert read_journal(journals(tmp_path)[0]).torn == 0


def test_a_journal_deleted_under_its_writer_refuses_and_begins_anew(tmp_path) -> None:
    """Answers would be written to a file that nobody can ever open."""
    with Journal(tmp_path, "w") as journal:
        journal.append([answer(1)])
        journals(tmp_path)[0].unlink()
        with pytest.raises(JournalError, match="deleted"):
            journal.append([answer(2)])
        journal.append([answer(3)])
    assert ids(tmp_path) == ["request-3"]


def test_a_folder_that_is_none_is_refused(tmp_path) -> None:
    """The service would start, and answer unlogged."""
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="no journal can be begun"):
        Journal(tmp_path / "file", "w")
    with pytest.raises(JournalError, match="no journal can be begun"):
        try_folder(tmp_path / "file")
    try_folder(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())


def test_a_folder_may_be_usable_later(tmp_path) -> None:
    """A worker that comes up while the disk is full refuses records until there is room."""
    (tmp_path / "file").write_text("")
    journal = Journal(tmp_path / "file", "w", later=True)
    for attempt in (lambda: journal.append([answer(1)]), journal.tick):
        with pytest.raises(JournalError, match="no journal can be begun"):
            attempt()
    (tmp_path / "file").unlink()
    journal.tick()
    assert len(journals(tmp_path / "file")) == 1
    journal.append([answer(2)])
    journal.close()
    journal.tick()  # closed on purpose: nothing is begun
    assert ids(tmp_path / "file") == ["request-2"]
    assert len(journals(tmp_path / "file")) == 1


def test_only_a_journal_that_nobody_writes_is_closed(tmp_path) -> None:
    """A compaction would take a living worker's journal away from it."""
    journal = Journal(tmp_path, "w")
    assert not closed(journal.path)
    journal.close()
    assert closed(journal.path)
    journal.append([answer(1)])
    assert len(journals(tmp_path)) == 2
    assert not closed(journal.path)
    journal.close()
    assert closed(tmp_path / "gone.log")


def test_a_new_journal_is_never_seen_unlocked(tmp_path) -> None:
    """A compaction at the moment a worker starts would take its journal for a dead one's."""
    seen: set[bool] = set()
    stop = threading.Event()

    def watch() -> None:
        known: set[Path] = set()
        while not stop.is_set():
            for path in set(journals(tmp_path)) - known:
                seen.add(closed(path))
                known.add(path)

    watcher = threading.Thread(target=watch)
    watcher.start()
    held = [Journal(tmp_path, "w") for _ in range(200)]
    time.sleep(0.05)
    stop.set()
    watcher.join()
    assert seen == {False}
    for journal in held:
        journal.close()


def test_a_large_or_old_journal_gives_way_to_a_new_one(tmp_path) -> None:
    """A worker's journal would grow for ever, and never be compacted."""
    with Journal(tmp_path, "w", most_bytes=1000) as journal:
        for number in range(20):
            journal.append([answer(number)])
    assert len(journals(tmp_path)) > 3
    assert ids(tmp_path) == [f"request-{number}" for number in range(20)]
    with Journal(tmp_path / "old", "w", most_seconds=0.05) as journal:
        journal.tick()
        assert len(journals(tmp_path / "old")) == 1
        journal.append([answer(1)])
        time.sleep(0.06)
        journal.tick()
        assert [closed(path) for path in journals(tmp_path / "old")] == [True, False]


def test_threads_may_share_a_journal(tmp_path) -> None:
    """Records of two requests would be written into one another."""
    with Journal(tmp_path, "w", most_bytes=20_000) as journal:

        def work(first: int) -> None:
            for number in range(first, first + 100):
                journal.append([answer(number), answer(number)])

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 100, 200, 300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids(tmp_path)) == sorted(2 * [f"request-{number}" for number in range(400)])


def test_fsync_writes_the_same(tmp_path) -> None:
    """The safer way would log less."""
    with Journal(tmp_path, "../w 1", fsync=True) as journal:
        journal.append([answer(1)])
        journal.append([answer(2)])
    assert ids(tmp_path) == ["request-1", "request-2"]


def test_rows_of_callers_are_for_their_owner_only(tmp_path) -> None:
    """Everybody on the machine could read what was asked."""
    with Journal(tmp_path, "w") as journal:
        assert journal.path.stat().st_mode & 0o077 == 0


def test_logging_one_answer_is_quick(tmp_path) -> None:
    """The log would eat the service's milliseconds: a median of 100 us is five times what it takes here."""
    with Journal(tmp_path, "w") as journal:
        record, times = answer(1), []
        for _ in range(1000):
            began = time.perf_counter()
            journal.append([record])
            times.append(time.perf_counter() - began)
    assert sorted(times)[500] < 100e-6
