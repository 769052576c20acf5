"""The published networks that are learned and queried, and seeded rows drawn from them."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import tempfile
from pathlib import Path

import numpy as np

from bnpipe.data import Dataset
from bnpipe.network import Network


@functools.cache
def published(name: str) -> Network:
    """One of the reference networks that pgmpy ships, read without loading pgmpy."""
    spec = importlib.util.find_spec("pgmpy")
    if spec is None or spec.origin is None:
        raise ImportError("the published networks lie in pgmpy, which is not installed")
    packed = Path(spec.origin).parent / "utils" / "example_models" / f"{name}.bif.gz"
    with tempfile.NamedTemporaryFile(suffix=".bif") as unpacked:
        unpacked.write(gzip.decompress(packed.read_bytes()))
        unpacked.flush()
        return Network.from_bif(unpacked.name)


def sample(network: Network, rows: int, seed: int) -> Dataset:
    """Complete rows drawn from a network, parents first; the states are those the network declares."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    for node in network.order:
        table = network.cpd(node).table
        parents = tuple(drawn[parent] for parent in network.parents[node])
        rising = np.cumsum(table[parents] if parents else np.broadcast_to(table, (rows, table.size)), axis=1)
        states = (rng.random(rows)[:, None] > rising).sum(axis=1)
        drawn[node] = np.minimum(states, table.shape[-1] - 1).astype(np.uint8)
    return Dataset(network.schema, np.stack([drawn[node] for node in network.nodes]))
