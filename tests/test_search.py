"""What a search must not hang on: its cache, its threads, its clock, the order of states; small enough without JIT."""

from __future__ import annotations

import time

import numpy as np
import pytest
from reference_networks import published, random_network, sample

from bnpipe import scores, search
from bnpipe.data import Dataset
from bnpipe.errors import DataError
from bnpipe.graph import cpdag, parent_matrix
from bnpipe.kernels.moves import turn_covered
from bnpipe.knowledge import Knowledge
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.scores import SCORES, Sample, make_score
from bnpipe.search import Constraints, HillClimber
from bnpipe.structure import arc_strength, learn_structure, score_structure


def small(seed: int = 1) -> Dataset:
    """Rows of a little network with strong arcs."""
    return sample(random_network(seed, 6, arcs=0.6), 120, seed)


@pytest.mark.parametrize("score", SCORES)
def test_every_gain_is_the_difference_of_two_scores(score: str, monkeypatch: pytest.MonkeyPatch):
    """Whatever moves were made, each legal move brings what scoring both graphs says, and ancestors are right."""
    sampled = Sample.of(small())
    scorer = make_score(score)
    climber = HillClimber(sampled, scorer, Constraints.of(sampled, Knowledge(), 3))
    seen = 0
    original = climber._fill_gains

    def checked() -> np.ndarray:
        nonlocal seen
        gains = original()
        before = climber._current()
        assert np.array_equal(ancestors(climber._parents), climber._above)
        for kind, parent, child in np.argwhere(np.isfinite(gains)).tolist()[:: 2 + seen % 3]:
            parents = climber._parents.copy()
            parents[parent, child] = not parents[parent, child]
            parents[child, parent] |= bool(kind)
            families = [
                sampled.family(node, np.flatnonzero(parents[:, node]).tolist()) for node in range(len(sampled.names))
            ]
            after = sum(sampled.score(family, scorer) for family in families)
            after += scorer.prior(len(sampled.names), int(parents.sum()))
            assert gains[kind, parent, child] == pytest.approx(after - before, abs=1e-6)
            seen += 1
        return gains

    monkeypatch.setattr(climber, "_fill_gains", checked)
    climber.search(tabu=3, mending=3, turning=1)
    assert seen > 20


def test_turning_covered_arcs_stays_in_the_equivalence_class():
    """However many arcs are turned, what the graph says and who stands above whom are kept, and required arcs stay."""
    rng = np.random.default_rng(3)
    turned = 0
    for seed in range(20):
        network = random_network(seed, 8, arcs=0.4)
        names = network.nodes
        parents = parent_matrix(network.parents, names)
        before, above = parents.copy(), ancestors(parents)
        required = parents & (rng.random(parents.shape) < 0.2)
        touched = np.zeros(len(names), dtype=bool)
        found = np.empty((64, 2), dtype=np.int64)
        turn_covered(parents, above, ~np.eye(8, dtype=bool), required, 8, rng.random(30), found, touched)
        drawn = {child: tuple(np.array(names)[parents[:, place]].tolist()) for place, child in enumerate(names)}
        assert cpdag(drawn) == cpdag(network.parents)
        assert np.array_equal(above, ancestors(parents))
        assert parents[required].all()
        assert touched[(parents != before).any(axis=0)].all()
        turned += int((parents != before).any())
    assert turned > 5


def ancestors(parents: np.ndarray) -> np.ndarray:
    """Who stands above whom, bool (n, n) by [descendant, ancestor]."""
    reach = parents.copy()
    for node in range(len(reach)):
        reach |= np.outer(reach[:, node], reach[node])
    return reach.T.copy()


def test_a_full_cache_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    """When what is known is forgotten at every step the graph is the same."""
    data = small()
    learned = learn_structure(data, tabu=3, restarts=1, mending=5)
    monkeypatch.setattr(search, "_CACHE_ENTRIES", 0)
    for threads in (1, 2):
        again = learn_structure(data, tabu=3, restarts=1, mending=5, threads=threads)
        assert again.parents == learned.parents
        assert again.score == pytest.approx(learned.score, rel=1e-12)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """With every count shared out to threads the graph and its score are the same to the last bit."""
    data = small(2)
    learned = learn_structure(data, mending=5, threads=1)
    monkeypatch.setattr(search, "_WORTH_THREADS", 0)
    for threads in (1, 2, 5):
        again = learn_structure(data, mending=5, threads=threads)
        assert (again.parents, again.score) == (learned.parents, learned.score)


@pytest.mark.parametrize("score", SCORES)
def test_the_order_of_states_changes_nothing(score: str):
    """Renumbered states give the same graph, and the same score but for rounding."""
    data = small(3)
    learned = learn_structure(data, score=score, max_parents=3, mending=5)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(variable.cardinality) for variable in data.schema]
    variables = [
        Variable(variable.name, tuple(variable.states[place] for place in order))
        for variable, order in zip(data.schema, orders, strict=True)
    ]
    codes = np.stack([np.argsort(order)[row] for order, row in zip(orders, data.codes, strict=True)]).astype(np.uint8)
    again = learn_structure(Dataset(Schema(tuple(variables)), codes), score=score, max_parents=3, mending=5)
    assert again.parents == learned.parents
    assert again.score == pytest.approx(learned.score, rel=1e-12)


