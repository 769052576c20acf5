"""The statistic of one family in one window of clusters, and windows to compare it with.

For each configuration j of the parents the statistic is the likelihood ratio of two samples, inside and outside the
window: G2_j = 2 sum N ln(theta_own / theta_pooled). It conditions on the parents, so what happened to them does not
enter. Rows of one cluster are not independent, so G2_j is divided by the design effect of the difference of the two
samples (Rao & Scott 1992); that makes it nearly chi-squared whatever share of the rows the window holds, also where
parents moved. Over configurations the sum finds a change of the whole CPD, the largest one a change of one row: the
statistic of the family is the surer of both, ``-ln p``. Chi-squared here is only a scale on which families and rows
can be compared: what is unusual is told by the windows.

References
----------
Rao, J. N. K. & Scott, A. J. (1992). A simple method for the analysis of clustered binary data. Biometrics 48, 577-585.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.drift.families import Bools, FamilySample, Floats

_FEWEST_ROWS: Final = 5.0
"""Rows inside and outside the window that a configuration needs for a voice of its own."""
_CELLS_AT_ONCE: Final = 2**22
_ALARM: Final = 1e-4
"""Tail in which one node of many alarms."""


@dataclass(frozen=True, eq=False)
class WindowStatistics:
    """What windows show of one family.

    Parameters
    ----------
    total : float64 (windows,)
        Sum over configurations of G2 over its design effect.
    rows : float64 (windows, configurations)
        ``-ln p`` of each configuration, 0 where it holds too few rows.
    whole : float64 (windows,)
        ``-ln p`` of the family.
    """

    total: Floats
    rows: Floats
    whole: Floats


@dataclass(frozen=True, slots=True)
class Inflation:
    """How much more alike neighbouring clusters make the rows of a window, and how well that is known.

    Parameters
    ----------
    factor : float
        Of the intra-cluster correlation in windows of neighbours; 1 or more.
    degrees : float
        Of freedom of what is known of the windows' variance; infinite where nothing is uncertain.
    """

    factor: float = 1.0
    degrees: float = np.inf


NONE: Final = Inflation()


def window_statistics(sample: FamilySample, windows: Bools, inflation: Inflation = NONE) -> WindowStatistics:
    """Compute the statistic of every window.

    Parameters
    ----------
    sample : FamilySample
    windows : bool (windows, clusters)
        Clusters inside.
    inflation : Inflation
        Of windows that are neighbours in time; the statistics are then F instead of chi-squared.
    """
    clusters, configurations, states = sample.counts.shape
    flat = sample.counts.reshape(clusters, -1)
    rows, pooled = sample.rows, sample.counts.sum(axis=0)
    squares, all_rows, all_squares = rows**2, rows.sum(axis=0), (rows**2).sum(axis=0)
    parts: list[tuple[Floats, Floats, Floats]] = []
    step = max(1, _CELLS_AT_ONCE // flat.shape[1])
    for first in range(0, len(windows), step):
        inside = windows[first : first + step].astype(np.float64)
        near = (inside @ flat).reshape(-1, configurations, states)
        near_rows, near_squares = inside @ rows, inside @ squares
        ratio = likelihood_ratio(near, pooled, near_rows, all_rows)
        far_rows, far_squares = all_rows - near_rows, all_squares - near_squares
        effect = design_effect(near_rows, near_squares, far_rows, far_squares, sample.correlation * inflation.factor)
        parts.append(combine(ratio / effect, sample.degrees, near_rows, far_rows, inflation.degrees))
    total, each, whole = (np.concatenate(column) for column in zip(*parts, strict=True))
    return WindowStatistics(total, each, whole)


def likelihood_ratio(near: Floats, pooled: Floats, near_rows: Floats, all_rows: Floats) -> Floats:
    """Give G2 of each configuration, (windows, configurations); `pooled` and `all_rows` may be one for all windows."""
    far, far_rows = pooled - near, all_rows - near_rows
    gain = _n_ln_n(near).sum(axis=2) + _n_ln_n(far).sum(axis=2) - _n_ln_n(pooled).sum(axis=-1)
    gain -= _n_ln_n(near_rows) + _n_ln_n(far_rows) - _n_ln_n(all_rows)
    found: Floats = np.maximum(2.0 * gain, 0.0)
    return found


def design_effect(
    near_rows: Floats, near_squares: Floats, far_rows: Floats, far_squares: Floats, correlation: float
) -> Floats:
    """Variance of the difference of two samples' shares, over that of independent rows.

    `near_squares` is the sum over clusters of the squared numbers of rows.
    """
    near, far = np.maximum(near_rows, 1e-9), np.maximum(far_rows, 1e-9)
    own = 1.0 + correlation * np.maximum(near_squares / near - 1.0, 0.0)
    others = 1.0 + correlation * np.maximum(far_squares / far - 1.0, 0.0)
    found: Floats = (own / near + others / far) / (1.0 / near + 1.0 / far)
    return found


def combine(
    ratio: Floats, degrees: Floats, near_rows: Floats, far_rows: Floats, error_degrees: float = np.inf
) -> tuple[Floats, Floats, Floats]:
    """Give the sum, each row's ``-ln p`` and the family's, of G2 over its design effect (windows, configurations)."""
    free = (near_rows > 0) & (far_rows > 0) & (degrees > 0)
    heard = (near_rows >= _FEWEST_ROWS) & (far_rows >= _FEWEST_ROWS) & (degrees > 0)
    total = np.where(free, ratio, 0.0).sum(axis=1)
    each = np.where(heard, surprise(ratio, np.maximum(degrees, 1.0), error_degrees), 0.0)
    summed = surprise(total, np.maximum((free * degrees).sum(axis=1), 1.0), error_degrees)
    single = each.max(axis=1, initial=0.0) - np.log(np.maximum(heard.sum(axis=1), 1))
    return total, each, np.maximum(np.maximum(summed, single) - np.log(2.0), 0.0)


def surprise(statistic: Floats, degrees: Floats, error_degrees: float = np.inf) -> Floats:
    """Give ``-ln p`` of a chi-squared statistic, which is divided first by what an uncertain error may make of it.

    The divisor is the ratio of the quantiles of F and chi-squared where alarms begin. Beyond, F itself would rank a
    change that is plain below windows that hold half of it.
    """
    from scipy.special import chdtrc, chdtri, fdtri

    if error_degrees < np.inf:
        statistic = statistic / (degrees * fdtri(degrees, error_degrees, 1.0 - _ALARM) / chdtri(degrees, _ALARM))
    found: Floats = -np.log(np.maximum(chdtrc(degrees, statistic), 1e-300))
    return found


def _n_ln_n(counts: Floats) -> Floats:
    found: Floats = counts * np.log(np.maximum(counts, 1.0))
    return found


def random_windows(clusters: int, size: int, replays: int, rng: np.random.Generator) -> Bools:
    """Draw windows of `size` clusters each, without replacement, bool (replays, clusters)."""
    ranks = rng.random((replays, clusters)).argpartition(size - 1, axis=1)[:, :size]
    windows = np.zeros((replays, clusters), dtype=np.bool_)
    windows[np.arange(replays)[:, None], ranks] = True
    return windows


def consecutive_windows(clusters: int, size: int) -> Bools:
    """Give every window of `size` neighbouring clusters, bool (clusters - size + 1, clusters)."""
    starts = np.arange(clusters - size + 1)[:, None]
    places: NDArray[np.int64] = np.arange(clusters)[None, :]
    found: Bools = (places >= starts) & (places < starts + size)
    return found
