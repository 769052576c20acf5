"""Hill climbing: optimality, determinism, constraints; arc strength."""

from __future__ import annotations

import itertools
import json
import logging
import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_networks import published, random_network, sample

from bnpipe.data import Dataset
from bnpipe.errors import DataError, FormatError, KnowledgeError
from bnpipe.graph import graph_difference, topological_order
from bnpipe.knowledge import Knowledge
from bnpipe.schema import MISSING
from bnpipe.scores import SCORES
from bnpipe.structure import LearnedStructure, arc_strength, learn_structure, score_structure


def pgmpy_bic(data: Dataset) -> float:
    """BIC of the graph that pgmpy's hill climbing finds, by our scorer."""
    from pgmpy.causal_discovery import HillClimbSearch

    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    search = HillClimbSearch(scoring_method="bic-d", return_type="dag", show_progress=False)
    graph = search.fit(data.to_pandas().astype(str)).causal_graph_
    return score_structure(data, {node: tuple(graph.predecessors(node)) for node in graph.nodes()})


@pytest.mark.parametrize(("name", "rows"), [("asia", 5000), ("child", 5000), ("alarm", 500)])
def test_bic_is_at_least_pgmpys(name: str, rows: int):
    """On samples of the reference networks the climb ends no lower than pgmpy's."""
    data = sample(published(name), rows, seed=7)
    assert learn_structure(data).score >= pgmpy_bic(data) - 1e-6


def test_tabu_walks_downhill_and_returns_the_best():
    """A walk goes on below the optimum it leaves, and what comes back is never worse than without it."""
    data = sample(published("alarm"), 1000, seed=1)
    plain = learn_structure(data, mending=0)
    told: list[float] = []
    walked = learn_structure(data, tabu=30, mending=0, progress=lambda moves, score: told.append(score))
    assert any(after < before - 1 for before, after in itertools.pairwise(told))
    assert walked.score >= plain.score
    assert walked.score == pytest.approx(max(told), rel=1e-12)
    assert walked.moves >= plain.moves + 30


def test_restarts_never_end_lower():
    """Each restart begins from the best graph so far, which is kept unless beaten."""
    data = sample(published("insurance"), 500, seed=5)
    scores = [learn_structure(data, restarts=restarts, mending=0).score for restarts in (0, 1, 3)]
    assert all(after > before - 1e-9 for before, after in itertools.pairwise(scores))
    assert scores[0] < scores[-1] - 0.1


def test_mending_gets_out_of_local_optima():
    """On samples of three networks mending never ends lower than plain climbing, and mostly higher."""
    gains = []
    for name in ("insurance", "child", "alarm"):
        for seed in range(3):
            data = sample(published(name), 1000, seed)
            gains.append(learn_structure(data).score - learn_structure(data, mending=0).score)
    assert min(gains) > -1e-6
    assert sum(gain > 1.0 for gain in gains) >= 5


def test_a_search_begins_where_it_is_told():
    """From the generating graph the climb never ends lower; a start that breaks what was asked is refused."""
    network = published("alarm")
    data = sample(network, 2000, seed=3)
    before = score_structure(data, network.parents)
    learned = learn_structure(data, start=network.parents, mending=0)
    assert learned.score >= before
    assert learn_structure(data, start=learned.parents, mending=0).moves == 0
    with pytest.raises(KnowledgeError, match=r"start graph.*cycle"):
        learn_structure(data, start={"HISTORY": ("CVP",), "CVP": ("HISTORY",)})
    with pytest.raises(KnowledgeError, match=r"start graph.*HISTORY -> CVP"):
        learn_structure(data, start={"CVP": ("HISTORY",)}, knowledge=Knowledge(forbidden=(("HISTORY", "CVP"),)))
    with pytest.raises(DataError, match=r"start graph.*'?NOBODY"):
        learn_structure(data, start={"CVP": ("NOBODY",)})


