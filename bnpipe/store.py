"""The store that all workers share: snapshots of rows by content, and small texts by name.

``BNPIPE_STORE`` is a folder or an fsspec URL. Everything appears whole or not at all, so readers never wait.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from bnpipe.data import Dataset
from bnpipe.errors import DataError, FormatError, SchemaError, StoreError, StoreUnavailable, hide_secrets, shorten
from bnpipe.schema import Schema

DEFAULT_STORE: Final = ".bnpipe/store"
BATCH_ROWS: Final = 1 << 17
FOLDERS: Final = ("runs", "snapshots")  # all that a store holds
AWAY: Final = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.EBUSY),  # EBUSY: what s3fs makes of "slow down"
    }
)
# Parts of the names that Python, botocore, aiohttp, Google's and Azure's clients give to such errors and their bases.
AWAY_NAMES: Final = ("Connect", "Timeout", "Disconnected", "HTTPClient", "Transport", "Unavailable", "ServiceRe")


@dataclass(frozen=True)
class Snapshot:
    """Rows as they were read, kept by their content.

    Parameters
    ----------
    uri : str
        Where they lie.
    fingerprint : str
        SHA-256 of the rows; see :func:`fingerprint`.
    rows, bytes : int
        Their number, and the size of the file.
    """

    uri: str
    fingerprint: str
    rows: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Snapshot:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            return cls(**fields)
        except TypeError as error:
            raise FormatError(f"not a snapshot: {error}") from error


@dataclass(frozen=True)
class Item:
    """Something that can be deleted as a whole: one snapshot, or all files of one training.

    Parameters
    ----------
    name : str
        Key, or prefix of keys: ``snapshots/<fingerprint>.parquet``, ``runs/<training key>``.
    uri : str
        Where it lies.
    bytes : int
        Size.
    modified : float
        Seconds since 1970 when its youngest file was written or last put again.
    """

    name: str
    uri: str
    bytes: int
    modified: float


class Store:
    """A folder, local or behind an fsspec URL.

    Parameters
    ----------
    uri : str or None
        None takes ``.bnpipe/store`` below the working directory.
    """

    def __init__(self, uri: str | None = None) -> None:
        import fsspec

        try:
            self._files, root = fsspec.core.url_to_fs(str(uri or DEFAULT_STORE))
        except (ImportError, ValueError) as error:
            raise StoreError(f"BNPIPE_STORE is {uri!r}: {error}") from error
        self._root = str(root).rstrip("/")
        self._local = "file" in np.atleast_1d(self._files.protocol)

    def __repr__(self) -> str:
        return f"Store({hide_secrets(self._files.unstrip_protocol(self._root))!r})"

    def put_snapshot(self, path: Path) -> Snapshot:
        """Keep a Parquet file; the same rows are kept once, and count as young again.

        Raises
        ------
        StoreError
            The store can't be written.
        """
        import pyarrow.parquet as pq

        mark = fingerprint(path)
        key = snapshot_key(mark)
        with self._talking("write", key):
            if not (self._local and self._touch(key)):
                self._write(key, path)
            size = int(self._files.size(self._place(key)))
        return Snapshot(self.uri(key), mark, int(pq.read_metadata(path).num_rows), size)

    @contextmanager
    def open_snapshot(self, snapshot: Snapshot) -> Iterator[Path]:
        """Give a local path to read the snapshot from, for as long as the block lasts.

        Raises
        ------
        StoreError
            It is gone or can't be read.
        """
        key = snapshot_key(snapshot.fingerprint)
        if not self.exists(key):
            raise StoreError(f"snapshot {snapshot.fingerprint[:12]} is not in {self!r}")
        if self._local:
            yield Path(self._place(key))
            return
        with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
            copy = Path(folder) / "snapshot.parquet"
            with self._talking("read", key):
                self._files.get_file(self._place(key), str(copy))
            yield copy

    def write_text(self, key: str, text: str) -> None:
        """Write a text under a name, replacing what was there.

        Raises
        ------
        StoreError
            The store can't be written.
        """
        with self._talking("write", key), tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
            draft = Path(folder) / "text"
            draft.write_text(text, encoding="utf-8", newline="")
            self._write(key, draft)

    def read_text(self, key: str) -> str:
        """Read a text.

        Raises
        ------
        StoreError
            There is none of that name, or it can't be read.
        """
        with self._talking("read", key):
            content: bytes = self._files.cat_file(self._place(key))
        return content.decode("utf-8")

    def exists(self, key: str) -> bool:
        """Whether there is a file of that name.

        Raises
        ------
        StoreUnavailable
            Nobody knows: the store did not answer.
        """
        with self._talking("read", key), suppress(FileNotFoundError, NotADirectoryError):
            return bool(self._files.info(self._place(key))["type"] == "file")  # `isfile` is False in an outage, too
        return False

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """List the names that begin with a folder's, sorted."""
        return tuple(sorted(self._sizes(prefix)))

    def items(self) -> tuple[Item, ...]:
        """List what can be deleted as a whole, sorted by name; files beside the store's own are none of it."""
        sizes = {key: size for folder in FOLDERS for key, size in self._sizes(folder).items()}
        members: dict[str, list[str]] = {}
        for key in sizes:
            members.setdefault("/".join(key.split("/")[:2]), []).append(key)
        return tuple(self._item(name, keys, sizes) for name, keys in sorted(members.items()))

    def delete(self, name: str) -> None:
        """Delete a file, or everything below a name; nothing happens if there is none.

        Raises
        ------
        StoreError
            The store can't be written, or the name is empty.
        """
        place = self._place(name)
        with self._talking("write", name), suppress(FileNotFoundError):
            self._files.rm(place, recursive=True)

    def uri(self, key: str) -> str:
        """Say where a name lies."""
        return str(self._files.unstrip_protocol(self._place(key)))

    def _place(self, key: str) -> str:
        if not key or ".." in key.split("/") or key.startswith("/"):
            raise StoreError(f"{key!r} is no name in a store")
        return f"{self._root}/{key}"

    def _write(self, key: str, source: Path) -> None:
        """Upload; object stores show an object when it is complete, folders need a rename."""
        place = self._place(key)
        self._files.makedirs(place.rpartition("/")[0], exist_ok=True)
        if not self._local:
            self._files.put_file(str(source), place)
            return
        draft = f"{place}.{uuid.uuid4().hex}.partial"
        try:
            self._files.put_file(str(source), draft)
            Path(draft).replace(place)
        finally:
            Path(draft).unlink(missing_ok=True)

    def _touch(self, key: str) -> bool:
        try:
            os.utime(self._place(key))
        except FileNotFoundError:
            return False
        return True

    def _sizes(self, prefix: str) -> dict[str, int]:
        folder = self._place(prefix.strip("/")) if prefix.strip("/") else self._root
        with self._talking("read", prefix):
            found: Mapping[str, Any] = self._files.find(folder, detail=True)
        cut = len(self._root) + 1
        return {path[cut:]: int(info["size"]) for path, info in found.items() if not path.endswith(".partial")}

    def _item(self, name: str, keys: Iterable[str], sizes: Mapping[str, int]) -> Item:
        with self._talking("read", name):
            modified = max(self._files.modified(self._place(key)).timestamp() for key in keys)
        return Item(name, self.uri(name), sum(sizes[key] for key in keys), modified)

    @contextmanager
    def _talking(self, verb: str, key: str) -> Iterator[None]:
        """Turn the errors of file systems, which need be no OSError behind a URL, into ours."""
        try:
            yield
        except FileNotFoundError as error:
            told = f"{key} is not in {self!r}" if verb == "read" else self._failure(verb, key, error)
            raise StoreError(told) from error
        except Exception as error:
            if _is_away(error):
                raise StoreUnavailable(self._failure(verb, key, error)) from error
            if isinstance(error, OSError) or _is_foreign(error):
                raise StoreError(self._failure(verb, key, error)) from error
            raise

    def _failure(self, verb: str, key: str, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return f"can't {verb} {key} in {self!r}: {hide_secrets(str(reason))}"


def _is_away(error: Exception) -> bool:
    """Whether the same call may succeed in a minute."""
    if isinstance(error, OSError) and error.errno in AWAY:
        return True
    return any(part in kind.__name__ for kind in type(error).__mro__ for part in AWAY_NAMES)


def _is_foreign(error: Exception) -> bool:
    """Whether a library defined this error; Python's own are mistakes of the program, bnpipe's are told already."""
    return type(error).__module__.partition(".")[0] not in ("builtins", "bnpipe")


def open_duckdb(database: str | None = None) -> Any:
    """Open DuckDB in memory, or a database to read; it fetches no extension, and spills to the temporary folder."""
    import duckdb

    settings = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": tempfile.gettempdir(),
    }
    engine = duckdb.connect(database or ":memory:", read_only=database is not None, config=settings)
    engine.execute("SET TimeZone = 'UTC'")
    return engine


