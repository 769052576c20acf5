"""Directed acyclic graphs as plain parents: order, cycles, Markov equivalence and differences.

A graph is a mapping ``node -> parents``. Nodes that are only named as a parent count as roots.

References
----------
Meek, C. (1995). Causal inference and causal explanation with background knowledge. UAI, 403-410.
Chickering, D. M. (1995). A transformational characterization of equivalent Bayesian network structures. UAI, 87-98.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from bnpipe.errors import NetworkError

Arc: TypeAlias = tuple[str, str]
Parents: TypeAlias = Mapping[str, Sequence[str]]
BoolMatrix: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class PartialGraph:
    """The equivalence class of a graph.

    Parameters
    ----------
    directed : frozenset of (str, str)
        Compelled arcs, (parent, child): every graph of the class has them.
    undirected : frozenset of (str, str)
        Reversible pairs, each once, in the order of names.
    """

    directed: frozenset[Arc]
    undirected: frozenset[Arc]

    def allows(self, arc: Arc) -> bool:
        """Whether some graph of the class may hold `arc`: it is compelled or reversible."""
        return arc in self.directed or _pair(*arc) in self.undirected


@dataclass(frozen=True, slots=True)
class GraphDifference:
    """What changed from one graph to another, up to Markov equivalence.

    Parameters
    ----------
    added, removed : tuple of (str, str)
        Arcs whose two nodes are joined in one graph only; `added` as the second graph draws them, `removed` as the
        first did.
    reversed : tuple of (str, str)
        Arcs of the second graph that join the same two nodes but whose direction says something else: compelled the
        other way, or compelled in one graph and reversible in the other.
    """

    added: tuple[Arc, ...]
    removed: tuple[Arc, ...]
    reversed: tuple[Arc, ...]

    @property
    def distance(self) -> int:
        """Structural Hamming distance of the two equivalence classes (Tsamardinos et al. 2006)."""
        return len(self.added) + len(self.removed) + len(self.reversed)


def arcs_of(parents: Parents) -> tuple[Arc, ...]:
    """List all (parent, child), in the order of `parents`."""
    return tuple((parent, child) for child, its_parents in parents.items() for parent in its_parents)


def parent_matrix(parents: Parents, names: Sequence[str]) -> BoolMatrix:
    """Write a graph as bool (n, n) by [parent, child]."""
    index = {name: place for place, name in enumerate(names)}
    matrix = np.zeros((len(names), len(names)), dtype=bool)
    for parent, child in arcs_of(parents):
        matrix[index[parent], index[child]] = True
    return matrix


def topological_order(parents: Parents) -> tuple[str, ...]:
    """Order the nodes so that parents come before their children.

    Among nodes that are free to come next, the order of `parents` decides.

    Raises
    ------
    NetworkError
        The graph has a cycle, which is named.
    """
    order, cycle = _depth_first(parents)
    if cycle:
        raise NetworkError(f"the arcs make a cycle: {' -> '.join(cycle)}; take one of them out")
    return order


def find_cycle(arcs: Iterable[Arc]) -> tuple[str, ...] | None:
    """Name one directed cycle as ``(a, b, …, a)`` along its arcs, or None."""
    parents: dict[str, list[str]] = {}
    for parent, child in arcs:
        parents.setdefault(parent, [])
        parents.setdefault(child, []).append(parent)
    return _depth_first(parents)[1]


def _depth_first(parents: Parents) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Give (nodes, parents first; the first cycle met or None), without recursion."""
    done: dict[str, None] = {}
    for start in parents:
        path: dict[str, None] = {}
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                del path[node]
                done[node] = None
            elif node in path:
                walk = [*path]
                upward = [*walk[walk.index(node) :], node]
                return tuple(done), tuple(reversed(upward))
            elif node not in done:
                path[node] = None
                stack.append((node, True))
                stack.extend((parent, False) for parent in reversed(parents.get(node, ())))
    return tuple(done), None


def cpdag(parents: Parents, compelled: Iterable[Arc] = ()) -> PartialGraph:
    """Find which arcs every Markov equivalent graph shares.

    Colliders of unjoined parents are directed first, then Meek's four rules until nothing changes.

    Parameters
    ----------
    parents : mapping of str to sequence of str
        An acyclic graph.
    compelled : iterable of (str, str)
        Arcs of the graph that knowledge directs beforehand (required, or their reverse is not allowed).

    Returns
    -------
    PartialGraph
    """
    neighbours = _neighbours(parents)
    directed = {arc for arc in compelled if arc[0] in parents.get(arc[1], ())}
    for child, its_parents in parents.items():
        for parent in its_parents:
            if any(other != parent and other not in neighbours[parent] for other in its_parents):
                directed.add((parent, child))
    open_arcs = {arc for arc in arcs_of(parents) if arc not in directed}
    changed = True
    while changed:
        found = {arc for arc in open_arcs if _meek(arc, directed, neighbours)}
        changed = bool(found)
        directed |= found
        open_arcs -= found
    return PartialGraph(frozenset(directed), frozenset(_pair(*arc) for arc in open_arcs))


