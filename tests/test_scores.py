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


@given(seed=st.integers(0, 10**6), states=st.integers(1, 20))
@settings(max_examples=15)
def test_bitmaps_histograms_sorting_and_weights_count_alike(seed: int, states: int):
    """The same cells come out whichever way a family is counted, and they are those of pandas."""
    frame, _ = random_rows(seed, 150, 6, states)
    plain = Sample.of(Dataset.from_pandas(frame), deduplicate=False)
    weighted, inverse = plain.distinct()
    assert np.array_equal(np.bincount(inverse), weighted.weights)
    ways = {"_WORDS_A_ROW": (0, 10**6), "_DENSE_SPAN": (1, 2**16), "_WIDEST_SPAN": (1, 2**26)}
    members = [plain.columns[place] for place in (1, 2, 3, 0)]
    expected = pd.DataFrame(dict(enumerate(members))).value_counts().sort_index()
    for name, values in ways.items():
        for value in values:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scores, name, value)
                for sample in (plain, weighted, weighted.reweighted(weighted.weights)):
                    family = sample.family(0, (3, 1, 2))
                    assert family.members == (1, 2, 3, 0)
                    assert np.array_equal(family.cells, np.array(expected.index.tolist()))
                    assert np.array_equal(family.totals, expected.to_numpy())
                    configurations = expected.groupby(level=[0, 1, 2]).size()
                    assert np.array_equal(np.diff(family.starts), configurations.to_numpy())


@pytest.mark.parametrize("score", SCORES)
@given(seed=st.integers(0, 10**6), states=st.integers(1, 20))
@settings(max_examples=6)
def test_a_parent_more_scores_as_the_family_with_it(score: str, seed: int, states: int):
    """Scoring many candidates at once gives what scoring each family alone gives, by bitmaps and by histograms."""
    frame, _ = random_rows(seed, 150, 6, states)
    chosen = make_score(score, 2.0)
    plain = Sample.of(Dataset.from_pandas(frame), deduplicate=False)
    weighted, _ = plain.distinct()
    for value in (0, 4, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scores, "_WORDS_A_ROW", value)
            for sample in (plain, weighted):
                found = sample.score_extensions(sample.family(2, (0, 5)), (1, 3, 4), chosen)
                alone = [sample.score(sample.family(2, (0, 5, more)), chosen) for more in (1, 3, 4)]
                assert found == pytest.approx(alone, rel=1e-12)


def test_new_weights_count_as_copied_rows():
    """A row of weight three is three rows, one of weight zero none."""
    frame, _ = random_rows(1, 80, 4, 3)
    sample, inverse = Sample.of(Dataset.from_pandas(frame), deduplicate=False).distinct()
    times = np.random.default_rng(0).integers(0, 4, 80)
    drawn = sample.reweighted(np.bincount(inverse, times, minlength=sample.weights.size).astype(np.int64))
    copied = Sample.of(Dataset.from_pandas(frame.loc[np.repeat(frame.index, times)]), deduplicate=False)
    assert drawn.rows == copied.rows == times.sum()
    for score in SCORES:
        chosen = make_score(score)
        assert drawn.score(drawn.family(3, (0, 1)), chosen) == pytest.approx(
            copied.score(copied.family(3, (0, 1)), chosen), rel=1e-12
        )


def test_two_hundred_wide_columns_do_not_overflow():
    """Families and rows beyond 64 bits of radix code are counted exactly."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"x{i:03d}": rng.integers(0, 200, 500) for i in range(200)}).astype(str)
    sample = Sample.of(Dataset.from_pandas(frame))
    family = sample.family(0, range(1, 200))
    assert family.totals.sum() == 500
    assert family.starts.size == 501


def test_repeated_rows_are_counted_once_with_their_weight():
    """Rows are deduplicated where that halves them, and not otherwise."""
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    sample = Sample.of(Dataset.from_pandas(frame))
    assert sample.weights.tolist() == [50, 50]
    assert Sample.of(Dataset.from_pandas(frame.iloc[:3])).weights.size == 0


def test_wrong_names_and_sizes_are_refused():
    """An unknown score lists the known ones; a sample size must be positive."""
    with pytest.raises(DataError, match=r"'bics'.*bic, aic"):
        make_score("bics")
    with pytest.raises(DataError, match="above 0"):
        make_score("bdeu", 0.0)