def test_a_time_limit_gives_the_best_so_far():
    """A search that is cut says so and returns a valid graph with its score; one in time does not say so."""
    data = sample(published("alarm"), 5000, seed=1)
    cut = learn_structure(data, max_seconds=1e-6)
    assert cut.cut
    assert cut.score == pytest.approx(score_structure(data, cut.parents), rel=1e-12)
    whole = learn_structure(data, max_seconds=300)
    assert not whole.cut
    assert whole.parents == learn_structure(data).parents
    assert whole.score > cut.score
    with pytest.raises(DataError, match="max_seconds"):
        learn_structure(data, max_seconds=0)


def test_the_seed_decides():
    """The same seed gives the same graph, and among a few seeds there is another one."""
    data = sample(published("alarm"), 300, seed=1)
    graphs = [learn_structure(data, seed=seed, mending=0).parents for seed in (0, 0, 1, 2, 3)]
    assert graphs[0] == graphs[1]
    assert any(graph != graphs[0] for graph in graphs)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_walk_with_restarts_finds_the_best_of_all_graphs(seed: int):
    """On four variables the best score is that of the best of all 543 graphs."""
    data = sample(random_network(seed, 4, most_states=3, arcs=0.6), 200, seed)
    names = data.schema.names
    pairs = list(itertools.combinations(names, 2))
    best = -math.inf
    local: dict[tuple[str, tuple[str, ...]], float] = {}
    for child in names:
        others = [name for name in names if name != child]
        empty = score_structure(data, {})
        for size in range(4):
            for its in itertools.combinations(others, size):
                local[child, its] = score_structure(data, {child: its}) - empty
    for marks in itertools.product((None, 0, 1), repeat=len(pairs)):
        arcs = [pair if mark == 0 else pair[::-1] for pair, mark in zip(pairs, marks, strict=True) if mark is not None]
        graph = {name: tuple(p for p in names if (p, name) in arcs) for name in names}
        if len(_reachable_first(graph)) == 4:
            best = max(best, empty + sum(local[name, its] for name, its in graph.items()))
    assert learn_structure(data, tabu=20, restarts=5).score == pytest.approx(best, abs=1e-6)


def _reachable_first(graph: dict[str, tuple[str, ...]]) -> list[str]:
    """Nodes that can be ordered parents first; all of them only if there is no cycle."""
    done: list[str] = []
    while ready := [node for node in graph if node not in done and set(graph[node]) <= set(done)]:
        done += ready
    return done


@pytest.mark.parametrize("score", SCORES)
def test_score_and_rows_are_those_of_the_graph(score: str):
    """The score reported is the score of the graph returned, whichever score it is."""
    data = sample(published("asia"), 1000, seed=2)
    learned = learn_structure(data, score=score, max_parents=3, tabu=5, restarts=2)
    assert learned.score == pytest.approx(score_structure(data, learned.parents, score), rel=1e-12)
    assert (learned.score_name, learned.rows) == (score, 1000)
    assert set(learned.parents) == set(data.schema.names)
    assert max(map(len, learned.parents.values())) <= 3
    topological_order(learned.parents)


def test_order_of_rows_columns_and_threads_changes_nothing():
    """Shuffled rows and columns and any number of threads give the very same graph and score."""
    frame = sample(published("child"), 1500, seed=4).to_pandas()
    learned = learn_structure(Dataset.from_pandas(frame), tabu=10, restarts=2, seed=5)
    rng = np.random.default_rng(0)
    for threads in (1, 2, 8):
        shuffled = frame.iloc[rng.permutation(len(frame)), rng.permutation(frame.shape[1])]
        again = learn_structure(Dataset.from_pandas(shuffled), tabu=10, restarts=2, seed=5, threads=threads)
        assert {node: set(its) for node, its in again.parents.items()} == {
            node: set(its) for node, its in learned.parents.items()
        }
        assert again.score == learned.score