def snapshot_key(mark: str) -> str:
    """Name the snapshot of a fingerprint."""
    return f"snapshots/{mark}.parquet"


def fingerprint(path: Path) -> str:
    """Hash the rows of a Parquet file, whatever their order, row groups and compression.

    SHA-256 over the sorted names and types of the columns and the sorted MD5 of every row, each value as DuckDB's text,
    prefixed by its length. DuckDB sorts on disk if it must.

    Raises
    ------
    DataError
        The file can't be read.
    """
    import duckdb

    source = "read_parquet($1)"
    try:
        with open_duckdb() as engine:
            described = engine.execute(f"DESCRIBE SELECT * FROM {source}", [str(path)]).fetchall()
            columns = sorted((row[0], row[1]) for row in described)
            texts = [f'CAST("{name.replace(chr(34), chr(34) * 2)}" AS VARCHAR)' for name, _ in columns]
            cells = ", ".join(f"coalesce(length({text}) || ':' || {text}, '-')" for text in texts)
            rows = engine.execute(f"SELECT md5(concat({cells})) AS mark FROM {source} ORDER BY mark", [str(path)])
            digest = hashlib.sha256(repr(columns).encode())
            while marks := rows.fetchmany(BATCH_ROWS):
                digest.update("".join(mark for (mark,) in marks).encode())
    except duckdb.Error as error:
        raise DataError(f"can't read {path.name}: {str(error).splitlines()[0]}") from error
    return digest.hexdigest()


