"""Answers by table look-up: where all of a Markov blanket, or all of a row, is observed."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

_MISSING: Final = 255


@kernel(
    types.float64,
    array("uint8", 2),
    types.int64,
    types.int64,
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    types.int64,
)
def _entry(
    codes: Any, row: Any, family: Any, starts: Any, members: Any, strides: Any, log_tables: Any, offset: Any
) -> float:
    """Log probability of one family's cells."""
    place = offset
    for member in range(starts[family], starts[family + 1]):
        place += strides[member] * codes[members[member], row]
    return float(log_tables[place])


@kernel(types.void, array("float64", writable=True))
def _normalise(logs: Any) -> None:
    """Turn logs into probabilities, NaN if nothing is possible."""
    peak = -math.inf
    for log in logs:
        peak = max(peak, log)
    mass = 0.0
    for state in range(logs.size):
        logs[state] = math.exp(logs[state] - peak) if peak > -math.inf else math.nan
        mass += logs[state]
    for state in range(logs.size):
        logs[state] /= mass


@kernel(types.boolean, array("uint8", 2), types.int64, array("int64"))
def _observed(codes: Any, row: Any, variables: Any) -> bool:
    for variable in variables:  # noqa: SIM110 - numba knows no generators
        if codes[variable, row] == _MISSING:
            return False
    return True


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    types.int64,
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("boolean", writable=True),
    array("float64", writable=True),
)
def look_up_rows(
    codes: Any,
    first: Any,
    last: Any,
    starts: Any,
    members: Any,
    strides: Any,
    offsets: Any,
    log_tables: Any,
    complete: Any,
    total: Any,
) -> None:
    """Add up the families' log probabilities in every row without a missing cell, and tell which rows those are.

    Parameters
    ----------
    codes : uint8 (variables, rows)
    starts : int64 (families + 1,)
        Members of family f are those from ``starts[f]`` until ``starts[f + 1]``.
    members, strides : int64 (members,)
        Variables, and the steps of their codes in `log_tables`.
    offsets : int64 (families,)
        Where each family's table starts.
    log_tables : float64 (cells,)
    complete : bool (rows,)
    total : float64 (rows,)
    """
    everything = np.arange(codes.shape[0])
    for row in range(first, last):
        complete[row] = _observed(codes, row, everything)
        if complete[row]:
            for family in range(offsets.size):
                total[row] += _entry(codes, row, family, starts, members, strides, log_tables, offsets[family])


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    types.int64,
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("boolean", writable=True),
    array("float64", 2, writable=True),
)
def look_up_target(
    codes: Any,
    first: Any,
    last: Any,
    needed: Any,
    starts: Any,
    members: Any,
    strides: Any,
    offsets: Any,
    steps: Any,
    log_tables: Any,
    found: Any,
    result: Any,
) -> None:
    """Give the distribution of a target in every row where all `needed` is observed, and tell which rows those are.

    Parameters
    ----------
    needed : int64 (n,)
        Variables.
    starts, members, strides, offsets, log_tables
        As in `look_up_rows`, without the target.
    steps : int64 (families,)
        Step of the target's states in each family's table; 0 for a family that can only forbid the row.
    found : bool (rows,)
    result : float64 (rows, states)
        NaN where the row is impossible; untouched where it is not found.
    """
    states = result.shape[1]
    for row in range(first, last):
        found[row] = _observed(codes, row, needed)
        if not found[row]:
            continue
        result[row] = 0.0
        for family in range(offsets.size):
            offset = offsets[family]
            if steps[family] == 0:
                entry = _entry(codes, row, family, starts, members, strides, log_tables, offset)
                if entry == -math.inf:
                    result[row] = -math.inf
            else:
                for state in range(states):
                    result[row, state] += _entry(
                        codes, row, family, starts, members, strides, log_tables, offset + state * steps[family]
                    )
        _normalise(result[row])
