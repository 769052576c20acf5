"""The published networks that are learned and queried, and seeded rows drawn from them."""

from __future__ import annotations

import functools
import gzip
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable

CACHE: Final = Path(os.environ.get("BNPIPE_BENCH_CACHE", Path(__file__).resolve().parent.parent / ".cache" / "bench"))
ALARM_40: Final = "alarm-40"
_CHUNK: Final = 1_000_000


@functools.cache
def published(name: str) -> Network:
    """One of the reference networks that pgmpy ships, read without loading pgmpy.

    ``alarm-40`` is ALARM with three variables more, which makes 40.
    """
    if name == ALARM_40:
        return _with_three_more(published("alarm"))
    spec = importlib.util.find_spec("pgmpy")
    if spec is None or spec.origin is None:
        raise ImportError("the published networks lie in pgmpy, which is not installed")
    packed = Path(spec.origin).parent / "utils" / "example_models" / f"{name}.bif.gz"
    with tempfile.NamedTemporaryFile(suffix=".bif") as unpacked:
        unpacked.write(gzip.decompress(packed.read_bytes()))
        unpacked.flush()
        return Network.from_bif(unpacked.name)


@functools.cache
def exact(name: str) -> Network:
    """Give a published network whose rows sum to 1 in float64, which decimals in a file do to 1e-7 only.

    Engines may leave out what cannot matter where rows sum to 1, so else they would not agree to 1e-9.
    """
    network = published(name)
    tables = {node: network.cpd(node).table for node in network.nodes}
    summed = {node: table / table.sum(axis=-1, keepdims=True) for node, table in tables.items()}
    return Network(network.schema, network.parents, tables=summed)


def sample(network: Network, rows: int, seed: int | tuple[int, ...]) -> Dataset:
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


def rows_file(name: str, rows: int, seed: int) -> Path:
    """Draw rows once and keep them as a file of codes, uint8 (variables, rows); a few rows at a time."""
    path = CACHE / "rows" / f"{name}-{rows}-{seed}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        network = published(name)
        part = path.with_suffix(f".{os.getpid()}.part")
        codes = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(network.nodes), rows))
        for chunk, start in enumerate(range(0, rows, _CHUNK)):
            stop = min(start + _CHUNK, rows)
            codes[:, start:stop] = sample(network, stop - start, (seed, chunk)).codes
        codes.flush()
        part.replace(path)
    return path


def kept_rows(name: str, rows: int, seed: int) -> Dataset:
    """Give the rows of :func:`rows_file`."""
    return Dataset(published(name).schema, np.load(rows_file(name, rows, seed)))


def hidden(data: Dataset, share: float, seed: int) -> Dataset:
    """Make a share of the cells missing, other cells in each row."""
    mask = np.random.default_rng(seed).random(data.codes.shape) < share
    return Dataset(data.schema, np.where(mask, np.uint8(MISSING), data.codes))


def _with_three_more(network: Network) -> Network:
    """Add three variables of three states, each with the last two nodes before it as parents."""
    rng = np.random.default_rng(40)
    schema, parents = list(network.schema.variables), dict(network.parents)
    tables = {node: network.cpd(node).table for node in network.nodes}
    for number in range(3):
        above = schema[-2:]
        variable = Variable(f"EXTRA{number}", ("low", "normal", "high"))
        schema.append(variable)
        parents[variable.name] = tuple(parent.name for parent in above)
        tables[variable.name] = rng.dirichlet([0.5] * 3, size=[parent.cardinality for parent in above])
    return Network(Schema(tuple(schema)), parents, tables=tables)
