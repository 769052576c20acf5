"""Days that differ: each draws its own CPDs about the generating ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.network import Network

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]

DAY_EFFECTS = (0.0, 0.02, 0.1, 0.25)
"""Of the flights' nodes the weather has 0.4 to 0.8, delay 0.08 and late arrival 0.05; 0.25 at 50 rows a day and
configuration is 13 times the variance of independent rows."""


@dataclass(frozen=True)
class Days:
    """How days differ.

    Parameters
    ----------
    rows : int
        A day.
    correlations : tuple of float
        Of rows of one day; each node draws one of these.
    persistence : float
        Correlation of one day's effects with the next day's.
    """

    rows: int
    correlations: tuple[float, ...] = (0.0,)
    persistence: float = 0.0


def draw_days(
    network: Network,
    days: Days,
    count: int,
    tables: Callable[[int], Sequence[Floats]],
    rng: np.random.Generator,
    *,
    told: Mapping[int, float] = MappingProxyType({}),
) -> Dataset:
    """Draw `count` days; `tables` gives the CPDs about which day number d is drawn, in the order of the nodes.

    `told` are the correlations of nodes, by place, that are not left to chance.
    """
    drawn = [float(rng.choice(days.correlations)) for _ in network.nodes]
    correlations = [told.get(place, each) for place, each in enumerate(drawn)]
    lucks = [walk(count, network.schema[node].cardinality, days.persistence, rng) for node in network.nodes]
    parts = []
    for day in range(count):
        today = [
            disturbed(table, correlation, luck[day])
            for table, correlation, luck in zip(tables(day), correlations, lucks, strict=True)
        ]
        parts.append(draw_rows(network, today, days.rows, rng))
    clusters = np.repeat(np.arange(count, dtype=np.int32), days.rows)
    return Dataset(network.schema, np.concatenate(parts, axis=1), clusters, tuple(f"{day:04d}" for day in range(count)))


def part(data: Dataset, first: int, last: int) -> Dataset:
    """Keep the days from number `first` until `last`."""
    assert data.clusters is not None
    kept = (data.clusters >= first) & (data.clusters < last)
    return Dataset(data.schema, data.codes[:, kept], data.clusters[kept] - first, data.cluster_labels[first:last])


def walk(days: int, states: int, persistence: float, rng: np.random.Generator) -> Floats:
    """Draw each day's luck, normal and correlated from day to day, float64 (days, states)."""
    luck = rng.standard_normal((days, states))
    for day in range(1, days):
        luck[day] = persistence * luck[day - 1] + np.sqrt(1 - persistence**2) * luck[day]
    return luck


def disturbed(table: Floats, correlation: float, luck: Floats) -> Floats:
    """Draw one day's CPD from a Dirichlet about `table`, all rows by the same luck, float64 (states,)."""
    from scipy.special import gammaincinv, ndtr

    if correlation == 0:
        return table
    shape = np.maximum((1 / correlation - 1) * table, 1e-12)
    gammas = np.where(table > 0, gammaincinv(shape, np.clip(ndtr(luck), 1e-12, 1 - 1e-12)) + 1e-280, 0.0)
    found: Floats = gammas / gammas.sum(axis=-1, keepdims=True)
    return found


def draw_rows(network: Network, tables: Sequence[Floats], rows: int, rng: np.random.Generator) -> Codes:
    """Draw complete rows, parents first, uint8 (variables, rows)."""
    place_of = {node: place for place, node in enumerate(network.nodes)}
    codes = np.empty((len(network.nodes), rows), dtype=np.uint8)
    for node in network.order:
        place = place_of[node]
        parents = tuple(codes[place_of[parent]] for parent in network.parents[node])
        rising = np.cumsum(tables[place], axis=-1)
        reached = rising[parents] if parents else np.broadcast_to(rising, (rows, rising.size))
        codes[place] = np.minimum((rng.random(rows)[:, None] > reached).sum(axis=1), rising.shape[-1] - 1)
    return codes
