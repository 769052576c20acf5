"""How draws of the CPDs move the probability of a row's evidence."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

_EQUAL = 1e-9
_LEAST = 1e-12
_FACTORS = 12
"""Factors multiplied between two logarithms: 1e-12 to that power is still a float."""


@kernel(types.int64, array("float64", 2), types.int64, types.int64, types.int64, array("int64", writable=True))
def _find_telling(posteriors: Any, row: Any, width: Any, states: Any, found: Any) -> int:
    """List the configurations whose posterior depends on the target's state; give their number."""
    rows, number = posteriors.shape[0] // states, 0
    for configuration in range(posteriors.shape[1] // width):
        apart = 0.0
        for cell in range(configuration * width, (configuration + 1) * width):
            for state in range(1, states):
                apart = max(apart, abs(posteriors[state * rows + row, cell] - posteriors[row, cell]))
        if apart > _EQUAL:
            found[number] = configuration
            number += 1
    return number


@kernel(
    types.void,
    array("float64", 2),
    array("float64", 2),
    types.int64,
    types.int64,
    array("float64", 2, writable=True),
)
def add_log_ratios(posteriors: Any, deviations: Any, width: Any, states: Any, log_ratios: Any) -> None:
    """Add ln P(evidence under a draw) - ln P(evidence) for each draw of one family's CPD, row by row of the CPD.

    Parameters
    ----------
    posteriors : float64 (states * rows, cells)
        Family posteriors with the target set to each of its states in turn, state by state.
    deviations : float64 (cells, draws)
        Drawn over reference probability, less 1.
    width : int
        States of the family's own node, so cells of one row of its CPD.
    states : int
        States of the target.
    log_ratios : float64 (states * rows, draws)
        Rows of the CPD that tell nothing about the target are left out for all states.
    """
    rows, draws = posteriors.shape[0] // states, deviations.shape[1]
    telling = np.empty(posteriors.shape[1] // width, dtype=np.int64)
    factor, product = np.empty(draws), np.empty(draws)
    for row in range(rows):
        found = _find_telling(posteriors, row, width, states, telling)
        for place in range(row, states * rows, rows):
            product[:] = 1.0
            for number in range(found):
                factor[:] = 1.0
                for cell in range(telling[number] * width, (telling[number] + 1) * width):
                    if posteriors[place, cell] != 0.0:
                        factor += posteriors[place, cell] * deviations[cell]
                for draw in range(draws):
                    product[draw] *= max(factor[draw], _LEAST)
                if number % _FACTORS == _FACTORS - 1 or number == found - 1:
                    for draw in range(draws):
                        log_ratios[place, draw] += math.log(product[draw])
                        product[draw] = 1.0