@given(
    seed=st.integers(0, 10**6),
    score=st.sampled_from(["bic", "k2", "ll"]),
    tabu=st.sampled_from([0, 8]),
    restarts=st.sampled_from([0, 2]),
    max_parents=st.sampled_from([1, 2, None]),
)
@settings(max_examples=25)
def test_knowledge_is_kept(seed: int, score: str, tabu: int, restarts: int, max_parents: int | None):
    """Whatever the score and the walk, the graph keeps required and forbidden arcs, tiers and the limit."""
    data = sample(random_network(seed, 7, arcs=0.5), 100, seed)
    rng = np.random.default_rng(seed)
    names = list(rng.permutation(data.schema.names))
    knowledge = Knowledge(
        required=((names[0], names[1]), (names[1], names[6])),
        forbidden=((names[2], names[3]), (names[3], names[2])),
        tiers=((names[0], names[5]), (names[1], names[2]), (names[4],)),
    )
    learned = learn_structure(
        data, score=score, max_parents=max_parents, knowledge=knowledge, tabu=tabu, restarts=restarts, seed=seed
    )
    assert knowledge.violations(learned.parents, max_parents) == ()
    assert {(names[0], names[1]), (names[1], names[6])} <= set(learned.arcs)


def test_contradicting_knowledge_is_refused_before_learning():
    """A variable that is not there is named."""
    data = sample(published("asia"), 10, seed=0)
    with pytest.raises(KnowledgeError, match="'smok'"):
        learn_structure(data, knowledge=Knowledge(required=(("smok", "lung"),)))


def test_constant_variables_get_no_arcs():
    """A variable of which one state occurs stays alone, also under a score that would join anything; required stays."""
    frame = sample(published("asia"), 500, seed=3).to_pandas()
    frame["asia"] = "no"
    data = Dataset.from_pandas(frame)
    for score in SCORES:
        learned = learn_structure(data, score=score, tabu=5, restarts=2)
        assert learned.parents["asia"] == ()
        assert all("asia" not in its for its in learned.parents.values())
    required = Knowledge(required=(("asia", "tub"),))
    assert learn_structure(data, knowledge=required).parents["tub"][0] == "asia"


def test_only_complete_rows_are_scored():
    """Rows with a missing cell count nowhere."""
    data = sample(published("asia"), 800, seed=6)
    codes = data.codes.copy()
    codes[2, :300] = MISSING
    holes = Dataset(data.schema, codes)
    learned = learn_structure(holes)
    assert learned.rows == 500
    assert learned.score == learn_structure(data.select(np.arange(300, 800))).score


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.DataFrame({"a": ["x", None], "b": [None, "y"]}), "no row is complete.*a missing in 1 of 2 rows"),
        (pd.DataFrame({"a": pd.Categorical([], categories=["x", "y"])}), "no rows"),
    ],
)
def test_nothing_to_learn_from_is_said(frame: pd.DataFrame, says: str):
    """No complete row and no row at all are clear errors."""
    with pytest.raises(DataError, match=says):
        learn_structure(Dataset.from_pandas(frame))


@pytest.mark.parametrize("option", ["max_parents", "tabu", "restarts", "threads", "mending"])
def test_options_out_of_range_are_named(option: str):
    """A negative or fractional option is refused by name."""
    data = sample(published("asia"), 10, seed=0)
    for value in (-1, 1.5):
        with pytest.raises(DataError, match=option):
            learn_structure(data, **{option: value})


def test_small_data_are_learned():
    """One row, one variable and no room for parents all give the empty graph."""
    one = Dataset.from_pandas(pd.DataFrame({"a": ["x"], "b": ["y"]}))
    assert learn_structure(one).arcs == ()
    assert learn_structure(Dataset.from_pandas(pd.DataFrame({"a": ["x", "y"] * 9}))).arcs == ()
    assert learn_structure(sample(published("asia"), 500, seed=0), max_parents=0).arcs == ()


def test_progress_is_told_of_every_move():
    """The callback sees moves counted up; without mending or a tabu walk the score only rises."""
    told: list[tuple[int, float]] = []
    data = sample(published("asia"), 2000, 1)
    learned = learn_structure(data, mending=0, progress=lambda *step: told.append(step))
    assert [moves for moves, _ in told] == list(range(1, learned.moves + 1))
    assert all(after > before - 1e-9 for (_, before), (_, after) in itertools.pairwise(told))
    assert told[-1][1] == pytest.approx(learned.score, rel=1e-12)


