"""How sure each arc is: graphs learned again on resampled clusters, and their average.

References
----------
Friedman, N., Goldszmidt, M. & Wyner, A. (1999). Data analysis with Bayesian networks: a bootstrap approach. UAI.
Scutari, M. & Nagarajan, R. (2013). Identifying significant edges in graphical models of molecular networks.
    Artificial Intelligence in Medicine 57, 207-217.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bnpipe.bitmaps import Bitmaps, IntArray
from bnpipe.errors import DataError
from bnpipe.graph import Arc, Parents, PartialGraph, arcs_of, consistent_extension, cpdag, find_cycle
from bnpipe.knowledge import Knowledge
from bnpipe.scores import Sample, make_score
from bnpipe.search import Constraints, HillClimber, Progress, check_counts

if TYPE_CHECKING:
    from bnpipe.data import Dataset

_REPEATED: Final = 8
"""Rows to a distinct one from which on counting distinct rows by their weights is the quicker way."""


@dataclass(frozen=True, eq=False)
class ArcStrength(Mapping[Arc, float]):
    """Share of replicates that support each arc as drawn, a mapping ``(parent, child) -> share``.

    An arc counts in a replicate that holds it or could hold it without saying anything else: where its direction is
    reversible given the data (Markov equivalence) and the knowledge, both directions count, so the shares of the two
    directions may add up to more than 1.

    Parameters
    ----------
    shares : mapping of (str, str) to float
        Of every arc met at least once, in the order of names.
    joined : mapping of (str, str) to float
        Share of replicates that join two nodes, whichever way; each pair once, in the order of names.
    threshold : float
        Pairs joined in more replicates than this share belong to the averaged network.
    averaged : mapping of str to tuple of str
        Parents of every node in the averaged network. An arc that most replicates compel has that direction; the others
        are drawn so that no new collider arises, where that is possible.
    bootstraps : int
    """

    shares: Mapping[Arc, float]
    joined: Mapping[Arc, float]
    threshold: float
    averaged: Mapping[str, tuple[str, ...]]
    bootstraps: int

    def __getitem__(self, arc: Arc) -> float:
        return self.shares[arc]

    def __iter__(self) -> Iterator[Arc]:
        return iter(self.shares)

    def __len__(self) -> int:
        return len(self.shares)


def arc_strength(
    data: Dataset,
    *,
    score: str = "bic",
    max_parents: int | None = None,
    knowledge: Knowledge | None = None,
    bootstraps: int = 100,
    tabu: int = 0,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
    equivalent_sample_size: float = 10.0,
) -> ArcStrength:
    """Learn again on resampled clusters, or rows where there are no clusters, and count how often each arc comes back.

    Parameters
    ----------
    data : Dataset
        Whole clusters are drawn with replacement, as rows of one cluster are not independent.
    score, max_parents, knowledge, tabu, equivalent_sample_size
        As in :func:`bnpipe.structure.learn_structure`.
    bootstraps : int
        Number of replicates.
    seed : int
        Of the resampling. Rows are drawn in the order of their states, clusters in that of their labels.
    threads : int or None
        Replicates learned at a time; None: one a core. The result is the same for any number.
    progress : callable or None
        Called as ``progress(replicates done, score of the last one)``.

    Raises
    ------
    DataError, KnowledgeError
        As :func:`bnpipe.structure.learn_structure`.
    """
    from bnpipe.kernels import in_threads

    check_counts(max_parents=max_parents, tabu=tabu, bootstraps=bootstraps, seed=seed, threads=threads)
    if bootstraps < 1:
        raise DataError("arc strength needs at least one bootstrap")
    knowledge = knowledge or Knowledge()
    knowledge.check(data.schema.names, max_parents)
    resampler = _Resampler.of(data)
    names = resampler.sample.names
    limits = Constraints.of(resampler.sample, knowledge, max_parents)
    scorer = make_score(score, equivalent_sample_size)
    done, lock = 0, threading.Lock()

    def replicate(number: int) -> PartialGraph:
        nonlocal done
        drawn = resampler.draw(np.random.default_rng((seed, number)))
        found = HillClimber(drawn, scorer, limits).search(tabu=tabu, turning=1)
        with lock:
            done += 1
            if progress is not None:
                progress(done, found.score)
        return _equivalence_class(found.named(names, names), knowledge)

    graphs = in_threads(replicate, range(bootstraps), threads)
    return _average(graphs, names, knowledge, max_parents)


@dataclass(frozen=True, eq=False)
class _Resampler:
    """Draws clusters by giving rows new weights; rows are never copied.

    ``rows`` are the distinct row of each data row and ``clusters`` its cluster (None: rows are independent). Where rows
    hardly repeat, words of the bitmaps belong to one cluster each, ``words``.
    """

    sample: Sample
    rows: np.ndarray[Any, np.dtype[np.int32]]
    clusters: IntArray | None
    words: IntArray | None = None

    @classmethod
    def of(cls, data: Dataset) -> _Resampler:
        whole = Sample.of(data, deduplicate=False)
        sample, rows = whole.distinct()
        if data.clusters is None:
            return cls(sample.sorted(), rows, None)
        clusters = np.unique(data.clusters[data.complete], return_inverse=True)[1]
        if sample.weights.size * _REPEATED < rows.size:
            return cls(sample, rows, clusters)
        bitmaps, words = Bitmaps.apart(whole.columns, whole.cardinalities, clusters)
        return cls(replace(sample, bitmaps=bitmaps), rows, clusters, words)

    def draw(self, rng: np.random.Generator) -> Sample:
        if self.clusters is None:
            weights = rng.multinomial(self.sample.rows, self.sample.weights / self.sample.rows)
            return self.sample.reweighted(weights.astype(np.int64))
        count = int(self.clusters.max()) + 1
        times = np.bincount(rng.integers(count, size=count), minlength=count)
        weights = np.bincount(self.rows, times[self.clusters], minlength=self.sample.weights.size).astype(np.int64)
        if self.words is None:
            return self.sample.reweighted(weights)
        bitmaps = self.sample.bitmaps.repeated(times[self.words])
        return replace(self.sample, weights=weights, rows=int(weights.sum()), bitmaps=bitmaps)


def _equivalence_class(parents: Parents, knowledge: Knowledge) -> PartialGraph:
    """Find which arcs neither the data nor the knowledge leave open."""
    names = list(parents)
    allowed = knowledge.allowed(names)
    index = {name: place for place, name in enumerate(names)}
    required = set(knowledge.required)
    fixed = [arc for arc in arcs_of(parents) if arc in required or not allowed[index[arc[1]], index[arc[0]]]]
    return cpdag(parents, fixed)


def _average(
    graphs: Sequence[PartialGraph], names: Sequence[str], knowledge: Knowledge, max_parents: int | None
) -> ArcStrength:
    compelled = Counter(arc for graph in graphs for arc in graph.directed)
    reversible = Counter(pair for graph in graphs for pair in graph.undirected)
    pairs = sorted({*reversible, *(_pair(arc) for arc in compelled)})
    joined = {pair: (reversible[pair] + compelled[pair] + compelled[pair[::-1]]) / len(graphs) for pair in pairs}
    shares = {
        arc: (compelled[arc] + reversible[_pair(arc)]) / len(graphs)
        for arc in sorted(arc for pair in pairs for arc in (pair, pair[::-1]))
    }
    threshold = inclusion_threshold([*joined.values()], len(names) * (len(names) - 1) // 2)
    kept = {pair: share for pair, share in joined.items() if share > threshold or _is_required(pair, knowledge)}
    clear = [
        arc
        for pair, share in kept.items()
        for arc in (pair, pair[::-1])
        if 2 * compelled[arc] > share * len(graphs) or arc in knowledge.required
    ]
    averaged = _draw(names, kept, clear, knowledge, max_parents)
    return ArcStrength({arc: share for arc, share in shares.items() if share}, joined, threshold, averaged, len(graphs))


def inclusion_threshold(shares: Sequence[float], pairs: int) -> float:
    """Find the share that separates arcs that are there from arcs that are noise (Scutari & Nagarajan 2013, eq. 8).

    If each pair were known to be joined or not, the distribution function F of the shares would be a constant t between
    0 and 1. The t nearest to F in L1 is the median of F over (0, 1), and the threshold is the t-quantile of the shares.

    Parameters
    ----------
    shares : sequence of float
        Of the pairs that were ever joined.
    pairs : int
        All pairs.

    Returns
    -------
    float
        Pairs with a larger share are kept.
    """
    everything = np.sort(np.concatenate([np.zeros(pairs - len(shares)), np.asarray(shares, dtype=np.float64)]))
    if not everything.size:
        return 0.5
    values, counts = np.unique(everything, return_counts=True)
    levels = np.cumsum(counts) / everything.size
    lengths = np.diff(np.concatenate([values, [1.0]]))
    before = np.concatenate([[values[0]], lengths]), np.concatenate([[0.0], levels])
    order = np.argsort(before[1], kind="stable")
    middle = np.searchsorted(np.cumsum(before[0][order]), 0.5)
    level = before[1][order][min(int(middle), order.size - 1)]
    if level <= 0:
        return 0.0
    return float(values[min(int(np.searchsorted(levels, level - 1e-12)), values.size - 1)])


def _draw(
    names: Sequence[str],
    kept: Mapping[Arc, float],
    clear: Sequence[Arc],
    knowledge: Knowledge,
    max_parents: int | None,
) -> dict[str, tuple[str, ...]]:
    """Make an acyclic graph of the pairs kept, the strongest first."""
    directed: list[Arc] = [*knowledge.required]
    for arc in sorted(set(clear) - set(directed), key=lambda arc: (-kept[_pair(arc)], arc)):
        if find_cycle([*directed, arc]) is None:
            directed.append(arc)
    drawn = {_pair(arc) for arc in directed}
    index = {name: place for place, name in enumerate(names)}
    allowed = knowledge.allowed(names)
    undirected = [pair for pair in kept if pair not in drawn]
    parents = consistent_extension(names, directed, undirected)
    arcs = list(directed) if parents is None else list(arcs_of(parents))
    if parents is None or any(not allowed[index[tail], index[head]] for tail, head in arcs):
        arcs = list(directed)
        for pair in sorted(undirected, key=lambda pair: (-kept[pair], pair)):
            ways = [way for way in (pair, pair[::-1]) if allowed[index[way[0]], index[way[1]]]]
            arcs += [way for way in ways if find_cycle([*arcs, way]) is None][:1]
    return _strongest(names, arcs, kept, knowledge, max_parents)


def _strongest(
    names: Sequence[str],
    arcs: Sequence[Arc],
    kept: Mapping[Arc, float],
    knowledge: Knowledge,
    max_parents: int | None,
) -> dict[str, tuple[str, ...]]:
    """Leave each node its strongest parents if it has too many; required ones stay."""
    parents: dict[str, tuple[str, ...]] = {}
    for child in names:
        its = [parent for parent, head in arcs if head == child]
        its.sort(key=lambda parent: ((parent, child) not in knowledge.required, -kept[_pair((parent, child))], parent))
        chosen = set(its[:max_parents])
        parents[child] = tuple(name for name in names if name in chosen)
    return parents


def _is_required(pair: Arc, knowledge: Knowledge) -> bool:
    return pair in knowledge.required or pair[::-1] in knowledge.required


def _pair(arc: Arc) -> Arc:
    return arc if arc[0] < arc[1] else arc[::-1]
