"""The network's own past: how much more windows of neighbouring clusters vary than clusters drawn at random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnpipe.drift.families import FamilySample, Floats, rng_of
from bnpipe.drift.windows import NONE, Inflation, consecutive_windows, random_windows, window_statistics

_FEWEST_WINDOWS: Final = 3
"""Windows that a reference must hold at least."""
_DRAWN: Final = 400
_LEAST_SPREAD: Final = 0.2
"""Standard deviation of the nodes' inflations that is assumed at least."""
_USUAL_SPREAD: Final = 2.0
"""Standard deviation, about 1, of the inflation that is believed before the past is looked at."""
_SPELLS: Final = 0.7
"""Relative standard error of what neighbours add, however long the reference: it saw a few spells, not all kinds."""


@dataclass(frozen=True, slots=True)
class _Past:
    """One node: by what ratio neighbours vary more, its relative error, and what share of the variance days make."""

    ratio: float
    error: float
    share: float


def inflations(samples: Mapping[str, FamilySample], size: int, seed: int) -> dict[str, Inflation]:
    """Estimate, node by node, by what factor neighbours' likeness exceeds that of rows of one cluster; 1 or more.

    A lasting spell of weather, a trend, a season: whatever the reference's own windows of `size` neighbours show beyond
    chance counts as usual. It can only enlarge what clusters have in common, so from the ratio r of the statistics of
    neighbours and of random windows the factor is 1 + (r - 1) / s, where s is the clusters' share of the variance.
    A reference holds few such windows, so nodes borrow from each other as far as they agree (empirical Bayes). One
    standard error is added; what stays uncertain are degrees of freedom, see :func:`bnpipe.drift.windows.surprise`.
    """
    looked = {name: _look_back(sample, size, rng_of(name, seed)) for name, sample in samples.items()}
    raw = {name: past for name, past in looked.items() if past is not None}
    if not raw:
        return dict.fromkeys(samples, NONE)
    ratios, errors, shares = (
        np.array([getattr(past, field) for past in raw.values()]) for field in ("ratio", "error", "share")
    )
    factors, factor_errors = _shrink(1.0 + (ratios - 1.0) / shares, errors, shares)
    added = np.maximum(factors - 1.0, 0.0) * shares
    factors = np.maximum(1.0, factors + factor_errors)
    degrees = 2.0 * (1.0 + added) ** 2 / ((shares * factor_errors) ** 2 + (_SPELLS * added) ** 2)
    found = {name: Inflation(float(f), float(d)) for name, f, d in zip(raw, factors, degrees, strict=True)}
    return dict.fromkeys(samples, NONE) | found


def _look_back(sample: FamilySample, size: int, rng: np.random.Generator) -> _Past | None:
    """Compare windows of the reference, None where it is too short or clusters have nothing in common.

    Where it does not hold enough windows of `size`, shorter ones are asked: they understate, but they do not say
    nothing.
    """
    clusters, past = sample.reference, sample.past()
    size = min(size, clusters // _FEWEST_WINDOWS)
    if size < 2 or not past.correlation > 0:
        return None
    drawn = window_statistics(past, random_windows(clusters, size, _DRAWN, rng)).total
    if not drawn.mean() > 0:
        return None
    neighbours = window_statistics(past, consecutive_windows(clusters, size)).total
    alike = past.correlation * np.maximum(past.usual_rows - 1.0, 0.0)
    share = float((past.degrees * alike / (1.0 + alike)).sum() / max(float(past.degrees.sum()), 1.0))
    if not share > 0:
        return None
    error = float(drawn.std() / drawn.mean()) / np.sqrt(clusters / size)
    return _Past(float(neighbours.mean() / drawn.mean()), error, share)


def _shrink(factors: Floats, errors: Floats, shares: Floats) -> tuple[Floats, Floats]:
    """Pull factors towards their mean, and that towards 1, as far as their errors reach; give posterior errors, too.

    Errors are relative to the ratios, so they are taken where the mean is: an estimate that is small by chance must not
    count for more.
    """
    mean = 1.0
    for _ in range(3):
        each = errors * (1.0 + max(mean - 1.0, 0.0) * shares) / shares
        weights = 1.0 / each**2
        believed = float(weights.sum()) + 1.0 / _USUAL_SPREAD**2
        mean = (float((weights * factors).sum()) + 1.0 / _USUAL_SPREAD**2) / believed
    spread = max(float((weights * ((factors - mean) ** 2 - each**2)).sum() / weights.sum()), _LEAST_SPREAD**2)
    kept = spread / (spread + each**2)
    return mean + kept * (factors - mean), np.sqrt(kept * each**2 + (1.0 - kept) ** 2 / believed)
