"""Journals: what a worker has answered, on disk before the answer leaves.

A journal is an append-only file of one process: a header, then for each record its length, its CRC32 and itself. It is
locked (``flock``) while its process lives; a lock that can be had means that no more will come, however the process
ended. A file has its final name only once it is locked, so nobody ever takes a new one for a dead one's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn

import msgspec

from bnpipe.answers.records import AnswerRecord, Record
from bnpipe.errors import JournalError

JOURNAL: Final = "journal"
"""Folder of journals, below that of the log."""
SUFFIX: Final = ".log"
MOST_BYTES: Final = 16_000_000
MOST_SECONDS: Final = 3600.0

_HEADER: Final = b"BNPIPE-JOURNAL-1\n"
_FRAME: Final = struct.Struct("<II")
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Record)
_LARGEST_INT: Final = 2**63


@dataclass(frozen=True)
class JournalContents:
    """What a journal holds.

    Parameters
    ----------
    records : tuple of AnswerRecord or FeedbackRecord
        In the order in which they came.
    torn : int
        Bytes at the end that are no whole record: what a process that was killed had not finished to write.
    """

    records: tuple[Record, ...]
    torn: int


class Journal:
    """Where one process logs its answers. Threads may share it; processes may not.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    worker : str
        Who writes; part of the file's name.
    fsync : bool
        Whether each record must also survive a loss of power; without it, all that may happen to the process.
    most_bytes, most_seconds : float
        Size and age from which a new file is begun, so that the old one can be compacted.
    later : bool
        Whether a folder that can't be written to is an error of the records only, not of this call.

    Raises
    ------
    JournalError
        The folder can't be written to.
    """

    def __init__(
        self,
        folder: Path,
        worker: str,
        fsync: bool = False,
        *,
        most_bytes: int = MOST_BYTES,
        most_seconds: float = MOST_SECONDS,
        later: bool = False,
    ) -> None:
        self.folder, self.worker, self.fsync = folder, re.sub(r"[^A-Za-z0-9]+", "_", worker), fsync
        self.most_bytes, self.most_seconds = most_bytes, most_seconds
        self._lock = threading.Lock()
        self._file = -1
        self._wanted = True
        try:
            self._open()
        except JournalError:
            if not later:
                raise

    def append(self, records: Sequence[Record]) -> None:
        """Write records, all or none of them; they are the kernel's when this returns.

        Raises
        ------
        JournalError
            The disk is full, or the file or its folder can't be written to, or is gone. Nothing is half-kept: the same
            records may be tried again.
        """
        frames = b"".join([_frame(record) for record in records])
        with self._lock:
            self._wanted = True
            if self._file < 0 or self._due():
                self._open()
            self._write(frames)

    def tick(self) -> None:
        """Begin a new file if there is none, or this one is due: the records of a quiet hour are compacted, too.

        Raises
        ------
        JournalError
            A new file can't be made.
        """
        with self._lock:
            missing = self._file < 0 and self._wanted
            if missing or (self._file >= 0 and self._size > len(_HEADER) and self._due()):
                self._open()

    def close(self) -> None:
        """Give the file free to be compacted. A later `append` begins another."""
        with self._lock:
            self._wanted = False
            self._close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _due(self) -> bool:
        return self._size >= self.most_bytes or time.monotonic() - self._began >= self.most_seconds

    def _write(self, frames: bytes) -> None:
        try:
            written = os.write(self._file, frames)
            if self.fsync and written == len(frames):
                os.fdatasync(self._file)
            gone = not os.fstat(self._file).st_nlink
        except OSError as error:
            self._take_back(error)
        if written < len(frames):
            self._take_back(f"only {written} of {len(frames)} bytes could be written")
        if gone:
            self._close()
            raise JournalError(f"{self.path.name} was deleted under its writer; the next record begins a new one")
        self._size += written

    def _take_back(self, reason: object) -> NoReturn:
        """Cut the file back to its last whole record; if even that fails, leave it and its torn end to the reader."""
        try:
            os.ftruncate(self._file, self._size)
        except OSError:
            self._close()
        raise JournalError(
            f"{self.path}: the answer could not be logged: {reason}; make room, or see who may write there"
        )

    def _open(self) -> None:
        self._close()
        name = f"{time.time_ns() // 1000:016d}-{self.worker}-{os.urandom(4).hex()}"
        self.path, partial = self.folder / f"{name}{SUFFIX}", self.folder / f".{name}.new"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = os.open(partial, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise JournalError(f"{self.folder}: no journal can be begun here: {error.strerror or error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(file, _HEADER) < len(_HEADER):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            partial.rename(self.path)
            if self.fsync:
                os.fsync(file)
                sync_folder(self.folder)
        except OSError as error:
            os.close(file)
            partial.unlink(missing_ok=True)
            raise JournalError(f"{self.folder}: no journal can be begun here: {error.strerror or error}") from error
        self._file, self._size, self._began = file, len(_HEADER), time.monotonic()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def try_folder(folder: Path) -> None:
    """Try whether a journal can be begun in a folder; leave none.

    Raises
    ------
    JournalError
        Its cause is the system's error.
    """
    with Journal(folder, "try") as journal:
        journal.path.unlink()


def _frame(record: Record) -> bytes:
    try:
        body = _ENCODER.encode(record)
    except OverflowError:
        body = _ENCODER.encode(_without_huge(record))
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _without_huge(record: Record) -> Record:
    """Integers of more than 64 bits as text, which names the same state and falls into the same bin."""

    def cell(value: Any) -> Any:
        return str(value) if value.__class__ is int and not -_LARGEST_INT <= value < _LARGEST_INT else value

    if not isinstance(record, AnswerRecord) or record.rows is None:
        return record
    return msgspec.structs.replace(
        record, rows=[{name: cell(value) for name, value in row.items()} for row in record.rows]
    )


def read_journal(path: Path, *, containing: str = "") -> JournalContents:
    """Read a journal up to its last whole record; its process may still be writing.

    Parameters
    ----------
    path : Path
    containing : str
        Leave out records in which this text does not occur; that is quick.

    Raises
    ------
    JournalError
        It can't be read, is no journal, or was written by a newer bnpipe.
    """
    bodies, torn = read_bodies(path)
    wanted = containing.encode()
    return JournalContents(tuple(decode(body, path) for body in bodies if not wanted or wanted in bytes(body)), torn)


def read_bodies(path: Path) -> tuple[list[memoryview], int]:
    """Read a journal's whole records without decoding them, which takes a tenth of the memory; and count what is torn.

    Raises
    ------
    JournalError
        It can't be read, or is no journal.
    """
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise JournalError(f"{path}: the journal can't be read: {error.strerror or error}") from error
    if bytes(data[: len(_HEADER)]) != _HEADER:
        if _HEADER.startswith(bytes(data)):  # killed before it was begun
            return [], len(data)
        raise JournalError(f"{path}: no journal, or of a newer bnpipe; move it out of the folder, or upgrade")
    bodies, place = [], len(_HEADER)
    while (body := _whole(data, place)) is not None:
        bodies.append(body)
        place += _FRAME.size + len(body)
    return bodies, len(data) - place


def decode(body: memoryview, path: Path) -> Record:
    """Decode a record of a journal.

    Raises
    ------
    JournalError
        It was written by a newer bnpipe.
    """
    try:
        record: Record = _DECODER.decode(body)
        return record.opened() if isinstance(record, AnswerRecord) else record
    except msgspec.DecodeError as error:
        raise of_newer(path, error) from error


def of_newer(path: Path, error: Exception) -> JournalError:
    """Tell of a record that this bnpipe can't decode."""
    return JournalError(f"{path}: a record is of a newer bnpipe: {error}; upgrade")


def _whole(data: memoryview, place: int) -> memoryview | None:
    """Give the record that begins here, None if it is torn or there is none."""
    if len(data) - place < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack_from(data, place)
    body = data[place + _FRAME.size : place + _FRAME.size + length]
    whole = 0 < length == len(body) and zlib.crc32(body) == checksum  # a loss of power may leave a tail of zeros
    return body if whole else None


def journals(folder: Path) -> list[Path]:
    """List the journals of a folder, the oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"))


def closed(path: Path) -> bool:
    """Whether no more will come: its process has closed it, or is dead. A journal that is gone is closed."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a loss of power."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