def _meek(arc: Arc, directed: set[Arc], neighbours: Mapping[str, set[str]]) -> bool:
    """Whether one of Meek's rules R1-R4 directs `arc`, which the acyclic graph holds in this direction."""
    tail, head = arc
    into_head = [node for node in neighbours[head] if (node, head) in directed]
    if any((node, tail) in directed and node not in neighbours[head] for node in neighbours[tail]):
        return True
    if any((tail, node) in directed for node in into_head):
        return True
    open_to_tail = [node for node in into_head if node in neighbours[tail] and (node, tail) not in directed]
    for i, first in enumerate(open_to_tail):
        if any(second not in neighbours[first] for second in open_to_tail[i + 1 :]):
            return True
    return any(
        (far, near) in directed and far in neighbours[tail] and far not in neighbours[head]
        for near in into_head
        if near in neighbours[tail]
        for far in neighbours[near]
    )


def consistent_extension(
    nodes: Sequence[str], directed: Iterable[Arc], undirected: Iterable[Arc]
) -> dict[str, tuple[str, ...]] | None:
    """Direct the undirected pairs without a cycle and without a new collider of unjoined parents.

    Parameters
    ----------
    nodes : sequence of str
    directed, undirected : iterable of (str, str)

    Returns
    -------
    dict of str to tuple of str, or None
        Parents of each node; None if it can't be done.

    References
    ----------
    Dor, D. & Tarsi, M. (1992). A simple algorithm to construct a consistent extension of a partially oriented graph.
    UCLA R-185.
    """
    parents: dict[str, set[str]] = {node: set() for node in nodes}
    children: dict[str, set[str]] = {node: set() for node in nodes}
    open_to: dict[str, set[str]] = {node: set() for node in nodes}
    for parent, child in directed:
        parents[child].add(parent)
        children[parent].add(child)
    for one, other in undirected:
        open_to[one].add(other)
        open_to[other].add(one)
    found: dict[str, tuple[str, ...]] = {}
    left = list(nodes)
    while left:
        joined = {node: parents[node] | children[node] | open_to[node] for node in left}
        sink = next((node for node in left if not children[node] and _all_joined(node, open_to[node], joined)), None)
        if sink is None:
            return None
        found[sink] = tuple(node for node in nodes if node in joined[sink])
        left.remove(sink)
        for node in joined[sink]:
            children[node].discard(sink)
            open_to[node].discard(sink)
    return {node: found[node] for node in nodes}


def _all_joined(node: str, its_open: set[str], joined: Mapping[str, set[str]]) -> bool:
    return all(joined[node] - {other} <= joined[other] for other in its_open)


def graph_difference(before: Parents, after: Parents) -> GraphDifference:
    """Compare two graphs up to Markov equivalence.

    Graphs that are equivalent have no difference, however their reversible arcs are drawn.
    """
    old, new = cpdag(before), cpdag(after)
    old_pairs = {_pair(*arc): arc for arc in arcs_of(before)}
    new_pairs = {_pair(*arc): arc for arc in arcs_of(after)}
    return GraphDifference(
        added=tuple(sorted(arc for pair, arc in new_pairs.items() if pair not in old_pairs)),
        removed=tuple(sorted(arc for pair, arc in old_pairs.items() if pair not in new_pairs)),
        reversed=tuple(
            sorted(arc for pair, arc in new_pairs.items() if pair in old_pairs and _mark(old, pair) != _mark(new, pair))
        ),
    )


def _mark(graph: PartialGraph, pair: Arc) -> Arc | None:
    return next((arc for arc in (pair, pair[::-1]) if arc in graph.directed), None)


def _pair(one: str, other: str) -> Arc:
    return (one, other) if one < other else (other, one)


def _neighbours(parents: Parents) -> dict[str, set[str]]:
    joined: dict[str, set[str]] = {node: set() for node in parents}
    for parent, child in arcs_of(parents):
        joined.setdefault(parent, set()).add(child)
        joined[child].add(parent)
    return joined
