"""How much a CPD changed, in which rows, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.drift.families import FamilySample, Floats
from bnpipe.drift.windows import Scale, WindowStatistics, design_effect

ROW_LEVEL: Final = 0.05
"""At which the rows of a changed CPD are told from its other rows, all of them together."""
_MOST_ROWS: Final = 10
_RESAMPLED: Final = 400
_LAST: Final = 3
"""Clusters at least that tell what the change came to."""
_HALF: Final = 0.5
"""Pseudo-count of each state where logarithms are taken (Jeffreys)."""


@dataclass(frozen=True, eq=False)
class RowEffects:
    """What the live window shows of each configuration, arrays (configurations,) unless said otherwise.

    Parameters
    ----------
    share : float64
        Of live rows.
    live_rows, reference_rows : float64
    before, now : float64 (configurations, states)
        Shares of the states; `before` where there are no reference rows is NaN.
    excess : float64
        Total variation as measured, less what chance makes of it; 0 where either sample has no rows.
    effect : float64
        The same, not below 0.
    p : float64
        Adjusted for all configurations.
    """

    share: Floats
    live_rows: Floats
    reference_rows: Floats
    before: Floats
    now: Floats
    excess: Floats
    effect: Floats
    p: Floats


@dataclass(frozen=True, slots=True)
class CpdEffect:
    """The whole CPD: mean total variation over live traffic, and nats a live row, both less what chance makes."""

    effect: float
    divergence: float


def row_effects(sample: FamilySample, null: WindowStatistics, own: WindowStatistics, scale: Scale) -> RowEffects:
    """Compare the live window with the reference, configuration by configuration."""
    live, reference = sample.counts[sample.reference :].sum(axis=0), sample.counts[: sample.reference].sum(axis=0)
    live_rows, reference_rows = live.sum(axis=1), reference.sum(axis=1)
    both = (live_rows > 0) & (reference_rows > 0)
    with np.errstate(invalid="ignore"):
        now, before = live / live_rows[:, None], reference / reference_rows[:, None]
    excess = np.where(both, 0.5 * np.abs(now - before).sum(axis=1) - _chance_shift(sample), 0.0)
    greatest = scale.score_rows(null).max(axis=1, initial=0.0)
    p = (1.0 + (greatest[:, None] >= scale.score_rows(own)).sum(axis=0)) / (greatest.size + 1.0)
    return RowEffects(
        live_rows / max(live_rows.sum(), 1.0),
        live_rows,
        reference_rows,
        before,
        now,
        excess,
        np.maximum(excess, 0.0),
        np.where(both, p, 1.0),
    )


def cpd_effect(sample: FamilySample, rows: RowEffects) -> CpdEffect:
    """Sum up: rows count by their live traffic."""
    known = (rows.live_rows > 0) & (rows.reference_rows > 0)
    share = rows.share[known] / max(float(rows.share[known].sum()), 1e-300)
    mean = float((share * rows.excess[known]).sum())
    live, reference = sample.counts[sample.reference :].sum(axis=0), sample.counts[: sample.reference].sum(axis=0)
    states = sample.counts.shape[2]
    theta = (reference + _HALF) / (reference.sum(axis=1, keepdims=True) + _HALF * states)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(live > 0, rows.now * np.log(rows.now / theta), 0.0).sum(axis=1)
    chance = 0.5 * sample.degrees * _difference_variance(sample)
    divergence = float((rows.share[known] * (each - chance)[known]).sum())
    return CpdEffect(max(mean, 0.0), divergence)


def _difference_variance(sample: FamilySample, inflation: float = 1.0) -> Floats:
    """Variance of live less reference shares, over that of one row, float64 (configurations,)."""
    rows = sample.rows
    near, far = rows[sample.reference :], rows[: sample.reference]
    effect = design_effect(near.sum(0), (near**2).sum(0), far.sum(0), (far**2).sum(0), sample.correlation * inflation)
    found: Floats = effect * (1.0 / np.maximum(near.sum(0), 1e-9) + 1.0 / np.maximum(far.sum(0), 1e-9))
    return found


def _chance_shift(sample: FamilySample) -> Floats:
    """Mean total variation of two samples of the same distribution, of these sizes, float64 (configurations,)."""
    pooled = sample.counts.sum(axis=0)
    shares = pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1.0)
    spread = np.sqrt(shares * (1.0 - shares)).sum(axis=1)
    found: Floats = 0.5 * np.sqrt(2.0 / np.pi) * spread * np.sqrt(_difference_variance(sample))
    return np.minimum(found, 1.0)


def smallest_shift(sample: FamilySample, threshold: float, inflation: float) -> float:
    """Give the total variation of the whole CPD that would have crossed the threshold in four of five cases.

    Of shifts of that size the hardest to see: in all rows alike, between two states of one half each. `threshold` is
    the ``-ln p`` of the sum over configurations.
    """
    variance = _difference_variance(sample, inflation)
    rows = sample.rows
    both = (rows[sample.reference :].sum(axis=0) > 0) & (rows[: sample.reference].sum(axis=0) > 0)
    information = float((4.0 / variance[both]).sum())
    degrees = max(float(sample.degrees[both].sum()), 1.0)
    if information <= 0:
        return 1.0
    least = _critical(threshold, degrees) - degrees
    needed = least
    for _ in range(20):
        needed = least + 0.84 * np.sqrt(2.0 * (degrees + 2.0 * max(needed, 0.0)))
    return float(min(np.sqrt(max(needed, 0.0) / information), 1.0))


def _critical(surprise: float, degrees: float) -> float:
    """Invert ``-ln p`` of chi-squared."""
    from scipy.special import chdtri

    return float(chdtri(degrees, np.exp(-surprise)))


def shift_intervals(
    sample: FamilySample, places: Sequence[int], rng: np.random.Generator, *, clustered: bool
) -> list[tuple[float, float]]:
    """95 % intervals of the total variation of some configurations: clusters, or rows, drawn anew on both sides."""
    live, reference = sample.counts[sample.reference :], sample.counts[: sample.reference]
    found = []
    for place in places:
        drawn: list[Floats] = []
        for part in (live[:, place], reference[:, place]):
            weights = np.full(len(part), 1.0 / len(part)) if clustered else part.sum(axis=0) / max(part.sum(), 1.0)
            times = rng.multinomial(len(part) if clustered else int(part.sum()), weights, size=_RESAMPLED)
            tables = (times @ part if clustered else times).astype(np.float64)
            drawn.append(tables / np.maximum(tables.sum(axis=1, keepdims=True), 1.0))
        shift = 0.5 * np.abs(drawn[0] - drawn[1]).sum(axis=1)
        low, high = np.quantile(shift, [0.025, 0.975])
        found.append((float(low), float(high)))
    return found


def change_point(sample: FamilySample, window: int) -> int:
    """Tell by which live cluster half of the change had happened.

    Each cluster is projected on the change from the reference to the last `window` clusters: before the change the mean
    is 0, after it that of the last clusters. The step between the two that fits best (least squares, weighted by what
    each cluster tells) lies in the middle of a slow change.
    """
    counts, split = sample.counts, sample.reference
    reference, live = counts[:split].sum(axis=0), counts[-window:].sum(axis=0)
    before = _shares(reference)
    direction = np.log(_shares(live)) - np.log(before)
    direction -= (before * direction).sum(axis=1, keepdims=True)
    moved = (counts * direction).sum(axis=(1, 2))
    spread = (sample.rows * (before * direction**2).sum(axis=1)).sum(axis=1)
    size = np.maximum(sample.rows.sum(axis=1), 1.0)
    weight = (spread / (1.0 + sample.correlation * np.maximum(size - 1.0, 0.0)))[split:]
    value = np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0)[split:]
    last = max(_LAST, min(window, sample.live // 3))
    level = float((weight * value)[-last:].sum() / max(float(weight[-last:].sum()), 1e-300))
    saved = weight * (value**2 - (value - level) ** 2)  # by taking a cluster as changed
    return int(np.argmax(np.cumsum(saved[::-1])[::-1]))


def _shares(counts: NDArray[np.float64]) -> Floats:
    found: Floats = (counts + _HALF) / (counts + _HALF).sum(axis=1, keepdims=True)
    return found


def named_rows(rows: RowEffects, *, min_row_share: float) -> list[int]:
    """Choose the configurations worth showing, the most changed first."""
    by_effect: list[int] = np.argsort(-(rows.effect * np.sqrt(rows.share)), kind="stable").tolist()
    order = sorted(by_effect, key=lambda place: rows.p[place] > ROW_LEVEL)
    return [place for place in order if rows.share[place] >= min_row_share and rows.effect[place] > 0][:_MOST_ROWS]
