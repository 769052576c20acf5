"""What only the source can say of a spec: whether its SQL runs, its columns are there, its window has rows."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bnpipe.config import yaml_lines
from bnpipe.config.loading import Draft, Problem
from bnpipe.config.scalars import did_you_mean
from bnpipe.config.settings import Settings
from bnpipe.config.spec import ModelSpec
from bnpipe.config.variables import StatesVariable
from bnpipe.errors import DataError, EmptyWindowError, SettingsError, SourceUnavailable, shorten

if TYPE_CHECKING:
    from bnpipe.source import Connection

_NUMBERS: Final = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
_FRACTIONS: Final = ("FLOAT", "REAL", "DOUBLE", "DECIMAL", "NUMERIC")


def source_problems(draft: Draft, spec: ModelSpec, now: datetime | None) -> Iterator[Problem]:
    """Ask the source: first for its columns, then, if they fit, for rows of the window."""
    from bnpipe.source import describe

    source = ("source", "sql" if spec.source.sql is not None else "path")
    try:
        connection = Settings.from_environ().connection(spec.source.connection)
        types = describe(connection, spec.query())
    except (SettingsError, SourceUnavailable) as error:
        yield draft.problem(("source", "connection"), str(error))
        return
    except DataError as error:
        yield draft.problem(source, str(error))
        return
    wrong = [*_absent(draft, spec, types), *_types(draft, spec, types)]
    yield from wrong
    if any(problem.severity == "error" for problem in wrong):
        return
    try:
        yield from _rows(draft, spec, connection, now)
    except DataError as error:
        yield draft.problem(source, str(error))


def live_problems(draft: Draft, spec: ModelSpec) -> Iterator[Problem]:
    """Ask the source of live rows for its columns; variables that it lacks are unobserved in a look."""
    from bnpipe.source import describe

    live = spec.drift.source if spec.drift is not None else None
    if live is None:
        return
    section = ("drift", "source")
    source = (*section, "sql" if live.sql is not None else "path")
    try:
        types = describe(Settings.from_environ().connection(live.connection), spec.live_query())
    except (SettingsError, SourceUnavailable) as error:
        yield draft.problem(_known(draft, (*section, "connection")), str(error))
        return
    except DataError as error:
        yet = "no files" in str(error).lower()
        hint = "; looks fail until there is one" if yet else ""
        yield draft.problem(source, f"{error}{hint}", "warning" if yet else "error")
        return
    for key, column in (("timestamp", live.timestamp), ("cluster", live.cluster)):
        if column is not None and column not in types:
            hint = did_you_mean(column, types) or f"; it has {shorten(types, limit=20)}"
            yield draft.problem(_known(draft, (*section, key)), f"the source has no column {column!r}{hint}")
    if (kind := types.get(live.timestamp, "TIMESTAMP")) and not kind.startswith(("TIMESTAMP", "DATE")):
        yield draft.problem(
            _known(draft, (*section, "timestamp")), f"the column is {kind}, not a time; cast it in `sql`"
        )
    absent = [name for name in spec.variables if name not in types]
    if len(absent) == len(spec.variables):
        yield draft.problem(source, f"the source has no variable of the spec; it has {shorten(types, limit=20)}")
    elif unheard := [name for name in absent if name not in spec.targets]:
        message = f"the source has no column {shorten(map(repr, unheard))}: unobserved in every look"
        yield draft.problem(source, message, "warning")


def _known(draft: Draft, path: yaml_lines.Path) -> yaml_lines.Path:
    """Give a key that has a line of its own, or what it would be in."""
    return path if path in draft.document.lines else path[:-1]


def further_problems(draft: Draft, spec: ModelSpec) -> Iterator[Problem]:
    """Ask Great Expectations whether it knows the further expectations; imported only if there are any."""
    if not spec.validation.expectations:
        return
    from bnpipe.expectations import expectation_problems

    for found in expectation_problems([item.model_dump() for item in spec.validation.expectations]):
        item = ("validation", "expectations", found.place)
        place = (*item, found.key)
        yield draft.problem(place if place in draft.document.lines else item, found.message)


def _absent(draft: Draft, spec: ModelSpec, types: Mapping[str, str]) -> Iterator[Problem]:
    wanted: dict[yaml_lines.Path, str] = {
        ("variables", name, "column"): column for name, column in spec.columns.items()
    }
    wanted[("source", "timestamp")] = spec.source.timestamp
    if spec.source.cluster is not None:
        wanted[("source", "cluster")] = spec.source.cluster
    for path, column in wanted.items():
        if column not in types:
            hint = did_you_mean(column, types) or f"; it has {shorten(types, limit=20)}"
            yield draft.problem(_known(draft, path), f"the source has no column {column!r}{hint}")


def _types(draft: Draft, spec: ModelSpec, types: Mapping[str, str]) -> Iterator[Problem]:
    timestamp = types.get(spec.source.timestamp)
    if timestamp is not None and not timestamp.startswith(("TIMESTAMP", "DATE")):
        yield draft.problem(("source", "timestamp"), f"the column is {timestamp}, not a time; cast it in `sql`")
    for name, variable in spec.variables.items():
        kind = types.get(spec.columns[name], "").partition("(")[0]
        if isinstance(variable, StatesVariable):
            odd = [state for state in variable.states if not _can_be(state, kind)]
            odd = [state for state in odd if state not in (variable.other, variable.missing_state)]
            if odd:
                message = f"the column is {kind}, whose values never read {shorten(map(repr, odd))}"
                yield draft.problem(("variables", name, "states"), f"{message}; {_SPELLING[_sort(kind)]}", "warning")
        elif kind and _sort(kind) not in ("number", "fraction", "boolean"):
            message = f"the column is {kind}, bins need numbers; cast it in `sql`, or list `states`"
            yield draft.problem(("variables", name), message)


_SPELLING: Final = {
    "boolean": "write true and false",
    "number": "write whole numbers without leading zeros",
    "fraction": "write 3 for 3.0",
}


def _sort(kind: str) -> str:
    if kind == "BOOLEAN":
        return "boolean"
    return "number" if kind in _NUMBERS else "fraction" if kind in _FRACTIONS else "text"


def _can_be(state: str, kind: str) -> bool:
    """Whether a value of this DuckDB type may have this text; unknown types may have any."""
    sort = _sort(kind)
    try:
        if sort == "boolean":
            return state in ("true", "false")
        if sort == "number":
            return str(int(state)) == state
        if sort == "fraction":
            from bnpipe.schema import state_name

            return state_name(float(state)) == state
    except ValueError:
        return False
    return True


def _rows(draft: Draft, spec: ModelSpec, connection: Connection, now: datetime | None) -> Iterator[Problem]:
    from bnpipe.source import read_window, span

    at: date | datetime
    if spec.source.until is not None or spec.schedule is not None:
        at = spec.newest(now or datetime.now(UTC))
    else:
        held = span(connection, spec.query())
        if held is None:
            yield draft.problem(("source",), "the source has no rows at all")
            return
        at = held[1].date() + timedelta(days=1)
    window = spec.window_at(at)
    only_time = replace(spec.query(), columns=(), names=())
    parts = {"train": (window.start, window.train_end), "held_out": (window.train_end, window.end)}
    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        for key, (start, end) in parts.items():
            try:
                read_window(connection, only_time, start, end, Path(folder) / "rows.parquet")
            except EmptyWindowError as error:
                hint = "" if spec.source.until else "; if the source has ended, say so by `source.until`"
                yield draft.problem(("window", key), f"{error}{hint}")