def test_a_walk_that_is_cut_gives_its_best():
    """When time runs out in a tabu walk, the best graph met on it comes back."""
    data = small(4)
    told: list[float] = []

    def slow(moves: int, score: float) -> None:
        told.append(score)
        if moves == 25:
            time.sleep(3.1)

    cut = learn_structure(data, tabu=200, mending=0, max_seconds=3.0, progress=slow)
    assert cut.cut
    assert cut.score == pytest.approx(max(told), rel=1e-12)


def test_options_are_checked_by_name():
    """A negative tabu, seed or number of threads is refused, in searches and in bootstraps."""
    data = small()
    for name in ("tabu", "seed", "threads", "max_parents"):
        with pytest.raises(DataError, match=name):
            arc_strength(data, bootstraps=1, **{name: -1})
        with pytest.raises(DataError, match=name):
            learn_structure(data, **{name: -1})


def test_a_parent_named_twice_counts_once():
    """Repeating a parent changes neither a score nor a start."""
    data = small()
    one, other = data.schema.names[:2]
    assert score_structure(data, {one: (other, other)}) == score_structure(data, {one: (other,)})
    started = learn_structure(data, start={one: (other, other)}, max_parents=1)
    assert max(len(its) for its in started.parents.values()) <= 1


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 32_767, 32_768, 32_769])
def test_words_and_blocks_end_where_the_rows_do(rows: int, monkeypatch: pytest.MonkeyPatch):
    """At the borders of words and blocks bitmaps count what histograms count."""
    rng = np.random.default_rng(rows)
    states = (2, 3, 16, 17)
    codes = np.stack([rng.integers(0, count, rows) for count in states]).astype(np.uint8)
    variables = tuple(Variable(f"v{i}", tuple(map(str, range(count)))) for i, count in enumerate(states))
    data = Dataset(Schema(variables), codes)
    found = []
    for words in (0, 10**6):
        monkeypatch.setattr(scores, "_WORDS_A_ROW", words)
        sampled = Sample.of(data, deduplicate=False)
        family = sampled.family(0, (1,))
        found.append([*sampled.score_extensions(family, (2, 3), make_score("k2")), *family.totals])
    assert found[0] == found[1]
    table = np.zeros((3, 2), dtype=np.int64)
    np.add.at(table, (codes[1], codes[0]), 1)
    assert found[0][2:] == table[table > 0].tolist()


@pytest.mark.parametrize("score", SCORES)
def test_odd_data_are_scored_and_learned(score: str):
    """One row; 255 states; a column without a single cell is said; many parents of one state change nothing."""
    wide = np.random.default_rng(0).integers(0, 255, (3, 300)).astype(np.uint8)
    states = tuple(f"s{i}" for i in range(255))
    data = Dataset(Schema(tuple(Variable(name, states) for name in "abc")), wide)
    learned = learn_structure(data, score=score, max_parents=1, mending=2)
    assert learned.score == pytest.approx(score_structure(data, learned.parents, score), rel=1e-12)
    alone = data.select(np.array([0]))
    assert np.isfinite(score_structure(alone, {"a": ("b", "c")}, score))
    holes = wide.copy()
    holes[1] = MISSING
    with pytest.raises(DataError, match="b missing in 300 of 300 rows"):
        learn_structure(Dataset(data.schema, holes), score=score)
    names = [f"x{i:02}" for i in range(70)]
    constant = Dataset(
        Schema((Variable("y", ("n", "y")), *(Variable(name, ("only",)) for name in names))),
        np.concatenate([wide[:1] % 2, np.zeros((70, 300), dtype=np.uint8)]),
    )
    crowded = score_structure(constant, {"y": names}, score)
    arcs = make_score(score).arc_prior * 70
    assert crowded == pytest.approx(score_structure(constant, {}, score) + arcs, rel=1e-9)


def test_a_family_beyond_any_table_is_scored(monkeypatch: pytest.MonkeyPatch):
    """Where the table of one candidate would be too large its family is counted by its cells; the score is the same."""
    sampled = Sample.of(sample(published("child"), 200, seed=1))
    family, scorer = sampled.family(0, (1, 2)), make_score("bdeu")
    monkeypatch.setattr(scores, "_WORDS_A_ROW", 0)
    dense = sampled.score_extensions(family, (3, 4, 5), scorer)
    monkeypatch.setattr(scores, "_LARGEST_TABLE", 1)
    assert sampled.score_extensions(family, (3, 4, 5), scorer) == pytest.approx(dense, rel=1e-12)
