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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

import numpy as np

from bnpipe.errors import DataError, shorten

if TYPE_CHECKING:
    from bnpipe.data import Dataset

ScoreName = Literal["bic", "aic", "bdeu", "bds", "k2", "ll"]
SCORES: Final[tuple[str, ...]] = get_args(ScoreName)

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
ByteArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

_WIDEST_CODE: Final = 2**62
_DENSE_CELLS: Final = 2**16


@dataclass(frozen=True, slots=True)
class FamilyTable:
    """The counts of one node given its parents, without the zeros.

    Parameters
    ----------
    cells : float64 (n,)
        N_ijk > 0, in rows.
    configurations : float64 (m,)
        N_ij > 0, in rows.
    size : float
        Number of parent configurations q, seen or not.
    states : int
        Number of states r of the node.
    rows : float
        Rows counted.
    """

    cells: FloatArray
    configurations: FloatArray
    size: float
    states: int
    rows: float


@dataclass(frozen=True, slots=True)
class Score:
    """A score: its local function and what one arc costs beforehand.

    Parameters
    ----------
    name : str
        As in a spec.
    local : callable
        ``local(table)`` gives nats.
    arc_prior : float
        Log prior of each arc, nats; 0 but for BDs.
    """

    name: str
    local: Callable[[FamilyTable], float]
    arc_prior: float = 0.0

    def prior(self, nodes: int, arcs: int) -> float:
        """Log prior of a graph, nats (for BDs the marginal uniform prior of Scutari 2016)."""
        return self.arc_prior * (arcs + nodes * (nodes - 1) / 2)


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
    if equivalent_sample_size <= 0:
        raise DataError(f"equivalent_sample_size of a score must be above 0, not {equivalent_sample_size}")
    scores = {
        "ll": Score("ll", _log_likelihood),
        "bic": Score("bic", lambda table: _log_likelihood(table) - 0.5 * math.log(table.rows) * _parameters(table)),
        "aic": Score("aic", lambda table: _log_likelihood(table) - _parameters(table)),
        "k2": Score("k2", lambda table: _dirichlet(table, 1.0, table.states)),
        "bdeu": Score("bdeu", lambda table: _bdeu(table, equivalent_sample_size)),
        "bds": Score("bds", lambda table: _bds(table, equivalent_sample_size), arc_prior=-math.log(2.0)),
    }
    if name not in scores:
        raise DataError(f"no score is called {name!r}; choose one of {shorten(SCORES, limit=len(SCORES))}")
    return scores[name]


def _parameters(table: FamilyTable) -> float:
    return table.size * (table.states - 1)


def _log_likelihood(table: FamilyTable) -> float:
    return float(table.cells @ np.log(table.cells) - table.configurations @ np.log(table.configurations))


def _dirichlet(table: FamilyTable, per_cell: float, per_configuration: float) -> float:
    """Log marginal likelihood of counts under Dirichlet priors, nats (Heckerman et al. 1995, eq. 28)."""
    from scipy.special import gammaln

    cells = gammaln(table.cells + per_cell).sum() - table.cells.size * math.lgamma(per_cell)
    seen = table.configurations
    return float(cells - gammaln(seen + per_configuration).sum() + seen.size * math.lgamma(per_configuration))


def _bdeu(table: FamilyTable, ess: float) -> float:
    return _dirichlet(table, ess / (table.size * table.states), ess / table.size)


def _bds(table: FamilyTable, ess: float) -> float:
    """BDs as pgmpy computes it: the cells' prior over all configurations, the configurations' over those seen.

    Scutari's own formula spreads both over the seen ones; the two agree when every configuration was seen.
    """
    seen = table.configurations.size
    unseen = (table.size - seen) * math.lgamma(ess / seen)
    return _dirichlet(table, ess / (table.size * table.states), ess / seen) - unseen


