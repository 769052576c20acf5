"""Distinct rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnpipe.kernels.tables import distinct_rows
from bnpipe.schema import MISSING


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 70), st.integers(0, 300), st.sampled_from([1, 2, 5, 256]), st.booleans())
def test_distinct_rows_equal_those_of_numpy(seed: int, variables: int, rows: int, codes: int, gaps: bool) -> None:
    """First occurrences in order, every row traced to its own, whatever the number of words a row needs."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, codes, (variables, 20)).astype(np.uint8)
    columns = kinds[:, rng.integers(0, 20, rows)]
    columns[rng.random(columns.shape) < 0.01] = MISSING if gaps else 0
    firsts, inverse = distinct_rows(columns)
    _, first, counts = np.unique(columns.T, axis=0, return_index=True, return_counts=True)
    order = np.argsort(first)
    assert firsts.tolist() == first[order].tolist()
    assert np.bincount(inverse, minlength=firsts.size).tolist() == counts[order].tolist()
    assert np.array_equal(columns[:, firsts[inverse]], columns)


def test_a_table_of_rows_grows_with_them() -> None:
    """Thousands of distinct rows outgrow the first hash table more than once; each is still found again."""
    codes = np.stack([np.arange(5000) % 250, np.arange(5000) // 250]).astype(np.uint8)
    firsts, inverse = distinct_rows(np.concatenate([codes, codes[:, ::-1]], axis=1))
    assert firsts.tolist() == list(range(5000))
    assert inverse.tolist() == [*range(5000), *range(4999, -1, -1)]


@pytest.mark.parametrize(("shape", "distinct"), [((3, 0), 0), ((0, 4), 1), ((0, 0), 0), ((2, 1), 1)])
def test_no_rows_and_no_variables_are_no_crash(shape: tuple[int, int], distinct: int) -> None:
    """Rows without variables are all alike; no rows have no kind."""
    firsts, inverse = distinct_rows(np.zeros(shape, dtype=np.uint8))
    assert (firsts.tolist(), inverse.tolist()) == ([0] * distinct, [0] * shape[1])