def test_a_learned_structure_survives_json():
    """What is written is read back equal; anything else is refused."""
    learned = learn_structure(sample(published("asia"), 200, 1))
    assert LearnedStructure.from_dict(json.loads(json.dumps(learned.to_dict()))) == learned
    with pytest.raises(FormatError):
        LearnedStructure.from_dict({"parents": {}})


def test_eighteen_variables_by_eighty_thousand_rows_take_seconds():
    """The size of the nightly example is learned well within its budget."""
    data = sample(random_network(11, 18, most_states=9, arcs=0.2), 80_000, seed=0)
    start = time.process_time()
    learn_structure(data, max_parents=4)
    assert time.process_time() - start < 10  # the aim is 5 s on one quiet core


def test_strong_arcs_come_back_and_noise_does_not():
    """A chain's pair is joined in every replicate, its direction left open; an unrelated variable hardly ever joins."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 2, 3000)
    b = np.where(rng.random(3000) < 0.9, a, 1 - a)
    frame = pd.DataFrame({"a": a, "b": b, "noise": rng.integers(0, 2, 3000), "day": rng.integers(0, 30, 3000)})
    for clusters in (None, "day"):
        data = Dataset.from_pandas(frame.drop(columns=[] if clusters else "day").astype(str), clusters=clusters)
        strength = arc_strength(data, bootstraps=20)
        assert strength.joined == {**strength.joined, ("a", "b"): 1.0}
        assert min(strength["a", "b"], strength["b", "a"]) >= 0.75
        assert max((share for arc, share in strength.items() if "noise" in arc), default=0.0) <= 0.25


def test_knowledge_directs_what_the_data_leave_open():
    """With tiers, only the direction they allow is supported."""
    data = sample(published("asia"), 2000, seed=0)
    knowledge = Knowledge(tiers=(("smoke",), ("lung", "bronc")))
    strength = arc_strength(data, knowledge=knowledge, bootstraps=10)
    assert strength["smoke", "bronc"] > 0.5
    assert ("bronc", "smoke") not in strength


def test_whole_clusters_are_resampled():
    """A relation that one day alone carries is missing whenever that day is not drawn: 37 % of replicates.

    Among 200 seeded replicates the share of those that hold it lies in 0.63 ± 0.11 (false alarm below 0.1 %).
    """
    rng = np.random.default_rng(1)
    a = rng.integers(0, 2, 4000)
    day = np.arange(4000) // 100
    b = np.where(day == 0, a, rng.integers(0, 2, 4000))
    b[day > 0] = rng.permutation(np.repeat([0, 1], 1950))
    frame = pd.DataFrame({"a": a.astype(str), "b": b.astype(str), "day": day})
    frame = pd.concat([frame[frame.day > 0].iloc[::20], frame[frame.day == 0]])
    strength = arc_strength(Dataset.from_pandas(frame, clusters="day"), bootstraps=200)
    assert strength["a", "b"] == pytest.approx(1 - math.exp(-1), abs=0.11)


def test_strength_is_seeded_and_reported():
    """The same seed gives the same shares, another one others; each replicate is told."""
    data = sample(published("asia"), 300, seed=1)
    told: list[int] = []
    first = arc_strength(data, bootstraps=10, seed=1, progress=lambda done, score: told.append(done))
    assert told == list(range(1, 11))
    assert first == arc_strength(data, bootstraps=10, seed=1)
    assert first != arc_strength(data, bootstraps=10, seed=2)
    with pytest.raises(DataError, match="at least one"):
        arc_strength(data, bootstraps=0)


def test_more_rows_bring_the_generating_graph():
    """At 50 000 rows a short walk finds asia's equivalence class but for its one deterministic node's weakest arc."""
    network = published("asia")
    learned = learn_structure(sample(network, 50_000, seed=5), tabu=20)
    assert graph_difference(network.parents, learned.parents).distance <= 1
