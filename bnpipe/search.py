"""Hill climbing over directed acyclic graphs: add, delete, reverse; equivalent graphs; mending; tabu walks; restarts.

``delta[p, c]`` is what the score gains when p is toggled among the parents of c; a reversal is two toggles. A move
changes the parents of at most two children, and only their columns of the matrix are computed again, and of those
only the entries that are legal moves. What was computed for a child under one set of parents is kept, and is there
again when the search comes back to that set.

References
----------
Heckerman, D., Geiger, D. & Chickering, D. M. (1995). Learning Bayesian networks. Machine Learning 20, 197-243.
Castelo, R. & Kocka, T. (2003). On inclusion-driven learning of Bayesian networks. JMLR 4, 527-574.
Moore, A. & Wong, W.-K. (2003). Optimal reinsertion. ICML, 552-559.
Grzegorczyk, M. & Husmeier, D. (2008). Improving the structure MCMC sampler for Bayesian networks by introducing a new
    edge reversal move. Machine Learning 71, 265-305.
Glover, F. (1989). Tabu search, part I. ORSA Journal on Computing 1, 190-206.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from bnpipe.errors import DataError
from bnpipe.graph import BoolMatrix, parent_matrix
from bnpipe.knowledge import Knowledge
from bnpipe.scores import Family, FloatArray, Sample, Score

Progress: TypeAlias = Callable[[int, float], None]

_TIE: Final = 1e-9
_TURNS_A_STEP: Final = 5
FULL_TURNS: Final = 5
"""How often in a row climbing on from an equivalent graph may be in vain."""
_TOGGLE, _REVERSE = 0, 1
_TENURE: Final = 10
"""Moves for which a changed pair is left alone in a tabu walk."""
_WORTH_THREADS: Final = 20_000_000
"""Rows times families above which counting is shared out to threads; below, passing the GIL around costs more."""

_CACHE_ENTRIES: Final = 2**25
"""Family scores and cells kept: 256 MiB."""


class _OutOfTimeError(Exception):
    """The time limit was reached."""


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

    @classmethod
    def of(cls, sample: Sample, knowledge: Knowledge, max_parents: int | None) -> Constraints:
        """Write knowledge as matrices; a variable of which one state occurs gets no arcs but required ones."""
        allowed = knowledge.allowed(sample.names)
        constant = np.array(sample.cardinalities) < 2
        allowed[constant] = False
        allowed[:, constant] = False
        required: dict[str, list[str]] = {}
        for parent, child in knowledge.required:
            required.setdefault(child, []).append(parent)
        most = len(sample.names) if max_parents is None else max_parents
        return cls(allowed, parent_matrix(required, sample.names), most)


@dataclass(frozen=True, eq=False)
class Found:
    """A graph met on the way: bool (n, n) by [parent, child], and its score."""

    parents: BoolMatrix
    score: float

    def named(self, names: Sequence[str], order: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Give the parents by name, nodes and parents in `order`; `names` are those of the matrix."""
        index = {name: place for place, name in enumerate(names)}
        return {
            child: tuple(parent for parent in order if self.parents[index[parent], index[child]]) for child in order
        }


