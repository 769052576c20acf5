"""Family counts by cluster."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bnpipe.counts import MAX_CELLS, FamilyCounts, contingency, family_counts, table_cells
from bnpipe.errors import DataError, FormatError, NetworkError
from bnpipe.schema import MISSING


def random_family(seed: int, rows: int, cardinalities: list[int], clusters: int) -> tuple[NDArray, NDArray]:
    """Draw codes, one cell in ten missing, and clusters."""
    generator = np.random.default_rng(seed)
    codes = np.stack([generator.integers(0, cardinality, rows) for cardinality in cardinalities]).astype(np.uint8)
    codes[generator.random(codes.shape) < 0.1] = MISSING
    return codes, generator.integers(0, clusters, rows).astype(np.int32)


families = st.tuples(
    st.integers(0, 2**31),
    st.integers(0, 80),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(1, 5),
)


def dense(counts: FamilyCounts) -> NDArray:
    """All clusters as one array."""
    return np.stack(list(counts.per_cluster()))


@given(families)
def test_counts_equal_those_of_pandas(family: tuple[int, int, list[int], int]) -> None:
    """Every cell is the number of complete rows that pandas finds in that group."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    counts = family_counts(codes, cardinalities, members, clusters)
    frame = pd.DataFrame(codes.T.astype(int)).assign(cluster=members)
    frame = frame[(frame != MISSING).all(axis=1)]
    expected = np.zeros((clusters, *cardinalities), dtype=np.int64)
    for place, size in frame.groupby(["cluster", *range(len(cardinalities))]).size().items():
        expected[place] = size
    assert np.array_equal(dense(counts), expected.reshape(counts.shape))
    assert np.array_equal(counts.total(), expected.sum(axis=0).reshape(counts.shape[1:]))
    assert np.array_equal(contingency(codes, cardinalities), expected.sum(axis=0))
    assert counts.rows == len(frame)
    assert np.array_equal(counts.cluster_rows, expected.reshape(clusters, -1).sum(axis=1))


def test_a_pair_equals_crosstab() -> None:
    """The parent's states are the lines, the child's the columns."""
    frame = pd.DataFrame({"parent": [0, 0, 1, 2, 2, 2], "child": [1, 0, 1, 1, 1, 0]})
    counts = family_counts(frame.to_numpy(dtype=np.uint8).T, [3, 2])
    assert np.array_equal(counts.total(), pd.crosstab(frame["parent"], frame["child"]).to_numpy())
    assert counts.shape == (1, 3, 2)


@given(families, st.integers(0, 80))
def test_counts_of_chunks_add_up_to_those_of_the_whole(family: tuple[int, int, list[int], int], cut: int) -> None:
    """Counts add over days, partitions and workers."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    whole = family_counts(codes, cardinalities, members, clusters)
    first = family_counts(codes[:, :cut], cardinalities, members[:cut], clusters)
    second = family_counts(codes[:, cut:], cardinalities, members[cut:], clusters)
    total = first + second
    assert np.array_equal(total.cells, whole.cells)
    assert np.array_equal(total.counts, whole.counts)
    assert np.array_equal((second + first).counts, whole.counts)


@given(families)
def test_sorting_and_dense_counting_agree(family: tuple[int, int, list[int], int]) -> None:
    """A huge cluster axis takes the sorting path; the cells are the same."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    near = family_counts(codes, cardinalities, members, clusters)
    far = family_counts(codes, cardinalities, members, 10**7)
    assert np.array_equal(near.cells, far.cells)
    assert np.array_equal(near.counts, far.counts)


