"""Learning the graph from rows: hill climbing under knowledge, scores, and how sure each arc is.

A family is always scored on the same rows, those complete in every variable: scores on different rows would reward
missingness. Make missing a state where it matters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

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
    parent_matrix,
    topological_order,
)
from bnpipe.knowledge import Knowledge
from bnpipe.scores import SCORES, Sample, make_score
from bnpipe.search import Constraints, HillClimber, Progress, check_counts
from bnpipe.strength import ArcStrength, arc_strength

if TYPE_CHECKING:
    from bnpipe.data import Dataset

__all__ = [
    "SCORES",
    "ArcStrength",
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


MOST_MENDING: Final = 40
"""Rounds in vain that end the mending of a large network, unless it is told otherwise."""


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
    cut : bool
        Whether the time limit ended the search; the graph is the best met until then.
    """

    parents: dict[str, tuple[str, ...]]
    score: float
    score_name: str
    moves: int
    seconds: float
    rows: int
    cut: bool = False

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
    start: Parents | None = None,
    mending: int | None = None,
    max_seconds: float | None = None,
) -> LearnedStructure:
    """Learn a graph by hill climbing: the best of adding, deleting or reversing an arc until nothing helps.

    Which of equivalent graphs the climb happens to draw decides where it ends. So after each move a few arcs whose
    direction says nothing are turned at random, and from an optimum the climb goes on through equivalent graphs until
    that has helped no more for a few times. Then small parts are torn out and grown again (`mending`). The result
    depends on the rows, the options, the seed and the names of the variables only: neither on the order of rows or
    columns nor on `threads`.

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
        For the counting; None: one a core. The graph is the same for any number.
    progress : callable or None
        Called as ``progress(moves, score)`` after each move.
    equivalent_sample_size : float
        In rows, of ``bdeu`` and ``bds``.
    start : mapping of str to sequence of str or None
        The graph to begin with; a variable that is not named has no parents. None: the required arcs.
    mending : int or None
        How often in a row tearing a small part out and climbing again may be in vain before the search ends; None:
        twice as often as there are variables, at most 40 times; 0: never, which is plain hill climbing.
    max_seconds : float or None
        Wall-clock time after which the best graph met so far is returned, with `cut` set. A search that was cut
        depends on the machine's speed; one that was not does not.

    Returns
    -------
    LearnedStructure

    Raises
    ------
    DataError
        No complete row, an option out of its range, or a start that names what is no variable.
    KnowledgeError
        The knowledge contradicts itself, or the start or the result breaks it.
    """
    started = time.perf_counter()
    check_counts(max_parents=max_parents, tabu=tabu, restarts=restarts, seed=seed, threads=threads, mending=mending)
    knowledge = knowledge or Knowledge()
    knowledge.check(data.schema.names, max_parents)
    begin = None if start is None else _checked_start(start, data.schema.names, knowledge, max_parents)
    sample = Sample.of(data)
    climber = HillClimber(
        sample,
        make_score(score, equivalent_sample_size),
        Constraints.of(sample, knowledge, max_parents),
        start=None if begin is None else parent_matrix(begin, sample.names),
        threads=threads,
        max_seconds=_seconds(max_seconds) - (time.perf_counter() - started),
        progress=progress,
    )
    rounds = min(2 * len(sample.names), MOST_MENDING) if mending is None else mending
    found = climber.search(tabu=tabu, restarts=restarts, mending=rounds, seed=seed)
    parents = found.named(sample.names, data.schema.names)
    if broken := knowledge.violations(parents, max_parents):
        raise KnowledgeError(f"the learned graph breaks what was asked: {shorten(broken)}; please report this")
    seconds = time.perf_counter() - started
    return LearnedStructure(parents, found.score, score, climber.moves, seconds, sample.rows, climber.cut)


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
    families = [(index[name], {index[parent] for parent in parents.get(name, ())}) for name in sample.names]
    total = math.fsum(sample.score(sample.family(child, [*its_parents]), scorer) for child, its_parents in families)
    return total + scorer.prior(len(index), sum(len(its_parents) for _, its_parents in families))


def _checked_start(
    start: Parents, names: Sequence[str], knowledge: Knowledge, max_parents: int | None
) -> dict[str, tuple[str, ...]]:
    if strange := {*start, *(name for its in start.values() for name in its)} - set(names):
        raise DataError(f"the start graph names what is no variable: {shorten(sorted(strange))}")
    graph = {name: tuple(dict.fromkeys(start.get(name, ()))) for name in names}
    if broken := knowledge.violations(graph, max_parents):
        raise KnowledgeError(f"the start graph is not allowed: {shorten(broken)}")
    return graph


def _seconds(limit: float | None) -> float:
    if limit is None:
        return math.inf
    if not limit > 0:
        raise DataError(f"max_seconds must be above 0, not {limit!r}")
    return float(limit)
