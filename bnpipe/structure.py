"""Learning the graph from rows: hill climbing under knowledge, scores, and how sure each arc is.

A family is always scored on the same rows, those complete in every variable: scores on different rows would reward
missingness. Make missing a state where it matters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnpipe.audit import Audit, NodeAudit, audit
from bnpipe.errors import DataError, FormatError, KnowledgeError, shorten
from bnpipe.graph import (
    Arc,
    GraphDifference,
    Parents,
    PartialGraph,
    arcs_of,
    cpdag,
    graph_difference,
    topological_order,
)
from bnpipe.knowledge import Knowledge
from bnpipe.scores import SCORES, Sample, make_score
from bnpipe.search import Constraints, Found, HillClimber, Progress

if TYPE_CHECKING:
    from bnpipe.data import Dataset

__all__ = [
    "SCORES",
    "Audit",
    "GraphDifference",
    "LearnedStructure",
    "NodeAudit",
    "PartialGraph",
    "arc_strength",
    "audit",
    "cpdag",
    "graph_difference",
    "learn_structure",
    "score_structure",
    "topological_order",
]


@dataclass(frozen=True)
class LearnedStructure:
    """A learned graph and how it was found.

    Parameters
    ----------
    parents : dict of str to tuple of str
        Of every variable, both in the order of the schema.
    score : float
        Of the graph, nats.
    score_name : str
    moves : int
        Arcs added, deleted and reversed on the way, detours included; not those turned or disturbed at random.
    seconds : float
        Wall-clock time.
    rows : int
        Rows scored: those complete in every variable.
    """

    parents: dict[str, tuple[str, ...]]
    score: float
    score_name: str
    moves: int
    seconds: float
    rows: int

    @property
    def arcs(self) -> tuple[Arc, ...]:
        """All (parent, child), in the order of the schema."""
        return arcs_of(self.parents)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> LearnedStructure:
        """Read what :meth:`to_dict` gave.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            parents = {node: tuple(names) for node, names in fields["parents"].items()}
            return cls(**{**fields, "parents": parents})
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"not a learned structure: {error}") from error


def learn_structure(  # noqa: PLR0917
    data: Dataset,
    score: str = "bic",
    max_parents: int | None = None,
    knowledge: Knowledge | None = None,
    tabu: int = 0,
    restarts: int = 0,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    *,
    equivalent_sample_size: float = 10.0,
) -> LearnedStructure:
    """Learn a graph by hill climbing: the best of adding, deleting or reversing an arc until nothing helps.

    Which of equivalent graphs the climb happens to draw decides where it ends. So after each move a few arcs whose
    direction says nothing are turned at random, and from an optimum the climb goes on through equivalent graphs until
    that has helped no more for a few times. The result depends on the rows, the options, the seed and the names of
    the variables only: neither on the order of rows or columns nor on `threads`.

    Parameters
    ----------
    data : Dataset
        Only the complete rows are scored. A variable of which one state occurs gets no arcs but required ones.
    score : {"bic", "aic", "bdeu", "bds", "k2", "ll"}
    max_parents : int or None
        Of each node.
    knowledge : Knowledge or None
        Required and forbidden arcs, tiers.
    tabu : int
        Walk on from an optimum, downhill if need be, leaving changed pairs alone for a while, until `tabu` moves
        brought nothing better; the best graph met is returned. 0: no move goes down.
    restarts : int
        How often to disturb the best graph at random and climb again.
    seed : int
        Of the turns and disturbances.
    threads : int or None
        For the counting. The numpy kernels run in one thread whatever is given here.
    progress : callable or None
        Called as ``progress(moves, score)`` after each move.
    equivalent_sample_size : float
        In rows, of ``bdeu`` and ``bds``.

    Returns
    -------
    LearnedStructure

    Raises
    ------
    DataError
        No complete row, or an option out of its range.
    KnowledgeError
        The knowledge contradicts itself, or the result breaks it.
    """
    started = time.perf_counter()
    _check_options(max_parents=max_parents, tabu=tabu, restarts=restarts, threads=threads)
    knowledge = knowledge or Knowledge()
    knowledge.check(data.schema.names, max_parents)
    sample = Sample.of(data)
    climber = HillClimber(
        sample, make_score(score, equivalent_sample_size), _constraints(sample, knowledge, max_parents), progress
    )
    found = climber.search(tabu=tabu, restarts=restarts, seed=seed)
    parents = _named(found, sample.names, data.schema.names)
    if broken := knowledge.violations(parents, max_parents):
        raise KnowledgeError(f"the learned graph breaks what was asked: {shorten(broken)}; please report this")
    seconds = time.perf_counter() - started
    return LearnedStructure(parents, found.score, score, climber.moves, seconds, int(sample.rows))


def score_structure(
    data: Dataset, parents: Parents, score: str = "bic", *, equivalent_sample_size: float = 10.0
) -> float:
    """Score a graph on the complete rows, nats; larger is better.

    Parameters
    ----------
    data : Dataset
    parents : mapping of str to sequence of str
        A variable that is not named has no parents.
    score : {"bic", "aic", "bdeu", "bds", "k2", "ll"}
    equivalent_sample_size : float
        In rows, of ``bdeu`` and ``bds``.

    Raises
    ------
    DataError
        No complete row, an unknown score, or a node that is no variable.
    NetworkError
        The graph has a cycle.
    """
    topological_order(parents)
    sample, scorer = Sample.of(data), make_score(score, equivalent_sample_size)
    index = {name: place for place, name in enumerate(sample.names)}
    if strange := {*parents, *(name for names in parents.values() for name in names)} - set(index):
        raise DataError(f"the graph names what is no variable: {shorten(sorted(strange))}")
    families = [(index[name], [index[parent] for parent in parents.get(name, ())]) for name in sample.names]
    total = sum(scorer.local(sample.table(child, its_parents)) for child, its_parents in families)
    return total + scorer.prior(len(index), sum(len(its_parents) for _, its_parents in families))


