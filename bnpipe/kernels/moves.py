"""Moves from one acyclic graph to the next: which are legal, what they bring, who stands above whom afterwards.

Matrices are (n, n): ``parents[p, c]``, ``allowed[p, c]`` and ``required[p, c]`` by parent and child, ``above[d, a]``
where a is an ancestor of d, ``delta[p, c]`` what toggling p among the parents of c brings, nats, or NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel


@kernel(types.boolean, array("boolean", 2), array("boolean", 2), types.int64, types.int64)
def _has_detour(parents: Any, above: Any, parent: Any, child: Any) -> bool:
    """Whether `parent` also reaches `child` through another parent of it."""
    for other in range(parents.shape[0]):  # noqa: SIM110
        if parents[other, child] and above[other, parent]:  # numba knows no generators
            return True
    return False


@kernel(
    types.int64,
    array("boolean", 2),
    array("boolean", 2),
    array("boolean", 2),
    array("boolean", 2),
    types.int64,
    array("float64", 2),
    array("float64", 3, writable=True),
    array("boolean", 2, writable=True),
)
def legal_gains(  # noqa: C901
    parents: Any, above: Any, allowed: Any, required: Any, max_parents: Any, delta: Any, gains: Any, stale: Any
) -> int:
    """Write what each legal move brings, (2, n, n): toggles, then reversals; -inf where it is not legal.

    Entries of the delta matrix that are needed but not known are marked in `stale`; their number is returned.
    """
    nodes = parents.shape[0]
    counts = np.zeros(nodes, dtype=np.int64)
    for parent in range(nodes):
        for child in range(nodes):
            counts[child] += parents[parent, child]
    gains[:] = -np.inf
    stale[:] = False
    unknown = 0
    for parent in range(nodes):
        for child in range(nodes):
            if parents[parent, child]:
                if required[parent, child]:
                    continue
            elif not allowed[parent, child] or above[parent, child] or counts[child] >= max_parents:
                continue
            gains[0, parent, child] = delta[parent, child]
            if np.isnan(delta[parent, child]):
                stale[parent, child] = True
                unknown += 1
            if not parents[parent, child] or not allowed[child, parent] or counts[parent] >= max_parents:
                continue
            if not _has_detour(parents, above, parent, child):
                gains[1, parent, child] = delta[parent, child] + delta[child, parent]
                if np.isnan(delta[child, parent]):
                    stale[child, parent] = True
                    unknown += 1
    return unknown


@kernel(types.int64, array("float64"), types.float64)
def first_best(gains: Any, tie: Any) -> int:
    """Place of the first of the largest gains, which rounding (relative `tie`) tells apart; -1 if none is legal."""
    best = -np.inf
    for gain in gains:
        best = max(best, gain)
    if best == -np.inf:
        return -1
    enough = best - tie * max(1.0, abs(best))
    for place in range(gains.size):
        if gains[place] >= enough:
            return place
    return -1


@kernel(
    types.int64,
    array("boolean", 2),
    array("boolean", 2),
    array("boolean", 2),
    types.int64,
    array("int64", 2, writable=True),
)
def covered_arcs(parents: Any, allowed: Any, required: Any, max_parents: Any, found: Any) -> int:
    """List arcs whose ends have the same other parents and that may be reversed; return how many there are.

    `found`, int64 (n * max degree, 2), gets (parent, child) and must have a line for every arc.
    """
    nodes = parents.shape[0]
    count = 0
    for parent in range(nodes):
        for child in range(nodes):
            if not parents[parent, child] or required[parent, child] or not allowed[child, parent]:
                continue
            above_parent, same = 0, True
            for other in range(nodes):
                above_parent += parents[other, parent]
                if other != parent and parents[other, parent] != parents[other, child]:
                    same = False
                    break
            if same and above_parent < max_parents:
                found[count, 0] = parent
                found[count, 1] = child
                count += 1
    return count


@kernel(types.void, array("boolean", 2, writable=True), types.int64, types.int64)
def _connect(above: Any, parent: Any, child: Any) -> None:
    """Put `parent` and all above it above `child` and all below it."""
    nodes = above.shape[0]
    for node in range(nodes):
        if node == child or above[node, child]:
            for other in range(nodes):
                above[node, other] |= above[parent, other]
            above[node, parent] = True


@kernel(types.void, array("boolean", 2), array("boolean", 2, writable=True), types.int64)
def _disconnect(parents: Any, above: Any, child: Any) -> None:
    """Find again what stands above `child` and all below it: who had less above comes first, so parents first."""
    nodes = parents.shape[0]
    heights = np.full(nodes, -1, dtype=np.int64)
    starts = np.zeros(nodes + 1, dtype=np.int64)
    for node in range(nodes):
        if node == child or above[node, child]:
            heights[node] = above[node].sum()
            starts[heights[node] + 1] += 1
    starts = np.cumsum(starts)
    touched = np.empty(starts[-1], dtype=np.int64)
    for node in range(nodes):
        if heights[node] >= 0:
            touched[starts[heights[node]]] = node
            starts[heights[node]] += 1
    for node in touched:
        above[node] = False
        for parent in range(nodes):
            if parents[parent, node]:
                for other in range(nodes):
                    above[node, other] |= above[parent, other]
                above[node, parent] = True


@kernel(types.void, array("boolean", 2, writable=True), array("boolean", 2, writable=True), types.int64, types.int64)
def toggle(parents: Any, above: Any, parent: Any, child: Any) -> None:
    """Add the arc, or delete it if it is there."""
    parents[parent, child] = not parents[parent, child]
    if parents[parent, child]:
        _connect(above, parent, child)
    else:
        _disconnect(parents, above, child)


@kernel(
    types.void,
    array("boolean", 2, writable=True),
    array("boolean", 2, writable=True),
    array("boolean", 2),
    array("boolean", 2),
    types.int64,
    array("float64"),
    array("int64", 2, writable=True),
    array("boolean", writable=True),
)
def turn_covered(
    parents: Any, above: Any, allowed: Any, required: Any, max_parents: Any, picks: Any, found: Any, touched: Any
) -> None:
    """Reverse one covered arc for each of `picks`, numbers from 0 until 1 that choose among those there are then.

    Children that got other parents are marked in `touched`; `found` is as in :func:`covered_arcs`.
    """
    for pick in picks:
        count = covered_arcs(parents, allowed, required, max_parents, found)
        if count == 0:
            return
        arc = found[int(pick * count)]
        parent, child = arc[0], arc[1]
        toggle(parents, above, parent, child)
        toggle(parents, above, child, parent)
        touched[parent] = True
        touched[child] = True