@given(families, st.booleans(), st.sampled_from([0, 10**7]))
def test_numba_and_numpy_count_alike(family: tuple[int, int, list[int], int], weighted: bool, far: int) -> None:
    """Compiled or not, dense or by sorting, weighted or not: the same cells and counts, bit for bit."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    weights = np.random.default_rng(seed).integers(0, 4, rows) if weighted else None
    axis = {"clusters": members, "cluster_count": max(clusters, far), "weights": weights}
    slow, quick = (family_counts(codes, cardinalities, **axis, compiled=compiled) for compiled in (False, True))
    assert slow.shape == quick.shape
    assert slow.cells.tolist() == quick.cells.tolist()
    assert slow.counts.tolist() == quick.counts.tolist()
    tables = [contingency(codes, cardinalities, weights=weights, compiled=compiled) for compiled in (False, True)]
    assert np.array_equal(*tables)
    assert np.array_equal(tables[0].reshape(slow.shape[1:]), slow.total())


@given(families, st.booleans(), st.sampled_from([0, 10**7]))
def test_weights_are_rows_repeated(family: tuple[int, int, list[int], int], compiled: bool, far: int) -> None:
    """A row of weight w counts as w rows; of weight 0 as none."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    weights = np.random.default_rng(seed).integers(0, 4, rows)
    count = max(clusters, far)
    weighted = family_counts(codes, cardinalities, members, count, weights=weights, compiled=compiled)
    repeated = family_counts(np.repeat(codes, weights, axis=1), cardinalities, np.repeat(members, weights), count)
    assert weighted.cells.tolist() == repeated.cells.tolist()
    assert weighted.counts.tolist() == repeated.counts.tolist()
    assert np.array_equal(
        contingency(codes, cardinalities, weights=weights, compiled=compiled),
        contingency(np.repeat(codes, weights, axis=1), cardinalities),
    )


@given(families, st.booleans())
def test_the_order_of_rows_does_not_matter(family: tuple[int, int, list[int], int], compiled: bool) -> None:
    """Counting is a sum."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    order = np.random.default_rng(seed).permutation(rows)
    one = family_counts(codes, cardinalities, members, clusters, compiled=compiled)
    other = family_counts(codes[:, order], cardinalities, members[order], clusters, compiled=compiled)
    assert one.cells.tolist() == other.cells.tolist()
    assert one.counts.tolist() == other.counts.tolist()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_family_is_picked_out_of_all_codes(compiled: bool) -> None:
    """`variables` names the rows of codes, in the family's order; a list of columns is as good as an array."""
    codes, members = random_family(3, 200, [3, 2, 4, 5], 4)
    picked = family_counts(codes, [5, 3], members, 4, variables=[3, 0], compiled=compiled)
    listed = family_counts([codes[3], codes[0]], [5, 3], members.astype(np.int64), 4, compiled=compiled)
    turned = family_counts(np.asfortranarray(codes), [5, 3], members, 4, variables=(3, 0), compiled=compiled)
    for other in (listed, turned):
        assert picked.cells.tolist() == other.cells.tolist()
        assert picked.counts.tolist() == other.counts.tolist()


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.array([[0, 1], [0, 3]], dtype=np.uint8)}, "variable 1: a code is no state; it has 3 states"),
        ({"codes": np.array([[2, 1], [0, 2]], dtype=np.uint8)}, "variable 0: a code is no state"),
        ({"clusters": np.array([0, 10**7], dtype=np.int32)}, "numbered 0 to 10000000, there are"),
        ({"clusters": np.array([-1, 0], dtype=np.int32)}, "numbered -1 to 0"),
        ({"clusters": np.array([0, 2**32])}, "numbered 0 to 4294967296"),
        ({"clusters": np.array([0])}, "clusters of 1 rows where there are 2"),
        ({"weights": np.array([1, 2, 3])}, "weights of 3 rows"),
        ({"weights": np.array([1, -2])}, "numbers of rows, got -2"),
        ({"weights": np.array([1.0, 2.0])}, "whole numbers of rows, got float64"),
        ({"codes": [np.zeros(2, np.uint8), np.zeros(3, np.uint8)]}, "codes of 2, 3 rows"),
    ],
)
@pytest.mark.parametrize("cluster_count", [2, 10**7])
def test_what_would_leave_the_table_is_refused(changes: dict, message: str, compiled: bool, cluster_count: int) -> None:
    """A code that is no state, a cluster that is none, weights that are no numbers of rows: named, never counted."""
    given = {"codes": np.zeros((2, 2), np.uint8), "clusters": np.array([0, 1]), **changes}
    with pytest.raises(DataError, match=message):
        family_counts(**given, cardinalities=[2, 3], cluster_count=cluster_count, compiled=compiled)


