"""Statistics of windows: the compiled loop against plain sums, effective rows, the scale of chance."""

from __future__ import annotations

import numpy as np
import pytest

from bnpipe.drift.families import FamilySample
from bnpipe.drift.windows import (
    Inflation,
    Scale,
    WindowStatistics,
    likelihood_ratio,
    random_windows,
    surprise,
    window_statistics,
)
from bnpipe.kernels.windows import window_gains


def sample_of(counts: np.ndarray, live: int = 7) -> FamilySample:
    """One family, counts (clusters, configurations, states), the last `live` clusters live."""
    _, configurations, states = counts.shape
    return FamilySample(
        "node", counts.astype(float), len(counts) - live, np.arange(configurations), np.arange(states)
    )  # fmt: skip


def test_the_compiled_loop_is_the_likelihood_ratio_of_plain_sums():
    """Every window's ratio and sum are those of numpy, and of an empty configuration 0."""
    rng = np.random.default_rng(1)
    counts = rng.poisson(3.0, (5, 20, 3)).astype(float)
    counts[4] = 0.0
    windows = random_windows(20, 6, 50, rng)
    members = np.ascontiguousarray(np.nonzero(windows)[1].reshape(50, 6))
    near, ratios, totals = np.empty((50, 5)), np.empty((50, 5)), np.empty(50)
    window_gains(counts, np.ones(5), members, near, ratios, totals)
    inside = np.einsum("wc,jck->wjk", windows.astype(float), counts)
    expected = likelihood_ratio(inside, counts.sum(axis=1), inside.sum(axis=2), counts.sum(axis=(1, 2)))
    assert ratios == pytest.approx(expected, abs=1e-8)
    assert totals == pytest.approx(expected.sum(axis=1), abs=1e-7)
    assert near == pytest.approx(inside.sum(axis=2))
    assert not ratios[:, 4].any()


def test_the_loop_takes_nothing_that_lies_outside():
    """Windows of clusters that do not exist, and outputs of another shape, are left alone."""
    counts = np.ones((2, 4, 2))
    near, ratios, totals = np.full((1, 2), -1.0), np.full((1, 2), -1.0), np.full(1, -1.0)
    for members in (np.array([[0, 9]]), np.array([[-1, 2]])):
        window_gains(counts, np.ones(2), members, near, ratios, totals)
    window_gains(counts, np.ones(2), np.array([[0, 1]]), near, ratios[:, :1].copy(), totals)
    window_gains(counts, np.ones(1), np.array([[0, 1]]), near, ratios, totals)
    assert (near == -1.0).all()
    assert (totals == -1.0).all()


def test_clusters_of_many_rows_do_not_speak_for_all():
    """Where rows of one cluster are alike, its effective rows are bounded; where they are not, they are its rows."""
    rng = np.random.default_rng(2)
    shares = rng.beta(1.5, 1.5, 200)
    alike = rng.binomial(1000, shares)
    apart = rng.binomial(1000, 0.5, 200)
    for successes, low, high in ((alike, 2.0, 8.0), (apart, 500.0, 1000.0)):
        counts = np.stack([successes, 1000 - successes], axis=1)[:, None, :]
        effective = sample_of(counts).effective.sum(axis=(1, 2)) / 200
        assert low < effective[0] <= high


def test_surprise_goes_on_where_p_is_no_longer_a_number():
    """``-ln p`` rises smoothly beyond 1e-300, and is scipy's where that has one."""
    values = surprise(np.array([4.0, 1000.0, 1300.0, 1400.0, 5000.0]), np.full(5, 3.0))
    assert values[0] == pytest.approx(1.3412, abs=1e-3)
    assert np.diff(values) == pytest.approx(np.diff([2.0, 500.0, 650.0, 700.0, 2500.0]), rel=0.02)


def test_statistics_with_heavier_tails_count_for_less():
    """A statistic whose greatest replays are three times another's scores a third; no scale falls below its floor."""
    rng = np.random.default_rng(3)
    usual = rng.exponential(1.0, 999)
    null = WindowStatistics(usual, 3.0 * usual, np.stack([usual, 0.01 * usual], axis=1))
    scale = Scale.of(null, WindowStatistics(np.zeros(1), np.zeros(1), np.zeros((1, 2))))
    assert scale.summed == pytest.approx(3.0 * scale.rows[0])
    assert scale.rows[0] == pytest.approx(1.0, abs=0.3)
    assert scale.rows[1] == pytest.approx(4.0 / (1.0 - np.log(0.01)))


def test_neighbours_inflate_only_what_the_reference_has_in_common():
    """A change makes all clusters together look alike within; a factor of 9 must not multiply that likeness."""
    hits = np.random.default_rng(0).binomial(60, np.r_[np.full(45, 0.7), np.full(7, 0.2)])
    sample = sample_of(np.stack([hits, 60 - hits], axis=1)[:, None, :])
    assert sample.pooled_correlation > 0.1
    assert sample.past_correlation < 0.01
    usual, inflated = (
        window_statistics(sample, sample.observed[None], Inflation(factor)).summed[0] for factor in (1.0, 9.0)
    )
    assert inflated > 0.7 * usual
