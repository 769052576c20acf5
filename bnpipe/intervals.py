"""How far a posterior may be off because its CPDs were estimated from finitely many rows and days.

Three steps, each measured by simulation in ``benchmarks/coverage.py``; ``docs/intervals.md`` says what they reach.

1. **What the counts say** (:class:`FamilyUncertainty`). Each row of a CPD has a Dirichlet posterior. Its pseudo-count a
   cell is the family's own, by greatest marginal likelihood (empirical Bayes), whatever prior serves: a fixed one pulls
   sparse CPDs towards uniform and the interval away from the truth. With clusters the counts are divided by their
   design effect, from the family's intra-cluster correlation.
2. **Draws of the CPDs without propagating them.** P(evidence) is linear in each row of each CPD, with the family
   posteriors as slopes (Darwiche 2003), so the effect of a drawn row is known exactly, however far it lies from the
   estimate; effects of several rows are multiplied. To first order this is the delta method on the logit scale.
3. **What clusters move together.** The sandwich variance over clusters sees covariances between rows and families that
   step 1 does not. What it has beyond the delta method's own variance widens the interval on the logit scale; where it
   is clearly less, as one design effect for a whole family is too much for some of its rows, the interval narrows.

References
----------
Darwiche, A. (2003). A differential approach to inference in Bayesian networks. Journal of the ACM 50, 280-305.
Van Allen, T., Singh, A., Greiner, R. & Hooper, P. (2008). Quantifying the uncertainty of a belief net response. AI 172.
Rao, J. N. K. & Scott, A. J. (1992). A simple method for the analysis of clustered binary data. Biometrics 48, 577-585.
Bell, R. M. & McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with multi-stage samples.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import FamilyCounts

Floats = NDArray[np.float64]

DRAWS: Final = 500
"""Of each CPD: the ends of a 95 % interval then lie within some 6 % of its half-width from where they should."""

_PSEUDO_COUNTS: Final = np.geomspace(0.01, 2.0, 12)
_FEW_CLUSTERS: Final = 2.0
_MOST_LEVERAGE: Final = 0.95
_PRIOR_SPREAD: Final = 1.12
"""Standard deviation of the log of a pseudo-count, how far the prior may be wrong."""
_SURE: Final = 2.0
"""Standard errors by which the clusters must vary less than the design effect says before that is believed."""
_EQUAL: Final = 1e-9

_log_gamma = np.frompyfunc(math.lgamma, 1, 1)


@dataclass(frozen=True, eq=False)
class FamilyUncertainty:
    """What the counts of one family leave open about its CPD.

    Parameters
    ----------
    name : str
        Of the node; with `seed` it determines the draws, whatever the order of columns.
    effective : float64 (configurations, states)
        Counts over their design effect.
    pseudo_count : float
        Of each cell.
    supported : bool (configurations, states)
        Cells with counts.
    trust : float64 (configurations,)
        Share of the sandwich in a row's variance: rows seen in few clusters are left to the design effect.
    influence : float64 (clusters, configurations * states), optional
        Change of ln theta by each cluster, of that share. None without clusters.
    """

    name: str
    effective: Floats
    pseudo_count: float
    supported: NDArray[np.bool_]
    trust: Floats
    influence: Floats | None = None

    @property
    def states(self) -> int:
        """States of the node."""
        return int(self.effective.shape[1])

    @cached_property
    def concentration(self) -> Floats:
        """Rows' worth of each configuration, pseudo-counts included, float64 (configurations,)."""
        total: Floats = self.effective.sum(axis=1) + self.states * self.pseudo_count
        return total

    @cached_property
    def reference(self) -> Floats:
        """Posterior mean of the CPD, positive everywhere, float64 (configurations, states)."""
        mean: Floats = (self.effective + self.pseudo_count) / self.concentration[:, None]
        return mean

    def draw(self, draws: int, seed: int) -> Floats:
        """Draw the CPD from its posterior, float64 (configurations * states, draws).

        The pseudo-count of each state is drawn too, once a draw for all configurations, within a factor of 3 or so:
        what the prior gets wrong it gets wrong in all rows at once.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        prior = self.pseudo_count * np.exp(_PRIOR_SPREAD * rng.standard_normal((1, self.states, draws)))
        gammas = rng.standard_gamma(self.effective[:, :, None] + prior) + 1e-300
        gammas /= gammas.sum(axis=1, keepdims=True)
        return gammas.reshape(-1, draws)

    def deviations(self, draws: int, seed: int) -> Floats:
        """Drawn over reference probability, less 1; float64 (configurations * states, draws)."""
        found: Floats = self.draw(draws, seed) / self.reference.reshape(-1, 1) - 1.0
        return found

    def variances(self, gradient: Floats) -> tuple[Floats, Floats]:
        """Delta method: the variance of sum(gradient * ln theta), and the part of it that the sandwich leaves out.

        Parameters
        ----------
        gradient : float64 (configurations * states, rows)
        """
        cells = gradient.reshape(*self.effective.shape, -1)
        squares = (cells**2 / self.reference[:, :, None]).sum(axis=1) - cells.sum(axis=1) ** 2
        each = squares / (self.concentration + 1.0)[:, None]
        return each.sum(axis=0), (1.0 - self.trust) @ each


def family_uncertainty(name: str, counts: FamilyCounts) -> FamilyUncertainty:
    """Take in the counts of one family; fewer than two clusters are taken as independent rows."""
    total = counts.total().astype(np.float64)
    configurations, states = total.shape
    supported = total > 0
    if counts.shape[0] < 2 or states < 2:
        return FamilyUncertainty(name, total, best_pseudo_count(total), supported, np.zeros(configurations))
    by_cluster = np.stack([table.astype(np.float64) for table in counts.per_cluster()])
    rows, cluster_rows = total.sum(axis=1), by_cluster.sum(axis=2)
    seen = np.maximum(rows, 1.0)
    mean_size = (cluster_rows**2).sum(axis=0) / seen
    design_effect = 1.0 + intra_cluster_correlation(by_cluster) * np.maximum(mean_size - 1.0, 0.0)
    effective = total / design_effect[:, None]
    pseudo_count = best_pseudo_count(effective)
    leverage = cluster_rows / seen
    clusters = np.where(rows > 0, 1.0 / np.maximum((leverage**2).sum(axis=0), 1e-300), 1.0)
    trust = (clusters - 1.0) / (clusters - 1.0 + _FEW_CLUSTERS)
    reference = (effective + pseudo_count) / (effective.sum(axis=1, keepdims=True) + states * pseudo_count)
    residual = by_cluster - reference * cluster_rows[:, :, None]
    # A cluster pulls the estimate towards itself by its leverage; the root gives back what that hides (CR2).
    weight = np.sqrt(trust) / (rows + states * pseudo_count) / np.sqrt(np.maximum(1.0 - leverage, 1.0 - _MOST_LEVERAGE))
    influence = (residual * weight[:, :, None] / reference).reshape(counts.shape[0], -1)
    return FamilyUncertainty(name, effective, pseudo_count, supported, trust, influence)


def intra_cluster_correlation(*samples: Floats) -> float:
    """Estimate by moments how alike rows of one cluster are, all configurations of a family together; 0 to 1.

    Parameters
    ----------
    *samples : float64 (clusters, configurations, states)
        Counts. Of several samples each has shares of its own: a difference between them is no likeness.
    """
    excess = scale = 0.0
    for counts in samples:
        cluster_rows, total = counts.sum(axis=2), counts.sum(axis=0)
        rows = np.maximum(total.sum(axis=1, keepdims=True), 1.0)
        shares = total / rows
        residuals = ((counts - shares * cluster_rows[:, :, None]) ** 2).sum(axis=2)
        spread = (shares * (1.0 - shares)).sum(axis=1)
        leverage = cluster_rows / rows[:, 0]
        pairs = cluster_rows * (cluster_rows - 1.0)
        excess += float((residuals - spread * cluster_rows * (1.0 - leverage)).sum())
        scale += float((spread * (pairs - 2.0 * leverage * pairs + leverage**2 * pairs.sum(axis=0))).sum())
    return min(max(excess / scale, 0.0), 1.0) if scale > 0 else 0.0


def best_pseudo_count(counts: Floats) -> float:
    """Choose the pseudo-count a cell with the greatest marginal likelihood, times a log-normal about 1 / states.

    Parameters
    ----------
    counts : float64 (configurations, states)
    """
    states = counts.shape[1]
    positive, rows = counts[counts > 0], counts.sum(axis=1)
    rows = rows[rows > 0]
    scores = []
    for pseudo_count in _PSEUDO_COUNTS:
        cells = float(np.sum(_log_gamma(positive + pseudo_count))) - positive.size * math.lgamma(pseudo_count)
        whole = float(np.sum(_log_gamma(rows + states * pseudo_count))) - rows.size * math.lgamma(states * pseudo_count)
        scores.append(cells - whole - 0.5 * math.log(pseudo_count * states) ** 2)
    return float(_PSEUDO_COUNTS[int(np.argmax(scores))])


def intervals(
    families: Sequence[FamilyUncertainty],
    deviations: Sequence[Floats],
    posteriors: Sequence[Floats],
    log_mass: Floats,
    *,
    level: float,
) -> Floats:
    """Give the ends of each state's interval.

    Parameters
    ----------
    families : sequence of FamilyUncertainty
        Those whose CPD is uncertain.
    deviations : sequence of float64 (cells, draws)
        Of each family, :meth:`FamilyUncertainty.deviations`.
    posteriors : sequence of float64 (states * rows, cells)
        Family posteriors under the reference CPDs with the target set to each of its states in turn; zeros where that
        is impossible.
    log_mass : float64 (states, rows)
        ln P(state, evidence) under the reference CPDs, nats.
    level : float
        Between 0 and 1.

    Returns
    -------
    float64 (rows, states, 2)
    """
    from bnpipe.kernels.draws import add_log_ratios

    states, rows = log_mass.shape
    draws = deviations[0].shape[1] if deviations else 1
    log_ratios = np.zeros((states * rows, draws))
    for family, deviation, posterior in zip(families, deviations, posteriors, strict=True):
        add_log_ratios(posterior, deviation, family.states, states, log_ratios)
    drawn = _softmax(log_mass[:, :, None] + log_ratios.reshape(states, rows, draws))
    tail = (1.0 - level) / 2.0
    ends: Floats = np.quantile(drawn, [tail, 1.0 - tail], axis=2, method="weibull")
    clusters = next((family.influence.shape[0] for family in families if family.influence is not None), 0)
    if clusters > 1:
        ends = _adjusted(ends, log_mass, *_variances(families, posteriors, log_mass), level=level, clusters=clusters)
    return np.ascontiguousarray(ends.transpose(2, 1, 0))


def _variances(
    families: Sequence[FamilyUncertainty], posteriors: Sequence[Floats], log_mass: Floats
) -> tuple[Floats, Floats]:
    """Variances of the logits by the delta method, and with the sandwich over clusters; float64 (states, rows)."""
    states, rows = log_mass.shape
    contrast = contrasts(log_mass)
    delta, sandwich = np.zeros((states, rows)), np.zeros((states, rows))
    moved: Floats | None = None
    for family, posterior in zip(families, posteriors, strict=True):
        slopes = np.ascontiguousarray(posterior.T).reshape(-1, states, rows)
        if np.abs(slopes - slopes[:, :1]).max(initial=0.0) <= _EQUAL:
            continue
        for state in range(states if states > 2 else 1):  # of two states one's logit is the other's, negated
            own, left_out = family.variances(np.einsum("lr,clr->cr", contrast[state], slopes))
            delta[state] += own
            sandwich[state] += left_out
        if family.influence is not None:
            step = family.influence @ posterior.T
            moved = step if moved is None else moved + step
    if states == 2:
        delta[1], sandwich[1] = delta[0], sandwich[0]
    if moved is not None:
        influence = np.einsum("klr,nlr->nkr", contrast, moved.reshape(-1, states, rows))
        sandwich += ((influence - influence.mean(axis=0)) ** 2).sum(axis=0)
    return delta, sandwich


def contrasts(log_mass: Floats) -> Floats:
    """Weights that turn slopes of ln P(state, evidence) into those of logit P(state | evidence).

    Parameters
    ----------
    log_mass : float64 (states, rows)

    Returns
    -------
    float64 (states, states, rows)
    """
    states = log_mass.shape[0]
    found = np.zeros((states, *log_mass.shape))
    for state in range(states):
        others = log_mass.copy()
        others[state] = -np.inf
        found[state] = -_softmax(others)
        found[state, state] = 1.0
    return found


def _adjusted(
    ends: Floats, log_mass: Floats, delta: Floats, sandwich: Floats, *, level: float, clusters: int
) -> Floats:
    """Add to the half-widths, on the logit scale and in quadrature, what clusters have beyond the delta method.

    Where they clearly have less, half-widths shrink to the most that the sandwich's own error allows: a variance from
    C clusters has a relative standard error of sqrt(2 / (C - 1)).
    """
    normal = NormalDist().inv_cdf((1.0 + level) / 2.0)
    own, seen = normal**2 * delta, student_quantile(level, clusters - 1) ** 2 * sandwich
    excess = np.maximum(seen - own, 0.0)
    most = (1.0 + _SURE * math.sqrt(2.0 / (clusters - 1))) * seen
    shrunk = np.where(own > most, most / np.maximum(own, 1e-300), 1.0)
    centre = _logit(_softmax(log_mass))
    below, above = centre - _logit(ends[0]), _logit(ends[1]) - centre
    lower = _logistic(centre - np.sign(below) * np.sqrt(below**2 * shrunk + excess))
    upper = _logistic(centre + np.sign(above) * np.sqrt(above**2 * shrunk + excess))
    return np.stack([lower, upper])


def student_quantile(level: float, degrees: int) -> float:
    """Two-sided quantile of Student's t, to 0.2 % at 95 % (Abramowitz & Stegun 1964, 26.7.5)."""
    if degrees == 1:
        return math.tan(math.pi * level / 2.0)
    if degrees == 2:
        return level * math.sqrt(2.0 / (1.0 - level**2))
    z = NormalDist().inv_cdf((1.0 + level) / 2.0)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / degrees**power for power, term in enumerate(terms)))


def _softmax(logs: Floats) -> Floats:
    """Normalise over the first axis; where all are -inf, zeros."""
    peak = logs.max(axis=0)
    weights = np.exp(logs - np.where(np.isneginf(peak), 0.0, peak))
    total = weights.sum(axis=0)
    result: Floats = weights / np.where(total > 0, total, 1.0)
    return result


def _logit(share: Floats) -> Floats:
    within = np.clip(share, 1e-300, 1.0 - 1e-16)
    result: Floats = np.log(within) - np.log1p(-within)
    return result


def _logistic(logit: Floats) -> Floats:
    with np.errstate(over="ignore"):
        result: Floats = 1.0 / (1.0 + np.exp(-logit))
    return result