def load_frame(
    path: Path,
    columns: Sequence[str],
    sample: int | None = None,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
) -> pd.DataFrame:
    """Read columns of a snapshot; texts as categoricals.

    Parameters
    ----------
    sample : int or None
        At most that many rows, spread evenly over the file, which is in order of time.
    start, end : datetime or None
        Half-open in time, with offsets.

    Raises
    ------
    DataError
        A column is not there, or the file can't be read.
    """
    import pyarrow as pa

    schema, parts = _batches(path, columns, start, end)
    table = pa.Table.from_batches(parts, schema)
    if sample is not None and table.num_rows > sample:
        table = table.take(np.linspace(0, table.num_rows - 1, sample).astype(np.int64))
    frame: pd.DataFrame = table.to_pandas()
    return frame


def load_dataset(
    path: Path,
    schema: Schema,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    absent: Collection[str] = (),
) -> Dataset:
    """Read and encode a snapshot's rows, batch by batch; clusters from ``_cluster``.

    Parameters
    ----------
    start, end : datetime or None
        Half-open in time, with offsets.
    absent : collection of str
        Variables that the snapshot is known to lack: missing in every row.

    Raises
    ------
    DataError
        A column is not there, or the file can't be read.
    """
    held = [name for name in schema.names if name not in absent]
    _, batches = _batches(path, (*held, "_cluster"), start, end)
    return Dataset.from_chunks((batch.to_pandas() for batch in batches), schema, "_cluster")


def _batches(
    path: Path, columns: Sequence[str], start: datetime | None, end: datetime | None
) -> tuple[Any, Iterator[Any]]:
    """Open a snapshot: the Arrow schema of the columns, and their batches between two instants."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        held = pq.read_schema(path)
        if absent := [name for name in (*columns, "_time") if name not in held.names]:
            raise SchemaError(f"{path.name} has no column {shorten(absent)}; it has {shorten(held.names, limit=40)}")
        texts = [name for name in columns if pa.types.is_string(held.field(name).type)]
        file = pq.ParquetFile(path, read_dictionary=texts)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"can't read {path.name}: {error}") from error
    names = list(dict.fromkeys(columns))
    fields = [file.schema_arrow.field(name) for name in names]

    def read() -> Iterator[Any]:
        with file:
            for batch in file.iter_batches(BATCH_ROWS, columns=[*names, "_time"]):
                kept = _between(batch, start, end).select(names)
                if kept.num_rows:
                    yield kept

    return pa.schema(fields), read()


def _between(batch: Any, start: datetime | None, end: datetime | None) -> Any:
    import pyarrow.compute as pc

    for compare, bound in ((pc.greater_equal, start), (pc.less, end)):
        if bound is None:
            continue
        if bound.tzinfo is None:
            raise DataError(f"a time needs an offset, got {bound}")
        batch = batch.filter(compare(batch.column("_time"), bound.astimezone(UTC)))
    return batch