@dataclass(frozen=True, eq=False)
class Sample:
    """The rows a search scores: complete, distinct rows with weights where that pays, columns in the order of names.

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
    weights : float64 (distinct rows,) or None
        How many rows each stands for; None: one each.
    rows : float
        Rows in all.
    """

    names: tuple[str, ...]
    columns: tuple[ByteArray, ...]
    cardinalities: tuple[int, ...]
    weights: FloatArray | None
    rows: float

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
        sample = cls(names, columns, cardinalities, None, float(columns[0].size))
        return sample.deduplicated() if deduplicate else sample

    def deduplicated(self) -> Sample:
        """Keep each distinct row once with its weight, if that at least halves the rows."""
        distinct, _ = self.distinct()
        return distinct if distinct.columns[0].size * 2 <= self.columns[0].size else self

    def distinct(self) -> tuple[Sample, IntArray]:
        """Keep each distinct row once; give also which of them each row is, int64 (rows,)."""
        key, _ = _radix(self.columns, self.cardinalities)
        _, first, inverse, counts = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
        columns = tuple(np.ascontiguousarray(column[first]) for column in self.columns)
        return replace(self, columns=columns, weights=counts.astype(np.float64)), inverse

    def reweighted(self, weights: FloatArray) -> Sample:
        """Count each row `weights` times instead; rows of weight zero are left out."""
        kept = weights > 0
        columns = tuple(column[kept] for column in self.columns)
        return replace(self, columns=columns, weights=weights[kept].astype(np.float64), rows=float(weights.sum()))

    def table(self, child: int, parents: Sequence[int]) -> FamilyTable:
        """Count one family."""
        return next(self.tables(child, parents, (None,)))

    def tables(self, child: int, parents: Sequence[int], candidates: Sequence[int | None]) -> Iterator[FamilyTable]:
        """Count the family of `child` given `parents` and each candidate in turn (None: no further parent).

        The radix code of (parents, child) is made once; a candidate takes the highest digit, the child the lowest.
        """
        states = self.cardinalities[child]
        family = [*sorted(parents), child]
        base, span = _radix([self.columns[i] for i in family], [self.cardinalities[i] for i in family])
        size = math.prod(float(self.cardinalities[i]) for i in parents)
        for candidate in candidates:
            if candidate is None:
                cells, configurations = self._count(base, span, states)
                yield FamilyTable(cells, configurations, size, states, self.rows)
            else:
                states_added = self.cardinalities[candidate]
                if span * states_added > _WIDEST_CODE:
                    base, span = _compressed(base, states)
                codes = np.multiply(self.columns[candidate], span, dtype=np.int64)
                codes += base
                cells, configurations = self._count(codes, span * states_added, states)
                yield FamilyTable(cells, configurations, size * states_added, states, self.rows)

    def _count(self, codes: IntArray, span: int, states: int) -> tuple[FloatArray, FloatArray]:
        """Give non-zero N_ijk and N_ij of `codes` below `span` whose lowest digit is the child's state."""
        if span <= max(_DENSE_CELLS, 2 * codes.size):
            table = np.bincount(codes, self.weights, minlength=span).reshape(-1, states)
            configurations = table.sum(axis=1)
            cells = table.ravel()
            return _positive(cells), _positive(configurations)
        distinct, inverse = np.unique(codes, return_inverse=True)
        cells = np.bincount(inverse, self.weights)
        starts = np.flatnonzero(np.diff(distinct // states, prepend=-1))
        return _positive(cells), _positive(np.add.reduceat(cells, starts))


def _positive(counts: np.ndarray[Any, Any]) -> FloatArray:
    return counts[counts > 0].astype(np.float64)


def _observed_states(column: ByteArray) -> tuple[ByteArray, int]:
    """Recode a complete column to the states that occur."""
    seen = np.bincount(column, minlength=256) > 0
    recode = (np.cumsum(seen) - 1).astype(np.uint8)
    return recode[column], int(seen.sum())


def _radix(columns: Sequence[ByteArray], cardinalities: Sequence[int]) -> tuple[IntArray, int]:
    """Write each row as one number, the last column its lowest digit; give (codes, a bound above them)."""
    codes, span = columns[0].astype(np.int64), cardinalities[0]
    for column, cardinality in zip(columns[1:], cardinalities[1:], strict=True):
        if span * cardinality > _WIDEST_CODE:
            codes, span = _compressed(codes, 1)
        codes *= cardinality
        codes += column
        span *= cardinality
    return codes, span


def _compressed(codes: IntArray, states: int) -> tuple[IntArray, int]:
    """Renumber the codes densely, keeping the lowest digit (of `states` values)."""
    distinct, inverse = np.unique(codes // states, return_inverse=True)
    return inverse.astype(np.int64) * states + codes % states, distinct.size * states


def _no_complete_rows(data: Dataset) -> str:
    if data.rows == 0:
        return "there are no rows to learn from"
    missing = {name: int((data.column(name) == 255).sum()) for name in data.schema.names}
    worst = sorted(missing, key=lambda name: -missing[name])[:3]
    shares = shorten(f"{name} missing in {missing[name]} of {data.rows} rows" for name in worst if missing[name])
    return f"no row is complete ({shares}); make missing a state of those variables or leave them out"
