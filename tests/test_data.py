"""Encoded rows with their clusters."""

from __future__ import annotations

import copy
import datetime
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.data import Dataset, order_labels
from bnpipe.errors import DataError, SchemaError
from bnpipe.schema import MISSING, Schema, Variable, bin_labels

SCHEMA = Schema((Variable("rain", ("no", "yes")), Variable("wind", bin_labels((5.0,)), edges=(5.0,))))


@pytest.fixture
def frame() -> pd.DataFrame:
    """Four rows of two days, with a null, an unseen state and a column that is no variable."""
    return pd.DataFrame(
        {
            "wind": [1.0, 5.0, np.nan, 7.0],
            "rain": ["no", "yes", "hail", None],
            "day": ["2013-01-02", "2013-01-01", "2013-01-02", "2013-01-02"],
            "note": ["a", "b", "c", "d"],
        }
    )


def test_from_pandas_encodes_by_schema(frame: pd.DataFrame) -> None:
    """Columns are found by name; codes, clusters and unseen cells are as in the frame."""
    data = Dataset.from_pandas(frame, SCHEMA, clusters="day")
    assert data.codes.tolist() == [[0, 1, MISSING, MISSING], [0, 1, MISSING, 1]]
    assert data.cluster_labels == ("2013-01-01", "2013-01-02")
    assert data.clusters is not None
    assert data.clusters.tolist() == [1, 0, 1, 1]
    assert data.unseen_counts == {"rain": 1, "wind": 0}
    assert data.complete.tolist() == [True, True, False, False]
    assert (data.rows, len(data), data.cluster_count) == (4, 4, 2)
    assert data.column("wind").tolist() == [0, 1, MISSING, 1]


def test_a_column_that_is_absent_is_all_missing(frame: pd.DataFrame) -> None:
    """A request without a column is a request where it was not observed."""
    data = Dataset.from_pandas(frame[["rain"]], SCHEMA)
    assert (data.column("wind") == MISSING).all()
    assert data.unseen_counts["wind"] == 0


def test_schema_is_inferred_without_the_cluster_column() -> None:
    """The cluster column is no variable; labels given as an array leave all columns variables."""
    frame = pd.DataFrame({"a": ["x", "y"], "day": [1, 2]})
    assert Dataset.from_pandas(frame, clusters="day").schema.names == ("a",)
    assert Dataset.from_pandas(frame, clusters=["p", "q"]).schema.names == ("a", "day")
    assert Dataset.from_pandas(frame).clusters is None
    assert Dataset.from_pandas(frame).cluster_count == 0


def test_cluster_labels_sort_as_a_person_would() -> None:
    """Whole numbers by value, dates in time; a date and its midnight are one cluster."""
    assert order_labels(["10", "9", "-1"]) == ("-1", "9", "10")
    assert order_labels(["b", "10", "9"]) == ("10", "9", "b")
    frame = pd.DataFrame({"a": ["x", "x"]})
    dates = [datetime.date(2013, 1, 2), datetime.date(2013, 1, 1)]
    by_date = Dataset.from_pandas(frame, clusters=dates)
    by_time = Dataset.from_pandas(frame, clusters=pd.to_datetime(dates))
    assert by_date.cluster_labels == by_time.cluster_labels == ("2013-01-01", "2013-01-02")


@pytest.mark.parametrize(
    ("clusters", "message"),
    [("hour", "no cluster column 'hour'; there are wind, rain"), (["a"], "4 rows need"), ([None] * 4, "4 of 4 rows")],
)
def test_clusters_that_do_not_fit_are_data_errors(frame: pd.DataFrame, clusters: object, message: str) -> None:
    """Absent, too few and null labels are told apart."""
    with pytest.raises(DataError, match=message):
        Dataset.from_pandas(frame, SCHEMA, clusters=clusters)


