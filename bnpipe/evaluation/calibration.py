"""Do predicted probabilities come true, and how sure are we: equal-mass bins, whole clusters resampled.

Rows of one day share its storm, so intervals come from drawing days, not rows, with replacement (Davison & Hinkley
1997, Bootstrap Methods, ch. 3.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Interval = tuple[float, float]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows to which a state was given about the same probability.

    Parameters
    ----------
    state : str
        The state whose probability is meant.
    mean_probability, observed : float
        What was said and what came.
    low, high : float
        95 % interval of `observed`, by resampled clusters; [0, 1] where fewer than two clusters can't tell.
    rows : int
        Rows in the bin.
    """

    state: str
    mean_probability: float
    observed: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True, slots=True)
class Calibration:
    """Bins of every state, and how far probabilities are off on average.

    Parameters
    ----------
    bins : tuple of CalibrationBin
        For two states those of the second (the first mirrors it), else of each state, by rising probability.
    error : float or None
        Expected calibration error: rows' share times distance of mean probability and
        observed, summed over bins, mean over states
        (Naeini, Cooper & Hauskrecht 2015, AAAI, p. 2903). None without rows.
    error_interval : tuple of float or None
        Its lower bound has the upward bias of noise taken off (basic bootstrap), its upper bound has not.
    """

    bins: tuple[CalibrationBin, ...]
    error: float | None
    error_interval: Interval | None


def resample(sums: Floats, *, bootstraps: int, seed: int) -> Floats:
    """Add up clusters drawn with replacement, as many as there are.

    Parameters
    ----------
    sums : float64 (clusters, quantities)
        Sums within each cluster.

    Returns
    -------
    float64 (bootstraps, quantities)
    """
    clusters = len(sums)
    drawn = np.random.default_rng(seed).integers(0, clusters, size=(bootstraps, clusters))
    offsets = np.arange(bootstraps)[:, None] * clusters
    weights = np.bincount((drawn + offsets).ravel(), minlength=bootstraps * clusters)
    totals: Floats = weights.reshape(bootstraps, clusters).astype(np.float64) @ sums
    return totals


def tail(clusters: int, level: float = LEVEL) -> float:
    """Give the share to cut from each end of a bootstrap distribution.

    Percentiles of few clusters are too narrow; these are expanded by √(C / (C − 1)) and t for normal quantiles
    (Hesterberg 2015, The American Statistician 69, p. 378).
    """
    from scipy.special import ndtr, stdtrit

    quantile = stdtrit(clusters - 1, (1.0 + level) / 2.0)
    return float(ndtr(-math.sqrt(clusters / (clusters - 1)) * quantile))


def percentile_interval(estimates: Floats, clusters: int) -> Interval | None:
    """Give the 95 % interval of bootstrap `estimates`; None from fewer than two clusters."""
    finite = estimates[np.isfinite(estimates)]
    if clusters < 2 or not finite.size:
        return None
    cut = tail(clusters)
    low, high = np.quantile(finite, (cut, 1.0 - cut))
    return float(low), float(high)


def sum_by(groups: Ints, count: int, values: Floats | None = None) -> Floats:
    """Add up `values` (or ones) by group: float64 (count,)."""
    return np.bincount(groups, weights=values, minlength=count).astype(np.float64)


def mean_interval(values: Floats, clusters: Ints, *, bootstraps: int, seed: int) -> Interval | None:
    """Give the 95 % interval of the mean over rows.

    Parameters
    ----------
    values : float64 (rows,)
    clusters : int64 (rows,)
        Cluster of each row.
    """
    present, members = np.unique(clusters, return_inverse=True)
    count = len(present)
    if count < 2 or not np.isfinite(values).all():
        return None
    sums = np.stack([sum_by(members, count, values), sum_by(members, count)], axis=1)
    totals = resample(sums, bootstraps=bootstraps, seed=seed)
    return percentile_interval(totals[:, 0] / totals[:, 1], count)


def equal_mass_bins(probability: Floats, bins: int) -> Ints:
    """Put rows in at most `bins` bins of about as many rows each; equal probabilities stay together.

    Returns
    -------
    int64 (rows,)
        Bin of each row, rising with the probability, none empty.
    """
    cuts = np.quantile(probability, np.arange(1, bins) / bins)
    places = np.searchsorted(np.unique(cuts), probability, side="right")
    return np.unique(places, return_inverse=True)[1].astype(np.int64)


def calibrate(
    probabilities: Floats,
    codes: NDArray[np.uint8],
    clusters: Ints,
    *,
    states: tuple[str, ...],
    bins: int = 10,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Calibration:
    """Measure calibration.

    Parameters
    ----------
    probabilities : float64 (rows, states)
    codes : uint8 (rows,)
        What came.
    clusters : int64 (rows,)
        Cluster of each row.
    """
    if not len(codes):
        return Calibration((), None, None)
    present, members = np.unique(clusters, return_inverse=True)
    count = len(present)
    shown = (1,) if len(states) == 2 else tuple(range(len(states)))
    found: list[CalibrationBin] = []
    gaps: Floats = np.zeros(bootstraps)
    error = 0.0
    for state in shown:
        said, came = probabilities[:, state], (codes == state).astype(np.float64)
        sums = _bin_sums(said, came, members, count, bins)
        rows, said_sum, came_sum = sums.sum(axis=0)
        totals = resample(sums.reshape(count, -1), bootstraps=bootstraps, seed=seed)
        drawn, drawn_said, drawn_came = np.moveaxis(totals.reshape(bootstraps, 3, -1), 1, 0)
        error += float(np.abs(came_sum - said_sum).sum() / rows.sum())
        gaps += np.abs(drawn_came - drawn_said).sum(axis=1) / drawn.sum(axis=1)
        for place in range(len(rows)):
            met = drawn[:, place] > 0
            low, high = _share_interval(
                drawn_came[met, place] / drawn[met, place], count, float(came_sum[place]), float(rows[place])
            )
            found.append(
                CalibrationBin(
                    state=states[state],
                    mean_probability=float(said_sum[place] / rows[place]),
                    observed=float(came_sum[place] / rows[place]),
                    low=low,
                    high=high,
                    rows=int(rows[place]),
                )
            )
    error /= len(shown)
    return Calibration(tuple(found), error, _error_interval(error, gaps / len(shown), count))


def _bin_sums(said: Floats, came: Floats, members: Ints, count: int, bins: int) -> Floats:
    """Sum rows, probabilities and events by cluster and bin: float64 (clusters, 3, bins)."""
    places = equal_mass_bins(said, bins)
    width = int(places.max()) + 1
    groups = members * width + places
    sums = [sum_by(groups, count * width, values).reshape(count, width) for values in (None, said, came)]
    return np.stack(sums, axis=1)


def _share_interval(estimates: Floats, clusters: int, events: float, rows: float) -> Interval:
    """Bound a share; where nothing or everything came no resample can vary, so rows alone bound it (rule of three)."""
    interval = percentile_interval(estimates, clusters)
    if interval is None:
        return 0.0, 1.0
    reach = 1.0 - ((1.0 - LEVEL) / 2.0) ** (1.0 / rows)
    low, high = interval
    if events == 0:
        high = max(high, reach)
    if events == rows:
        low = min(low, 1.0 - reach)
    return max(0.0, low), min(1.0, high)


def _error_interval(error: float, gaps: Floats, clusters: int) -> Interval | None:
    interval = percentile_interval(gaps, clusters)
    if interval is None:
        return None
    return max(0.0, 2.0 * error - interval[1]), max(error, interval[1])
