"""The statistic of one family in one window of clusters, and windows to compare it with.

For each configuration j of the parents the statistic is the likelihood ratio of two samples, inside and outside the
window: G2_j = 2 sum N ln(theta_own / theta_pooled). It conditions on the parents, so what happened to them does not
enter. Rows of one cluster are not independent: each cluster counts as many rows as it is worth, n / (1 + rho (n - 1))
(Rao & Scott 1992), so that one with many rows does not speak for all.

Over configurations the sum finds a change of the whole CPD, each by itself a change of one row. All are put on the
scale of their own greatest replays (:class:`Scale`), and the most striking one counts.

References
----------
Rao, J. N. K. & Scott, A. J. (1992). A simple method for the analysis of clustered binary data. Biometrics 48, 577-585.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.drift.families import Bools, FamilySample, Floats

_FEWEST_ROWS: Final = 2.0
"""Independent rows inside and outside the window that a configuration needs for a voice of its own."""
_ALARM: Final = 1e-4
"""Tail in which one node of many alarms."""
_TAIL: Final = 0.01
"""Share of the replays that makes the scale of a statistic."""
_NOMINAL_TAIL: Final = float(1.0 - np.log(_TAIL))
"""Mean of that share where ``-ln p`` is what it says."""
_LEAST_TAIL: Final = 4.0
"""Below which a scale does not go: a statistic that hardly moves must not become the loudest."""


@dataclass(frozen=True, eq=False)
class WindowStatistics:
    """What windows show of one family.

    Parameters
    ----------
    total : float64 (windows,)
        Sum over configurations of G2.
    summed : float64 (windows,)
        ``-ln p`` of the sum.
    rows : float64 (windows, configurations)
        ``-ln p`` of each configuration; 0 where it holds too few rows.
    """

    total: Floats
    summed: Floats
    rows: Floats

    @cached_property
    def striking(self) -> Floats:
        """What is most striking in each window, ``-ln p``, float64 (windows,)."""
        heard = np.maximum((self.rows > 0).sum(axis=1), 1)
        found: Floats = np.maximum(self.summed, self.rows.max(axis=1, initial=0.0) - np.log(heard))
        return found


@dataclass(frozen=True, eq=False)
class Scale:
    """How far chance drives each statistic of a family: the mean of its greatest 1 %, the live window among them.

    Tails differ: of a configuration that is seen on few days they are heavy whatever the design effect. The live window
    is one of the windows here, so scores are as exchangeable as statistics are.

    Parameters
    ----------
    summed : float
    rows : float64 (configurations,)
    """

    summed: float
    rows: Floats

    @classmethod
    def of(cls, null: WindowStatistics, own: WindowStatistics) -> Scale:
        """Measure it."""
        every = np.column_stack([np.r_[null.summed, own.summed], np.concatenate([null.rows, own.rows])])
        count = min(max(2, int(_TAIL * len(every))), len(every))
        greatest = np.partition(every, len(every) - count, axis=0)[-count:].mean(axis=0)
        scale = np.maximum(greatest, _LEAST_TAIL) / _NOMINAL_TAIL
        return cls(float(scale[0]), scale[1:])

    def score(self, statistics: WindowStatistics) -> Floats:
        """Give what is most striking in each window, float64 (windows,), in nats of a statistic of the usual tail."""
        rows = self.score_rows(statistics).max(axis=1, initial=0.0)
        found: Floats = np.maximum(rows, statistics.summed / self.summed)
        return found

    def score_rows(self, statistics: WindowStatistics) -> Floats:
        """Give the same of each configuration, float64 (windows, configurations)."""
        found: Floats = statistics.rows / self.rows
        return found


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
        Clusters inside, as many in each.
    inflation : Inflation
        Of windows that are neighbours in time; the statistics are then F instead of chi-squared.
    """
    from bnpipe.kernels.windows import window_gains

    counts = sample.effective
    count, configurations = len(windows), len(counts)
    members = np.ascontiguousarray(np.nonzero(windows)[1].reshape(count, -1))
    near, ratios, totals = np.empty((count, configurations)), np.empty((count, configurations)), np.empty(count)
    divisors = _divisors(sample, inflation.factor)
    window_gains(counts, divisors, members, near, ratios, totals)
    summed, rows = judge(
        ratios,
        totals,
        degrees=sample.degrees,
        near_rows=near,
        far_rows=counts.sum(axis=(1, 2)) - near,
        error_degrees=inflation.degrees,
    )
    return WindowStatistics(totals, summed, rows)


def _divisors(sample: FamilySample, factor: float) -> Floats:
    """By how much neighbours inflate the variance of each configuration, float64 (configurations,).

    The factor is of what the reference's clusters have in common; a change makes all clusters together look more alike.
    """
    behind = np.maximum(sample.usual_rows - 1.0, 0.0)
    added = (factor - 1.0) * sample.past_correlation * behind
    found: Floats = 1.0 + added / (1.0 + sample.pooled_correlation * behind)
    return found


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


def judge(
    ratio: Floats,
    total: Floats,
    *,
    degrees: Floats,
    near_rows: Floats,
    far_rows: Floats,
    error_degrees: float = np.inf,
) -> tuple[Floats, Floats]:
    """Give ``-ln p`` of the sums, (windows,), and of each configuration, (windows, configurations)."""
    free = (near_rows > 0) & (far_rows > 1e-9) & (degrees > 0)
    heard = free & (near_rows >= _FEWEST_ROWS) & (far_rows >= _FEWEST_ROWS)
    each = np.where(heard, surprise(ratio, np.maximum(degrees, 1.0), error_degrees), 0.0)
    return surprise(total, np.maximum((free * degrees).sum(axis=1), 1.0), error_degrees), each


def surprise(statistic: Floats, degrees: Floats, error_degrees: float = np.inf) -> Floats:
    """Give ``-ln p`` of a chi-squared statistic, which is divided first by what an uncertain error may make of it.

    The divisor is the ratio of the quantiles of F and chi-squared where alarms begin. Beyond, F itself would rank a
    change that is plain below windows that hold half of it.
    """
    from scipy.special import chdtrc, chdtri, fdtri, gammaln

    if error_degrees < np.inf:
        statistic = statistic / (degrees * fdtri(degrees, error_degrees, 1.0 - _ALARM) / chdtri(degrees, _ALARM))
    p = chdtrc(degrees, statistic)
    half, shape = 0.5 * np.maximum(statistic, 1.0), 0.5 * degrees
    beyond = half - (shape - 1.0) * np.log(half) + gammaln(shape)  # where p is no longer a number
    found: Floats = np.where(p > 1e-280, -np.log(np.maximum(p, 1e-300)), beyond)
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
