"""Closed journals become Parquet, one file for each journal, model and day.

A file is written under another name, synced and renamed; only when all files of a journal are there is the journal
deleted. Their names follow from the journal's, so that a compaction that was killed at any step is simply done again:
what was written is written over with the same, nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast
from urllib.parse import quote

from bnpipe.answers.columns import SchemaOf, answers_table, feedback_table, no_schema
from bnpipe.answers.journal import closed, journals, read_journal, sync_folder
from bnpipe.answers.records import AnswerRecord, FeedbackRecord, Record
from bnpipe.errors import FormatError, JournalError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Part: TypeAlias = Literal["answers", "shadow", "feedback"]

JOURNAL: Final = "journal"
ASIDE: Final = "aside"
_STALE_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Compaction:
    """What one pass did.

    Parameters
    ----------
    journals, records : int
        Taken in.
    torn : int
        Bytes at the ends of journals whose process was killed while it wrote.
    aside : tuple of str
        Names of journals that hold something unreadable and were moved to ``aside``, or left where they were because
        a newer bnpipe wrote them.
    """

    journals: int = 0
    records: int = 0
    torn: int = 0
    aside: tuple[str, ...] = ()


def part_of(record: Record) -> Part:
    """Tell in which folder a record belongs."""
    if isinstance(record, FeedbackRecord):
        return "feedback"
    return "shadow" if record.arm == "shadow" else "answers"


def model_folder(folder: Path, part: Part, model: str) -> Path:
    """Name the folder of a model's days."""
    return folder / part / f"model={quote(model, safe='')}"


def day_folder(folder: Path, part: Part, model: str, day: date) -> Path:
    """Name the folder of one day (UTC)."""
    return model_folder(folder, part, model) / f"day={day}"


def compact(
    folder: Path, schema_of: SchemaOf = no_schema, *, checkpoint: Callable[[str], None] = lambda step: None
) -> Compaction:
    """Turn every closed journal into Parquet. Several may run at once: all but one do nothing.

    Parameters
    ----------
    folder : Path
        Of the log; journals are in ``journal`` below it.
    schema_of : callable
        Gives the schema of ``(model, content_hash)``; where it gives None all cells become text.
    checkpoint : callable
        Called with the name of each step between which the process may die; for tests.

    Raises
    ------
    JournalError
        The folder can't be read or written.
    """
    taken, records, torn, aside = 0, 0, 0, []
    try:
        with _alone(folder) as alone:
            if not alone:
                return Compaction()
            _sweep(folder)
            for path in journals(folder / JOURNAL):
                if not closed(path):
                    continue
                try:
                    contents = read_journal(path)
                except JournalError as error:
                    log.warning("%s", error)
                    aside.append(path.name)
                    continue
                odd = _lay_out(folder, path.stem, contents.records, schema_of, checkpoint)
                checkpoint(f"{path.name}: laid out")
                if contents.torn or odd:
                    log.warning(
                        "%s: %d bytes torn, %d records unreadable; kept in %s", path.name, contents.torn, odd, ASIDE
                    )
                    aside.append(path.name)
                    (folder / ASIDE).mkdir(exist_ok=True)
                    path.rename(folder / ASIDE / path.name)
                else:
                    path.unlink(missing_ok=True)
                checkpoint(f"{path.name}: done")
                taken, records, torn = taken + 1, records + len(contents.records) - odd, torn + contents.torn
    except OSError as error:
        raise JournalError(f"{folder}: the log of answers can't be compacted: {error}") from error
    return Compaction(taken, records, torn, tuple(aside))


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Tell whether no other process compacts this folder, and keep others out."""
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".compaction.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(file)


def _sweep(folder: Path) -> None:
    """Delete what killed processes left half-made."""
    for path in folder.glob("*/model=*/day=*/.*.new"):
        path.unlink(missing_ok=True)
    for path in (folder / JOURNAL).glob(".*.new"):  # a worker may be about to name it
        if time.time() - path.stat().st_mtime > _STALE_SECONDS and closed(path):
            path.unlink(missing_ok=True)


def _lay_out(
    folder: Path, name: str, records: Sequence[Record], schema_of: SchemaOf, checkpoint: Callable[[str], None]
) -> int:
    """Write a journal's files; give the number of records that can't be laid out."""
    groups: dict[tuple[Part, str, date], list[Record]] = defaultdict(list)
    odd = 0
    for record in records:
        if isinstance(record, AnswerRecord) and not _readable(record):
            odd += 1
        else:
            groups[part_of(record), record.model, record.day].append(record)
    for (part, model, day), group in groups.items():
        table = table_of(part, group, schema_of)
        _write(table, day_folder(folder, part, model, day) / f"{name}.parquet", checkpoint)
    return odd


def _readable(record: AnswerRecord) -> bool:
    try:
        record.row_answers()
    except FormatError as error:
        log.warning("%s", error)
        return False
    return True


def table_of(part: Part, records: Sequence[Record], schema_of: SchemaOf) -> pa.Table:
    """Lay out records of one model and part."""
    if part == "feedback":
        return feedback_table(cast("Sequence[FeedbackRecord]", records))
    return answers_table(cast("Sequence[AnswerRecord]", records), schema_of)


def _write(table: pa.Table, path: Path, checkpoint: Callable[[str], None]) -> None:
    import pyarrow.parquet as pq

    days, model = path.parent, path.parent.parent
    days.mkdir(parents=True, exist_ok=True)
    partial = days / f".{path.name}.new"
    pq.write_table(table, partial, compression="zstd")
    checkpoint(f"{path.name}: written")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(path)
    for folder in (days, model, model.parent, model.parent.parent):
        sync_folder(folder)
    checkpoint(f"{path.name}: named")
