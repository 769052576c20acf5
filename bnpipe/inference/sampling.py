"""Likelihood weighting: posteriors by simulation, for networks too dense to be answered exactly.

References
----------
Fung, R. & Chang, K.-C. (1990). Weighing and integrating evidence for stochastic simulation in Bayesian networks. UAI 5.
Owen, A. B. (2013). Monte Carlo theory, methods and examples, sections 9.2 and 9.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, shorten
from bnpipe.inference.evidence import Likelihood, SoftEvidence, encode, soft_evidence
from bnpipe.inference.results import Posterior
from bnpipe.network import Network
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

_CHUNK: Final = 64
"""Rows a thread takes at a time."""


@dataclass(frozen=True, eq=False)
class SampledPosterior(Posterior):
    """Estimated posteriors; see :class:`Posterior`.

    No row is called impossible, as samples cannot tell: rows in which no sample had any weight are NaN and `unknown`.

    Parameters
    ----------
    standard_error : mapping of str to float64 (rows, states)
        Of `tables`, by the delta method; not to be trusted where `effective_samples` is small.
    effective_samples : mapping of str to float64 (rows,)
        (sum of weights)² / sum of squared weights.
    unknown : bool (rows,)
    """

    standard_error: Mapping[str, Floats]
    effective_samples: Mapping[str, Floats]
    unknown: NDArray[np.bool_]


def likelihood_weighting(
    network: Network,
    evidence: pd.DataFrame | Dataset,
    targets: Sequence[str] | None = None,
    *,
    samples: int = 10_000,
    seed: int = 0,
    likelihood: Likelihood | None = None,
    threads: int | None = None,
) -> SampledPosterior:
    """Estimate each target's distribution in each row, given the row's other cells.

    Parameters
    ----------
    network : Network
        However dense.
    evidence, targets, likelihood
        As in :meth:`Engine.posterior`.
    samples : int
        Drawn for each row; as many again for each target whose own cell, which is ignored, is known.
    seed : int
    threads : int, optional
        None: one a core. The number changes no bit of the answers.

    Raises
    ------
    EvidenceError
        As in :meth:`Engine.posterior`, or no samples.
    """
    if samples < 1:
        raise EvidenceError(f"at least 1 sample is needed, got {samples}")
    schema = network.schema
    names = (
        schema.names if targets is None else (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
    )
    if strange := [name for name in names if name not in schema]:
        raise EvidenceError(f"no target {strange[0]!r} in the network; there are {shorten(schema.names)}")
    codes = encode(evidence, schema)
    soft = soft_evidence(likelihood or {}, schema, codes.shape[1])
    sampler = _Sampler(network, samples, seed, threads)
    wanted = [schema.index(name) for name in names]
    found = _estimates(sampler, codes, soft, wanted)
    tables = {name: estimate.table for name, estimate in zip(names, found, strict=True)}
    unknown = np.zeros(codes.shape[1], dtype=np.bool_)
    for table in tables.values():
        unknown |= np.isnan(table[:, 0])
    return SampledPosterior(
        tables,
        {name: schema[name].states for name in names},
        np.zeros(codes.shape[1], dtype=np.bool_),
        {name: estimate.standard_error for name, estimate in zip(names, found, strict=True)},
        {name: estimate.effective_samples for name, estimate in zip(names, found, strict=True)},
        unknown,
    )


@dataclass(frozen=True, eq=False)
class _Estimate:
    """Of one target: (rows, states), (rows, states) and (rows,)."""

    table: Floats
    standard_error: Floats
    effective_samples: Floats

    @classmethod
    def of(cls, sums: Floats, masses: Floats) -> _Estimate:
        """Divide sums of weights and their squares, (rows, 2, states), by those over all states, (rows, 2)."""
        mass, squares = masses[:, :1], masses[:, 1:]
        with np.errstate(invalid="ignore", divide="ignore"):
            table = sums[:, 0] / mass
            # Sum over samples of w² (f - p)² where f, 1 in this state and 0 elsewhere, is its own square.
            variance = (sums[:, 1] * (1 - 2 * table) + squares * table**2) / mass**2
            return cls(table, np.sqrt(np.maximum(variance, 0.0)), np.where(mass > 0, mass**2 / squares, 0.0)[:, 0])

    def put(self, rows: NDArray[np.int64], other: _Estimate) -> None:
        """Replace some rows."""
        self.table[rows] = other.table
        self.standard_error[rows] = other.standard_error
        self.effective_samples[rows] = other.effective_samples


def _estimates(
    sampler: _Sampler, codes: NDArray[np.uint8], soft: SoftEvidence, targets: Sequence[int]
) -> list[_Estimate]:
    """Estimate all targets from the same samples; where a target is observed, from samples without that cell."""
    rows = codes.shape[1]
    cards = sampler.cardinalities
    found = [
        _Estimate(np.full((rows, cards[t]), np.nan), np.full((rows, cards[t]), np.nan), np.zeros(rows)) for t in targets
    ]
    free = np.flatnonzero(np.logical_or.reduce([codes[target] == MISSING for target in targets]))
    for estimate, of_free in zip(found, sampler.run(codes, free, soft, targets, run=0), strict=True):
        estimate.put(free, of_free)
    for run, (estimate, target) in enumerate(zip(found, targets, strict=True), start=1):
        observed = np.flatnonzero(codes[target] != MISSING)
        if observed.size:
            ignoring = codes.copy()
            ignoring[target] = MISSING
            estimate.put(observed, sampler.run(ignoring, observed, soft, [target], run=run)[0])
    return found


class _Sampler:
    """The network as arrays of `bnpipe.kernels.sampling.weigh`."""

    def __init__(self, network: Network, samples: int, seed: int, threads: int | None) -> None:
        self.samples, self.seed, self.threads = samples, seed, threads
        self.cardinalities = network.schema.cardinalities
        index = {node: place for place, node in enumerate(network.nodes)}
        tables = [np.ascontiguousarray(network.cpd(node).table) for node in network.nodes]
        parents = [[index[name] for name in network.parents[node]] for node in network.nodes]
        strides = [stride // table.itemsize for table in tables for stride in table.strides[:-1]]
        self._arrays = (
            np.array([index[node] for node in network.order], dtype=np.int64),
            np.array(self.cardinalities, dtype=np.int64),
            np.cumsum([0, *map(len, parents)], dtype=np.int64),
            np.array([parent for its in parents for parent in its], dtype=np.int64),
            np.array(strides, dtype=np.int64),
            np.cumsum([0, *(table.size for table in tables)], dtype=np.int64)[:-1],
            np.concatenate([table.ravel() for table in tables]),
            np.concatenate([np.cumsum(table, axis=-1).ravel() for table in tables]),
        )

    def run(
        self,
        codes: NDArray[np.uint8],
        rows: NDArray[np.int64],
        soft: SoftEvidence,
        targets: Sequence[int],
        *,
        run: int,
    ) -> list[_Estimate]:
        """Draw the samples of `rows`, seeded by the place of the row and the run's number."""
        from bnpipe.kernels import in_threads
        from bnpipe.kernels.sampling import weigh

        cells = np.ascontiguousarray(codes[:, rows].T)
        given_starts, given = self._given(soft.select(rows))
        ends = np.cumsum([0, *(self.cardinalities[target] for target in targets)], dtype=np.int64)
        sums, masses = np.zeros((rows.size, 2, int(ends[-1]))), np.zeros((rows.size, 2))
        streams = _streams(self.seed, run, rows)
        chosen = np.array(targets, dtype=np.int64)

        def work(first: int) -> None:
            last = min(first + _CHUNK, rows.size)
            weigh(
                cells, first, last, self.samples, streams, *self._arrays, given, given_starts, chosen, ends[:-1],
                sums, masses,
            )  # fmt: skip

        in_threads(work, range(0, rows.size, _CHUNK), self.threads)
        return [_Estimate.of(sums[:, :, a:b], masses) for a, b in itertools.pairwise(ends)]

    def _given(self, soft: SoftEvidence) -> tuple[NDArray[np.int64], Floats]:
        starts = np.full(len(self.cardinalities), -1, dtype=np.int64)
        line = 0
        for variable, values in soft.values.items():
            starts[variable] = line
            line += len(values)
        lines = list(soft.values.values())
        return starts, np.concatenate(lines) if lines else np.empty((0, soft.log_peak.size))


def _streams(seed: int, run: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Give each row the two words that start its stream, by splitmix64 (Steele, Lea & Flood 2014, OOPSLA)."""
    start = int(np.random.SeedSequence([seed, run]).generate_state(1, np.uint64)[0])
    mixed = np.uint64(start) ^ (np.stack([2 * rows, 2 * rows + 1], axis=1).astype(np.uint64) + np.uint64(1))
    mixed = mixed * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.ascontiguousarray(mixed | np.uint64(1))
