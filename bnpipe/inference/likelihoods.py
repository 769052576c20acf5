"""Likelihoods of the rows that a network learned from: quantiles to hold others against, and none of the rows.

Likelihoods of rows with different variables observed can't be compared, so there are quantiles for each set of observed
variables that callers are likely to have.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.errors import FormatError
from bnpipe.inference.engine import Engine
from bnpipe.schema import MISSING

Floats = NDArray[np.float64]

FORMAT: Final = 1
LEAST: Final = 200
"""Rows of which quantiles are worth keeping: their standard error is 3.5 points at most."""
MOST: Final = 50_000
"""Rows whose likelihoods are computed, for each set of observed variables."""

_POINTS: Final = 1001
_CELLS: Final = 2e10
"""Cells of messages that may be touched for one set: ten seconds of a core."""
_TOLERANCE: Final = 1e-9
"""Nats between likelihoods that are taken as equal: another machine's differ in their last bits, and many rows tie."""
_SEED: Final = 20_130_101


@dataclass(frozen=True, slots=True, eq=False)
class Quantiles:
    """Log-likelihoods of training rows, all reduced to the same variables.

    Parameters
    ----------
    observed : tuple of str
        These variables, in the network's order.
    rows : int
        Training rows that have all of them.
    values : float64 (1001,)
        Nats. At most as likely as the k-th is a share k / 1000 of the rows or more, than a lesser value less.
    """

    observed: tuple[str, ...]
    rows: int
    values: Floats

    def shares(self, log_likelihoods: Floats) -> Floats:
        """Give the share of training rows that are at most as likely, to 0.001; linear between the quantiles."""
        last, at_most = len(self.values) - 1, log_likelihoods + _TOLERANCE
        below = np.clip(np.searchsorted(self.values, at_most, side="right") - 1, 0, last - 1)
        low, high = self.values[below], self.values[below + 1]
        part = np.zeros(len(below))
        between = np.isfinite(low) & (low < high)
        part[between] = (log_likelihoods[between] - low[between]) / (high[between] - low[between])
        part[at_most >= high] = 1.0
        shares: Floats = (below + np.clip(part, 0.0, 1.0)) / last
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLikelihoods:
    """What was usual in training.

    Parameters
    ----------
    content_hash : str
        Of the network whose likelihoods they are.
    patterns : tuple of Quantiles
        One for each set of observed variables that enough training rows have.
    """

    content_hash: str
    patterns: tuple[Quantiles, ...]

    @classmethod
    def measure(cls, engine: Engine, data: Dataset, patterns: Iterable[Collection[str]]) -> TrainingLikelihoods:
        """Compute the likelihoods of training rows reduced to each set of variables.

        Parameters
        ----------
        engine : Engine
            Of the network that was learned.
        data : Dataset
            Training rows, with the network's schema. Of more than 50 000 some are taken evenly, always the same ones;
            fewer in a network that would take a core more than ten seconds.
        patterns : iterable of collections of str
            Sets of variables; one that fewer than 200 rows have complete is left out.
        """
        names = engine.network.nodes
        sets = dict.fromkeys(tuple(name for name in names if name in pattern) for pattern in patterns)
        found = (_quantiles(engine, data, observed) for observed in sets if observed)
        return cls(engine.network.content_hash, tuple(one for one in found if one is not None))

    def to_json(self) -> str:
        """Write them; null stands for the likelihood of impossible rows."""
        return json.dumps(
            {
                "format": FORMAT,
                "content_hash": self.content_hash,
                "patterns": [
                    {
                        "observed": list(one.observed),
                        "rows": one.rows,
                        "log_likelihoods": [None if np.isneginf(value) else value for value in one.values.tolist()],
                    }
                    for one in self.patterns
                ],
            }
        )

    @classmethod
    def from_json(cls, text: str) -> TrainingLikelihoods:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        FormatError
            Written by a newer bnpipe, or damaged.
        """
        try:
            fields = json.loads(text)
            if fields["format"] > FORMAT:
                raise FormatError(f"likelihoods of format {fields['format']}, this bnpipe reads up to {FORMAT}")
            return cls(str(fields["content_hash"]), tuple(map(_read, fields["patterns"])))
        except (ValueError, KeyError, TypeError) as error:
            raise FormatError(f"no likelihoods of training rows: {error}") from None

    @property
    def hash(self) -> str:
        """SHA-256 of what :meth:`to_json` writes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def _quantiles(engine: Engine, data: Dataset, observed: tuple[str, ...]) -> Quantiles | None:
    places = [data.schema.index(name) for name in observed]
    complete = np.flatnonzero((data.codes[places] != MISSING).all(axis=0))
    if len(complete) < LEAST:
        return None
    most = int(np.clip(_CELLS / engine.cost.cells, LEAST, MOST))
    taken = _evenly(complete, most)
    codes = np.full((len(data.schema), len(taken)), MISSING, dtype=np.uint8)
    for place in places:
        codes[place] = data.codes[place, taken]
    ordered = np.sort(engine.log_likelihood(Dataset(data.schema, codes)))
    ranks = -(-np.arange(_POINTS) * len(ordered) // (_POINTS - 1))  # rounded up
    return Quantiles(observed, len(complete), ordered[np.maximum(ranks, 1) - 1])


def _evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Take one row by lot of each of `most` equal parts, so that no period of the rows can meet one of ours."""
    if len(rows) <= most:
        return rows
    edges = np.arange(most + 1) * len(rows) // most
    lots = np.random.Generator(np.random.PCG64(_SEED)).random(most)
    return rows[edges[:-1] + (lots * np.diff(edges)).astype(np.int64)]


def _read(fields: dict[str, Any]) -> Quantiles:
    values = np.array([-np.inf if value is None else value for value in fields["log_likelihoods"]], dtype=np.float64)
    observed, rows = tuple(map(str, fields["observed"])), int(fields["rows"])
    if len(values) != _POINTS or not (values < np.inf).all() or (values[1:] < values[:-1]).any():
        raise ValueError(f"{_POINTS} quantiles in order are needed for {', '.join(observed)[:80]}")
    values.flags.writeable = False
    return Quantiles(observed, rows, values)
