"""Whether the mean of cluster means lies above a threshold, by a one-sided bound that allows for serial correlation."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.evaluation import Comparison

POWER: Final = 0.8
MOST_CLUSTERS: Final = 10_000
NEIGHBOURS: Final = 0.5
"""Correlation of neighbouring clusters' means that every bound allows for. It is not estimated: 14 clusters do not
tell 0 from 0.5, and no bound tried that keeps its level at 0.5 finds a difference smaller by a tenth."""


def not_comparable(comparison: Comparison, gate: str) -> Verdict | None:
    """Say why the two networks can't be compared row by row, if so."""
    if not comparison.same_schema:
        reason = "its schema differs from the champion's, so rows can't be compared; a person decides"
    elif comparison.impossible_rows:
        reason = (
            f"{comparison.impossible_rows} of {comparison.rows} rows are impossible under a network without counts; "
            "a person decides"
        )
    else:
        return None
    return Verdict(gate, "incomparable", reason, kind="relative", unit="nats/row")


def correlation_of(comparison: Comparison) -> float:
    """Give the correlation of neighbouring clusters that bounds on a comparison allow for."""
    return 0.0 if comparison.independent_rows else NEIGHBOURS


def bounded(
    gate: str,
    what: str,
    means: Sequence[float],
    threshold: float,
    *,
    alpha: float,
    min_clusters: int,
    correlation: float = NEIGHBOURS,
    sign: float = 1.0,
) -> Verdict:
    """Ask whether the mean of cluster `means` lies above `threshold`; `sign` −1 states the answer mirrored."""
    unit, count = "nats/row", len(means)
    shown = sign * threshold

    def more(least: int, mean: float, deviation: float) -> str:
        gap = abs(mean - threshold)
        needed = max(least, clusters_to_decide(gap=gap, deviation=deviation, alpha=alpha, correlation=correlation))
        return f"{_about(needed)} would decide"

    if count < min_clusters:
        rest = more(min_clusters, *_moments(means)) if count >= 2 else f"{_about(min_clusters)} would decide"
        reason = f"{what}known on {count} clusters only; {rest}"
        return Verdict(gate, "undecided", reason, kind="relative", threshold=shown, unit=unit)
    mean, deviation = _moments(means)
    factor, degrees = error_factor(count, correlation)
    margin = _t_quantile(1.0 - alpha, degrees) * factor * deviation
    low, high = mean - margin, mean + margin
    interval = (low, high) if sign > 0 else (-high, -low)
    shown_mean = sign * mean + 0.0  # no "-0"
    numbers = f"{what}{shown_mean:+.4g} [{interval[0]:.4g}, {interval[1]:.4g}] nats/row on {count} clusters"
    side = (">", "<") if sign > 0 else ("<", ">")

    def verdict(outcome: Literal["pass", "fail", "undecided"], reason: str) -> Verdict:
        return Verdict(gate, outcome, reason, "relative", shown_mean, shown, interval, unit)

    if low > threshold:
        return verdict("pass", f"{numbers}: surely {side[0]} {shown:g}")
    if high < threshold:
        return verdict("fail", f"{numbers}: surely {side[1]} {shown:g}")
    return verdict("undecided", f"{numbers} does not tell it from {shown:g}; {more(count + 1, mean, deviation)}")


def _moments(means: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of cluster means."""
    mean = math.fsum(means) / len(means)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (len(means) - 1))


def error_factor(clusters: int, correlation: float) -> tuple[float, float]:
    """Say what the sample standard deviation tells of the mean where neighbouring clusters correlate.

    Parameters
    ----------
    clusters : int
        In order of time.
    correlation : float
        Of a cluster with the next; with the k-th next its k-th power (a first-order autoregression).

    Returns
    -------
    tuple of float
        What the sample standard deviation is multiplied by to give the standard error of the mean, and the degrees of
        freedom it has by Satterthwaite's two moments (1946, Biometrics Bulletin 2, p. 110). Without correlation
        1 / √C and C − 1.
    """
    near, count = correlation, clusters
    total, squares = _total(count, near), count * _total(count, near**2)
    # Σ over clusters of the squared sum of their correlations with all clusters
    reach = count * ((1 + near) ** 2 + 2 * near ** (count + 1)) - 4 * (1 + near) * near * (1 - near**count) / (1 - near)
    reach = (reach + 2 * near**2 * (1 - near ** (2 * count)) / (1 - near**2)) / (1 - near) ** 2
    seen = count - total
    degrees = seen**2 / (squares - 2 * reach / count + total**2)
    return math.sqrt(total * (count - 1) / (seen * count)), degrees


def _total(count: int, near: float) -> float:
    """Variance of the mean of `count` clusters, times `count`: 1 + 2 Σ (1 − k / count) near^k."""
    return (1 + near) / (1 - near) - 2 * near * (1 - near**count) / (count * (1 - near) ** 2)


def _t_quantile(share: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def _about(clusters: int) -> str:
    return f"about {clusters} clusters" if clusters <= MOST_CLUSTERS else f"more than {MOST_CLUSTERS} clusters"


def clusters_to_decide(
    *, gap: float, deviation: float, alpha: float, power: float = POWER, correlation: float = NEIGHBOURS
) -> int:
    """Count the clusters a one-sided t test needs to tell a mean from its threshold.

    Parameters
    ----------
    gap : float
        Distance of the observed mean from the threshold, nats per row.
    deviation : float
        Standard deviation of cluster means, nats per row.
    alpha, power : float
        Error of the test and the chance that it decides.
    correlation : float
        Of neighbouring clusters.

    Returns
    -------
    int
        Smallest C with (t_{1−alpha} + t_{power}) · standard error ≤ gap, both as in :func:`error_factor` (after Cohen
        1988, Statistical Power Analysis, ch. 2); ``MOST_CLUSTERS + 1`` if no such number is in reach.
    """

    def decides(clusters: int) -> bool:
        factor, degrees = error_factor(clusters, correlation)
        return (_t_quantile(1.0 - alpha, degrees) + _t_quantile(power, degrees)) * factor * deviation <= gap

    return bisect_left(range(MOST_CLUSTERS + 1), True, lo=2, key=decides)
