"""Published and random networks, and rows sampled from them, for the tests of learning and inference."""

from __future__ import annotations

import functools
import warnings

import numpy as np

from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable


@functools.cache
def published(name: str) -> Network:
    """One of the reference networks that pgmpy ships."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pgmpy.utils import get_example_model

        model = get_example_model(name)
    cpds = {node: model.get_cpds(node) for node in model.nodes()}
    schema = Schema(tuple(Variable(node, tuple(map(str, cpd.state_names[node]))) for node, cpd in cpds.items()))
    tables = {node: np.moveaxis(np.asarray(cpd.values), 0, -1) for node, cpd in cpds.items()}
    return Network(schema, {node: tuple(cpd.variables[1:]) for node, cpd in cpds.items()}, tables=tables)


def sample(network: Network, rows: int, seed: int) -> Dataset:
    """Complete rows drawn from a network, parents first."""
    rng = np.random.default_rng(seed)
    drawn: dict[str, np.ndarray] = {}
    for node in network.order:
        table = network.cpd(node).table
        parents = tuple(drawn[parent] for parent in network.parents[node])
        rising = np.cumsum(table[parents] if parents else np.broadcast_to(table, (rows, table.size)), axis=1)
        drawn[node] = np.minimum((rng.random(rows)[:, None] > rising).sum(axis=1), table.shape[-1] - 1)
    return Dataset(network.schema, np.stack([drawn[node] for node in network.nodes]).astype(np.uint8))


def random_network(seed: int, nodes: int, *, most_states: int = 3, zeros: float = 0.0, arcs: float = 0.4) -> Network:
    """A network of random graph and tables; a share `zeros` of the cells is impossible, some nodes have one state."""
    rng = np.random.default_rng(seed)
    names = [f"v{i}" for i in rng.permutation(nodes)]
    cards = dict(zip(names, rng.integers(1 if nodes > 2 else 2, most_states + 1, nodes).tolist(), strict=True))
    parents = {name: tuple(p for p in names[:i] if rng.random() < arcs)[-3:] for i, name in enumerate(names)}
    tables = {}
    for name in names:
        weights = rng.random([*(cards[parent] for parent in parents[name]), cards[name]]) + 1e-3
        blank = rng.random(weights.shape) < zeros
        blank[..., 0] = False
        weights[blank] = 0.0
        tables[name] = weights / weights.sum(axis=-1, keepdims=True)
    order = sorted(names)
    schema = Schema(tuple(Variable(name, tuple(f"s{k}" for k in range(cards[name]))) for name in order))
    return Network(schema, parents, tables=tables)


def joint(network: Network) -> np.ndarray:
    """The whole joint table, one axis a node."""
    table = np.ones([network.schema[node].cardinality for node in network.nodes])
    for node in network.nodes:
        family = [network.nodes.index(name) for name in (*network.parents[node], node)]
        shape = [table.shape[axis] if axis in family else 1 for axis in range(table.ndim)]
        table = table * network.cpd(node).table.transpose(np.argsort(family)).reshape(shape)
    return table
