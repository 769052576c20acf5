"""Closed journals become Parquet, one file for each journal, model and day.

A file is written under another name, synced and renamed; only when all files of a journal are there is the journal
deleted. Their names follow from the journal's, so that a compaction that was killed at any step is simply done again:
what was written is written over with the same, nothing is lost and nothing is there twice. Records are decoded and laid
out some at a time: the process that does it also follows the registry, and must not grow.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast
from urllib.parse import quote

import msgspec

from bnpipe.answers.columns import Answered, Layout, SchemaOf, answers_table, feedback_table, no_schema, strangers
from bnpipe.answers.journal import JOURNAL, closed, decode, journals, of_newer, read_bodies, sync_folder
from bnpipe.answers.records import AnswerRecord, FeedbackRecord, Record
from bnpipe.errors import FormatError, JournalError

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

Part: TypeAlias = Literal["answers", "shadow", "feedback"]

ASIDE: Final = "aside"
_STALE_SECONDS: Final = 600.0
_NO_DAY: Final = date(1970, 1, 1)
_PIECE: Final = 1_000_000
"""Bytes of a journal that are decoded and laid out at a time; in Python and Arrow they take ten times as much."""


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
    return "feedback" if isinstance(record, FeedbackRecord) else _part_of_arm(record.arm)


def _part_of_arm(arm: str) -> Part:
    return "shadow" if arm == "shadow" else "answers"


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
    try:
        with _alone(folder) as alone:
            if not alone:
                return Compaction()
            _sweep(folder)
            closed_ones = filter(closed, journals(folder / JOURNAL))
            done = [_take_in(folder, path, schema_of, checkpoint) for path in closed_ones]
    except OSError as error:
        raise JournalError(f"{folder}: the log of answers can't be compacted: {error}") from error
    return Compaction(
        sum(each.journals for each in done),
        sum(each.records for each in done),
        sum(each.torn for each in done),
        tuple(name for each in done for name in each.aside),
    )


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


def _take_in(folder: Path, path: Path, schema_of: SchemaOf, checkpoint: Callable[[str], None]) -> Compaction:
    """Lay out a journal, and then let it go."""
    try:
        bodies, torn = read_bodies(path)
        odd = _lay_out(folder, path, bodies, schema_of, checkpoint)
    except JournalError as error:
        log.warning("%s", error)
        return Compaction(aside=(path.name,))
    checkpoint(f"{path.name}: laid out")
    if torn or odd:
        log.warning("%s: %d bytes torn, %d records unreadable; kept in %s", path.name, torn, odd, ASIDE)
        (folder / ASIDE).mkdir(exist_ok=True)
        path.rename(folder / ASIDE / path.name)
    else:
        path.unlink(missing_ok=True)
    checkpoint(f"{path.name}: done")
    return Compaction(1, len(bodies) - odd, torn, (path.name,) if torn or odd else ())


def _lay_out(
    folder: Path, path: Path, bodies: Sequence[memoryview], schema_of: SchemaOf, checkpoint: Callable[[str], None]
) -> int:
    """Write a journal's files, and count the records that can't be laid out.

    Raises
    ------
    JournalError
        A record is of a newer bnpipe.
    """
    odd: list[FormatError] = []
    for file in _files(path, bodies):
        place = day_folder(folder, file.part, file.model, file.day) / f"{path.stem}.parquet"
        layout = file.layout(schema_of)
        _write(file.tables(layout, odd), place, checkpoint)
        if file.part == "answers":
            _expect_labels(folder, file.model, layout, checkpoint)
    for error in odd:
        log.warning("%s", error)
    return len(odd)


def _expect_labels(folder: Path, model: str, layout: Layout, checkpoint: Callable[[str], None]) -> None:
    """Write the columns that labels will have, so that SQL which joins them does not fail before there are any."""
    for content_hash, schema in layout.schemas.items():
        place = day_folder(folder, "feedback", model, _NO_DAY) / f"{content_hash[:16]}.parquet"
        if schema is not None and not place.exists():
            _write([Layout.of({"": None}, schema.names).labels([])], place, checkpoint)


@dataclass(frozen=True, eq=False)
class _File:
    """Records of a journal that become one file, and the content hashes in them."""

    journal: Path
    part: Part
    model: str
    day: date
    bodies: list[memoryview] = field(default_factory=list)
    hashes: dict[str, None] = field(default_factory=dict)

    def layout(self, schema_of: SchemaOf) -> Layout:
        """Give the columns: a file of Parquet names them before its first line."""
        labels = self.part == "feedback"
        schemas = {place: None if labels else schema_of(self.model, place) for place in self.hashes}
        names = strangers(self._records(self.bodies), schemas) if None in schemas.values() else ()
        return Layout.of(schemas, names)

    def tables(self, layout: Layout, odd: list[FormatError]) -> Iterator[pa.Table]:
        """Lay the records out part by part, so that few of them are in memory at a time; `odd` tells which can't be."""
        for bodies in _pieces(self.bodies):
            records = list(self._records(bodies))
            if self.part == "feedback":
                yield layout.labels(cast("list[FeedbackRecord]", records))
            elif answered := list(_answered(cast("list[AnswerRecord]", records), odd)):
                yield layout.answers(answered)

    def _records(self, bodies: Iterable[memoryview]) -> Iterator[Record]:
        return (decode(body, self.journal) for body in bodies)


