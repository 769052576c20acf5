"""The local score of one family from its table of counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

LIKELIHOOD, K2, BDEU, BDS = 0, 1, 2, 3
"""Kinds of score: the likelihood, penalised or not, and three marginal likelihoods under Dirichlet priors."""


@kernel(types.float64, types.int64, array("float64"))
def _n_ln_n(count: Any, known: Any) -> float:
    """N ln n, looked up in `known` where that reaches."""
    if count < known.size:
        return float(known[count])
    return float(count * math.log(count))


@kernel(types.float64, array("int64"), array("int64"), types.int64, array("float64"))
def _log_likelihood(table: Any, starts: Any, columns: Any, known: Any) -> float:
    total = 0.0
    for configuration in range(starts.size - 1):
        for column in range(columns):
            rows = 0
            for cell in range(starts[configuration], starts[configuration + 1]):
                count = table[cell * columns + column]
                rows += count
                total += _n_ln_n(count, known)
            total -= _n_ln_n(rows, known)
    return total


@kernel(types.float64, array("int64"), array("int64"), types.int64, types.float64, types.float64)
def _dirichlet(table: Any, starts: Any, columns: Any, per_cell: Any, per_configuration: Any) -> float:
    """Log marginal likelihood under Dirichlet priors, nats (Heckerman et al. 1995, eq. 28)."""
    total, cell_prior, prior = 0.0, math.lgamma(per_cell), math.lgamma(per_configuration)
    for configuration in range(starts.size - 1):
        for column in range(columns):
            rows = 0
            for cell in range(starts[configuration], starts[configuration + 1]):
                count = table[cell * columns + column]
                if count > 0:
                    rows += count
                    total += math.lgamma(count + per_cell) - cell_prior
            if rows > 0:
                total += prior - math.lgamma(rows + per_configuration)
    return total


@kernel(types.int64, array("int64"), array("int64"), types.int64)
def _seen(table: Any, starts: Any, columns: Any) -> int:
    """Count the configurations with rows."""
    seen = 0
    for configuration in range(starts.size - 1):
        for column in range(columns):
            for cell in range(starts[configuration], starts[configuration + 1]):
                if table[cell * columns + column] > 0:
                    seen += 1
                    break
    return seen


@kernel(
    types.float64,
    types.int64,
    types.float64,
    array("int64"),
    array("int64"),
    types.int64,
    types.float64,
    types.int64,
    array("float64"),
)
def local_score(
    kind: Any, amount: Any, table: Any, starts: Any, columns: Any, size: Any, states: Any, known: Any
) -> float:
    """Score one family, nats.

    Parameters
    ----------
    kind : int
        One of this module's constants.
    amount : float
        Nats a free parameter costs, or the equivalent sample size in rows.
    table : int64 (cells * columns,)
        Counts, columns fastest.
    starts : int64 (m + 1,)
        Cells of configuration j are those from ``starts[j]`` until ``starts[j + 1]``; with each column it makes one
        configuration of the family. Cells and configurations without rows may be left out.
    columns : int
    size : float
        Configurations of the family, seen or not.
    states : int
        Of the child.
    known : float64 (n,)
        n ln n.
    """
    if kind == LIKELIHOOD:
        penalty = amount * size * (states - 1) if amount > 0 else 0.0
        return float(_log_likelihood(table, starts, columns, known) - penalty)
    if kind == K2:
        return _dirichlet(table, starts, columns, 1.0, float(states))
    if np.isinf(size):
        return -np.inf
    per_cell = amount / (size * states)
    if kind == BDEU:
        return _dirichlet(table, starts, columns, per_cell, amount / size)
    seen = _seen(table, starts, columns)
    unseen = (size - seen) * math.lgamma(amount / seen)
    return float(_dirichlet(table, starts, columns, per_cell, amount / seen) - unseen)
