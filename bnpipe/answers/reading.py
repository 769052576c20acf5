"""The log read as a whole: what is compacted, and what still lies in journals; no row twice, none left out."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote

import msgspec

from bnpipe.answers.columns import SchemaOf, answers_table, no_schema
from bnpipe.answers.compaction import Part, day_folder, model_folder, part_of, table_of
from bnpipe.answers.journal import JOURNAL, journals, read_journal
from bnpipe.answers.records import RETURNED, AnswerRecord, Arm, Record, day_of_id, join_answers, time_of_id
from bnpipe.errors import DataError, JournalError

if TYPE_CHECKING:
    import pyarrow as pa

Live: TypeAlias = list[tuple[str, tuple[Record, ...]]]
"""Journals, by the name of the Parquet files they will become, and their records."""

ALL_ARMS: Final[tuple[Arm, ...]] = (*RETURNED, "shadow")
_DAY: Final = re.compile(r"day=(\d{4}-\d\d-\d\d)")
_ONE_DAY: Final = timedelta(days=1)

_log = logging.getLogger(__name__)


def find(folder: Path, request_id: str, *, day: date | None = None) -> tuple[AnswerRecord, ...]:
    """Find what was answered to a request: what was returned first, then what shadows would have said.

    Parameters
    ----------
    folder : Path
        Of the log.
    request_id : str
    day : date or None
        Where to look first (UTC); an id made by the service tells its day itself. Without either every day is searched,
        the newest first.

    Returns
    -------
    tuple of AnswerRecord
        Empty if there is none.

    Raises
    ------
    JournalError
        A file of the log can't be read.
    """
    return _find(folder, request_id, "_request", day or day_of_id(request_id))


def find_by_key(folder: Path, key: str) -> tuple[AnswerRecord, ...]:
    """Find what was answered to requests with a caller's own key, on the last day (UTC) with any, or around it.

    Every day is searched, the newest first.

    Raises
    ------
    JournalError
        A file of the log can't be read.
    """
    return _find(folder, key, "_key", None)


def _find(folder: Path, value: str, column: str, near: date | None) -> tuple[AnswerRecord, ...]:
    """Find answers by their request's id or key."""
    live = [record for _, records in _live(folder, value) for record in records if isinstance(record, AnswerRecord)]
    held = [record for record in live if value == (record.id if column == "_request" else record.key)]
    near = max((record.day for record in held), default=near)
    files: dict[date, list[Path]] = defaultdict(list)
    for part in ("answers", "shadow"):
        for path in (folder / part).glob("model=*/day=*/*.parquet"):
            files[_day(path)].append(path)
    around = [at for at in files if near is not None and abs(at - near) <= _ONE_DAY]
    for days in (around, *([at] for at in sorted(files.keys() - set(around), reverse=True))):
        held += [record for at in days for path in files[at] for record in _with(path, column, value)]
        if held:
            break
    once = {(record.id, record.at, record.arm, record.version): record for record in held}  # compacted meanwhile
    return tuple(sorted(once.values(), key=lambda one: (one.id, one.arm == "shadow", one.at, one.version)))


def _day(path: Path) -> date:
    found = _DAY.fullmatch(path.parent.name)
    return date.fromisoformat(found[1]) if found else date.min


def _with(path: Path, column: str, value: str) -> Iterator[AnswerRecord]:
    """Read the records with a value from a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        here = [(column, "=", value)]
        if not pq.read_table(path, columns=[column], filters=here, partitioning=None).num_rows:
            return
        lines = pq.read_table(path, filters=here, partitioning=None).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise JournalError(f"{path}: can't be read: {error}") from error
    model = unquote(path.parent.parent.name.removeprefix("model="))
    together: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        together.setdefault((line["_request"], line["_at"], line["_arm"], line["_version"]), []).append(line)
    for same in together.values():
        yield _record(model, sorted(same, key=lambda line: line["_row"]))


def _record(model: str, lines: Sequence[dict[str, Any]]) -> AnswerRecord:
    first = lines[0]
    evidence = [line["_evidence"] for line in lines]
    return AnswerRecord(
        id=first["_request"],
        at=first["_at"],
        model=model,
        version=first["_version"],
        content_hash=first["_content_hash"],
        arm=first["_arm"],
        caller=first["_caller"],
        key=first["_key"],
        kind=first["_kind"],
        question=msgspec.json.decode(first["_question"]),
        rows=None if None in evidence else [msgspec.json.decode(row) for row in evidence],
        answer=join_answers(line["_answer"] for line in lines),
        evidence_hash=first["_evidence_hash"],
        seconds=first.get("_seconds"),  # older files have none
        batch=first.get("_batch") or 0,
    )


def rows(
    folder: Path,
    model: str,
    start: datetime,
    end: datetime,
    *,
    arms: Iterable[Arm] = RETURNED,
    schema_of: SchemaOf = no_schema,
) -> pa.Table:
    """Read the rows answered in ``[start, end)``, in order of time.

    Parameters
    ----------
    folder : Path
        Of the log.
    model : str
    start, end : datetime
        With offsets.
    arms : iterable of str
        Left out: those whose answers were returned; the shadows' are not.
    schema_of : callable
        Lays out rows that are still in journals; without it their cells are text.

    Raises
    ------
    JournalError
        A file of the log can't be read.
    DataError
        A time without an offset.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = tuple(arms)
    live = _live(folder)
    parts: list[Part] = ["answers", "shadow"] if "shadow" in wanted else ["answers"]
    tables = [
        table
        for part in parts
        for table in _tables(folder, live, part, model, start=start, end=end, schema_of=schema_of)
    ]
    table = _alike(tables) if tables else answers_table([])
    table = table.filter(pc.is_in(table["_arm"], pa.array(wanted, pa.string())))
    return table.sort_by(
        [("_at", "ascending"), ("_request", "ascending"), ("_arm", "ascending"), ("_row", "ascending")]
    )


