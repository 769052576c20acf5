"""Evidence of every kind, answers by enumeration, and how much of it to try; shared by the tests of inference."""

from __future__ import annotations

import os

import numpy as np

from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.schema import MISSING

PLAIN_PYTHON = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
"""Whether the kernels run as plain Python, hundreds of times slower: then examples are few and small."""


def examples(count: int) -> int:
    """How many examples to try."""
    return max(count // 8, 4) if PLAIN_PYTHON else count


def holes(data: Dataset, share: float, seed: int) -> Dataset:
    """The rows with a random share of their cells missing."""
    codes = data.codes.copy()
    codes[np.random.default_rng(seed).random(codes.shape) < share] = MISSING
    return Dataset(data.schema, codes)


def random_evidence(network: Network, rows: int, share: float, seed: int) -> Dataset:
    """Random states, possible or not, and a share of missing cells."""
    rng = np.random.default_rng(seed)
    cards = [network.schema[node].cardinality for node in network.nodes]
    codes = np.stack([rng.integers(0, card, rows) for card in cards]).astype(np.uint8)
    return holes(Dataset(network.schema, codes), share, seed + 1)


def random_likelihood(network: Network, rows: int, seed: int) -> dict[str, np.ndarray]:
    """Likelihoods of some variables, with zeros: some the same for all rows, some not."""
    rng = np.random.default_rng(seed)
    likelihood = {}
    for node in network.nodes:
        states = network.schema[node].cardinality
        if rng.random() < 0.6:
            table = rng.random((rows, states) if rng.random() < 0.5 else states) * 10.0 ** rng.integers(-3, 3)
            likelihood[node] = np.where(rng.random(table.shape) < 0.2, 0.0, table)
    return likelihood


def weights(
    network: Network, table: np.ndarray, codes: np.ndarray, likelihood: dict[str, np.ndarray], row: int
) -> np.ndarray:
    """The joint table times the evidence of one row: cells as zeros and ones, likelihoods as they are."""
    product = table.copy()
    for place, node in enumerate(network.nodes):
        factor = np.ones(table.shape[place])
        if codes[place] != MISSING:
            factor = (np.arange(table.shape[place]) == codes[place]).astype(float)
        if node in likelihood:
            factor = factor * (likelihood[node] if likelihood[node].ndim == 1 else likelihood[node][row])
        product *= factor.reshape([-1 if axis == place else 1 for axis in range(table.ndim)])
    return product


def onto(product: np.ndarray, places: list[int]) -> np.ndarray:
    """Sum a joint table onto some of its axes, in the order given."""
    kept = product.sum(axis=tuple(axis for axis in range(product.ndim) if axis not in places))
    return kept.transpose([sorted(places).index(place) for place in places])


def normalised(table: np.ndarray) -> np.ndarray:
    """Divide by the sum; NaN where that is zero."""
    mass = table.sum()
    return table / mass if mass > 0 else np.full_like(table, np.nan)
