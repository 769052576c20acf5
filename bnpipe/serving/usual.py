"""How usual a row is: its likelihood among those of training rows with the same variables observed.

Likelihoods of rows with different variables observed can't be compared. A version holds none of the rows it learned
from, but quantiles of their likelihoods for the sets of variables that callers are likely to observe. Rows with other
sets are compared with rows drawn from the network, always the same ones, reduced to these variables: there shows what
is unusual under the network, but not where the network is wrong about its training rows.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final
from weakref import WeakKeyDictionary, proxy

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.errors import NetworkError
from bnpipe.inference import Engine, TrainingLikelihoods
from bnpipe.inference.likelihoods import MOST
from bnpipe.network import Network
from bnpipe.schema import MISSING

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]

DRAWN: Final = 2000
"""Rows compared with: a quantile of 1 % has a standard error of 0.2 points."""
TRAINING_ROWS: Final = "training rows"
DRAWN_ROWS: Final = "drawn rows"
BASIS: Final = {
    TRAINING_ROWS: f"rows that the version learned from, with the same variables observed, {MOST} at most",
    DRAWN_ROWS: f"{DRAWN} rows drawn from the network, with the same variables observed",
}
"""What quantiles are relative to: as a row's answer says, and at more length."""

_SEED: Final = 20_130_101
_PATTERNS: Final = 512
"""Sets of observed variables whose likelihoods are kept: 8 MB at most."""


class Usual:
    """What likelihoods are usual under one network. Threads may share it.

    Parameters
    ----------
    engine : Engine
    trained : TrainingLikelihoods, optional
        What was usual in training.

    Raises
    ------
    NetworkError
        That is of another network.
    """

    def __init__(self, engine: Engine, trained: TrainingLikelihoods | None = None) -> None:
        network = engine.network
        if trained is not None and trained.content_hash != network.content_hash:
            raise NetworkError(
                f"the likelihoods of its training rows are of network {trained.content_hash[:12]}, "
                f"not {network.content_hash[:12]}"
            )
        self._engine: Engine = proxy(engine)  # or the engine would live on in `_OF`
        self._trained = {
            np.array([name in one.observed for name in network.nodes]).tobytes(): one
            for one in (() if trained is None else trained.patterns)
        }
        self._drawn: Codes | None = None
        self._kept: OrderedDict[bytes, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def quantiles(self, codes: Codes, log_likelihoods: Floats) -> list[tuple[float, str]]:
        """Give the share of rows that are at most as likely as each row, and of which rows.

        Parameters
        ----------
        codes : uint8 (variables, rows)
        log_likelihoods : float64 (rows,)
            Of these rows' observed cells.
        """
        patterns, rows = _patterns(codes)
        found, basis = np.empty(codes.shape[1]), []
        for place, pattern in enumerate(patterns):
            mine, trained = rows == place, self._trained.get(pattern.tobytes())
            basis.append(DRAWN_ROWS if trained is None else TRAINING_ROWS)
            if trained is not None:
                found[mine] = trained.shares(log_likelihoods[mine])
            else:
                found[mine] = np.searchsorted(self._likelihoods(pattern), log_likelihoods[mine], side="right") / DRAWN
        return list(zip(found.tolist(), [basis[place] for place in rows.tolist()], strict=True))

    def unknown(self, codes: Codes) -> int:
        """Count the sets of observed variables for which likelihoods must be made first."""
        patterns, _ = _patterns(codes)
        keys = [pattern.tobytes() for pattern in patterns]
        return sum(key not in self._trained and key not in self._kept for key in keys)

    def _likelihoods(self, pattern: NDArray[np.bool_]) -> Floats:
        """Give the likelihoods of drawn rows reduced to the variables of a pattern, in order."""
        key = pattern.tobytes()
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
            if self._drawn is None:
                self._drawn = draw(self._engine.network, DRAWN, _SEED)
            drawn = self._drawn
        reduced = np.where(pattern[:, None], drawn, np.uint8(MISSING))
        found = np.sort(self._engine.log_likelihood(Dataset(self._engine.network.schema, reduced), threads=1))
        with self._lock:
            self._kept[key] = found
            if len(self._kept) > _PATTERNS:
                self._kept.popitem(last=False)
        return found


_OF: Final[WeakKeyDictionary[Engine, Usual]] = WeakKeyDictionary()


def usual_of(engine: Engine) -> Usual:
    """Give an engine's own; it goes when the engine goes."""
    found = _OF.get(engine)
    return _OF.setdefault(engine, Usual(engine)) if found is None else found


def set_usual(engine: Engine, trained: TrainingLikelihoods | None) -> None:
    """Tell an engine what was usual in its training; see :class:`Usual`."""
    _OF[engine] = Usual(engine, trained)


def draw(network: Network, rows: int, seed: int) -> Codes:
    """Draw rows, uint8 (variables, rows), parents before children."""
    uniform = np.random.Generator(np.random.PCG64(seed)).random((len(network.nodes), rows))
    index = {node: place for place, node in enumerate(network.nodes)}
    codes = np.empty((len(network.nodes), rows), dtype=np.uint8)
    for node in network.order:
        table = network.cpd(node).table
        ends = np.cumsum(table, axis=-1)[tuple(codes[index[parent]] for parent in network.parents[node])]
        reached = uniform[index[node]][:, None] * ends[..., -1:] >= ends[..., :-1]
        codes[index[node]] = np.broadcast_to(reached, (rows, table.shape[-1] - 1)).sum(axis=-1)
    return codes


def _patterns(codes: Codes) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Give the distinct sets of observed variables, bool (sets, variables), and the place of each row's."""
    observed = (codes != MISSING).T
    if len(observed) == 1:
        return observed, np.zeros(1, dtype=np.intp)
    packed = np.packbits(observed, axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, rows = np.unique(keys, return_index=True, return_inverse=True)
    return observed[first], rows.reshape(-1)
