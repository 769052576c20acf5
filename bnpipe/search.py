"""Hill climbing over directed acyclic graphs: add, delete, reverse; equivalent graphs; tabu walks; restarts.

``delta[p, c]`` is what the score gains when p is toggled among the parents of c; a reversal is two toggles. A move
changes the parents of at most two children, and only their columns of the matrix are computed again, and of those
only the entries that are legal moves. Family scores are cached by (child, parents).

References
----------
Heckerman, D., Geiger, D. & Chickering, D. M. (1995). Learning Bayesian networks. Machine Learning 20, 197-243.
Castelo, R. & Kocka, T. (2003). On inclusion-driven learning of Bayesian networks. JMLR 4, 527-574.
Glover, F. (1989). Tabu search, part I. ORSA Journal on Computing 1, 190-206.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from bnpipe.scores import FloatArray, Sample, Score

BoolMatrix: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
Progress: TypeAlias = Callable[[int, float], None]

_TIE: Final = 1e-9
_TURNS_A_STEP: Final = 5
_FULL_TURNS: Final = 5
_TOGGLE, _REVERSE = 0, 1


@dataclass(frozen=True, eq=False)
class Constraints:
    """What every graph on the way must keep.

    Parameters
    ----------
    allowed, required : bool (n, n)
        By [parent, child].
    max_parents : int
        Of each node.
    """

    allowed: BoolMatrix
    required: BoolMatrix
    max_parents: int


@dataclass(frozen=True, eq=False)
class Found:
    """A graph met on the way: bool (n, n) by [parent, child], and its score."""

    parents: BoolMatrix
    score: float


class HillClimber:
    """One search; holds the current graph, the delta matrix and the cache.

    Parameters
    ----------
    sample : Sample
        Rows to score.
    score : Score
    constraints : Constraints
        ``required`` is the graph to start from.
    progress : callable or None
        Called as ``progress(moves, score)`` after each move.
    """

    def __init__(
        self, sample: Sample, score: Score, constraints: Constraints, progress: Progress | None = None
    ) -> None:
        self.sample, self.score, self.constraints, self.progress = sample, score, constraints, progress
        nodes = len(sample.names)
        self.moves = 0
        self._cache: dict[tuple[int, frozenset[int]], float] = {}
        self._delta: FloatArray = np.full((nodes, nodes), np.nan)
        self._local = np.zeros(nodes)
        self._parents: BoolMatrix = np.zeros((nodes, nodes), dtype=bool)
        self._reach = self._parents.copy()
        self._set(constraints.required, range(nodes))

    def search(self, *, tabu: int = 0, restarts: int = 0, seed: int = 0) -> Found:
        """Climb, walk on with a tabu list if asked, then again from disturbed copies of the best graph."""
        best = self._ascend(tabu, np.random.default_rng((seed, 0)))
        for restart in range(1, restarts + 1):
            rng = np.random.default_rng((seed, restart))
            self._restore(best)
            self._disturb(rng)
            best = self._better(best, self._ascend(tabu, rng))
        return best

    def _ascend(self, tabu: int, rng: np.random.Generator) -> Found:
        """Climb; from an optimum on through equivalent graphs, `_FULL_TURNS` times in vain; then downhill if asked."""
        best = self._climb(rng)
        patience = _FULL_TURNS
        while patience:
            self._restore(best)
            self._turn(rng, int(best.parents.sum()))
            found = self._better(best, self._climb(rng))
            best, patience = (best, patience - 1) if found is best else (found, _FULL_TURNS)
        if tabu:
            self._restore(best)
            best = self._walk(best, tabu, rng)
        return best

    def _climb(self, rng: np.random.Generator) -> Found:
        while self._step():
            self._turn(rng, _TURNS_A_STEP)
        return self._found()

    def _walk(self, best: Found, tabu: int, rng: np.random.Generator) -> Found:
        """Make the best move, up or down, until `tabu` moves brought nothing better.

        Two nodes whose arc was changed are left alone for a while (unless that gives the best graph so far), and
        reversals that say nothing are no moves: both would only lead back (Glover 1989).
        """
        pairs = len(self._local) * (len(self._local) - 1) // 2
        tenure = min(tabu, 1 + pairs // 4)
        free_from = np.zeros(self._parents.shape, dtype=np.int64)
        moment, patience = 0, tabu
        while patience:
            gains, here = self._gains(), self._found().score
            left_alone = (free_from > moment) & (here + gains <= best.score + self._slack(here))
            gains[left_alone] = -np.inf
            gains[_REVERSE][np.abs(gains[_REVERSE]) <= _TIE * max(1.0, abs(here))] = -np.inf
            if (move := self._best(gains)) is None:
                break
            self._make(move)
            moment += 1
            pair = move[1:]
            free_from[pair] = free_from[pair[::-1]] = moment + tenure
            found = self._better(best, self._found())
            best, patience = (best, patience - 1) if found is best else (found, tabu)
            self._turn(rng, _TURNS_A_STEP)
        return best

    def _better(self, best: Found, found: Found) -> Found:
        return found if found.score > best.score + self._slack(best.score) else best

    def _found(self) -> Found:
        prior = self.score.prior(len(self._local), int(self._parents.sum()))
        return Found(self._parents.copy(), math.fsum(self._local) + prior)

    @staticmethod
    def _slack(score: float) -> float:
        """Gains below this are rounding, nats."""
        return 1e-12 * abs(score) + 1e-9

    def _step(self) -> bool:
        """Make the best legal move if it goes up."""
        gains = self._gains()
        gains[gains <= self._slack(math.fsum(self._local))] = -np.inf
        move = self._best(gains)
        if move is not None:
            self._make(move)
        return move is not None

    def _gains(self) -> FloatArray:
        """Tell what each move brings, nats, (2, n, n) by kind, parent and child; -inf where it is not legal."""
        toggles, reversals = self._legal()
        self._fill(toggles | reversals | reversals.T)
        gains = np.full((2, *toggles.shape), -np.inf)
        gains[_TOGGLE][toggles] = self._delta[toggles]
        gains[_REVERSE][reversals] = (self._delta + self._delta.T)[reversals]
        return gains

    @staticmethod
    def _best(gains: FloatArray) -> tuple[int, int, int] | None:
        """Choose the largest gain; of equal ones, which rounding tells apart, the first by name."""
        best = gains.max(initial=-np.inf)
        if best == -np.inf:
            return None
        first = int(np.flatnonzero(gains >= best - _TIE * max(1.0, abs(best)))[0])
        kind, parent, child = (int(place) for place in np.unravel_index(first, gains.shape))
        return kind, parent, child

    def _make(self, move: tuple[int, int, int]) -> None:
        self._move(*move)
        self.moves += 1
        if self.progress is not None:
            self.progress(self.moves, self._found().score)

    def _legal(self) -> tuple[BoolMatrix, BoolMatrix]:
        """Give the toggles (adds and deletes) and the reversals that keep every constraint."""
        parents, limits = self._parents, self.constraints
        room = parents.sum(axis=0) < limits.max_parents
        adds = limits.allowed & ~parents & ~self._reach.T & room[None, :]
        deletes = parents & ~limits.required
        reversals = deletes & limits.allowed.T & room[:, None]
        tails, heads = np.nonzero(reversals)
        detour = (parents[tails] & self._reach[:, heads].T).any(axis=1)
        reversals[tails[detour], heads[detour]] = False
        return adds | deletes, reversals

    def _fill(self, needed: BoolMatrix) -> None:
        """Compute the entries of the delta matrix that are needed and not known."""
        stale = needed & np.isnan(self._delta)
        for child in np.flatnonzero(stale.any(axis=0)).tolist():
            parents = frozenset(np.flatnonzero(self._parents[:, child]).tolist())
            toggled = np.flatnonzero(stale[:, child]).tolist()
            self._score_additions(child, parents, [node for node in toggled if node not in parents])
            for node in toggled:
                sign = -1.0 if node in parents else 1.0
                gain = self._family(child, parents ^ {node}) - self._local[child]
                self._delta[node, child] = gain + sign * self.score.arc_prior

    def _score_additions(self, child: int, parents: frozenset[int], added: list[int]) -> None:
        """Put the scores of `child` with one parent more into the cache, counting from one shared radix code."""
        unknown = [node for node in added if (child, parents | {node}) not in self._cache]
        for node, table in zip(unknown, self.sample.tables(child, tuple(parents), unknown), strict=True):
            self._cache[child, parents | {node}] = self.score.local(table)

    def _family(self, child: int, parents: frozenset[int]) -> float:
        key = (child, parents)
        if key not in self._cache:
            self._cache[key] = self.score.local(self.sample.table(child, tuple(parents)))
        return self._cache[key]

    def _move(self, kind: int, parent: int, child: int) -> None:
        present = bool(self._parents[parent, child])
        self._parents[parent, child] = not present
        if present:
            self._disconnected(parent)
        if kind == _REVERSE:
            self._parents[child, parent] = True
            self._connected(child, parent)
            self._changed(parent)
        elif not present:
            self._connected(parent, child)
        self._changed(child)

    def _changed(self, child: int) -> None:
        self._delta[:, child] = np.nan
        self._local[child] = self._family(child, frozenset(np.flatnonzero(self._parents[:, child]).tolist()))

    def _connected(self, parent: int, child: int) -> None:
        above, below = self._reach[:, parent].copy(), self._reach[child].copy()
        above[parent] = below[child] = True
        self._reach |= np.outer(above, below)

    def _disconnected(self, parent: int) -> None:
        """Find again what `parent` and its ancestors reach; who reached fewer nodes comes first: children before."""
        touched = [*np.flatnonzero(self._reach[:, parent]).tolist(), parent]
        for node in sorted(touched, key=self._reach.sum(axis=1).__getitem__):
            children = self._parents[node]
            self._reach[node] = children | self._reach[children].any(axis=0)

    def _restore(self, found: Found) -> None:
        changed = (self._parents != found.parents).any(axis=0)
        self._set(found.parents, np.flatnonzero(changed).tolist())

    def _set(self, parents: BoolMatrix, changed: Iterable[int]) -> None:
        self._parents = parents.copy()
        self._reach = np.zeros_like(parents)
        for parent, child in np.argwhere(parents).tolist():
            self._connected(parent, child)
        for child in changed:
            self._changed(child)

    def _disturb(self, rng: np.random.Generator) -> None:
        """Make random legal moves, about a quarter as many as there are arcs."""
        for _ in range(2 + int(self._parents.sum()) // 4):
            choices = np.flatnonzero(np.stack(self._legal()))
            if not choices.size:
                return
            move = np.unravel_index(int(rng.choice(choices)), (2, *self._parents.shape))
            self._move(*(int(i) for i in move))

    def _turn(self, rng: np.random.Generator, times: int) -> None:
        """Reverse random covered arcs where that does not change the score; such reversals never close a cycle.

        An optimum may be one only as it is drawn: Markov equivalent graphs have other neighbours. Turning arcs on the
        way keeps an accident of direction from becoming a wrong collider (Castelo & Kocka 2003, section 4).
        """
        limits = self.constraints
        for _ in range(times):
            room = self._parents.sum(axis=0) < limits.max_parents
            tails, heads = np.nonzero(self._parents & ~limits.required & limits.allowed.T & room[:, None])
            covered = np.flatnonzero((self._parents[:, tails] ^ self._parents[:, heads]).sum(axis=0) == 1)
            if not covered.size:
                return
            chosen = int(covered[rng.integers(covered.size)])
            self._turn_arc(int(tails[chosen]), int(heads[chosen]))

    def _turn_arc(self, parent: int, child: int) -> None:
        above = frozenset(np.flatnonzero(self._parents[:, parent]).tolist())
        turned = self._family(parent, above | {child}) + self._family(child, above)
        drawn = float(self._local[parent] + self._local[child])
        if abs(turned - drawn) <= _TIE * max(1.0, abs(drawn)):
            self._move(_REVERSE, parent, child)
