"""Structure drift: arcs the graph lacks and live rows ask for, fitted on earlier clusters and proved on later ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from bnpipe.counts import family_counts
from bnpipe.drift.families import Floats
from bnpipe.drift.records import AddedArc
from bnpipe.graph import find_cycle

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.knowledge import Knowledge
    from bnpipe.network import Network

FEWEST_CLUSTERS: Final = 5
"""Of each half of the live clusters."""
_JEFFREYS: Final = 0.5
_NEIGHBOURS: Final = 0.5
"""Correlation of one cluster's gain with the next one's that the error allows for."""


def added_arcs(
    network: Network,
    live: Dataset,
    children: Sequence[str],
    *,
    knowledge: Knowledge,
    max_parents: int | None,
    level: float = 0.05,
) -> tuple[AddedArc, ...]:
    """Find arcs into `children` that win: both families are fitted on the earlier half of the live clusters.

    What counts is the gain in log-likelihood on the later half, nats a row, by cluster. The one-sided p from Student's
    t, with a standard error that allows for neighbouring clusters alike, is multiplied by the number of arcs tried.

    Returns
    -------
    tuple of AddedArc
        Those with p at most `level`, the largest gain first; none where there are fewer than ten clusters.
    """
    from scipy.special import stdtr, stdtrit

    half = live.cluster_count // 2
    if live.clusters is None or half < FEWEST_CLUSTERS:
        return ()
    tried = [arc for child in children for arc in _candidates(network, child, knowledge, max_parents)]
    found = []
    for parent, child in tried:
        gains = _gains(network, live, parent, child, half)
        if gains.size < FEWEST_CLUSTERS:
            continue
        degrees = (gains.size - 1) * (1.0 - _NEIGHBOURS) / (1.0 + _NEIGHBOURS)
        error = math.sqrt((1.0 + _NEIGHBOURS) / (1.0 - _NEIGHBOURS) / gains.size) * float(gains.std(ddof=1))
        mean = float(gains.mean())
        p = min(1.0, len(tried) * float(stdtr(degrees, -mean / error))) if error > 0 else float(mean <= 0)
        margin = float(stdtrit(degrees, 0.975)) * error
        if mean > 0 and p <= level:
            found.append(AddedArc(parent, child, mean, (mean - margin, mean + margin), p))
    return tuple(sorted(found, key=lambda arc: -arc.gain))


def _candidates(network: Network, child: str, knowledge: Knowledge, max_parents: int | None) -> list[tuple[str, str]]:
    """List the arcs into `child` that the graph may take up."""
    if max_parents is not None and len(network.parents[child]) >= max_parents:
        return []
    names = network.nodes
    allowed = knowledge.allowed(names)[:, names.index(child)]
    return [
        (parent, child)
        for parent, may in zip(names, allowed, strict=True)
        if may and parent not in network.parents[child] and find_cycle([*network.arcs, (parent, child)]) is None
    ]


def _gains(network: Network, live: Dataset, parent: str, child: str, half: int) -> Floats:
    """Give what the arc gains in each later cluster that has rows, nats a row."""
    members = (*network.parents[child], parent, child)
    places = [network.schema.index(name) for name in members]
    cardinalities = [network.schema.cardinalities[place] for place in places]
    counts = family_counts(live.codes, cardinalities, live.clusters, live.cluster_count, variables=places)
    *_, others, states = cardinalities
    by_cluster = np.stack([table.reshape(-1, others, states) for table in counts.per_cluster()]).astype(np.float64)
    earlier, later = by_cluster[:half].sum(axis=0), by_cluster[half:]
    gain = np.log(_smoothed(earlier)) - np.log(_smoothed(earlier.sum(axis=1)))[:, None, :]
    rows = later.sum(axis=(1, 2, 3))
    found: Floats = (later * gain).sum(axis=(1, 2, 3))[rows > 0] / rows[rows > 0]
    return found


def _smoothed(counts: Floats) -> Floats:
    found: Floats = (counts + _JEFFREYS) / (counts + _JEFFREYS).sum(axis=-1, keepdims=True)
    return found
