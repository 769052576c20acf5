"""Which rows and columns to read, and the SQL for it that DuckDB and Postgres both understand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from bnpipe.errors import SourceError, shorten

AWARE: Final = "TIMESTAMP WITH TIME ZONE"
_AWARE_NS: Final = "TIMESTAMPTZ_NS"
"""What pandas writes: Parquet's nanoseconds in UTC."""


@dataclass(frozen=True)
class Query:
    """Which rows and columns to read.

    Parameters
    ----------
    path, sql : str or None
        One of the two. A path pattern below the connection's root (a table's name for databases), or one ``SELECT``.
    timestamp : str
        Column that says when the row happened. Without an offset it is local time in `time_zone`.
    time_zone : str
        IANA name.
    cluster : str or None
        Column whose value names the row's cluster; None takes the local day of `timestamp`.
    columns : tuple of str
        Columns to read.
    names : tuple of str or None
        What the columns are called from here on; None keeps their names.
    """

    path: str | None
    sql: str | None
    timestamp: str
    time_zone: str = "UTC"
    cluster: str | None = None
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.sql is None):
            raise SourceError("a source has either a path or sql")
        if self.names is not None and len(self.names) != len(self.columns):
            raise SourceError(f"{len(self.columns)} columns but {len(self.names)} names for them")

    @property
    def renamed(self) -> tuple[tuple[str, str], ...]:
        """Pairs of a source column and its name from here on."""
        return tuple(zip(self.columns, self.names or self.columns, strict=True))

    def without(self, columns: Collection[str]) -> Query:
        """Leave out columns of the source."""
        kept = [pair for pair in self.renamed if pair[0] not in columns]
        return replace(self, columns=tuple(column for column, _ in kept), names=tuple(name for _, name in kept))


@dataclass(frozen=True)
class LocalWindow:
    """Half-open ``[start, end)`` in local time, without offsets."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"


def quoted(name: str) -> str:
    """Quote the name of a column."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """Quote a text."""
    return "'" + str(value).replace("'", "''") + "'"


def subquery(sql: str) -> str:
    """Put a spec's SQL between brackets; it may end in a semicolon or a comment."""
    return f"({sql.strip().rstrip(';')}\n)"


def columns_read(query: Query) -> tuple[str, ...]:
    """List every source column the query needs, once."""
    extra = (query.timestamp,) if query.cluster is None else (query.timestamp, query.cluster)
    return tuple(dict.fromkeys((*query.columns, *extra)))


def check_columns(query: Query, types: Mapping[str, str]) -> None:
    """Check that the columns are there and the timestamp is a time.

    Raises
    ------
    SourceError
        They are not; names them, and what there is.
    """
    absent = [column for column in columns_read(query) if column not in types]
    if absent:
        raise SourceError(f"the source has no column {shorten(absent)}; it has {shorten(types, limit=40)}")
    if not types[query.timestamp].startswith(("TIMESTAMP", "DATE")):
        raise SourceError(
            f"timestamp column {query.timestamp} is {types[query.timestamp]}, not a time: cast it in the source's sql"
        )


def local_time(query: Query, types: Mapping[str, str]) -> str:
    """Give the SQL of the row's local time, without offset."""
    column = quoted(query.timestamp)
    if _is_aware(query, types):
        return f"timezone({literal(query.time_zone)}, CAST({column} AS {AWARE}))"
    return f"CAST({column} AS TIMESTAMP)"


def _is_aware(query: Query, types: Mapping[str, str]) -> bool:
    return types[query.timestamp] in (AWARE, _AWARE_NS)


def in_window(query: Query, types: Mapping[str, str], window: LocalWindow) -> str:
    """Give the SQL that keeps the window's rows.

    It compares the bare column, so that statistics of Parquet files and indexes of Postgres can prune.
    """
    column = quoted(query.timestamp)
    if _is_aware(query, types):
        zone = ZoneInfo(query.time_zone)
        ends = (at.replace(tzinfo=zone).isoformat(" ") for at in (window.start, window.end))
        first, last = (f"TIMESTAMPTZ {literal(end)}" for end in ends)
        if types[query.timestamp] == _AWARE_NS:
            first, last = (f"CAST({end} AS {_AWARE_NS})" for end in (first, last))
        return f"{column} >= {first} AND {column} < {last}"
    return f"{column} >= TIMESTAMP {literal(window.start)} AND {column} < TIMESTAMP {literal(window.end)}"


def _plain(column: str, types: Mapping[str, str]) -> str:
    """Numbers written with a decimal point are DECIMAL to DuckDB, and would be objects to everyone else."""
    return f"CAST({quoted(column)} AS DOUBLE)" if types[column].startswith("DECIMAL") else quoted(column)


def selection(query: Query, types: Mapping[str, str], window: LocalWindow, source: str) -> str:
    """Give DuckDB's SQL of a snapshot, in an order that depends on the rows alone."""
    local = local_time(query, types)
    aware = _is_aware(query, types)
    instant = (
        f"CAST({quoted(query.timestamp)} AS {AWARE})" if aware else f"timezone({literal(query.time_zone)}, {local})"
    )
    label = f"strftime({local}, '%Y-%m-%d')"
    if query.cluster is not None:
        label = f"coalesce(CAST({quoted(query.cluster)} AS VARCHAR), 'missing')"
    columns = [f"{_plain(column, types)} AS {quoted(name)}" for column, name in query.renamed]
    columns += [f"{instant} AS _time", f"{label} AS _cluster"]
    order = ["_time", "_cluster", *(quoted(name) for _, name in query.renamed)]
    return (
        f"SELECT {', '.join(columns)} FROM {source} WHERE {in_window(query, types, window)} ORDER BY {', '.join(order)}"
    )
