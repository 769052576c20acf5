"""A plan run in logarithms, for the few rows whose products fall below the smallest float."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bnpipe.inference.program import Plan
from bnpipe.schema import MISSING

Floats = NDArray[np.float64]


def propagate_in_logs(
    plan: Plan, codes: NDArray[np.uint8], given_slots: NDArray[np.int64], given: Floats
) -> tuple[list[Floats], Floats]:
    """Answer as `bnpipe.kernels.propagation.propagate` does, however small the numbers.

    Returns
    -------
    posteriors : list of float64 (rows, states)
    log_mass : float64 (rows,)
        Zeros if the plan does not ask for it.
    """
    rows = codes.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        work = np.tile(np.log(plan.initial)[:, None], (1, rows))
        for variable, slot, states in plan.leaves:
            if variable >= 0:
                refuted = (codes[variable] != MISSING) & (codes[variable] != np.arange(states)[:, None])
                work[slot : slot + states][refuted] = -np.inf
        np.add.at(work, given_slots, np.log(given))
        log_constants = np.log(plan.constants)[:, None]
        for slot, size, group, first, _ in plan.steps:
            terms = slice(first, first + size * group)
            logs = log_constants[terms] + work[plan.left[terms]] + work[plan.right[terms]]
            work[slot : slot + size] = np.logaddexp.reduce(logs.reshape(size, group, rows), axis=1)
        posteriors = []
        for slot, weight, states, _ in plan.targets:
            logs = work[slot : slot + states] + (work[weight : weight + states] if weight >= 0 else 0.0)
            posteriors.append(np.exp(logs - np.logaddexp.reduce(logs, axis=0)).T)
    return posteriors, work[plan.root] if plan.root >= 0 else np.zeros(rows)
