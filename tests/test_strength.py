"""The averaged network: which arcs are kept, how they are drawn, and that nothing else decides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_networks import published, random_network, sample

from bnpipe import strength
from bnpipe.data import Dataset
from bnpipe.errors import DataError
from bnpipe.graph import consistent_extension, cpdag, find_cycle, graph_difference
from bnpipe.knowledge import Knowledge
from bnpipe.strength import arc_strength, inclusion_threshold


@given(counts=st.lists(st.integers(1, 20), max_size=12), never=st.integers(0, 30))
@settings(max_examples=40)
def test_the_threshold_is_nearest_in_l1(counts: list[int], never: int):
    """No other constant is nearer to the shares' distribution function than the one that the threshold stands for."""
    shares = [count / 20 for count in counts]
    everything = np.sort([*shares, *([0.0] * never)])
    if not everything.size:
        return
    threshold = inclusion_threshold(shares, everything.size)
    places = (np.arange(2000) + 0.5) / 2000
    rising = np.searchsorted(everything, places, side="right") / everything.size
    levels = np.linspace(0, 1, 401)
    best = np.abs(rising[:, None] - levels).mean(axis=0).min()
    kept = float((everything > threshold).mean())
    below = float((everything < threshold).mean())
    # Any level between the two shares of pairs has this threshold as its quantile.
    meant = np.linspace(below, 1 - kept, 101)
    assert np.abs(rising[:, None] - meant).mean(axis=0).min() <= best + 1e-3


def test_clear_shares_are_parted_between_them():
    """Pairs that nearly always or hardly ever come back are told apart without a number from the user."""
    assert 0.1 <= inclusion_threshold([0.05, 0.1, 0.95, 1.0, 1.0], 10) < 0.95
    assert inclusion_threshold([], 0) == 0.5
    assert inclusion_threshold([0.9, 1.0, 1.0], 3) < 0.9


def test_copies_are_joined():
    """Where every pair is certain nothing is left out: two equal columns make one arc."""
    codes = np.random.default_rng(0).integers(0, 2, 500).astype(str)
    strength = arc_strength(Dataset.from_pandas(pd.DataFrame({"a": codes, "b": codes})), bootstraps=10)
    assert strength.joined == {("a", "b"): 1.0}
    assert sum(len(its) for its in strength.averaged.values()) == 1


@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 9))
@settings(max_examples=60)
def test_an_equivalence_class_is_drawn_as_one_of_its_graphs(seed: int, nodes: int):
    """Extending the CPDAG of any graph gives an equivalent graph."""
    network = random_network(seed, nodes, arcs=0.4)
    graph = cpdag(network.parents)
    drawn = consistent_extension(network.nodes, graph.directed, graph.undirected)
    assert drawn is not None
    assert graph_difference(network.parents, drawn).distance == 0


def test_what_has_no_extension_is_told():
    """A square of undirected pairs can only be directed with a new collider or a cycle."""
    square = [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")]
    assert consistent_extension("abcd", [], square) is None


def test_the_average_is_near_the_generating_network():
    """At 5 000 rows of asia the averaged network differs from the generating class by no more than its faint arcs."""
    network = published("asia")
    strength = arc_strength(sample(network, 5000, seed=2), bootstraps=30, seed=1)
    assert 0 <= strength.threshold < 1
    assert find_cycle((p, c) for c, its in strength.averaged.items() for p in its) is None
    assert graph_difference(network.parents, strength.averaged).distance <= 3
    assert {tuple(sorted(pair)) for pair in strength.joined} >= {("bronc", "smoke"), ("either", "xray")}
    for (parent, child), share in strength.items():
        assert 0 < share <= strength.joined[tuple(sorted((parent, child)))] <= 1


@given(seed=st.integers(0, 10**6))
@settings(max_examples=6)
def test_the_average_keeps_the_knowledge(seed: int):
    """Required and forbidden arcs, tiers and the limit of parents hold in the averaged network too."""
    data = sample(random_network(seed, 6, arcs=0.5), 150, seed)
    names = list(np.random.default_rng(seed).permutation(data.schema.names))
    knowledge = Knowledge(
        required=((names[0], names[1]),),
        forbidden=((names[2], names[3]),),
        tiers=((names[0], names[5]), (names[1], names[2])),
    )
    strength = arc_strength(data, knowledge=knowledge, max_parents=2, bootstraps=5, seed=seed)
    assert knowledge.violations(strength.averaged, 2) == ()


@pytest.mark.parametrize("clusters", [None, "day"])
def test_threads_and_row_order_change_nothing(clusters: str | None):
    """Shares are the same in one thread and in many, and when the rows come in another order."""
    frame = sample(published("asia"), 400, seed=1).to_pandas()
    frame["day"] = np.arange(400) // 20
    data = [frame, frame, frame.iloc[np.random.default_rng(0).permutation(400)]]
    found = [
        arc_strength(
            Dataset.from_pandas(rows if clusters else rows.drop(columns="day"), clusters=clusters),
            bootstraps=12,
            threads=threads,
        )
        for rows, threads in zip(data, (1, 4, 2), strict=True)
    ]
    for other in found[1:]:
        assert other.shares == found[0].shares
        assert other.averaged == found[0].averaged


def test_clusters_counted_word_by_word_are_the_clusters_drawn(monkeypatch: pytest.MonkeyPatch):
    """Bitmaps whose words hold one cluster each give the counts that the rows' weights give."""
    data = sample(published("asia"), 1000, seed=2)
    sizes = np.array([1, 63, 64, 65, 128, 200, 479])
    clustered = Dataset(
        data.schema, data.codes, np.repeat(np.arange(7), sizes)[::-1].astype(np.int32), tuple("abcdefg")
    )
    found = []
    for repeated in (0, 10**9):  # always by weights of rows; always by words
        monkeypatch.setattr(strength, "_REPEATED", repeated)
        found.append(arc_strength(clustered, bootstraps=12, seed=5))
    assert dict(found[0]) == dict(found[1])
    assert len(found[0]) > 8


def test_bootstraps_must_be_a_number_above_zero():
    """None and fractions are refused by name."""
    data = sample(published("asia"), 20, seed=0)
    for value in (0, 2.5, True):
        with pytest.raises(DataError, match="bootstrap"):
            arc_strength(data, bootstraps=value)
