"""Intervals of posteriors: the engine's family posteriors brought together with what the counts leave open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.errors import EvidenceError, NoCountsError
from bnpipe.intervals import DRAWS, FamilyUncertainty, family_uncertainty, intervals
from bnpipe.network import Network

if TYPE_CHECKING:
    from bnpipe.inference.engine import Engine
    from bnpipe.inference.evidence import Likelihood

Floats = NDArray[np.float64]

_BLOCK: Final = 2**20
"""Numbers in one block's family posteriors or draws: 8 MiB for each thread."""


class Uncertainty:
    """What the counts of a network leave open, family by family; draws are made when first needed.

    Parameters
    ----------
    network : Network
        With counts.
    fixed : collection of str
        Nodes set from outside: nothing about them is uncertain.
    seed : int

    Raises
    ------
    NoCountsError
        The network was imported.
    """

    def __init__(self, network: Network, fixed: frozenset[str] = frozenset(), seed: int = 0) -> None:
        if not network.has_counts:
            raise NoCountsError(
                "an imported network has no counts to tell how certain its CPDs are; for intervals fit it to data first"
            )
        self.families: dict[int, FamilyUncertainty] = {
            place: family_uncertainty(node, network.family_counts(node))
            for place, node in enumerate(network.nodes)
            if node not in fixed and network.schema[node].cardinality > 1
        }
        self.reference: Mapping[int, Floats] = {place: f.reference for place, f in self.families.items()}
        self.support: Mapping[int, Floats] = {
            place: family.supported.astype(np.float64) for place, family in self.families.items()
        }
        self.cells = sum(family.effective.size for family in self.families.values())
        self._seed = seed
        self._deviations: dict[int, Floats] = {}

    def deviations(self, place: int) -> Floats:
        """Draws of one family's CPD; see `FamilyUncertainty.deviations`."""
        if place not in self._deviations:
            self._deviations[place] = self.families[place].deviations(DRAWS, self._seed)
        return self._deviations[place]


def check_level(level: float) -> None:
    """Refuse what is no level.

    Raises
    ------
    EvidenceError
    """
    if not 0.0 < level < 1.0:
        raise EvidenceError(f"interval is a level between 0 and 1, such as 0.95; got {level!r}")


def posterior_interval(
    engine: Engine,
    codes: NDArray[np.uint8],
    target: int,
    served: Floats,
    *,
    likelihood: Likelihood | None,
    level: float,
    threads: int | None,
) -> Floats:
    """Give the interval of one target in each row, float64 (rows, states, 2); NaN where `served` is.

    The answer that is served always lies inside. Where no training row ever showed any completion of the row with this
    state, the interval begins at 0 (Brown, Cai & DasGupta 2001, Statistical Science 16, p. 113).
    """
    from bnpipe.kernels import in_threads

    rows, states = served.shape
    found = np.full((rows, states, 2), np.nan)
    wanted = np.flatnonzero(~np.isnan(served[:, 0]))
    size = max(1, _BLOCK // (states * max(engine.uncertainty.cells, DRAWS)))

    def work(start: int) -> None:
        block = wanted[start : start + size]
        part = _select(likelihood, block, rows, states)
        found[block] = _block(engine, codes[:, block], target, states, likelihood=part, level=level)

    in_threads(work, range(0, wanted.size, size), threads)
    found[..., 0] = np.minimum(found[..., 0], served)
    found[..., 1] = np.maximum(found[..., 1], served)
    return found


def _block(
    engine: Engine,
    codes: NDArray[np.uint8],
    target: int,
    states: int,
    *,
    likelihood: Likelihood | None,
    level: float,
) -> Floats:
    held, rows = engine.uncertainty, codes.shape[1]
    clamped = np.ascontiguousarray(np.tile(codes, (1, states)))
    clamped[target] = np.repeat(np.arange(states, dtype=np.uint8), rows)
    slopes, mass = engine.family_tables(clamped, held.reference, likelihood=likelihood, threads=1)
    log_mass = mass.reshape(states, rows)
    telling = [place for place in held.families if _tells(slopes[place], states)]
    ends = intervals(
        [held.families[place] for place in telling],
        [held.deviations(place) for place in telling],
        [slopes[place] for place in telling],
        log_mass,
        level=level,
    )
    mass = engine.log_mass_under(clamped, held.support, likelihood=likelihood, threads=1)
    supported = ~np.isneginf(mass.reshape(states, rows)).T
    only = supported & (supported.sum(axis=1, keepdims=True) == 1)
    ends[..., 0] = np.where(supported | (ends[..., 0] == 1.0), ends[..., 0], 0.0)  # 1: what is set, or has one state
    ends[..., 1] = np.where(only, 1.0, ends[..., 1])
    return ends


def _tells(slopes: Floats, states: int) -> bool:
    """Whether a family's CPD moves the target in any row."""
    by_state = slopes.reshape(states, -1)
    return bool((np.abs(by_state[1:] - by_state[0]) > 1e-9).any())


def _select(
    likelihood: Likelihood | None, block: NDArray[np.int64], rows: int, states: int
) -> dict[str, NDArray[np.float64]] | None:
    """Soft evidence of some rows, repeated for each state of the target."""
    if not likelihood:
        return None
    arrays = {name: np.asarray(given, dtype=np.float64) for name, given in likelihood.items()}
    return {
        name: given if given.ndim == 1 else np.tile(np.broadcast_to(given, (rows, given.shape[1]))[block], (states, 1))
        for name, given in arrays.items()
    }
