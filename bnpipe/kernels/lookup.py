"""Answers by table look-up: where all of a Markov blanket, or all of a row, is observed."""

from __future__ import annotations

import math
from typing import Any

from numba import types

from bnpipe.kernels import array, kernel


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


@kernel(
    types.void,
    array("uint8", 2),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("float64", writable=True),
)
def look_up_rows(
    codes: Any, rows: Any, starts: Any, members: Any, strides: Any, offsets: Any, log_tables: Any, total: Any
) -> None:
    """Add up the families' log probabilities in rows without a missing cell.

    Parameters
    ----------
    codes : uint8 (variables, rows of all)
    rows : int64 (rows,)
    starts : int64 (families + 1,)
        Members of family f are those from ``starts[f]`` until ``starts[f + 1]``.
    members, strides : int64 (members,)
        Variables, and the steps of their codes in `log_tables`.
    offsets : int64 (families,)
        Where each family's table starts.
    log_tables : float64 (cells,)
    total : float64 (rows of all,)
    """
    for row in rows:
        for family in range(offsets.size):
            total[row] += _entry(codes, row, family, starts, members, strides, log_tables, offsets[family])


@kernel(
    types.void,
    array("uint8", 2),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("float64"),
    array("float64", 2, writable=True),
)
def look_up_target(
    codes: Any,
    rows: Any,
    starts: Any,
    members: Any,
    strides: Any,
    offsets: Any,
    steps: Any,
    log_tables: Any,
    result: Any,
) -> None:
    """Give the distribution of a target in rows where all other members of its families are observed.

    Parameters
    ----------
    codes, rows, starts, members, strides, offsets, log_tables
        As in `look_up_rows`; the target is left out of the members.
    steps : int64 (families,)
        Step of the target's states in each family's table; 0 for a family that can only forbid the row.
    result : float64 (rows of all, states)
        NaN where the row is impossible.
    """
    states = result.shape[1]
    for row in rows:
        result[row] = 0.0
        for family in range(offsets.size):
            step = steps[family]
            for state in range(states if step else 1):
                offset = offsets[family] + state * step
                entry = _entry(codes, row, family, starts, members, strides, log_tables, offset)
                if step:
                    result[row, state] += entry
                elif entry == -math.inf:
                    result[row] = -math.inf
        _normalise(result[row])