class _Head(msgspec.Struct, frozen=True):
    """As much of a record as tells where it belongs."""

    type: Literal["answer", "feedback"]
    model: str
    at: datetime
    arm: str = ""
    content_hash: str = ""


_HEADS: Final = msgspec.msgpack.Decoder(_Head)


def _files(journal: Path, bodies: Iterable[memoryview]) -> Iterable[_File]:
    files: dict[tuple[Part, str, date], _File] = {}
    for body in bodies:
        try:
            head = _HEADS.decode(body)
        except msgspec.DecodeError as error:
            raise of_newer(journal, error) from error
        part: Part = "feedback" if head.type == "feedback" else _part_of_arm(head.arm)
        key = part, head.model, head.at.astimezone(UTC).date()
        file = files.get(key)
        if file is None:
            file = files[key] = _File(journal, *key)
        file.bodies.append(body)
        file.hashes[head.content_hash] = None
    return files.values()


def _pieces(bodies: Iterable[memoryview]) -> Iterator[list[memoryview]]:
    piece: list[memoryview] = []
    size = 0
    for body in bodies:
        piece.append(body)
        size += len(body)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _answered(records: Iterable[AnswerRecord], odd: list[FormatError]) -> Iterator[Answered]:
    for record in records:
        try:
            yield record, record.row_answers()
        except FormatError as error:
            odd.append(error)


def table_of(part: Part, records: Sequence[Record], schema_of: SchemaOf) -> pa.Table:
    """Lay out records of one model and part."""
    if part == "feedback":
        return feedback_table(cast("Sequence[FeedbackRecord]", records))
    return answers_table(cast("Sequence[AnswerRecord]", records), schema_of)


def _write(tables: Iterable[pa.Table], path: Path, checkpoint: Callable[[str], None]) -> None:
    """Write a file of these tables, which have the same columns; none if there are no tables."""
    import pyarrow.parquet as pq

    days, model = path.parent, path.parent.parent
    partial = days / f".{path.name}.new"
    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            if writer is None:
                days.mkdir(parents=True, exist_ok=True)
                writer = stack.enter_context(pq.ParquetWriter(partial, table.schema, compression="zstd"))
            writer.write_table(table)
    if writer is None:
        return
    checkpoint(f"{path.name}: written")
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.rename(path)
    for folder in (days, model, model.parent, model.parent.parent):
        sync_folder(folder)
    checkpoint(f"{path.name}: named")
