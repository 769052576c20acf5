"""Whether the mean of cluster means lies above a threshold, by a one-sided bound."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Literal

from bnpipe.verdict import Verdict

POWER: Final = 0.8
MOST_CLUSTERS: Final = 10_000


def bounded(
    gate: str, what: str, means: Sequence[float], threshold: float, *, alpha: float, min_clusters: int, sign: float = 1.0
) -> Verdict:
    """Ask whether the mean of cluster `means` lies above `threshold`; `sign` −1 states the answer mirrored."""
    unit, count = "nats/row", len(means)
    shown = sign * threshold
    if count < min_clusters:
        needed = min_clusters
        if count >= 2:
            needed = max(needed, _needed(*_moments(means), threshold, alpha))
        reason = f"{what}known on {count} clusters only; {_more(needed)} would decide"
        return Verdict(gate, "undecided", reason, kind="relative", threshold=shown, unit=unit)
    mean, deviation = _moments(means)
    margin = _t_quantile(1.0 - alpha, count - 1) * deviation / math.sqrt(count)
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
    needed = max(_needed(mean, deviation, threshold, alpha), count + 1)
    return verdict("undecided", f"{numbers} does not tell it from {shown:g}; {_more(needed)} would decide")


def _moments(means: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of cluster means."""
    mean = math.fsum(means) / len(means)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (len(means) - 1))


def _t_quantile(share: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def _needed(mean: float, deviation: float, threshold: float, alpha: float) -> int:
    return clusters_to_decide(gap=abs(mean - threshold), deviation=deviation, alpha=alpha)


def _more(clusters: int) -> str:
    return f"about {clusters} clusters" if clusters <= MOST_CLUSTERS else f"more than {MOST_CLUSTERS} clusters"


def clusters_to_decide(*, gap: float, deviation: float, alpha: float, power: float = POWER) -> int:
    """Count the clusters a one-sided t test needs to tell a mean from its threshold.

    Parameters
    ----------
    gap : float
        Distance of the observed mean from the threshold, nats per row.
    deviation : float
        Standard deviation of cluster means, nats per row.
    alpha, power : float
        Error of the test and the chance that it decides.

    Returns
    -------
    int
        Smallest C with (t_{1−alpha} + t_{power}) · deviation / √C ≤ gap at C − 1 degrees (Cohen 1988, Statistical
        Power Analysis, ch. 2); ``MOST_CLUSTERS + 1`` if no such number is in reach.
    """

    def decides(clusters: int) -> bool:
        quantiles = _t_quantile(1.0 - alpha, clusters - 1) + _t_quantile(power, clusters - 1)
        return quantiles * deviation <= gap * math.sqrt(clusters)

    return bisect_left(range(MOST_CLUSTERS + 1), True, lo=2, key=decides)
