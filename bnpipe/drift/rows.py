"""Replays where rows are independent of one another: which rows are live is drawn anew within each configuration."""

from __future__ import annotations

import numpy as np

from bnpipe.drift.families import FamilySample, Floats
from bnpipe.drift.windows import WindowStatistics, judge, likelihood_ratio


def row_statistics(
    sample: FamilySample, replays: int, rng: np.random.Generator
) -> tuple[WindowStatistics, WindowStatistics]:
    """Give the statistics of replays and of the live rows.

    Given the parents' configuration, the rows' states are exchangeable between reference and live: the live table of
    each configuration is a multivariate hypergeometric draw from both together (Fisher's exact test).
    """
    live, pooled = sample.counts[sample.reference :].sum(axis=0), sample.counts.sum(axis=0)
    drawn = np.empty((replays, *pooled.shape))
    for place, (table, rows) in enumerate(zip(pooled.astype(np.int64), live.sum(axis=1).astype(np.int64), strict=True)):
        drawn[:, place] = rng.multivariate_hypergeometric(table, int(rows), size=replays, method="marginals")
    return _statistics(sample, drawn, pooled), _statistics(sample, live[None], pooled)


def _statistics(sample: FamilySample, near: Floats, pooled: Floats) -> WindowStatistics:
    near_rows, all_rows = near.sum(axis=2), pooled.sum(axis=1)
    ratio = likelihood_ratio(near, pooled, near_rows, all_rows)
    total = ratio.sum(axis=1)
    judged = judge(ratio, total, degrees=sample.degrees, near_rows=near_rows, far_rows=all_rows - near_rows)
    return WindowStatistics(total, *judged)
