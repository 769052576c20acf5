"""The store: content-addressed snapshots, texts that appear whole, rows read back encoded."""

from __future__ import annotations

import errno
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnpipe.errors import DataError, FormatError, SchemaError, StoreError, StoreUnavailable
from bnpipe.schema import MISSING, Schema, Variable, bin_labels
from bnpipe.store import Snapshot, Store, fingerprint, load_dataset, load_frame

SCHEMA = Schema(
    (
        Variable("state", ("a", "b", "none"), missing="none"),
        Variable("number", bin_labels((2.0,)), edges=(2.0,)),
        Variable("flag", ("false", "true")),
    )
)


def _rows() -> pd.DataFrame:
    """Six hours on both sides of midnight UTC."""
    return pd.DataFrame(
        {
            "state": ["a", "b", None, "a", "c", "b"],
            "number": [1.0, 2.0, np.nan, 3.5, 0.0, 2.5],
            "flag": pd.array([True, False, None, True, True, False], dtype="boolean"),
            "_time": pd.date_range("2013-03-09 21:00", periods=6, freq="h", tz="UTC"),
            "_cluster": ["2013-03-09"] * 3 + ["2013-03-10"] * 3,
        }
    )


@pytest.fixture
def snapshot_file(tmp_path: Path) -> Path:
    """The six rows as Parquet."""
    path = tmp_path / "rows.parquet"
    _rows().to_parquet(path, index=False)
    return path


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store in a folder, and one behind fsspec."""
    if request.param == "folder":
        yield Store(str(tmp_path / "store"))
        return
    root = f"bnpipe-{uuid.uuid4().hex}"
    yield Store(f"memory://{root}")
    import fsspec

    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{root}"):
        memory.rm(f"/{root}", recursive=True)


# --- fingerprints -----------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_the_rows_not_of_the_file(snapshot_file: Path, tmp_path: Path) -> None:
    """Order of rows and columns, compression and row groups do not matter."""
    other = tmp_path / "other.parquet"
    shuffled = _rows().sample(frac=1, random_state=3)[["_time", "flag", "state", "_cluster", "number"]]
    shuffled.to_parquet(other, index=False, compression="gzip", row_group_size=2)
    assert fingerprint(other) == fingerprint(snapshot_file)


@pytest.mark.parametrize("change", ["value", "null", "repeat", "name", "type", "swap"])
def test_any_other_rows_have_another_fingerprint(snapshot_file: Path, tmp_path: Path, change: str) -> None:
    """One value, one null, a repeated row, a column's name or type, or values that swap columns."""
    rows = _rows()
    if change == "value":
        rows.loc[0, "number"] = 1.0000000001
    elif change == "null":
        rows.loc[0, "state"] = None
    elif change == "repeat":
        rows = pd.concat([rows, rows[:1]])
    elif change == "name":
        rows = rows.rename(columns={"state": "status"})
    elif change == "type":
        rows["number"] = rows["number"].astype("float32")
    else:
        rows = rows.rename(columns={"state": "_cluster", "_cluster": "state"})
    rows.to_parquet(tmp_path / "other.parquet", index=False)
    assert fingerprint(tmp_path / "other.parquet") != fingerprint(snapshot_file)


def test_the_fingerprint_never_changes(snapshot_file: Path) -> None:
    """It is recorded with every version: the same rows must have it in years, too."""
    assert fingerprint(snapshot_file) == "11df9a5cbec0361b58ab19b8001bb19bcabcca6926d18381143c09687819d981"


# --- snapshots and texts ----------------------------------------------------------------------------------------------


def test_a_snapshot_is_kept_once(store: Store, snapshot_file: Path) -> None:
    """The same rows put twice are one file, found by what they are."""
    first = store.put_snapshot(snapshot_file)
    assert store.put_snapshot(snapshot_file) == first
    assert store.list("snapshots") == (f"snapshots/{first.fingerprint}.parquet",)
    assert first.uri == store.uri(f"snapshots/{first.fingerprint}.parquet")
    assert (first.rows, first.bytes) == (6, snapshot_file.stat().st_size)
    with store.open_snapshot(first) as path:
        pd.testing.assert_frame_equal(pd.read_parquet(path), _rows())
    assert Snapshot.from_dict(first.to_dict()) == first


def test_a_snapshot_put_again_is_young_again(tmp_path: Path, snapshot_file: Path) -> None:
    """What a training is about to use must not look old to a sweep."""
    store = Store(str(tmp_path / "store"))
    kept = store.put_snapshot(snapshot_file)
    os.utime(tmp_path / "store" / "snapshots" / f"{kept.fingerprint}.parquet", (0, 0))
    assert store.items()[0].modified == 0
    store.put_snapshot(snapshot_file)
    assert store.items()[0].modified > 1e9


