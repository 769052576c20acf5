"""Postgres, streamed by ``COPY`` to a file and from there by DuckDB: no row becomes a Python object."""

from __future__ import annotations

import importlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from bnpipe.errors import SettingsError, SourceError, SourceUnavailable, hide_secrets
from bnpipe.source.connection import Connection
from bnpipe.source.files import brief, open_duckdb, tell_undated, write_parquet
from bnpipe.source.query import LocalWindow, Query, columns_read, in_window, literal, quoted, selection, subquery

TYPES: Final = {
    16: "BOOLEAN",
    20: "BIGINT",
    21: "BIGINT",
    23: "BIGINT",
    700: "DOUBLE",
    701: "DOUBLE",
    1700: "DOUBLE",
    1082: "DATE",
    1114: "TIMESTAMP",
    1184: "TIMESTAMP WITH TIME ZONE",
}
LASTING: Final = re.compile(r"authentication failed|does not exist|no password supplied|invalid ")


class PostgresReader:
    """A table or SQL in Postgres."""

    def __init__(self, session: Any, query: Query) -> None:
        self.session, self.query = session, query
        table = ".".join(map(quoted, (query.path or "").split(".")))
        self.source = table if query.sql is None else f"{subquery(query.sql)} AS source"

    def types(self, window: LocalWindow | None = None) -> dict[str, str]:
        """Column names and DuckDB types."""
        with self.session.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {self.source} LIMIT 0")
            return {column.name: TYPES.get(column.type_code, "VARCHAR") for column in cursor.description}

    def span(self, time: str) -> tuple[datetime, datetime] | None:
        """First and last value of an SQL expression."""
        with self.session.cursor() as cursor:
            cursor.execute(f"SELECT min({time}), max({time}) FROM {self.source}")
            first, last = cursor.fetchone()
        return None if first is None else (first, last)

    def write(self, types: dict[str, str], window: LocalWindow, path: Path) -> int:
        """Write the window's rows; give their number."""
        wanted = columns_read(self.query)
        listed = ", ".join(map(quoted, wanted))
        wished = f"{in_window(self.query, types, window)} OR {quoted(self.query.timestamp)} IS NULL"
        rows = f"SELECT {listed} FROM {self.source} WHERE {wished}"
        columns = ", ".join(f"{literal(name)}: {literal(types[name])}" for name in wanted)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".csv") as copied, open_duckdb() as engine:
            with self.session.cursor() as cursor:
                cursor.copy_expert(f"COPY ({rows}) TO STDOUT (FORMAT csv, NULL '\\N')", copied)
            copied.flush()
            options = "header=false, auto_detect=false, nullstr='\\N'"
            source = f"read_csv({literal(copied.name)}, {options}, columns={{{columns}}})"
            tell_undated(engine, self.query, source)
            return write_parquet(engine, selection(self.query, types, window, source), path)


@contextmanager
def open_postgres(connection: Connection) -> Iterator[Any]:
    """Open a read-only session; its errors say nothing of the URL."""
    try:
        psycopg2 = importlib.import_module("psycopg2")
    except ImportError as error:
        raise SettingsError("reading Postgres needs psycopg2: install bnpipe[airflow]") from error
    session = None
    try:
        session = psycopg2.connect(connection.url, connect_timeout=10, application_name="bnpipe")
        session.set_session(readonly=True, isolation_level="REPEATABLE READ")
        with session.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO'")
        yield session
    except psycopg2.Error as error:
        reason = brief(error)
        away = isinstance(error, psycopg2.OperationalError) and not LASTING.search(reason)
        reason = hide_secrets(reason, of=connection.url or "")
        raise (SourceUnavailable if away else SourceError)(f"connection {connection.name!r}: {reason}") from None
    finally:
        if session is not None:
            session.close()