@pytest.mark.parametrize("compiled", [False, True])
def test_sums_beyond_64_bits_are_refused(compiled: bool) -> None:
    """Rows are counted in int64, and nothing wraps around unseen."""
    codes, heavy = np.zeros((1, 2), dtype=np.uint8), np.array([2**61, 2**61 - 2**40])
    counts = family_counts(codes, [2], weights=heavy, compiled=compiled)
    assert counts.rows == int(heavy.sum())
    with pytest.raises(NetworkError, match="can't be counted"):
        family_counts(codes, [2], weights=np.array([2**62, 2**62]), compiled=compiled)
    with pytest.raises(NetworkError, match="can't be counted"):
        counts + counts


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("cluster_count", [3, 10**7])
def test_odd_tables(compiled: bool, cluster_count: int) -> None:
    """One row, no rows, one state, 255 states, a column all missing, clusters without rows: each is just counted."""
    empty = family_counts(np.zeros((2, 0), np.uint8), [2, 3], np.zeros(0, np.int32), cluster_count, compiled=compiled)
    assert (empty.rows, empty.cells.size, empty.shape) == (0, 0, (cluster_count, 2, 3))
    gone = np.array([[0, 1, 0], [MISSING] * 3], dtype=np.uint8)
    assert family_counts(gone, [2, 3], np.arange(3), cluster_count, compiled=compiled).rows == 0
    one = family_counts(np.array([[0], [2]], np.uint8), [1, 3], np.array([2]), cluster_count, compiled=compiled)
    assert (one.cells.tolist(), one.counts.tolist()) == ([2 * 3 + 2], [1])
    assert one.cluster_rows[:3].tolist() == [0, 0, 1]
    wide = np.arange(256, dtype=np.uint8)[None]  # the last is MISSING
    all_states = family_counts(wide, [255], np.zeros(256, np.int32), cluster_count, compiled=compiled)
    assert all_states.total().tolist() == [[1] * 255]


def test_a_large_sparse_family_is_cheap() -> None:
    """10 000 configurations by 90 clusters hold no more cells than there are rows."""
    codes, members = random_family(0, 20_000, [100, 100, 10], 90)
    counts = family_counts(codes, [100, 100, 10], members, 90)
    assert counts.shape == (90, 10_000, 10)
    assert counts.cells.size <= 20_000
    assert len(pickle.dumps(counts)) < 20_000 * 20


def test_flat_indices_do_not_overflow() -> None:
    """Clusters times cells may exceed 32 bits; the last cell is still counted as itself."""
    cardinalities = [255, 255, 255, 8]
    codes = np.array([[254], [254], [254], [7]], dtype=np.uint8)
    counts = family_counts(codes, cardinalities, np.array([9_999]), 10_000)
    assert counts.cells.tolist() == [10_000 * 255**3 * 8 - 1]
    assert counts.cluster_rows[-1] == 1


def test_tables_beyond_memory_are_refused() -> None:
    """A product of states that could never be held is an error, not a crash or a wrap-around."""
    codes = np.zeros((30, 2), dtype=np.uint8)
    with pytest.raises(NetworkError, match="fewer parents"):
        family_counts(codes, [255] * 30)
    with pytest.raises(NetworkError, match="fewer parents"):
        contingency(codes, [255] * 30)
    assert table_cells([MAX_CELLS]) == MAX_CELLS
    with pytest.raises(NetworkError):
        table_cells([MAX_CELLS, 2])
    with pytest.raises(NetworkError, match="coarser clusters"):
        family_counts(codes[:1], [MAX_CELLS], np.zeros(2, dtype=np.int64), 2**40)


