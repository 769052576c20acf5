"""Where rows come from: connections, windows of time, and one read of one window.

A source is a path pattern or one SQL text, read by DuckDB; a table or SQL in Postgres is streamed out by ``COPY``.
Whatever the source, :func:`read_window` leaves one Parquet file: the query's columns, ``_time`` (an instant) and
``_cluster`` (a label, by default the local day), in an order that depends on the rows alone.
"""

from __future__ import annotations

from bnpipe.source.connection import Connection, connection_variable, package_file, resolve_connection
from bnpipe.source.query import Query
from bnpipe.source.reading import ReadResult, absent_columns, describe, read_window, span
from bnpipe.source.window import Window, find_time_zone, window_at

__all__ = [
    "Connection",
    "Query",
    "ReadResult",
    "Window",
    "absent_columns",
    "connection_variable",
    "describe",
    "find_time_zone",
    "package_file",
    "read_window",
    "resolve_connection",
    "span",
    "window_at",
]