def labelled(
    folder: Path,
    model: str,
    start: datetime,
    end: datetime,
    *,
    arms: Iterable[Arm] = ALL_ARMS,
    schema_of: SchemaOf = no_schema,
) -> pa.Table:
    """Read the rows answered in ``[start, end)`` of which something turned out later, with that in their cells.

    Of several labels for the same variable of the same row the last counts. Where there is one, it replaces the cell
    that was sent. Labels that belong to no answer, though by their ids it was given then, are counted in a warning.

    Parameters
    ----------
    folder, model, start, end, arms, schema_of
        See :func:`rows`; here the shadows count too. Labels may come at any time after `start`.

    Raises
    ------
    JournalError, DataError
        As :func:`rows`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _labels(folder, model, start)
    every = rows(folder, model, start, end, arms=ALL_ARMS, schema_of=schema_of)
    table = every.filter(pc.is_in(every["_arm"], pa.array(tuple(arms), pa.string())))
    keys = ["_request", "_row"]
    if found is not None:
        _warn_of_strays(found.select(keys).join(every.select(keys), keys, join_type="left anti"), model, start, end)
    joined = table.join(found, keys, join_type="inner", right_suffix="") if found is not None else table.slice(0, 0)
    for name in [name.removeprefix(_LABEL) for name in joined.column_names if name.startswith(_LABEL)]:
        label = joined[_LABEL + name]
        joined = joined.drop_columns([_LABEL + name])
        if name not in joined.column_names:
            joined = joined.append_column(name, label)
        else:
            joined = joined.set_column(joined.column_names.index(name), name, _replaced(joined[name], label))
    assert isinstance(joined, pa.Table)
    return joined.sort_by(
        [("_at", "ascending"), ("_request", "ascending"), ("_arm", "ascending"), ("_row", "ascending")]
    )


def _warn_of_strays(strays: pa.Table, model: str, start: datetime, end: datetime) -> None:
    """Tell of labels that match no answer; who sent them was told only that they are kept."""
    made = [time_of_id(request) for request in strays["_request"].to_pylist()]
    lost = sum(at is not None and start <= at < end - _ANSWERED for at in made)
    if lost:
        _log.warning("%s: labels of %d rows belong to no answer: a wrong request_id, row or model", model, lost)


_LABEL: Final = "_label "
_ANSWERED: Final = timedelta(minutes=1)
"""From the making of an id until its answer is logged at the latest."""


def _labels(folder: Path, model: str, start: datetime) -> pa.Table | None:
    """Give the last label of each variable of each row; None where there is none."""
    forever = datetime.max.replace(tzinfo=UTC)
    tables = list(_tables(folder, _live(folder), "feedback", model, start=start, end=forever, schema_of=no_schema))
    if not tables:
        return None
    table = _alike(tables).sort_by("_at")
    names = [name for name in table.column_names if not name.startswith("_")]
    last = table.group_by(["_request", "_row"], use_threads=False).aggregate([(name, "last") for name in names])
    return last.rename_columns({f"{name}_last": _LABEL + name for name in names})


def _replaced(cells: pa.ChunkedArray, labels: pa.ChunkedArray) -> pa.ChunkedArray:
    """Put labels, which are text, in place of cells; both become text where a label is no number among numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        return pc.coalesce(labels.cast(cells.type), cells)
    except pa.ArrowInvalid:
        return pc.coalesce(labels, cells.cast(pa.string()))


def _live(folder: Path, containing: str = "") -> Live:
    """Read all journals, or the records with a text.

    To be called before the Parquet files are listed: a journal goes when its files are there.
    """
    live = []
    for path in journals(folder / JOURNAL):
        try:
            live.append((path.stem, read_journal(path, containing=containing).records))
        except JournalError:
            if path.exists():
                raise
    return live


def _tables(
    folder: Path, live: Live, part: Part, model: str, *, start: datetime, end: datetime, schema_of: SchemaOf
) -> Iterator[pa.Table]:
    """Give what lies in Parquet files, and what of the journals does not."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if start.tzinfo is None or end.tzinfo is None:
        raise DataError(f"times need an offset, got {start} and {end}")
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    files = [
        path for path in sorted(model_folder(folder, part, model).glob("day=*/*.parquet"))
        if first.date() <= _day(path) <= last.date()
    ]  # fmt: skip
    for path in files:
        try:
            yield _between(pq.read_table(path, partitioning=None), first, last)
        except (OSError, pa.ArrowException) as error:
            raise JournalError(f"{path}: can't be read: {error}") from error
    there = set(files)
    for name, records in live:
        fresh = [
            record for record in records
            if record.model == model and part_of(record) == part and first <= record.at < last
            and day_folder(folder, part, model, record.day) / f"{name}.parquet" not in there
        ]  # fmt: skip
        if fresh:
            yield table_of(part, fresh, schema_of)


def _between(table: pa.Table, start: datetime, end: datetime) -> pa.Table:
    import pyarrow.compute as pc

    return table.filter((pc.field("_at") >= start) & (pc.field("_at") < end))


def _alike(tables: Sequence[pa.Table]) -> pa.Table:
    """Put tables under one another; columns that are numbers here and text there become text."""
    import pyarrow as pa

    types: dict[str, pa.DataType] = {}
    for field in (field for table in tables for field in table.schema):
        types[field.name] = field.type if types.get(field.name, field.type) == field.type else pa.string()
    return pa.concat_tables(
        pa.table(
            {
                name: table[name].cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
                for name, kind in types.items()
            }
        )
        for table in tables
    )