def test_texts_are_written_whole_and_replaced(store: Store) -> None:
    """Names may have folders; letters and line ends survive."""
    store.write_text("runs/k1/graph.json", "größer\r\n")
    store.write_text("runs/k1/graph.json", "kleiner\n")
    assert store.read_text("runs/k1/graph.json") == "kleiner\n"
    assert store.exists("runs/k1/graph.json")
    assert not store.exists("runs/k1")
    assert not store.exists("runs/k2/graph.json")


def test_readers_never_see_half_a_text(tmp_path: Path) -> None:
    """While one writes long texts over and over, another reads only whole ones, and no draft is left."""
    store = Store(str(tmp_path / "store"))
    texts = {letter * 200_000 for letter in "ab"}
    store.write_text("runs/k/text", "a" * 200_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                store.write_text("runs/k/text", text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {store.read_text("runs/k/text") for _ in range(100)} <= texts
    finally:
        stop.set()
        writer.join()
    assert [path.name for path in (tmp_path / "store" / "runs" / "k").iterdir()] == ["text"]


def test_items_are_what_can_go_as_a_whole(store: Store, snapshot_file: Path) -> None:
    """One for a snapshot, one for all files of a training; deleting one leaves the others."""
    kept = store.put_snapshot(snapshot_file)
    store.write_text("runs/k1/a.json", "12")
    store.write_text("runs/k1/cost/learn.json", "345")
    store.write_text("runs/k2/a.json", "1")
    items = {item.name: item for item in store.items()}
    assert set(items) == {"runs/k1", "runs/k2", f"snapshots/{kept.fingerprint}.parquet"}
    assert items["runs/k1"].bytes == 5
    assert items[f"snapshots/{kept.fingerprint}.parquet"].uri == kept.uri
    store.delete("runs/k1")
    store.delete("runs/k1")
    assert store.list("runs") == ("runs/k2/a.json",)


def test_files_of_other_people_are_no_items(tmp_path: Path) -> None:
    """In a folder that is shared with others only what the store itself wrote may ever be swept."""
    store = Store(str(tmp_path))
    store.write_text("runs/k1/a.json", "12")
    for stranger in ("thesis.tex", "photos/2024/cat.jpg", "snapshots.bak/x"):
        path = tmp_path / stranger
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    assert [item.name for item in store.items()] == ["runs/k1"]


class EndpointConnectionError(Exception):
    """As botocore's, which is no OSError."""


class NoCredentialsError(Exception):
    """As botocore's."""


@pytest.mark.parametrize(
    "outage",
    [
        TimeoutError("timed out"),
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ESTALE, "Stale file handle"),
        OSError(errno.EHOSTUNREACH, "No route to host"),
        EndpointConnectionError("Could not connect to https://key:hunter2@minio:9000"),
    ],
    ids=lambda outage: type(outage).__name__ + str(outage)[:10],
)
def test_a_store_that_is_away_may_be_back(store: Store, monkeypatch: pytest.MonkeyPatch, outage: Exception) -> None:
    """Whatever is asked; that a file is not there is never concluded from silence, and no password is shown."""
    store.write_text("runs/k/x", "1")
    break_store(store, monkeypatch, outage)
    asks = (
        lambda: store.write_text("runs/k/x", "2"),
        lambda: store.read_text("runs/k/x"),
        lambda: store.exists("runs/k/x"),
        lambda: store.delete("runs/k"),
        store.items,
    )
    for ask in asks:
        with pytest.raises(StoreUnavailable, match=r"can't (read|write) runs") as caught:
            ask()
        assert caught.value.retryable
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied"), "Permission denied"),
        (OSError(errno.EROFS, "Read-only file system"), "Read-only file system"),
        (NoCredentialsError("Unable to locate credentials"), "Unable to locate credentials"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_waiting_does_not_help_against_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch, trouble: Exception, message: str
) -> None:
    """No space, no permission, a read-only folder, no credentials: told as they are, and no draft is left."""
    break_store(store, monkeypatch, trouble)
    with pytest.raises(StoreError, match=f"can't write runs/k/x in Store.*{message}") as caught:
        store.write_text("runs/k/x", "2")
    assert caught.type is StoreError
    monkeypatch.undo()
    assert store.list() == ()


def test_mistakes_of_the_program_are_no_errors_of_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep their type."""
    break_store(store, monkeypatch, TypeError("unexpected keyword"))
    with pytest.raises(TypeError, match="unexpected keyword"):
        store.write_text("runs/k/x", "2")


def break_store(store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every call of the file system below raise `error`."""

    def fail(*_: object, **__: object) -> None:
        raise error

    for method in ("put_file", "cat_file", "info", "rm", "find"):
        monkeypatch.setattr(store._files, method, fail)


def test_the_default_store_lies_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without BNPIPE_STORE."""
    monkeypatch.chdir(tmp_path)
    Store(None).write_text("runs/k/x", "1")
    assert (tmp_path / ".bnpipe" / "store" / "runs" / "k" / "x").is_file()


def test_what_the_store_can_not_do_is_told(store: Store, snapshot_file: Path, tmp_path: Path) -> None:
    """Absent texts and snapshots, names that lead elsewhere, unknown protocols, and a path that is not writable."""
    with pytest.raises(StoreError, match="runs/k/x is not in Store"):
        store.read_text("runs/k/x")
    with (
        pytest.raises(StoreError, match="snapshot 0123456789ab is not in"),
        store.open_snapshot(Snapshot("", "0123456789abcdef", 1, 1)),
    ):
        pass
    for name in ("", "../x", "/etc/passwd"):
        with pytest.raises(StoreError, match="no name in a store"):
            store.write_text(name, "x")
    with pytest.raises(StoreError, match="nosuch"):
        Store("nosuch://x")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"can't write .* in Store"):
        Store(str(tmp_path / "file" / "store")).put_snapshot(snapshot_file)
    with pytest.raises(StoreError, match="can't write"):
        Store("/proc/bnpipe").write_text("x", "y")
    with pytest.raises(FormatError, match="not a snapshot"):
        Snapshot.from_dict({"uri": "x"})


# --- reading back -----------------------------------------------------------------------------------------------------


def test_rows_are_read_back_encoded(snapshot_file: Path) -> None:
    """Codes, nulls, unseen values and clusters."""
    data = load_dataset(snapshot_file, SCHEMA)
    assert data.column("state").tolist() == [0, 1, 2, 0, MISSING, 1]
    assert data.column("number").tolist() == [0, 1, MISSING, 1, 0, 1]
    assert data.column("flag").tolist() == [1, 0, MISSING, 1, 1, 0]
    assert data.unseen_counts == {"state": 1, "number": 0, "flag": 0}
    assert data.cluster_labels == ("2013-03-09", "2013-03-10")
    assert data.clusters is not None
    assert data.clusters.tolist() == [0, 0, 0, 1, 1, 1]


def test_variables_known_to_be_absent_are_missing(snapshot_file: Path) -> None:
    """Their cells are all missing; a column that is gone unannounced is an error."""
    schema = Schema((Variable("gone", ("a", "b")),))
    data = load_dataset(snapshot_file, schema, absent=("gone",))
    assert data.rows > 0
    assert (data.codes == MISSING).all()
    with pytest.raises(SchemaError, match="gone"):
        load_dataset(snapshot_file, schema)


def test_a_part_of_the_window_is_read_by_instants(snapshot_file: Path) -> None:
    """Half-open; only the clusters that have rows are there."""
    midnight = datetime(2013, 3, 10, tzinfo=UTC)
    early, late = load_dataset(snapshot_file, SCHEMA, end=midnight), load_dataset(snapshot_file, SCHEMA, start=midnight)
    assert (early.rows, late.rows) == (3, 3)
    assert late.cluster_labels == ("2013-03-10",)
    nothing = load_dataset(snapshot_file, SCHEMA, start=midnight, end=midnight)
    assert (nothing.rows, nothing.cluster_labels) == (0, ())


def test_many_batches_are_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file is cut, the result is the same."""
    rows = pd.concat([_rows()] * 50, ignore_index=True)
    rows["_cluster"] = [f"c{row % 7}" for row in range(len(rows))]
    rows.to_parquet(tmp_path / "rows.parquet", index=False)
    whole = load_dataset(tmp_path / "rows.parquet", SCHEMA)
    monkeypatch.setattr("bnpipe.store.BATCH_ROWS", 32)
    pieces = load_dataset(tmp_path / "rows.parquet", SCHEMA)
    assert (pieces.codes == whole.codes).all()
    assert pieces.clusters is not None
    assert (pieces.clusters == whole.clusters).all()
    assert pieces.cluster_labels == whole.cluster_labels


def test_a_frame_may_be_a_sample(snapshot_file: Path) -> None:
    """Evenly over the file, first and last row included."""
    assert load_frame(snapshot_file, ["number"])["number"].isna().sum() == 1
    sample = load_frame(snapshot_file, ["state", "number"], sample=2)
    assert sample["number"].tolist() == [1.0, 2.5]
    late = load_frame(snapshot_file, ["number"], start=datetime(2013, 3, 10, 1, tzinfo=UTC))
    assert late["number"].tolist() == [0.0, 2.5]


def test_what_can_not_be_read_back_is_named(snapshot_file: Path, tmp_path: Path) -> None:
    """A column that is not there, a time without an offset, a file that is no Parquet."""
    with pytest.raises(SchemaError, match="no column wind; it has state, number"):
        load_frame(snapshot_file, ["wind"])
    with pytest.raises(DataError, match="needs an offset"):
        load_frame(snapshot_file, ["number"], start=datetime.fromisoformat("2013-03-10"))
    (tmp_path / "broken.parquet").write_bytes(b"broken")
    for read in (fingerprint, lambda path: load_frame(path, ["number"])):
        with pytest.raises(DataError, match=r"broken\.parquet"):
            read(tmp_path / "broken.parquet")
