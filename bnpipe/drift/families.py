"""One family's counts, reference and live, as the tables that replays and effects are computed from.

Only configurations of the parents that hold rows are kept, and only states that occur: nothing else can change.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import FamilyCounts
from bnpipe.intervals import intra_cluster_correlation

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FamilySample:
    """Counts of one family by cluster, reference clusters first.

    Parameters
    ----------
    name : str
    counts : float64 (clusters, configurations, states)
        Of the configurations and states that occur.
    reference : int
        Clusters of the reference; those after it are live.
    configurations : int64 (configurations,)
        Their numbers in the full table.
    states : int64 (states,)
        The states' numbers in the full table.
    """

    name: str
    counts: Floats
    reference: int
    configurations: NDArray[np.int64]
    states: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, reference: FamilyCounts, live: FamilyCounts) -> FamilySample:
        """Put both samples side by side."""
        states = reference.shape[2]
        cells = np.concatenate([reference.cells % reference.table_size, live.cells % live.table_size])
        clusters = np.concatenate(
            [reference.cells // reference.table_size, reference.shape[0] + live.cells // live.table_size]
        )
        configurations, place = np.unique(cells // states, return_inverse=True)
        seen, state = np.unique(cells % states, return_inverse=True)
        counts = np.zeros((reference.shape[0] + live.shape[0], max(1, configurations.size), max(1, seen.size)))
        counts[clusters, place, state] = np.concatenate([reference.counts, live.counts])
        return cls(name, counts, reference.shape[0], configurations, seen)

    @property
    def live(self) -> int:
        """Live clusters."""
        return int(self.counts.shape[0]) - self.reference

    @cached_property
    def rows(self) -> Floats:
        """Rows of each configuration by cluster, float64 (clusters, configurations)."""
        found: Floats = self.counts.sum(axis=2)
        return found

    @cached_property
    def observed(self) -> Bools:
        """Which clusters are live, as a window, bool (clusters,)."""
        return np.arange(self.counts.shape[0]) >= self.reference

    @cached_property
    def degrees(self) -> Floats:
        """States of each configuration that occur, less one, float64 (configurations,)."""
        found: Floats = np.maximum((self.counts.sum(axis=0) > 0).sum(axis=1) - 1.0, 0.0)
        return found

    @cached_property
    def correlation(self) -> float:
        """How alike rows of one cluster are; a difference between reference and live is no likeness."""
        parts = self.counts[: self.reference], self.counts[self.reference :]
        return intra_cluster_correlation(*(part for part in parts if len(part) > 1))

    @cached_property
    def pooled_correlation(self) -> float:
        """The same, whoever is live: so that replays are exchangeable with the live window."""
        return intra_cluster_correlation(self.counts)

    @cached_property
    def past_correlation(self) -> float:
        """The same of the reference alone."""
        return intra_cluster_correlation(self.counts[: self.reference]) if self.reference > 1 else 0.0

    @cached_property
    def usual_rows(self) -> Floats:
        """Rows of the same cluster behind a row of each configuration, in the mean, float64 (configurations,)."""
        found: Floats = (self.rows**2).sum(axis=0) / np.maximum(self.rows.sum(axis=0), 1.0)
        return found

    @cached_property
    def effective(self) -> Floats:
        """Counts as so many independent rows as each cluster is worth, float64 (configurations, clusters, states)."""
        worth = 1.0 / (1.0 + self.pooled_correlation * np.maximum(self.rows - 1.0, 0.0))
        return np.ascontiguousarray((self.counts * worth[:, :, None]).swapaxes(0, 1))

    def past(self) -> FamilySample:
        """Keep the reference only."""
        return FamilySample(self.name, self.counts[: self.reference], self.reference, self.configurations, self.states)

    def last(self, window: int) -> FamilySample:
        """Keep only the last `window` live clusters."""
        chosen = np.r_[0 : self.reference, self.counts.shape[0] - window : self.counts.shape[0]]
        return FamilySample(self.name, self.counts[chosen], self.reference, self.configurations, self.states)


def rng_of(name: str, seed: int) -> np.random.Generator:
    """Give the random numbers of one node: the same whatever other nodes there are, and in whatever order."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
