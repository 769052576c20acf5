"""How far a learned graph is from the one that made the rows."""

from __future__ import annotations

from bnpipe.graph import Parents, graph_difference


def shd(generating: Parents, learned: Parents) -> int:
    """Structural Hamming distance of the two equivalence classes (CPDAGs)."""
    return graph_difference(_sorted(generating), _sorted(learned)).distance


def skeleton_f1(generating: Parents, learned: Parents) -> float:
    """Harmonic mean of precision and recall of the joined pairs, directions left aside; 1 for two empty graphs."""
    true, found = _pairs(generating), _pairs(learned)
    return 2 * len(true & found) / (len(true) + len(found)) if true or found else 1.0


def arcs(parents: Parents) -> frozenset[tuple[str, str]]:
    """All (parent, child)."""
    return frozenset((parent, child) for child, its_parents in parents.items() for parent in its_parents)


def _pairs(parents: Parents) -> set[frozenset[str]]:
    return {frozenset(arc) for arc in arcs(parents)}


def _sorted(parents: Parents) -> Parents:
    return {child: tuple(sorted(parents[child])) for child in sorted(parents)}