def test_columns_of_the_same_name_are_refused() -> None:
    """Which of the two is meant can't be known."""
    with pytest.raises(SchemaError, match="given twice: a"):
        Dataset.from_pandas(pd.DataFrame([[1, 2]], columns=["a", "a"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": np.zeros((1, 3), dtype=np.uint8)}, "shape"),
        ({"codes": np.zeros((2, 3), dtype=np.int64)}, "uint8"),
        ({"codes": np.full((2, 3), 2, dtype=np.uint8)}, "rain: a code is no state"),
        ({"clusters": np.array([0, 0, 1]), "cluster_labels": ("a",)}, "outside the 1 labels"),
        ({"clusters": np.array([0, 0]), "cluster_labels": ("a",)}, "shape"),
        ({"cluster_labels": ("a",)}, "without the clusters"),
        ({"unseen": np.zeros((1, 3), dtype=bool)}, "unseen"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(fields: dict, message: str) -> None:
    """A Dataset that exists is consistent."""
    with pytest.raises(DataError, match=message):
        Dataset(**{"schema": SCHEMA, "codes": np.zeros((2, 3), dtype=np.uint8), **fields})


def test_arrays_can_not_be_written_also_after_pickling_or_copying(frame: pd.DataFrame) -> None:
    """Frozen means frozen; the caller's own array stays writable."""
    codes = np.zeros((2, 3), dtype=np.uint8)
    data = Dataset(SCHEMA, codes, np.zeros(3, dtype=np.int32), ("a",))
    for held in (data, pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):  # noqa: S301
        with pytest.raises(ValueError, match="read-only"):
            held.codes[0, 0] = 1
        assert held.clusters is not None
        assert not held.clusters.flags.writeable
        assert held.codes.flags.c_contiguous
    codes[0, 0] = 1
    with pytest.raises(AttributeError):
        data.codes = codes  # type: ignore[misc]


def test_select_and_project_keep_what_belongs_together(frame: pd.DataFrame) -> None:
    """Rows keep their cluster and unseen marks; all labels stay."""
    data = Dataset.from_pandas(frame, SCHEMA, clusters="day")
    for rows in (np.array([True, False, True, False]), np.array([0, 2])):
        part = data.select(rows)
        assert part.codes.tolist() == [[0, MISSING], [0, MISSING]]
        assert part.clusters is not None
        assert part.clusters.tolist() == [1, 1]
        assert part.cluster_labels == data.cluster_labels
        assert part.unseen_counts == {"rain": 1, "wind": 0}
    turned = data.project(["wind", "rain"])
    assert turned.schema.names == ("wind", "rain")
    assert turned.codes.tolist() == data.codes[::-1].tolist()
    assert turned.unseen_counts == {"wind": 0, "rain": 1}


def test_concat_joins_clusters_of_the_same_label(frame: pd.DataFrame) -> None:
    """Chunks of one day become one cluster again."""
    data = Dataset.from_pandas(frame, SCHEMA, clusters="day")
    parts = [Dataset.from_pandas(frame.iloc[i : i + 1], SCHEMA, clusters="day") for i in range(4)]
    joined = Dataset.concat(parts)
    assert np.array_equal(joined.codes, data.codes)
    assert np.array_equal(joined.clusters, data.clusters)
    assert joined.cluster_labels == data.cluster_labels
    assert joined.unseen_counts == data.unseen_counts


chunkings = st.tuples(st.integers(0, 2**31), st.integers(0, 60), st.lists(st.integers(0, 60), max_size=6))


@given(chunkings)
def test_chunks_encode_to_what_the_whole_frame_does(chunking: tuple[int, int, list[int]]) -> None:
    """However rows are cut, empty chunks too: the same codes, clusters, labels and unseen cells."""
    seed, rows, cuts = chunking
    rng = np.random.default_rng(seed)
    whole = pd.DataFrame(
        {
            "rain": rng.choice(["no", "yes", "hail", None], rows),
            "wind": rng.choice([1.0, 7.0, np.nan], rows),
            "day": rng.choice(["10", "9", "b"], rows),
        }
    )
    bounds = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    chunks = (whole.iloc[first:last] for first, last in itertools.pairwise(bounds))
    data, expected = Dataset.from_chunks(chunks, SCHEMA, "day"), Dataset.from_pandas(whole, SCHEMA, "day")
    assert np.array_equal(data.codes, expected.codes)
    assert np.array_equal(data.clusters, expected.clusters)
    assert data.cluster_labels == expected.cluster_labels
    assert data.unseen_counts == expected.unseen_counts
    assert (data.unseen is None) == (expected.unseen is None)
    assert data.unseen is None or np.array_equal(data.unseen, expected.unseen)


def test_no_chunks_are_no_rows() -> None:
    """A window without a batch is a dataset without rows, with clusters if they were asked for."""
    assert Dataset.from_chunks([], SCHEMA).clusters is None
    data = Dataset.from_chunks(iter(()), SCHEMA, "day")
    assert (data.rows, data.cluster_labels, data.clusters is None) == (0, (), False)


def test_chunks_that_do_not_fit_are_refused(frame: pd.DataFrame) -> None:
    """Every chunk needs the cluster column."""
    with pytest.raises(DataError, match="no cluster column 'day'"):
        Dataset.from_chunks([frame, frame.drop(columns="day")], SCHEMA, "day")


def test_what_is_kept_whole_is_not_copied(frame: pd.DataFrame) -> None:
    """All rows, or neighbouring variables, are the arrays that are there already."""
    data = Dataset.from_pandas(frame, SCHEMA, clusters="day")
    assert data.select(np.ones(data.rows, dtype=bool)) is data
    assert np.shares_memory(data.project(["wind"]).codes, data.codes)
    assert np.shares_memory(data.project(["rain", "wind"]).codes, data.codes)
    assert Dataset.concat([data]) is data


def test_a_state_of_255_fits_and_256_do_not() -> None:
    """255 codes and one for missing fill a byte; who needs more is told what to do."""
    frame = pd.DataFrame({"zip": [f"{number:03}" for number in range(255)]})
    data = Dataset.from_pandas(frame)
    assert data.column("zip").tolist() == list(range(255))
    assert data.complete.all()
    assert data.to_pandas()["zip"].tolist() == frame["zip"].tolist()
    more = pd.DataFrame({"zip": [f"{number:03}" for number in range(256)]})
    with pytest.raises(SchemaError, match=r"zip: 256 different values, at most 255 states .* give edges or states"):
        Dataset.from_pandas(more)
    with pytest.raises(SchemaError, match=r"zip: 1 to 255 states are allowed, got 256; .*other"):
        Dataset.from_pandas(more.astype("category"))


def test_a_column_all_missing_leaves_no_complete_row() -> None:
    """Nothing of the other column is lost by it."""
    data = Dataset.from_pandas(pd.DataFrame({"rain": ["no", "yes"], "wind": [None, None]}), SCHEMA)
    assert not data.complete.any()
    assert data.column("rain").tolist() == [0, 1]
    assert data.select(data.complete).rows == 0


def test_a_code_beyond_the_states_is_found_in_any_block() -> None:
    """Codes are checked block by block, to the last row."""
    codes = np.zeros((2, 200_000), dtype=np.uint8)
    codes[1] = MISSING
    assert Dataset(SCHEMA, codes).rows == 200_000
    codes[1, -1] = 2
    with pytest.raises(DataError, match="wind: a code is no state; it has 2 states"):
        Dataset(SCHEMA, codes)


def test_concat_refuses_what_does_not_belong_together(frame: pd.DataFrame) -> None:
    """Nothing, another schema, or clusters in some only."""
    data = Dataset.from_pandas(frame, SCHEMA)
    with pytest.raises(DataError, match="nothing"):
        Dataset.concat([])
    with pytest.raises(DataError, match="different schemas"):
        Dataset.concat([data, data.project(["rain"])])
    with pytest.raises(DataError, match="some have none"):
        Dataset.concat([data, Dataset.from_pandas(frame, SCHEMA, clusters="day")])


@given(st.lists(st.tuples(st.sampled_from(["no", "yes", None]), st.sampled_from([0.0, 5.0, None])), max_size=20))
def test_to_pandas_reads_back_to_the_same_codes(rows: list[tuple[object, object]]) -> None:
    """Categoricals out, the same codes in, also of binned variables."""
    frame = pd.DataFrame(rows, columns=["rain", "wind"])
    data = Dataset.from_pandas(frame, SCHEMA)
    assert np.array_equal(Dataset.from_pandas(data.to_pandas(), SCHEMA).codes, data.codes)
    if rows:
        assert data.to_pandas()["wind"].cat.categories.tolist() == ["<5", ">=5"]


def test_an_empty_frame_is_a_dataset_without_rows() -> None:
    """No rows is no crash."""
    data = Dataset.from_pandas(pd.DataFrame({"rain": []}), SCHEMA)
    assert data.rows == 0
    assert data.complete.shape == (0,)


MEASURE = """
import resource
import numpy as np, pandas as pd
import bnpipe
from bnpipe.schema import Schema, Variable

schema = Schema(tuple(Variable(f"v{i}", ("a", "b", "c")) for i in range(40)))
parents = {f"v{i}": (f"v{(i - 1) // 2}",) for i in range(1, 40)}

def chunk(seed, rows):
    codes = np.random.default_rng(seed).integers(0, 4, (40, rows))
    codes[1:] %= 3  # v0 alone has z, which is no state
    columns = {f"v{i}": pd.Categorical.from_codes(codes[i], list("abcz")) for i in range(40)}
    return pd.DataFrame({**columns, "day": f"d{seed % 7}"})

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

bnpipe.fit(bnpipe.Dataset.from_chunks((chunk(seed, 50_000) for seed in range(2)), schema, "day"), parents)
before = peak()
data = bnpipe.Dataset.from_chunks((chunk(seed, 50_000) for seed in range(30)), schema, "day")
network = bnpipe.fit(data, parents)
data.select(data.complete)
print(data.rows, network.family_counts("v1").rows, data.codes.nbytes, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read in KiB")
def test_rows_are_held_as_codes_only() -> None:
    """1 500 000 rows of 40 variables, encoded, fitted and selected from, take less than five bytes a cell."""
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows, counted, held, taken = map(int, done.stdout.split())
    assert rows == 1_500_000
    assert 0.7 * rows < counted < 0.8 * rows
    assert taken < 5 * held
