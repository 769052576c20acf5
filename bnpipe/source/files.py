"""Files and DuckDB databases, read by DuckDB."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

from bnpipe import store
from bnpipe.errors import SourceError, SourceUnavailable
from bnpipe.source.connection import PACKAGE_FILE, Connection, with_package_files
from bnpipe.source.query import LocalWindow, Query, literal, quoted, selection, subquery

log = logging.getLogger(__name__)

DAY: Final = re.compile(r"[/\\]day=(\d{4}-\d{2}-\d{2})[/\\]")
HIVE: Final = re.compile(r"[/\\]\w+=[^/\\]*[/\\]")
TEXT: Final = "auto_type_candidates=['TIME', 'DATE', 'TIMESTAMP', 'TIMESTAMPTZ', 'BIGINT', 'DOUBLE', 'VARCHAR']"
READERS: Final = {".csv": "read_csv", ".tsv": "read_csv", ".json": "read_json", ".ndjson": "read_json"}


class FileReader:
    """Files, or a table or SQL in a DuckDB database."""

    def __init__(self, engine: Any, connection: Connection, query: Query) -> None:
        self.engine, self.connection, self.query = engine, connection, query

    def types(self, window: LocalWindow | None = None) -> dict[str, str]:
        """Column names and DuckDB types; without a window, those of the newest file."""
        source = self._source(window, newest=window is None)
        return {row[0]: row[1] for row in self.engine.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """First and last value of an SQL expression."""
        rows = self.engine.execute(f"SELECT min({time}), max({time}) FROM {self._source(None)}")
        first, last = rows.fetchone()
        return None if first is None else (first, last)

    def write(self, types: dict[str, str], window: LocalWindow, path: Path) -> int:
        """Write the window's rows; give their number."""
        source = self._source(window)
        tell_undated(self.engine, self.query, source)
        return write_parquet(self.engine, selection(self.query, types, window, source), path)

    def _source(self, window: LocalWindow | None, *, newest: bool = False) -> str:
        if self.query.sql is not None:
            sql = with_package_files(self.query.sql)
            _check_select(self.engine, sql)
            return subquery(sql)
        path = self.query.path or ""
        if self.connection.kind == "duckdb":
            return ".".join(map(quoted, path.split(".")))
        files = _files(self.connection, path)
        chosen = _days(files, window) or files[-1:]
        return _read_files(self.engine, chosen[-1:] if newest else chosen)


def write_parquet(engine: Any, select: str, path: Path) -> int:
    """Write what an SQL selects to a Parquet file; give the number of rows."""
    copied = engine.execute(f"COPY ({select}) TO {literal(path)} (FORMAT parquet, COMPRESSION zstd)").fetchone()
    return int(copied[0])


def tell_undated(engine: Any, query: Query, source: str) -> None:
    """Log how many rows are in no window because they have no time."""
    count = engine.execute(f"SELECT count(*) FROM {source} WHERE {quoted(query.timestamp)} IS NULL").fetchone()[0]
    if count:
        log.warning("%d rows of the source have no %s; they are in no window", count, query.timestamp)


@contextmanager
def open_duckdb(connection: Connection | None = None) -> Iterator[Any]:
    """Open DuckDB so that it fetches no extension, whatever the SQL says, and fails in our words."""
    import duckdb

    file = _database(connection)
    try:
        with store.open_duckdb(file) as engine:
            if connection is not None and file is None:
                _mount(engine, connection)
            engine.execute("SET lock_configuration = true")
            yield engine
    except duckdb.IOException as error:
        _raise_io_error(error, connection)
    except duckdb.Error as error:
        raise SourceError(f"can't read the source: {brief(error)}") from error
    except FileNotFoundError as error:
        raise SourceError(f"can't read the source: {brief(error)}") from error
    except OSError as error:
        raise SourceUnavailable(f"can't read the source: {brief(error)}") from error


def _raise_io_error(error: Exception, connection: Connection | None) -> NoReturn:
    away = "lock" in str(error) or (connection is not None and connection.remote)
    raise (SourceUnavailable if away else SourceError)(f"can't read the source: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """First two lines of an error, on one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]


def _database(connection: Connection | None) -> str | None:
    if connection is None or connection.kind != "duckdb":
        return None
    if not Path(connection.url or "").is_file():
        raise SourceError(f"connection {connection.name!r}: its DuckDB file is not there")
    return connection.url


def _mount(engine: Any, connection: Connection) -> None:
    if not connection.remote:
        engine.execute(f"SET file_search_path = {literal(connection.root)}")
        return
    import fsspec

    engine.register_filesystem(fsspec.filesystem(connection.root.partition("://")[0]))


def _check_select(engine: Any, sql: str) -> None:
    import duckdb

    statements = engine.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise SourceError("the source's sql must be one SELECT")


def _files(connection: Connection, pattern: str) -> list[str]:
    """List the files of a pattern below the connection's root, sorted."""
    if PACKAGE_FILE.fullmatch(pattern):
        return [with_package_files(pattern)]
    if connection.remote:
        files = _remote_files(f"{connection.root.rstrip('/')}/{pattern}")
    else:
        root = Path(connection.root)
        if Path(pattern).is_absolute():
            root, pattern = Path("/"), pattern.lstrip("/")
        files = [str(path) for path in root.glob(pattern) if path.is_file()]
    if not files:
        raise SourceError(f"no files match {pattern!r} below connection {connection.name!r}")
    return sorted(files)


def _remote_files(pattern: str) -> list[str]:
    import fsspec

    system = fsspec.filesystem(pattern.partition("://")[0])
    return [system.unstrip_protocol(path) for path in system.glob(pattern)]


def _days(files: Sequence[str], window: LocalWindow | None) -> list[str]:
    """Keep the files of the window's days and one more on either side: a feed may cut its days in another zone."""
    if window is None:
        return list(files)
    margin = timedelta(days=1)
    first, last = str((window.start - margin).date()), str((window.end - timedelta(microseconds=1) + margin).date())
    return [path for path in files if (found := DAY.search(path)) is None or first <= found[1] <= last]


def _read_files(engine: Any, files: Sequence[str]) -> str:
    name = re.sub(r"\.(gz|zst)$", "", files[0].lower())
    reader = READERS.get(Path(name).suffix, "read_parquet")
    partitioned = ", hive_partitioning=true" if HIVE.search(files[0]) else ""
    arguments = f"[{', '.join(map(literal, files))}], union_by_name=true{partitioned}"
    return _read_csv(engine, arguments) if reader == "read_csv" else f"{reader}({arguments})"


def _read_csv(engine: Any, arguments: str) -> str:
    """DuckDB takes yes and no, y and n, t and f for truths; here they stay text, and only true and false are truths."""
    guessed = engine.execute(f"DESCRIBE SELECT * FROM read_csv({arguments})").fetchall()
    columns = [quoted(row[0]) for row in guessed if row[1] == "BOOLEAN"]
    if not columns:
        return f"read_csv({arguments})"
    source = f"read_csv({arguments}, {TEXT})"
    asked = ", ".join(f"bool_and(lower({column}) IN ('true', 'false'))" for column in columns)
    answers = engine.execute(f"SELECT {asked} FROM {source}").fetchone()
    truths = [f"{column}::BOOLEAN AS {column}" for column, truth in zip(columns, answers, strict=True) if truth]
    return f"(SELECT * REPLACE ({', '.join(truths)}) FROM {source})" if truths else source
