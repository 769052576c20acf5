"""Likelihood weighting: states drawn parents first, evidence as weights."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

_MISSING: Final = 255
_UNIT: Final = 2.0**-53


@kernel(types.float64, types.float64)
def _log(value: Any) -> float:
    return math.log(value) if value > 0.0 else -math.inf


@kernel(types.float64, array("uint64", writable=True))
def _uniform(stream: Any) -> float:
    """Draw from [0, 1) by a xorshift generator of 128 bits (Marsaglia 2003, J. Stat. Software 8, 14)."""
    older, newer = stream[0], stream[1]
    older ^= older << np.uint64(23)
    older ^= older >> np.uint64(17)
    older ^= newer ^ (newer >> np.uint64(26))
    stream[0], stream[1] = newer, older
    return float(older >> np.uint64(11)) * _UNIT


@kernel(types.int64, array("float64"), types.int64, types.int64, types.float64)
def _state(rising: Any, first: Any, states: Any, uniform: Any) -> int:
    """First state whose cumulative probability exceeds a uniform number; never one of probability zero."""
    level = uniform * rising[first + states - 1]
    for state in range(states - 1):
        if rising[first + state] > level:
            return int(state)
    last = int(states) - 1
    while last > 0 and rising[first + last] == rising[first + last - 1]:
        last -= 1
    return last


@kernel(
    types.float64,
    array("uint8"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("float64"),
    array("float64", 2),
    types.int64,
    array("int64"),
    array("uint64", writable=True),
    array("int64", writable=True),
)
def _draw(
    cells: Any,
    order: Any,
    states: Any,
    starts: Any,
    parents: Any,
    strides: Any,
    offsets: Any,
    tables: Any,
    rising: Any,
    given: Any,
    row: Any,
    given_starts: Any,
    stream: Any,
    drawn: Any,
) -> float:
    """Draw all variables once and return the log of the weight."""
    log_weight = 0.0
    for variable in order:
        first = offsets[variable]
        for place in range(starts[variable], starts[variable + 1]):
            first += strides[place] * drawn[parents[place]]
        if cells[variable] == _MISSING:
            drawn[variable] = _state(rising, first, states[variable], _uniform(stream))
        else:
            state = np.int64(cells[variable])
            drawn[variable] = state
            log_weight += _log(tables[first + state])
        if given_starts[variable] >= 0:
            log_weight += _log(given[given_starts[variable] + drawn[variable], row])
    return log_weight


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    types.int64,
    types.int64,
    array("uint64", 2, writable=True),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("float64"),
    array("float64", 2),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64", 3, writable=True),
    array("float64", 2, writable=True),
)
def weigh(
    codes: Any,
    first: Any,
    last: Any,
    samples: Any,
    streams: Any,
    order: Any,
    states: Any,
    starts: Any,
    parents: Any,
    strides: Any,
    offsets: Any,
    tables: Any,
    rising: Any,
    given: Any,
    given_starts: Any,
    targets: Any,
    before: Any,
    sums: Any,
    masses: Any,
) -> None:
    """Add up the samples' weights, and their squares, in the rows from `first` until `last`.

    Parameters
    ----------
    codes : uint8 (rows, variables)
    streams : uint64 (rows, 2)
        Seeds, not both 0; used up.
    order : int64 (variables,)
        Parents first.
    states : int64 (variables,)
    starts : int64 (variables + 1,)
        Parents of variable v are those from ``starts[v]`` until ``starts[v + 1]``.
    parents, strides : int64 (arcs,)
        Parents, and the steps of their states in `tables`.
    offsets : int64 (variables,)
        Where each variable's table starts.
    tables, rising : float64 (cells,)
        CPDs, and the same cumulated over the states.
    given : float64 (given, rows)
        Likelihoods of states.
    given_starts : int64 (variables,)
        First line of each variable in `given`; -1 without likelihood.
    targets : int64 (targets,)
    before : int64 (targets,)
        States of the targets before.
    sums : float64 (rows, 2, states of all targets)
        By state, over the largest weight and its square; zeros to begin with.
    masses : float64 (rows, 2)
        The same over all states.
    """
    drawn = np.empty(order.size, dtype=np.int64)
    for row in range(first, last):
        peak = -math.inf
        for _ in range(samples):
            log_weight = _draw(
                codes[row], order, states, starts, parents, strides, offsets, tables, rising, given, row, given_starts,
                streams[row], drawn,
            )  # fmt: skip
            if log_weight == -math.inf:
                continue
            if log_weight > peak:
                shrink = math.exp(peak - log_weight)
                for power in range(2):
                    factor = shrink if power == 0 else shrink * shrink
                    masses[row, power] *= factor
                    sums[row, power] *= factor
                peak = log_weight
            weight = math.exp(log_weight - peak)
            masses[row, 0] += weight
            masses[row, 1] += weight * weight
            for target in range(targets.size):
                cell = before[target] + drawn[targets[target]]
                sums[row, 0, cell] += weight
                sums[row, 1, cell] += weight * weight
