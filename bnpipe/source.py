"""Where rows come from: connections, windows of time, and one read of one window.

A source is a path pattern or one SQL text, read by DuckDB; a table or SQL in Postgres is streamed out by ``COPY``.
Whatever the source, :func:`read_window` leaves one Parquet file: the query's columns, ``_time`` (an instant) and
``_cluster`` (a label, by default the local day), in an order that depends on the rows alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bnpipe.errors import FormatError, SettingsError

ConnectionKind = Literal["files", "duckdb", "postgres"]


@dataclass(frozen=True)
class Window:
    """Days to learn from and days to prove on: training ``[start, train_end)``, held out ``[train_end, end)``.

    Parameters
    ----------
    start, train_end, end : datetime
        Local midnights in `time_zone`, each with its offset.
    time_zone : str
        IANA name.
    """

    start: datetime
    train_end: datetime
    end: datetime
    time_zone: str

    def __post_init__(self) -> None:
        if not self.start < self.train_end <= self.end:
            raise SettingsError(f"a window needs start < train_end <= end, got {self.start}, {self.train_end}, {self.end}")

    def __str__(self) -> str:
        return f"[{self.start.date()}, {self.end.date()}) in {self.time_zone}"

    @property
    def train_days(self) -> int:
        """Local days to learn from."""
        return (self.train_end.date() - self.start.date()).days

    @property
    def held_out_days(self) -> int:
        """Local days kept from learning."""
        return (self.end.date() - self.train_end.date()).days

    def to_dict(self) -> dict[str, str]:
        """Give ISO texts with offsets, and the time zone."""
        return {
            "start": self.start.isoformat(),
            "train_end": self.train_end.isoformat(),
            "end": self.end.isoformat(),
            "time_zone": self.time_zone,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Window:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or no time.
        """
        try:
            zone = time_zone(fields["time_zone"])
            start, train_end, end = (
                datetime.fromisoformat(fields[name]).astimezone(zone) for name in ("start", "train_end", "end")
            )
        except (KeyError, TypeError, ValueError, SettingsError) as error:
            raise FormatError(f"not a window: {error}") from error
        return cls(start, train_end, end, fields["time_zone"])


def time_zone(name: str) -> ZoneInfo:
    """Find a time zone by its IANA name.

    Raises
    ------
    SettingsError
        No such zone.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise SettingsError(f"unknown time zone {name!r}: give an IANA name such as Europe/Berlin") from error


def window_at(
    at: datetime | date,
    *,
    time_zone: str,
    lag_days: int = 0,
    train_days: int,
    held_out_days: int,
) -> Window:
    """Place a window before a moment.

    Parameters
    ----------
    at : datetime or date
        A date is taken at its word: the window ends at that local midnight. A datetime (without an offset: local time)
        ends it at the last local midnight at or before `at`, less `lag_days`.
    time_zone : str
        IANA name; days are calendar days there, 23 to 25 hours long.
    lag_days : int
        Days that rows need to arrive. Not applied to a date.
    train_days, held_out_days : int
        Length of both parts.

    Raises
    ------
    SettingsError
        Unknown time zone, or no days to learn from.
    """
    zone = _zone(time_zone)
    if isinstance(at, datetime):
        local = at.astimezone(zone) if at.tzinfo else at
        end = local.date() - timedelta(days=lag_days)
    else:
        end = at
    train_end = end - timedelta(days=held_out_days)
    start = train_end - timedelta(days=train_days)
    start_at, train_end_at, end_at = (datetime.combine(day, time(), zone) for day in (start, train_end, end))
    return Window(start_at, train_end_at, end_at, time_zone)


_zone = time_zone


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


@dataclass(frozen=True)
class Connection:
    """A named place to read from. Its URL may hold a password and is in no ``repr``, log or error.

    Parameters
    ----------
    name : str
        As in the spec's ``source.connection``.
    kind : {"files", "duckdb", "postgres"}
        How it is read.
    url : str or None
        Root folder or fsspec URL; a DuckDB file; a Postgres URL. None is the working directory.
    """

    name: str
    kind: ConnectionKind
    url: str | None = field(default=None, repr=False)


def resolve_connection(name: str, environ: Mapping[str, str] = os.environ) -> Connection:
    """Find a connection by name.

    ``BNPIPE_CONN_<NAME>`` holds its URL: a folder, ``s3://…`` or another fsspec URL, ``duckdb:///file``, or
    ``postgresql://user:password@host/database``. ``local`` needs none: files below ``BNPIPE_DATA``, else below the
    working directory.

    Raises
    ------
    SettingsError
        No such variable, or a URL that is none of these.
    """
    variable = "BNPIPE_CONN_" + "".join(letter if letter.isalnum() else "_" for letter in name.upper())
    url = environ.get(variable)
    if not url:
        if name == "local":
            return Connection(name, "files", environ.get("BNPIPE_DATA") or None)
        raise SettingsError(f"connection {name!r} is unknown: set {variable} to a folder, duckdb:///file or postgresql://…")
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme.startswith(("postgres", "postgresql")):
        return Connection(name, "postgres", "postgresql://" + url.partition("://")[2])
    if scheme == "duckdb":
        return Connection(name, "duckdb", url.partition("://")[2].removeprefix("/") if url.startswith("duckdb:///") else url)
    return Connection(name, "files", url.removeprefix("file://"))
