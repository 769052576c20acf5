"""What windows of clusters gain by a distribution of their own: the loop under every replay of the drift test."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

_NOTHING = 1e-9
"""Rows; less is what subtraction leaves of none."""


@kernel(types.float64, types.float64, array("float64", 1, writable=True), types.int64)
def without(total: float, parts: Any, dropped: int) -> float:
    """Take the greatest positive parts off, down to 0; `parts` is used up."""
    for _ in range(min(dropped, parts.size)):
        most = np.argmax(parts)
        if parts[most] <= 0:
            break
        total -= parts[most]
        parts[most] = 0.0
    return max(total, 0.0)


@kernel(types.float64, array("float64"), array("float64"), array("float64", writable=True))
def likelihood_ratio(near: Any, pooled: Any, gains: Any) -> float:
    """Give 2 sum N ln(own / pooled) of the states inside and outside; write what a row inside gains, by its state."""
    states = min(near.size, pooled.size, gains.size)
    inside, every = near[:states].sum(), pooled[:states].sum()
    outside = every - inside
    gains[:] = 0.0
    if inside <= 0 or outside <= _NOTHING:
        return 0.0
    found = 0.0
    for state in range(states):
        if pooled[state] <= 0:
            continue
        usual, far = log(pooled[state] / every), pooled[state] - near[state]
        if near[state] > 0:
            gains[state] = 2.0 * (log(near[state] / inside) - usual)
            found += near[state] * gains[state]
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
    types.int64,
    array("float64", 2, writable=True),
    array("float64", 2, writable=True),
    array("float64", writable=True),
)
def window_gains(
    counts: Any, divisors: Any, windows: Any, dropped: int, near_rows: Any, ratios: Any, totals: Any
) -> None:
    """Write the likelihood ratio of each window's counts and the others', its most striking clusters brought down.

    Parameters
    ----------
    counts : float64 (configurations, clusters, states)
    divisors : float64 (configurations,)
        Of all gains.
    windows : int64 (windows, size)
        Clusters inside.
    dropped : int
        How many clusters are brought down to the share that their rows should have of the ratio: of each
        configuration, and of the sum, those that gain most beyond it.
    near_rows, ratios : float64 (windows, configurations)
        Rows inside; 2 sum N ln(own / pooled), less what those clusters gain beyond their share, not below 0.
    totals : float64 (windows,)
        The same of the sum over configurations, which brings down its own clusters.
    """
    configurations, clusters, states = counts.shape
    count, size = windows.shape
    if near_rows.shape != (count, configurations) or ratios.shape != near_rows.shape or totals.size != count:
        return
    if divisors.size != configurations or (windows.size and (windows.min() < 0 or windows.max() >= clusters)):
        return
    near, gains = np.zeros(states), np.zeros(states)
    each, summed = np.zeros(size), np.zeros((count, size))
    totals[:] = 0.0
    for place in range(configurations):
        pooled = np.zeros(states)
        for cluster in range(clusters):
            pooled += counts[place, cluster]
        for window in range(count):
            add_members(counts[place], windows[window], near)
            ratio = likelihood_ratio(near, pooled, gains) / divisors[place]
            inside = near.sum()
            for member in range(size):
                each[member] = 0.0
                for state in range(states):
                    rows = counts[place, windows[window, member], state]
                    each[member] += rows * (gains[state] / divisors[place] - ratio / max(inside, _NOTHING))
                summed[window, member] += each[member]
            near_rows[window, place] = inside
            ratios[window, place] = without(ratio, each, dropped)
            totals[window] += ratio
    for window in range(count):
        totals[window] = without(totals[window], summed[window], dropped)