class HillClimber:
    """One search; holds the current graph, the delta matrix and the cache.

    Parameters
    ----------
    sample : Sample
        Rows to score.
    score : Score
    constraints : Constraints
    start : bool (n, n) or None
        The graph to begin with, by [parent, child]; None: the required arcs.
    threads : int or None
        None: one a core.
    max_seconds : float
        When to stop where the search is; `cut` is then True.
    progress : callable or None
        Called as ``progress(moves, score)`` after each move.
    """

    def __init__(
        self,
        sample: Sample,
        score: Score,
        constraints: Constraints,
        *,
        start: BoolMatrix | None = None,
        threads: int | None = 1,
        max_seconds: float = math.inf,
        progress: Progress | None = None,
    ) -> None:
        self.sample, self.score, self.constraints, self.progress = sample, score, constraints, progress
        self.threads = threads
        self.moves = 0
        self.cut = False
        self._deadline = time.monotonic() + max_seconds
        nodes = len(sample.names)
        self._columns: dict[tuple[int, int], FloatArray] = {}
        self._families: dict[tuple[int, int], tuple[Family, float]] = {}
        self._cells = 0
        self._delta: FloatArray = np.full((nodes, nodes), np.nan)
        self._local = np.zeros(nodes)
        self._changed: set[int] = set()
        self._masks = [0] * nodes
        self._gains = np.empty((2, nodes, nodes))
        self._stale: BoolMatrix = np.zeros((nodes, nodes), dtype=bool)
        self._covered = np.empty((nodes * nodes, 2), dtype=np.int64)
        self._parents: BoolMatrix = np.zeros((nodes, nodes), dtype=bool)
        self._above = self._parents.copy()
        self._set(constraints.required if start is None else start, range(nodes))
        self._changed.update(range(nodes))

    def search(
        self, *, tabu: int = 0, restarts: int = 0, mending: int = 0, turning: int = FULL_TURNS, seed: int = 0
    ) -> Found:
        """Climb, mend, walk on with a tabu list if asked, then again from disturbed copies of the best graph."""
        self._turning = turning
        self._best = self._found()
        try:
            self._ascend(tabu, mending, np.random.default_rng((seed, 0)))
            for restart in range(1, restarts + 1):
                rng = np.random.default_rng((seed, restart))
                self._restore(self._best)
                self._disturb(rng)
                self._ascend(tabu, mending, rng)
        except _OutOfTimeError:
            self.cut = True
            self._keep(self._found())
        return self._best

    def _ascend(self, tabu: int, mending: int, rng: np.random.Generator) -> None:
        """Climb; from an optimum on through equivalent graphs until that is in vain; mend; then downhill."""
        best = self._climb(rng)
        patience = self._turning
        while patience:
            self._restore(best)
            self._turn(rng, int(best.parents.sum()))
            found = self._climb(rng)
            best, patience = (found, self._turning) if self._is_better(found, best) else (best, patience - 1)
        self._keep(best)
        best = self._mend(best, mending, rng)
        self._keep(best)
        if tabu:
            self._restore(best)
            self._keep(self._walk(best, tabu, rng))

    def _mend(self, best: Found, rounds: int, rng: np.random.Generator) -> Found:
        """Tear a small part of the graph out and climb again, until `rounds` of that brought nothing better.

        Wrong directions hold each other in place: to turn one arc several families have to change at once. So by turns
        an arc, or two, are reversed and their ends lose all other parents (Grzegorczyk & Husmeier 2008), or a node and
        its neighbours lose all parents and are joined anew in random directions (after Moore & Wong 2003). What was
        scored before is in the cache.
        """
        patience, turn = rounds, 0
        while patience and best.parents.any():
            self._restore(best)
            if turn % 2:
                self._join_anew(rng)
            else:
                self._turn_families(rng, 1 + turn // 2 % 2)
            found = self._climb(rng)
            best, patience = (found, rounds) if self._is_better(found, best) else (best, patience - 1)
            self._keep(best)
            turn += 1
        return best

    def _turn_families(self, rng: np.random.Generator, times: int) -> None:
        """Reverse random arcs whose ends first lose all parents."""
        for _ in range(times):
            arcs = np.argwhere(self._parents)
            if not len(arcs):
                return
            parent, child = arcs[rng.integers(len(arcs))].tolist()
            self._orphan((parent, child))
            self._join(child, parent)

    def _join_anew(self, rng: np.random.Generator) -> None:
        """Take all parents from a random node and its neighbours, then join it with each of them either way."""
        node = int(rng.integers(len(self._local)))
        neighbours = np.flatnonzero(self._parents[:, node] | self._parents[node]).tolist()
        self._orphan((node, *neighbours))
        for other in neighbours:
            self._join(*((node, other) if rng.random() < 0.5 else (other, node)))

    def _orphan(self, nodes: Iterable[int]) -> None:
        """Delete all arcs into these nodes, but for required ones."""
        for node in nodes:
            free = self._parents[:, node] & ~self.constraints.required[:, node]
            for parent in np.flatnonzero(free).tolist():
                self._move(_TOGGLE, parent, node)

    def _join(self, parent: int, child: int) -> None:
        """Add an arc if it is allowed and neither node stands above the other."""
        limits, above = self.constraints, self._above
        crowded = self._parents[:, child].sum() >= limits.max_parents
        if limits.allowed[parent, child] and not (crowded or above[parent, child] or above[child, parent]):
            self._move(_TOGGLE, parent, child)

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
        tenure = min(tabu, _TENURE, 1 + pairs // 4)
        free_from = np.zeros(self._parents.shape, dtype=np.int64)
        moment, patience = 0, tabu
        while patience > 0:
            gains, here = self._fill_gains(), self._current()
            left_alone = (free_from > moment) & (here + gains <= best.score + self._slack(here))
            gains[left_alone] = -np.inf
            gains[_REVERSE][np.abs(gains[_REVERSE]) <= _TIE * max(1.0, abs(here))] = -np.inf
            if (move := self._first_best(gains)) is None:
                break
            self._make(move)
            moment += 1
            pair = move[1:]
            free_from[pair] = free_from[pair[::-1]] = moment + tenure
            better = self._current() > best.score + self._slack(best.score)
            best, patience = (self._found(), tabu) if better else (best, patience - 1)
            self._keep(best)
            self._turn(rng, _TURNS_A_STEP)
        return best

    def _is_better(self, found: Found, best: Found) -> bool:
        return found.score > best.score + self._slack(best.score)

    def _keep(self, found: Found) -> None:
        """Remember a graph that is better than all before."""
        if self._is_better(found, self._best):
            self._best = found

    def _current(self) -> float:
        self._refresh()
        prior = self.score.prior(len(self._local), int(self._parents.sum()))
        return math.fsum(self._local) + prior

    def _found(self) -> Found:
        return Found(self._parents.copy(), self._current())

    @staticmethod
    def _slack(score: float) -> float:
        """Gains below this are rounding, nats."""
        return 1e-12 * abs(score) + 1e-9

    def _step(self) -> bool:
        """Make the best legal move if it goes up."""
        gains = self._fill_gains()
        move = self._first_best(gains)
        if move is None or gains[move] <= self._slack(math.fsum(self._local)):
            return False
        self._make(move)
        return True

    def _fill_gains(self) -> FloatArray:
        """Tell what each move brings, nats, (2, n, n) by kind, parent and child; -inf where it is not legal."""
        from bnpipe.kernels.moves import legal_gains

        limits = self.constraints
        self._forget()
        self._refresh()
        arguments = (self._parents, self._above, limits.allowed, limits.required, limits.max_parents, self._delta)
        if legal_gains(*arguments, self._gains, self._stale):
            self._fill()
            legal_gains(*arguments, self._gains, self._stale)
        return self._gains

    @staticmethod
    def _first_best(gains: FloatArray) -> tuple[int, int, int] | None:
        """Choose the largest gain; of equal ones, which rounding tells apart, the first by name."""
        from bnpipe.kernels.moves import first_best

        place = int(first_best(gains.reshape(-1), _TIE))
        if place < 0:
            return None
        kind, parent, child = (int(axis) for axis in np.unravel_index(place, gains.shape))
        return kind, parent, child

    def _make(self, move: tuple[int, int, int]) -> None:
        self._move(*move)
        self.moves += 1
        if self.progress is not None:
            self.progress(self.moves, self._current())

    def _fill(self) -> None:
        """Compute the stale entries of the delta matrix."""
        work: list[tuple[int, list[int]]] = []
        children = np.flatnonzero(self._stale.any(axis=0)).tolist()
        for child in children:
            self._check_time()
            stale, parents = self._stale[:, child], self._parents[:, child]
            for parent in np.flatnonzero(stale & parents).tolist():
                self._column(child)[parent] = self._family(child, self._masks[child] ^ (1 << parent))[1]
            if added := np.flatnonzero(stale & ~parents).tolist():
                work.append((child, added))
        self._score_additions(work)
        for child in children:
            self._load(child)

    def _score_additions(self, work: list[tuple[int, list[int]]]) -> None:
        """Score children with one parent more; threads share out the candidates, each of which is one thread's."""
        from bnpipe.kernels import in_threads

        families = sum(len(candidates) for _, candidates in work)
        worth = families * self.sample.columns[0].size > _WORTH_THREADS
        parts = [(child, part) for child, candidates in work for part in _parts(candidates, 2 if worth else 1)]

        def score(part: tuple[int, list[int]]) -> None:
            self._check_time()
            child, candidates = part
            family, _ = self._family(child, self._masks[child])
            self._column(child)[candidates] = self.sample.score_extensions(family, candidates, self.score)

        in_threads(score, parts, self.threads if worth else 1)

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise _OutOfTimeError

    def _column(self, child: int) -> FloatArray:
        """Scores of `child` with each other node toggled among its parents, float64 (n,); NaN where not computed."""
        key = child, self._masks[child]
        if key not in self._columns:
            self._columns[key] = np.full(len(self._local), np.nan)
        return self._columns[key]

    def _family(self, child: int, mask: int) -> tuple[Family, float]:
        """Count and score a family; the parents are the bits of `mask`."""
        key = child, mask
        if key not in self._families:
            family = self.sample.family(child, _bits(mask))
            self._cells += family.cells.size
            self._families[key] = family, self.sample.score(family, self.score)
        return self._families[key]

    def _forget(self) -> None:
        """Empty a cache that has grown too large; what is needed is computed again."""
        if len(self._columns) * len(self._local) + self._cells > _CACHE_ENTRIES:
            self._columns.clear()
            self._families.clear()
            self._cells = 0
            self._changed.update(range(len(self._local)))

    def _move(self, kind: int, parent: int, child: int) -> None:
        self._toggle(parent, child)
        if kind == _REVERSE:
            self._toggle(child, parent)

    def _toggle(self, parent: int, child: int) -> None:
        from bnpipe.kernels.moves import toggle

        toggle(self._parents, self._above, parent, child)
        self._changed.add(child)

    def _mask(self, child: int) -> int:
        """Write the parents of `child` as the bits of a number."""
        return int.from_bytes(np.packbits(self._parents[:, child], bitorder="little").tobytes(), "little")

    def _refresh(self) -> None:
        """Score the families that were changed; what a family was in between is never counted."""
        for child in self._changed:
            self._masks[child] = self._mask(child)
            self._local[child] = self._family(child, self._masks[child])[1]
            self._load(child)
        self._changed.clear()

    def _load(self, child: int) -> None:
        """Take what is known of a child's moves from the cache."""
        gains = self._column(child) - self._local[child]
        if self.score.arc_prior:
            gains += np.where(self._parents[:, child], -self.score.arc_prior, self.score.arc_prior)
        self._delta[:, child] = gains

    def _restore(self, found: Found) -> None:
        changed = (self._parents != found.parents).any(axis=0)
        self._set(found.parents, np.flatnonzero(changed).tolist())

    def _set(self, parents: BoolMatrix, changed: Iterable[int]) -> None:
        changed = list(changed)
        for child in changed:
            for parent in np.flatnonzero(self._parents[:, child] & ~parents[:, child]).tolist():
                self._toggle(parent, child)
        for child in changed:
            for parent in np.flatnonzero(parents[:, child] & ~self._parents[:, child]).tolist():
                self._toggle(parent, child)

    def _disturb(self, rng: np.random.Generator) -> None:
        """Make random legal moves, about a quarter as many as there are arcs."""
        from bnpipe.kernels.moves import legal_gains

        limits = self.constraints
        for _ in range(2 + int(self._parents.sum()) // 4):
            arguments = (self._parents, self._above, limits.allowed, limits.required, limits.max_parents)
            legal_gains(*arguments, np.zeros_like(self._delta), self._gains, self._stale)
            choices = np.flatnonzero(self._gains == 0.0)
            if not choices.size:
                return
            move = np.unravel_index(int(rng.choice(choices)), self._gains.shape)
            self._move(*(int(axis) for axis in move))

    def _turn(self, rng: np.random.Generator, times: int) -> None:
        """Reverse random covered arcs where that does not change the score; such reversals never close a cycle.

        An optimum may be one only as it is drawn: Markov equivalent graphs have other neighbours. Turning arcs on the
        way keeps an accident of direction from becoming a wrong collider (Castelo & Kocka 2003, section 4).
        """
        from bnpipe.kernels.moves import covered_arcs, turn_covered

        self._check_time()
        limits, picks = self.constraints, rng.random(times)
        rules = limits.allowed, limits.required, limits.max_parents
        if self.score.is_equivalent:
            touched = np.zeros(len(self._local), dtype=bool)
            turn_covered(self._parents, self._above, *rules, picks, self._covered, touched)
            self._changed.update(np.flatnonzero(touched).tolist())
            return
        for pick in picks.tolist():
            if not (count := covered_arcs(self._parents, *rules, self._covered)):
                return
            parent, child = self._covered[int(pick * count)].tolist()
            if self._turns_freely(parent, child):
                self._move(_REVERSE, parent, child)

    def _turns_freely(self, parent: int, child: int) -> bool:
        """Whether reversing a covered arc leaves the score as it is."""
        above = self._mask(parent)
        turned = self._family(parent, above | (1 << child))[1] + self._family(child, above)[1]
        drawn = self._family(parent, above)[1] + self._family(child, self._mask(child))[1]
        return abs(turned - drawn) <= _TIE * max(1.0, abs(drawn))


def check_counts(**options: int | None) -> None:
    """Refuse what is no whole number of 0 or more, by its name; None passes.

    Raises
    ------
    DataError
    """
    for name, value in options.items():
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and (not whole or value < 0):
            raise DataError(f"{name} must be a whole number, 0 or more, not {value!r}")


def _bits(mask: int) -> list[int]:
    """Places of the bits that are set."""
    return [place for place in range(mask.bit_length()) if mask >> place & 1]


def _parts(items: list[int], count: int) -> list[list[int]]:
    """Cut a list into `count` parts of nearly the same length, none of them empty."""
    size = -(-len(items) // count)
    return [items[first : first + size] for first in range(0, len(items), size)]
