"""Scores against pgmpy, and counting that does not care how."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnpipe import scores
from bnpipe.data import Dataset
from bnpipe.errors import DataError
from bnpipe.scores import SCORES, Sample, make_score
from bnpipe.structure import score_structure

PGMPY = {"bic": "BIC", "aic": "AIC", "bdeu": "BDeu", "bds": "BDs", "k2": "K2", "ll": "LogLikelihood"}


def random_rows(seed: int, rows: int, variables: int, most_states: int) -> tuple[pd.DataFrame, dict]:
    """Rows that depend on each other, and a random graph over their columns."""
    rng = np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    for place in range(variables):
        states = int(rng.integers(1, most_states + 1))
        noise = rng.integers(0, states, rows)
        copied = columns[f"x{place - 1}"] % states if place else noise
        columns[f"x{place}"] = np.where(rng.random(rows) < 0.6, copied, noise)
    order = rng.permutation(variables).tolist()
    parents = {
        f"x{child}": tuple(f"x{p}" for p in order[:place] if rng.random() < 0.5) for place, child in enumerate(order)
    }
    return pd.DataFrame(columns).astype(str), parents


@pytest.mark.parametrize("score", SCORES)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 300), variables=st.integers(1, 5), most_states=st.integers(1, 4))
@settings(max_examples=12)
def test_scores_equal_pgmpys(score: str, seed: int, rows: int, variables: int, most_states: int):
    """On random rows and graphs, every score is pgmpy's to 1e-6 relative."""
    from pgmpy import structure_score
    from pgmpy.base import DAG

    frame, parents = random_rows(seed, rows, variables, most_states)
    graph = DAG()
    graph.add_nodes_from(parents)
    graph.add_edges_from((parent, child) for child, its in parents.items() for parent in its)
    expected = float(getattr(structure_score, PGMPY[score])(frame).score(graph))
    assert score_structure(Dataset.from_pandas(frame), parents, score) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_equivalent_sample_size_is_pgmpys(score: str):
    """Another equivalent sample size changes BDeu and BDs, and them alone, as it does in pgmpy."""
    from pgmpy import structure_score

    frame, _ = random_rows(5, 200, 3, 3)
    given_size = score_structure(Dataset.from_pandas(frame), {"x1": ("x0",)}, score, equivalent_sample_size=3.0)
    options = {"equivalent_sample_size": 3} if score in ("bdeu", "bds") else {}
    peer = getattr(structure_score, PGMPY[score])(frame, **options)
    prior = make_score(score).prior(3, 1)
    local = peer.local_score("x0", ()) + peer.local_score("x1", ("x0",)) + peer.local_score("x2", ())
    assert given_size == pytest.approx(local + prior, rel=1e-9)


def test_declared_states_that_never_occur_change_nothing():
    """An `other` state without rows is no parameter that was learned."""
    frame, parents = random_rows(3, 100, 4, 3)
    wider = frame.apply(lambda column: pd.Categorical(column, categories=["0", "1", "2", "other"]))
    for score in SCORES:
        assert score_structure(Dataset.from_pandas(wider), parents, score) == score_structure(
            Dataset.from_pandas(frame), parents, score
        )


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_dense_sparse_weighted_and_compressed_counting_agree(seed: int):
    """The same cells come out whichever way a family is counted."""
    frame, _ = random_rows(seed, 150, 6, 4)
    plain = Sample.of(Dataset.from_pandas(frame), deduplicate=False)
    weighted, _ = plain.distinct()
    with pytest.MonkeyPatch.context() as patch:
        dense = list(plain.tables(0, (1, 2, 3), (None, 4, 5)))
        grouped = list(weighted.tables(0, (1, 2, 3), (None, 4, 5)))
        patch.setattr(scores, "_DENSE_CELLS", 0)
        patch.setattr(scores, "_WIDEST_CODE", 40)
        sparse = list(Sample.tables(weighted.reweighted(weighted.weights * 1.0), 0, (1, 2, 3), (None, 4, 5)))
    for one, other, third in zip(dense, grouped, sparse, strict=True):
        for table in (other, third):
            assert np.array_equal(np.sort(one.cells), np.sort(table.cells))
            assert np.array_equal(np.sort(one.configurations), np.sort(table.configurations))
            assert (one.size, one.states, one.rows) == (table.size, table.states, table.rows)


def test_two_hundred_wide_columns_do_not_overflow():
    """Families and rows beyond 64 bits of radix code are counted exactly."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{i:03d}": rng.integers(0, 200, 500) for i in range(200)}).astype(str)
    sample = Sample.of(Dataset.from_pandas(frame))
    table = sample.table(0, range(1, 200))
    assert table.cells.sum() == table.configurations.sum() == 500
    assert table.configurations.size == 500


def test_repeated_rows_are_counted_once_with_their_weight():
    """Rows are deduplicated where that halves them, and not otherwise."""
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    sample = Sample.of(Dataset.from_pandas(frame))
    assert sample.weights is not None
    assert sample.weights.tolist() == [50.0, 50.0]
    assert Sample.of(Dataset.from_pandas(frame.iloc[:3])).weights is None


def test_wrong_names_and_sizes_are_refused():
    """An unknown score lists the known ones; a sample size must be positive."""
    with pytest.raises(DataError, match=r"'bics'.*bic, aic"):
        make_score("bics")
    with pytest.raises(DataError, match="above 0"):
        make_score("bdeu", 0.0)