def arc_strength(
    data: Dataset,
    *,
    score: str = "bic",
    max_parents: int | None = None,
    knowledge: Knowledge | None = None,
    bootstraps: int = 100,
    tabu: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
    equivalent_sample_size: float = 10.0,
) -> dict[Arc, float]:
    """Learn again on resampled clusters, or rows where there are no clusters, and count how often each arc comes back.

    An arc counts in a replicate that holds it or could hold it without saying anything else: where its direction is
    reversible given the data (Markov equivalence) and the knowledge, both directions count. So the share says how far
    the data support an arc as drawn, and shares of the two directions may add up to more than 1.

    Parameters
    ----------
    data : Dataset
        Whole clusters are drawn with replacement, as rows of one cluster are not independent.
    score, max_parents, knowledge, tabu, equivalent_sample_size
        As in :func:`learn_structure`.
    bootstraps : int
        Number of replicates.
    seed : int
        Of the resampling.
    progress : callable or None
        Called as ``progress(replicate, score)`` after each replicate.

    Returns
    -------
    dict of (str, str) to float
        Share of replicates, for every (parent, child) met at least once, in the order of names.

    Raises
    ------
    DataError, KnowledgeError
        As :func:`learn_structure`.

    References
    ----------
    Friedman, N., Goldszmidt, M. & Wyner, A. (1999). Data analysis with Bayesian networks: a bootstrap approach. UAI.
    """
    _check_options(max_parents=max_parents, tabu=tabu, bootstraps=bootstraps)
    if bootstraps < 1:
        raise DataError("arc strength needs at least one bootstrap")
    knowledge = knowledge or Knowledge()
    knowledge.check(data.schema.names, max_parents)
    resampler = _Resampler.of(data)
    limits = _constraints(resampler.sample, knowledge, max_parents)
    scorer = make_score(score, equivalent_sample_size)
    met: dict[Arc, int] = {}
    for replicate in range(bootstraps):
        drawn = resampler.draw(np.random.default_rng((seed, replicate)))
        found = HillClimber(drawn, scorer, limits).search(tabu=tabu)
        for arc in _supported(_named(found, drawn.names, drawn.names), knowledge):
            met[arc] = met.get(arc, 0) + 1
        if progress is not None:
            progress(replicate + 1, found.score)
    return {arc: met[arc] / bootstraps for arc in sorted(met)}


@dataclass(frozen=True, eq=False)
class _Resampler:
    """Draws clusters by giving rows new weights; rows are never copied.

    ``rows`` are the distinct row of each data row and ``clusters`` its cluster (None: rows are independent).
    """

    sample: Sample
    rows: np.ndarray[Any, np.dtype[np.int64]]
    clusters: np.ndarray[Any, np.dtype[np.int64]] | None

    @classmethod
    def of(cls, data: Dataset) -> _Resampler:
        whole = Sample.of(data, deduplicate=False)
        sample, rows = whole.distinct()
        if data.clusters is None:
            return cls(sample, rows, None)
        return cls(sample, rows, np.unique(data.clusters[data.complete], return_inverse=True)[1])

    def draw(self, rng: np.random.Generator) -> Sample:
        distinct = self.sample.columns[0].size
        if self.clusters is None:
            assert self.sample.weights is not None
            weights = rng.multinomial(int(self.sample.rows), self.sample.weights / self.sample.rows)
            return self.sample.reweighted(weights.astype(np.float64))
        count = int(self.clusters.max()) + 1
        times = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)
        return self.sample.reweighted(
            np.bincount(self.rows, times[self.clusters], minlength=distinct).astype(np.float64)
        )


def _supported(parents: Parents, knowledge: Knowledge) -> list[Arc]:
    names = list(parents)
    allowed = knowledge.allowed(names)
    index = {name: place for place, name in enumerate(names)}
    required = set(knowledge.required)
    fixed = [arc for arc in arcs_of(parents) if arc in required or not allowed[index[arc[1]], index[arc[0]]]]
    graph = cpdag(parents, fixed)
    return [*graph.directed, *graph.undirected, *((child, parent) for parent, child in graph.undirected)]


def _constraints(sample: Sample, knowledge: Knowledge, max_parents: int | None) -> Constraints:
    names = sample.names
    index = {name: place for place, name in enumerate(names)}
    allowed = knowledge.allowed(names)
    constant = np.array(sample.cardinalities) < 2
    allowed[constant] = False
    allowed[:, constant] = False
    required = np.zeros_like(allowed)
    for parent, child in knowledge.required:
        required[index[parent], index[child]] = True
    return Constraints(allowed, required, len(names) if max_parents is None else max_parents)


def _named(found: Found, names: tuple[str, ...], order: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Give the graph with nodes and parents in `order`."""
    index = {name: place for place, name in enumerate(names)}
    return {child: tuple(parent for parent in order if found.parents[index[parent], index[child]]) for child in order}


def _check_options(**options: int | None) -> None:
    for name, value in options.items():
        if value is not None and (not isinstance(value, (int, np.integer)) or value < 0):
            raise DataError(f"{name} must be a whole number, 0 or more, not {value!r}")
