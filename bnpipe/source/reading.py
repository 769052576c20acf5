"""Read one window of a source into one Parquet file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn, Protocol
from zoneinfo import ZoneInfo

from bnpipe.errors import EmptyWindowError
from bnpipe.source.connection import Connection
from bnpipe.source.files import FileReader, open_duckdb
from bnpipe.source.postgres import PostgresReader, open_postgres
from bnpipe.source.query import LocalWindow, Query, check_columns, local_time
from bnpipe.source.window import find_time_zone


@dataclass(frozen=True)
class ReadResult:
    """What :func:`read_window` left.

    Parameters
    ----------
    path : Path
        The Parquet file.
    rows : int
        Rows in it.
    columns : mapping of str to str
        DuckDB type of each column, ``_time`` and ``_cluster`` not among them.
    """

    path: Path
    rows: int
    columns: Mapping[str, str]


def describe(connection: Connection, query: Query) -> dict[str, str]:
    """Name the source's columns with their DuckDB types, without reading rows.

    Raises
    ------
    SourceError
        The SQL does not run, or there are no files or no table.
    SourceUnavailable
        The source did not answer.
    """
    with _open(connection, query) as reader:
        return reader.types()


def absent_columns(connection: Connection, query: Query, start: datetime, end: datetime) -> tuple[str, ...]:
    """Name the query's columns that the rows of ``[start, end)`` do not have.

    Raises
    ------
    SourceError, SourceUnavailable
        As :func:`describe`.
    """
    zone = find_time_zone(query.time_zone)
    window = LocalWindow(_wall_clock(start, zone), _wall_clock(end, zone))
    with _open(connection, query) as reader:
        types = reader.types(window)
    return tuple(column for column in query.columns if column not in types)


def span(connection: Connection, query: Query) -> tuple[datetime, datetime] | None:
    """First and last local time (without offset) the source holds; None when it is empty.

    Raises
    ------
    SourceError, SourceUnavailable
        As :func:`describe`.
    """
    with _open(connection, query) as reader:
        types = reader.types()
        check_columns(query, types)
        return reader.span(local_time(query, types))


def read_window(connection: Connection, query: Query, start: datetime, end: datetime, destination: Path) -> ReadResult:
    """Read the rows of ``[start, end)`` into one Parquet file.

    Beside the query's columns it holds ``_time``, an instant in UTC, and ``_cluster``, a text. The same rows give the
    same file in whatever order the source delivers them. A ``day=YYYY-MM-DD`` in a path is taken for the row's day:
    only the files of the window, and of one day on either side, are opened.

    Parameters
    ----------
    start, end : datetime
        Half-open. Without an offset: local time of the query's time zone.
    destination : Path
        Local file; appears whole or not at all.

    Raises
    ------
    EmptyWindowError
        No rows in the window.
    SourceError
        A column, file or table is not there, or the SQL does not run.
    SourceUnavailable
        The source did not answer.
    """
    zone = find_time_zone(query.time_zone)
    window = LocalWindow(_wall_clock(start, zone), _wall_clock(end, zone))
    destination.parent.mkdir(parents=True, exist_ok=True)
    partial = destination.with_name(destination.name + ".partial")
    with _open(connection, query) as reader:
        types = reader.types(window)
        check_columns(query, types)
        try:
            rows = reader.write(types, window, partial)
            if not rows:
                _refuse_empty(query, window, reader.span(local_time(query, types)))
            partial.replace(destination)
        finally:
            partial.unlink(missing_ok=True)
    return ReadResult(destination, rows, {name: types[column] for column, name in query.renamed})


def _wall_clock(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None) if at.tzinfo else at


def _refuse_empty(query: Query, window: LocalWindow, held: tuple[datetime, datetime] | None) -> NoReturn:
    has = f"the source holds {held[0]} to {held[1]}" if held else "the source holds no rows at all"
    raise EmptyWindowError(f"no rows with {query.timestamp} in {window}, {query.time_zone} time; {has}")


class _Reader(Protocol):
    def types(self, window: LocalWindow | None = None) -> dict[str, str]: ...

    def span(self, time: str) -> tuple[datetime, datetime] | None: ...

    def write(self, types: dict[str, str], window: LocalWindow, path: Path) -> int: ...


@contextmanager
def _open(connection: Connection, query: Query) -> Iterator[_Reader]:
    if connection.kind == "postgres":
        with open_postgres(connection) as session:
            yield PostgresReader(session, query)
    else:
        with open_duckdb(connection) as engine:
            yield FileReader(engine, connection, query)