def test_select_and_place_move_clusters() -> None:
    """Selected clusters leave the shape of the others behind; placing them back restores the table."""
    codes, members = random_family(1, 200, [3, 2], 4)
    counts = family_counts(codes, [3, 2], members, 4)
    for chosen in (np.array([True, False, False, True]), np.array([0, 3])):
        part = counts.select(chosen)
        assert part.shape == (2, 3, 2)
        assert np.array_equal(dense(part), dense(counts)[[0, 3]])
    back = part.place(np.array([0, 3]), 4) + counts.select(np.array([1, 2])).place(np.array([1, 2]), 4)
    assert np.array_equal(back.cells, counts.cells)
    merged = counts.place(np.zeros(4, dtype=np.int64), 1)
    assert np.array_equal(merged.total(), counts.total())
    with pytest.raises(NetworkError, match="no cluster"):
        counts.select(np.zeros(4, dtype=bool))
    with pytest.raises(NetworkError, match="places"):
        counts.place(np.array([0, 1, 2, 9]), 4)


@pytest.mark.parametrize(
    ("shape", "cells", "counts"),
    [
        ((1, 2), [0], [1]),
        ((1, 0, 2), [], []),
        ((1, 2, 2), [0, 1], [1]),
        ((1, 2, 2), [1, 0], [1, 1]),
        ((1, 2, 2), [1, 1], [1, 1]),
        ((1, 2, 2), [4], [1]),
        ((1, 2, 2), [-1], [1]),
        ((1, 2, 2), [0], [0]),
    ],
)
def test_inconsistent_counts_are_refused(shape: tuple, cells: list[int], counts: list[int]) -> None:
    """Cells increase strictly within the shape and every count is positive."""
    with pytest.raises(NetworkError):
        FamilyCounts(shape, np.array(cells, dtype=np.int64), np.array(counts, dtype=np.int64))


def test_counts_of_different_shape_can_not_be_added() -> None:
    """Adding over other clusters or states would mix cells up."""
    one = family_counts(np.zeros((1, 2), dtype=np.uint8), [2])
    with pytest.raises(NetworkError, match="can't be added"):
        one + family_counts(np.zeros((1, 2), dtype=np.uint8), [3])


@given(families, st.integers(0, 7))
def test_thinned_counts_keep_what_is_asked_spread_over_the_clusters(family: tuple, seventh: int) -> None:
    """Each cell of the table keeps its number, and each cluster its share of it, to within one row."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    counts = family_counts(codes, cardinalities, members, clusters)
    kept = counts.total() * seventh // 7
    thin = counts.thinned(kept)
    assert np.array_equal(thin.total(), kept)
    share = np.divide(kept, counts.total(), out=np.zeros(kept.shape), where=counts.total() > 0)
    for before, now in zip(counts.per_cluster(), thin.per_cluster(), strict=True):
        assert (np.abs(now - before * share) < 1.0 + 1e-9).all()
    with pytest.raises(NetworkError, match="more rows"):
        counts.thinned(counts.total() + 1)


@given(families)
def test_to_dict_and_pickle_keep_every_cell(family: tuple[int, int, list[int], int]) -> None:
    """What is stored is what comes back, read-only."""
    seed, rows, cardinalities, clusters = family
    codes, members = random_family(seed, rows, cardinalities, clusters)
    counts = family_counts(codes, cardinalities, members, clusters)
    for again in (FamilyCounts.from_dict(counts.to_dict()), pickle.loads(pickle.dumps(counts))):  # noqa: S301
        assert again.shape == counts.shape
        assert np.array_equal(again.cells, counts.cells)
        assert np.array_equal(again.counts, counts.counts)
        assert not again.cells.flags.writeable


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("steps"),
        lambda fields: fields.update(shape=[1, 2]),
        lambda fields: fields.update(steps="!!"),
        lambda fields: fields.update(counts="AAAA"),
        lambda fields: fields.update(counts=3),
    ],
)
def test_damaged_fields_are_format_errors(damage: Callable[[dict], object]) -> None:
    """Whatever is wrong with a stored table, the error says that the file is damaged."""
    fields = family_counts(np.zeros((1, 2), dtype=np.uint8), [2]).to_dict()
    damage(fields)
    with pytest.raises(FormatError, match="damaged"):
        FamilyCounts.from_dict(fields)
