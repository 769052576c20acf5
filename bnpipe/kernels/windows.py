"""What windows of clusters gain by a distribution of their own: the loop under every replay of the drift test."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

_NOTHING = 1e-9
"""Rows; less is what subtraction leaves of none."""


@kernel(types.float64, array("float64"), array("float64"))
def likelihood_ratio(near: Any, pooled: Any) -> float:
    """Give 2 sum N ln(own / pooled) of the states inside and outside."""
    states = min(near.size, pooled.size)
    inside, every = near[:states].sum(), pooled[:states].sum()
    outside = every - inside
    if inside <= 0 or outside <= _NOTHING:
        return 0.0
    found = 0.0
    for state in range(states):
        if pooled[state] <= 0:
            continue
        usual, far = log(pooled[state] / every), pooled[state] - near[state]
        if near[state] > 0:
            found += 2.0 * near[state] * (log(near[state] / inside) - usual)
        if far > _NOTHING:
            found += 2.0 * far * (log(far / outside) - usual)
    return max(found, 0.0)


@kernel(types.void, array("float64", 2), array("int64"), array("float64", writable=True))
def add_members(counts: Any, members: Any, near: Any) -> None:
    """Sum the counts, float64 (clusters, states), of the members."""
    near[:] = 0.0
    for member in members:
        if 0 <= member < counts.shape[0]:
            for state in range(min(near.size, counts.shape[1])):
                near[state] += counts[member, state]


@kernel(
    types.void,
    array("float64", 3),
    array("float64"),
    array("int64", 2),
    array("float64", 2, writable=True),
    array("float64", 2, writable=True),
    array("float64", writable=True),
)
def window_gains(counts: Any, divisors: Any, windows: Any, near_rows: Any, ratios: Any, totals: Any) -> None:
    """Write the likelihood ratio of each window's counts and the others'.

    Parameters
    ----------
    counts : float64 (configurations, clusters, states)
    divisors : float64 (configurations,)
        Of the ratios.
    windows : int64 (windows, size)
        Clusters inside.
    near_rows, ratios : float64 (windows, configurations)
        Rows inside; 2 sum N ln(own / pooled).
    totals : float64 (windows,)
        Sum of the ratios.
    """
    configurations, clusters, states = counts.shape
    count = len(windows)
    if near_rows.shape != (count, configurations) or ratios.shape != near_rows.shape or totals.size != count:
        return
    if divisors.size != configurations or (windows.size and (windows.min() < 0 or windows.max() >= clusters)):
        return
    near = np.zeros(states)
    totals[:] = 0.0
    for place in range(configurations):
        pooled = np.zeros(states)
        for cluster in range(clusters):
            pooled += counts[place, cluster]
        for window in range(count):
            add_members(counts[place], windows[window], near)
            ratios[window, place] = likelihood_ratio(near, pooled) / divisors[place]
            near_rows[window, place] = near.sum()
            totals[window] += ratios[window, place]
