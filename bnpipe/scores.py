"""Decomposable scores of a graph, and the counting beneath them.

Every score is a sum over families of a function of that family's non-empty counts, so a table is kept as its
non-zero cells only: an empty cell or configuration adds nothing to any of them.

A variable has the states that occur in the rows scored (as pgmpy counts them): a declared state nobody has seen is
no parameter that was learned, and declaring one more never changes the graph.

References
----------
Heckerman, D., Geiger, D. & Chickering, D. M. (1995). Learning Bayesian networks. Machine Learning 20, 197-243.
Scutari, M. (2016). An empirical-Bayes score for discrete Bayesian networks. PGM, 438-448.
Koller, D. & Friedman, N. (2009). Probabilistic Graphical Models, section 18.3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from bnpipe.bitmaps import NO_WEIGHTS, Bitmaps, ByteArray, IntArray
from bnpipe.errors import DataError, shorten
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    from bnpipe.data import Dataset

ScoreName = Literal["bic", "aic", "bdeu", "bds", "k2", "ll"]
SCORES: Final[tuple[str, ...]] = get_args(ScoreName)

CodeArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_WORDS_A_ROW: Final = 4
"""Words of bitmaps that are counted in the time that a histogram takes for one row (measured: 3 to 5)."""

_MOST_MEMBERS: Final = 32
"""Axes that a numpy array may have."""

_LARGEST_TABLE: Final = 2**26
"""Cells of a dense table for one candidate; a larger family is counted by itself, without its empty cells."""

_DENSE_SPAN: Final = 2**16
_WIDEST_SPAN: Final = 2**26


@dataclass(frozen=True, slots=True)
class Score:
    """A score.

    Parameters
    ----------
    name : str
        As in a spec.
    equivalent_sample_size : float
        In rows; of ``bdeu`` and ``bds``.
    """

    name: str
    equivalent_sample_size: float = 10.0

    @property
    def is_equivalent(self) -> bool:
        """Whether Markov equivalent graphs have the same score."""
        return self.name in {"bic", "aic", "bdeu", "ll"}

    @property
    def arc_prior(self) -> float:
        """Log prior of each arc, nats; 0 but for BDs."""
        return -math.log(2.0) if self.name == "bds" else 0.0

    def prior(self, nodes: int, arcs: int) -> float:
        """Log prior of a graph, nats (for BDs the marginal uniform prior of Scutari 2016)."""
        return self.arc_prior * (arcs + nodes * (nodes - 1) / 2)

    def arguments(self, rows: int) -> tuple[int, float]:
        """Give the kind and amount that the kernels take, for a sample of so many rows."""
        from bnpipe.kernels.scoring import BDEU, BDS, K2, LIKELIHOOD

        return {
            "ll": (LIKELIHOOD, 0.0),
            "bic": (LIKELIHOOD, 0.5 * math.log(rows)),
            "aic": (LIKELIHOOD, 1.0),
            "k2": (K2, 0.0),
            "bdeu": (BDEU, self.equivalent_sample_size),
            "bds": (BDS, self.equivalent_sample_size),
        }[self.name]


def make_score(name: str, equivalent_sample_size: float = 10.0) -> Score:
    """Build the score called `name`.

    Parameters
    ----------
    name : {"bic", "aic", "bdeu", "bds", "k2", "ll"}
    equivalent_sample_size : float
        In rows, for ``bdeu`` and ``bds``; 10 as in pgmpy.

    Raises
    ------
    DataError
        No such score, or a sample size that is not positive.
    """
    if not equivalent_sample_size > 0:
        raise DataError(f"equivalent_sample_size of a score must be above 0, not {equivalent_sample_size}")
    if name not in SCORES:
        raise DataError(f"no score is called {name!r}; choose one of {shorten(SCORES, limit=len(SCORES))}")
    return Score(name, float(equivalent_sample_size))


@dataclass(frozen=True, eq=False, slots=True)
class Family:
    """The non-empty cells of one family's table, in the order of (parents' states, child's state).

    Parameters
    ----------
    members : tuple of int
        Parents by number, then the child.
    cells : int64 (n, members)
        States.
    totals : int64 (n,)
        Rows of each cell, above 0 (under new weights a cell may have none).
    starts : int64 (m + 1,)
        Where the cells of each configuration that occurs begin.
    size : float
        Configurations of the parents, seen or not.
    states : int
        Of the child.
    """

    members: tuple[int, ...]
    cells: IntArray
    totals: IntArray
    starts: IntArray
    size: float
    states: int


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows a search scores: complete ones, columns in the order of names.

    Because columns are in the order of names and rows only counted, neither the order of columns nor of rows in the
    data can change a score or break a tie.

    Parameters
    ----------
    names : tuple of str
        Sorted.
    columns : tuple of uint8 (distinct rows,)
        Codes among the states that occur.
    cardinalities : tuple of int
        States that occur.
    weights : int64 (distinct rows,)
        How many rows each stands for; empty: one each.
    rows : int
        Rows in all.
    bitmaps : Bitmaps
        Of the same rows, or of all of them with each counting once.
    """

    names: tuple[str, ...]
    columns: tuple[ByteArray, ...]
    cardinalities: tuple[int, ...]
    weights: IntArray
    rows: int
    bitmaps: Bitmaps = field(repr=False)

    @classmethod
    def of(cls, data: Dataset, *, deduplicate: bool = True) -> Sample:
        """Take the complete rows of `data`.

        Raises
        ------
        DataError
            No row is complete.
        """
        names = tuple(sorted(data.schema.names))
        codes = [data.column(name) for name in names]
        complete = np.asarray(data.complete)
        if not complete.any():
            raise DataError(_no_complete_rows(data))
        if not complete.all():
            codes = [column[complete] for column in codes]
        columns, cardinalities = zip(*(_observed_states(column) for column in codes), strict=True)
        bitmaps = Bitmaps.of(columns, cardinalities, NO_WEIGHTS)
        whole = cls(names, columns, cardinalities, NO_WEIGHTS, int(columns[0].size), bitmaps)
        return whole.deduplicated() if deduplicate else whole

    def deduplicated(self) -> Sample:
        """Keep each distinct row once with its weight, if that at least halves the rows."""
        if self._looks_distinct():
            return self
        distinct, _ = self.distinct()
        if distinct.columns[0].size * 2 > self.columns[0].size:
            return self
        return distinct if distinct.bitmaps.cost < self.bitmaps.cost else replace(distinct, bitmaps=self.bitmaps)

    def _looks_distinct(self, tried: int = 2**14) -> bool:
        """Whether among the first rows hardly any is repeated, so that looking at all of them would be in vain."""
        if self.columns[0].size <= tried:
            return False
        first, _ = _distinct([column[:tried] for column in self.columns])
        return first.size > 0.9 * tried

    def distinct(self) -> tuple[Sample, CodeArray]:
        """Keep each distinct row once; give also which of them each row is, int32 (rows,)."""
        first, inverse = _distinct(self.columns)
        columns = tuple(np.ascontiguousarray(column[first]) for column in self.columns)
        weights = np.bincount(inverse, minlength=first.size).astype(np.int64)
        bitmaps = Bitmaps.of(columns, self.cardinalities, weights)
        return replace(self, columns=columns, weights=weights, bitmaps=bitmaps), inverse

    def sorted(self) -> Sample:
        """Put distinct rows into the order of their codes: then what is drawn from them does not hang on row order."""
        order = np.lexsort(self.columns[::-1])
        columns = tuple(np.ascontiguousarray(column[order]) for column in self.columns)
        weights = self.weights[order]
        bitmaps = Bitmaps.of(columns, self.cardinalities, weights)
        return replace(self, columns=columns, weights=weights, bitmaps=bitmaps)

    def reweighted(self, weights: IntArray) -> Sample:
        """Count each row `weights` times instead, int64 (distinct rows,), not all zero; nothing is copied."""
        return replace(self, weights=weights, rows=int(weights.sum()), bitmaps=self.bitmaps.reweighted(weights))

    @cached_property
    def known(self) -> FloatArray:
        """Give n ln n of small n, float64 (n,)."""
        counts = np.arange(min(self.rows + 1, 2**16), dtype=np.float64)
        return counts * np.log(np.maximum(counts, 1.0))

    def family(self, child: int, parents: Sequence[int]) -> Family:
        """Count one family."""
        members = (*sorted(parents), child)
        cardinalities = tuple(self.cardinalities[member] for member in members)
        size = math.prod(float(states) for states in cardinalities[:-1])
        words = size * cardinalities[-1] * len(members) * self.bitmaps.cost
        if len(members) <= _MOST_MEMBERS and self._has_bitmaps(members) and words < self._histogram_cost(members):
            cells, totals = self._count_bitmaps(members, cardinalities)
        else:
            codes, cells = self.codes(members)
            totals = self._count_codes(codes, len(cells))
        starts = np.append(_starts(cells), len(cells))
        return Family(members, cells, totals, starts, size, cardinalities[-1])

    def score(self, family: Family, score: Score) -> float:
        """Score one family, nats; of BDs without its arcs' prior."""
        from bnpipe.kernels.scoring import local_score

        arguments = (*score.arguments(self.rows), family.totals, family.starts, 1, family.size, family.states)
        return float(local_score(*arguments, self.known))

    def score_extensions(self, family: Family, candidates: Sequence[int], score: Score) -> FloatArray:
        """Score a family with each of the candidates as one parent more, float64 (candidates,), nats."""
        scores = np.empty(len(candidates))
        narrow = self._are_narrow(family, candidates)
        if narrow.any():
            chosen = [candidate for candidate, few in zip(candidates, narrow, strict=True) if few]
            scores[narrow] = self._score_narrow(family, chosen, score)
        if not narrow.all():
            chosen = [candidate for candidate, few in zip(candidates, narrow, strict=True) if not few]
            scores[~narrow] = self._score_wide(family, chosen, score)
        return scores

    def _are_narrow(self, family: Family, candidates: Sequence[int]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which candidates are counted sooner by bitmaps, bool (candidates,)."""
        if not self._has_bitmaps(family.members):
            return np.zeros(len(candidates), dtype=bool)
        most = self._histogram_cost((0,)) / (len(family.cells) * self.bitmaps.cost)
        few: np.ndarray[Any, np.dtype[np.bool_]] = self._states_to_count[list(candidates)] < most
        return few

    @cached_property
    def _states_to_count(self) -> FloatArray:
        """States of each variable but one; infinite where there are no bitmaps."""
        states = np.array(self.cardinalities, dtype=np.float64) - 1
        states[np.array(self.bitmaps.firsts) < 0] = np.inf
        return states

    def _has_bitmaps(self, members: Sequence[int]) -> bool:
        return all(self.bitmaps.firsts[member] >= 0 for member in members)

    def _histogram_cost(self, members: Sequence[int]) -> int:
        return _WORDS_A_ROW * self.columns[0].size * len(members)

    def _count_bitmaps(self, members: tuple[int, ...], cardinalities: tuple[int, ...]) -> tuple[IntArray, IntArray]:
        from bnpipe.kernels.counting import count_cells

        cells = _grid(cardinalities)
        totals = np.zeros(len(cells), dtype=np.int64)
        count_cells(*self.bitmaps.arrays, self._bitmaps_of(members, cells), totals)
        occupied = totals > 0
        return cells[occupied], totals[occupied]

    def _bitmaps_of(self, members: tuple[int, ...], cells: IntArray) -> IntArray:
        return cells + np.array([self.bitmaps.firsts[member] for member in members], dtype=np.int64)

    def _score_narrow(self, family: Family, candidates: Sequence[int], score: Score) -> FloatArray:
        from bnpipe.kernels.counting import count_extended, score_tables

        states = np.array([self.cardinalities[candidate] for candidate in candidates], dtype=np.int64)
        firsts = np.array([self.bitmaps.firsts[candidate] for candidate in candidates], dtype=np.int64)
        places = np.concatenate([[0], np.cumsum(states * len(family.cells))])
        tables = np.zeros(places[-1], dtype=np.int64)
        cells = self._bitmaps_of(family.members, family.cells)
        count_extended(*self.bitmaps.arrays, cells, family.totals, firsts, states, places, tables)
        scores = np.empty(len(candidates))
        arguments = (tables, places, family.starts, states, family.size, family.states, self.known, scores)
        score_tables(*score.arguments(self.rows), *arguments)
        return scores

    def _score_wide(self, family: Family, candidates: Sequence[int], score: Score) -> FloatArray:
        from bnpipe.kernels.counting import count_pairs
        from bnpipe.kernels.scoring import local_score

        codes, cells = self.codes(family.members)
        starts = np.append(_starts(cells), len(cells))
        scores, (kind, amount) = np.empty(len(candidates)), score.arguments(self.rows)
        for place, candidate in enumerate(candidates):
            states = self.cardinalities[candidate]
            if len(cells) * states > _LARGEST_TABLE:
                scores[place] = self.score(self.family(family.members[-1], (*family.members[:-1], candidate)), score)
                continue
            table = np.zeros(len(cells) * states, dtype=np.int64)
            count_pairs(codes, self.columns[candidate], states, self.weights, table)
            size = family.size * states
            scores[place] = local_score(kind, amount, table, starts, states, size, family.states, self.known)
        return scores

    def codes(self, members: Sequence[int]) -> tuple[CodeArray, IntArray]:
        """Give each row the number of its combination of states, int32 (rows,), and the states of each number."""
        codes: CodeArray = np.zeros(self.columns[0].size, dtype=np.int32)
        cells = np.zeros((1, 0), dtype=np.int64)
        pending: list[int] = []
        span = 1
        for member in members:
            states = self.cardinalities[member]
            if span * states > _DENSE_SPAN and pending:
                cells = self._renumber(codes, cells, pending)
                span, pending = len(cells), []
            if span * states > _WIDEST_SPAN:
                codes, cells = self._sort_out(codes, cells, member)
                span = len(cells)
            else:
                _append(codes, states, self.columns[member])
                span, pending = span * states, [*pending, states]
        return codes, self._renumber(codes, cells, pending) if pending else cells

    @staticmethod
    def _renumber(codes: CodeArray, cells: IntArray, digits: Sequence[int]) -> IntArray:
        """Make codes dense, in place, whose last digits are `digits` and whose first is a row of `cells`."""
        from bnpipe.kernels.counting import renumber

        span = len(cells) * math.prod(digits)
        found = np.empty(min(span, codes.size), dtype=np.int32)
        rest = found[: renumber(codes, np.zeros(span, dtype=np.int32), found)].astype(np.int64)
        lowest = []
        for states in reversed(digits):
            lowest.append(rest % states)
            rest //= states
        return np.column_stack([cells[rest], *reversed(lowest)])

    def _sort_out(self, codes: CodeArray, cells: IntArray, member: int) -> tuple[CodeArray, IntArray]:
        """Append a digit where the table of all codes would be too large: by sorting."""
        states = self.cardinalities[member]
        found, inverse = np.unique(codes.astype(np.int64) * states + self.columns[member], return_inverse=True)
        return inverse.astype(np.int32), np.column_stack([cells[found // states], found % states])

    def _count_codes(self, codes: CodeArray, cells: int) -> IntArray:
        from bnpipe.kernels.counting import count_codes

        totals = np.zeros(cells, dtype=np.int64)
        count_codes(codes, self.weights, totals)
        return totals


def _append(codes: CodeArray, states: int, column: ByteArray) -> None:
    from bnpipe.kernels.counting import append_digit

    append_digit(codes, states, column, codes)


@lru_cache(maxsize=1024)
def _grid(cardinalities: tuple[int, ...]) -> IntArray:
    """All combinations of states, int64 (n, members), the last member fastest."""
    return np.indices(cardinalities, dtype=np.int64).reshape(len(cardinalities), -1).T.copy()


def _starts(cells: IntArray) -> IntArray:
    """Where each configuration of the parents begins."""
    configurations = cells[:, :-1]
    changes = (configurations[1:] != configurations[:-1]).any(axis=1)
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)


def _distinct(columns: Sequence[ByteArray]) -> tuple[IntArray, CodeArray]:
    """First row of each distinct one, in order, and which of them each row is."""
    from bnpipe.kernels.tables import distinct_rows

    first, inverse = distinct_rows(columns)
    return first, inverse


def _observed_states(column: ByteArray) -> tuple[ByteArray, int]:
    """Recode a complete column to the states that occur; a view of it where all do."""
    seen = np.bincount(column, minlength=256) > 0
    count = int(seen.sum())
    if seen[:count].all():
        return column, count
    recode = (np.cumsum(seen) - 1).astype(np.uint8)
    return recode[column], count


def _no_complete_rows(data: Dataset) -> str:
    if data.rows == 0:
        return "there are no rows to learn from"
    missing = {name: int((data.column(name) == MISSING).sum()) for name in data.schema.names}
    worst = sorted(missing, key=lambda name: -missing[name])[:3]
    shares = shorten(f"{name} missing in {missing[name]} of {data.rows} rows" for name in worst if missing[name])
    return f"no row is complete ({shares}); make missing a state of those variables or leave them out"
