"""From rows to a network with counts, and from networks to networks: merge and refit.

Each family is counted on the rows where the whole family is observed. That uses more rows than the complete ones
and is right if values are missing at random given what is observed (Little & Rubin 2002, ch. 1.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import FamilyCounts, compiled_pays, family_counts
from bnpipe.cpd import Prior
from bnpipe.data import Dataset, order_labels
from bnpipe.errors import DataError, NetworkError, shorten
from bnpipe.graph import topological_order
from bnpipe.network import Network, complete_parents

ROWS_AT_ONCE: Final = 2**27
"""Rows times threads that are counted at a time: a thread holds up to 24 bytes a row, so 3 GiB in all."""


def fit(
    data: Dataset | Iterable[Dataset],
    parents: Mapping[str, Sequence[str]],
    equivalent_sample_size: float = 0.0,
    *,
    threads: int | None = None,
) -> Network:
    """Count every family of a graph by cluster.

    Parameters
    ----------
    data : Dataset, or several of the same schema
        Of several, only one and the counts so far are held; the network is that of all rows, bit for bit.
    parents : mapping of str to sequence of str
        Parents of each node, such as `LearnedStructure.parents`; a node left out has none.
    equivalent_sample_size : float
        Rows' worth of a BDeu prior; 0.0 is maximum likelihood.
    threads : int, optional
        Families counted at a time where there are rows enough; None: one a core. The counts are the same.

    Raises
    ------
    NetworkError
        Unknown node, cycle, a table too large, no data at all, or a sample size that is negative or not finite.

    Examples
    --------
    >>> import pandas as pd
    >>> data = Dataset.from_pandas(pd.DataFrame({"a": ["x", "x", "y"], "b": ["u", "v", "u"]}))
    >>> fit(data, {"b": ("a",)}).cpd("b").table.tolist()
    [[0.5, 0.5], [1.0, 0.0]]
    """
    if not isinstance(data, Dataset):
        return merge(fit(part, parents, equivalent_sample_size, threads=threads) for part in data)
    prior = Prior() if equivalent_sample_size == 0 else Prior("bdeu", float(equivalent_sample_size))
    complete = complete_parents(data.schema.names, parents)
    topological_order(complete)  # before the counting, which costs more
    counts = _count_all(data, complete, threads)
    return Network(data.schema, complete, counts=counts, prior=prior, cluster_labels=data.cluster_labels)


def merge(networks: Iterable[Network]) -> Network:
    """Add the counts of networks over the same schema, graph and prior; clusters of the same label add up.

    Raises
    ------
    NetworkError
        There are none, or they differ in more than their counts.
    NoCountsError
        One of them was imported.
    """
    runs: list[tuple[int, Network]] = []  # of 1, 2, 4, … networks: nothing is added up more than log2(n) times
    for added in networks:
        length, network = 1, added
        while runs and runs[-1][0] == length:
            length, network = 2 * length, _merge_two(runs.pop()[1], network)
        runs.append((length, network))
    if not runs:
        raise NetworkError("no networks to merge")
    network = runs.pop()[1]
    while runs:
        network = _merge_two(runs.pop()[1], network)
    return network


def _merge_two(first: Network, other: Network) -> Network:
    _check_mergeable(first, other)
    labels = order_labels((*first.cluster_labels, *other.cluster_labels))
    parts = (_relabelled(first, labels), _relabelled(other, labels))
    counts = {node: parts[0][node] + parts[1][node] for node in first.nodes}
    return Network(first.schema, first.parents, counts=counts, prior=first.prior, cluster_labels=labels)


def refit(network: Network, data: Dataset, families: Iterable[str], *, old_rows: int = 0) -> Network:
    """Count the named families anew on other rows; every other family keeps its counts.

    Clusters of both are kept; `Network.family_hash` of the others does not change.

    Parameters
    ----------
    network : Network
    data : Dataset
        Of the network's schema.
    families : iterable of str
        Nodes whose counts are to be those of `data`.
    old_rows : int
        How much of what was known stays: of a parent configuration that has new rows, so many old ones, in their old
        proportions (each state that had a row keeps one at least); of one that has none, all. Rows of clusters that
        `data` has too never stay. 0: nothing does.

    Raises
    ------
    NetworkError
        An unknown node, or another schema.
    NoCountsError
        The network was imported.
    """
    nodes = tuple(dict.fromkeys(families))
    if strangers := [node for node in nodes if node not in network.parents]:
        raise NetworkError(f"no nodes {shorten(strangers)} to refit; there are {shorten(network.nodes)}")
    if data.schema != network.schema:
        raise NetworkError("refit needs data of the network's own schema")
    if bool(data.cluster_labels) != bool(network.cluster_labels):
        raise NetworkError("refit needs clusters in both the network and the data, or in neither")
    labels = order_labels((*network.cluster_labels, *data.cluster_labels))
    counts = _relabelled(network, labels)
    for node in nodes:
        fresh = _count(data, network.parents, node).place(_places(data.cluster_labels, labels), max(1, len(labels)))
        counts[node] = fresh + _discounted(counts[node], fresh, old_rows) if old_rows else fresh
    return Network(network.schema, network.parents, counts=counts, prior=network.prior, cluster_labels=labels)


def _discounted(old: FamilyCounts, fresh: FamilyCounts, old_rows: int) -> FamilyCounts:
    """Thin old counts where there are new ones; see :func:`refit`."""
    places = np.arange(old.shape[0])
    if old.shape[0] > 1:
        places = np.where(fresh.cluster_rows > 0, -1, places)
    old = old.place(places, old.shape[0])
    total = old.total()
    rows = np.maximum(total.sum(axis=1, keepdims=True), 1)
    counted_anew = fresh.total().sum(axis=1, keepdims=True) > 0
    return old.thinned(np.where(counted_anew, np.minimum(total, -(-total * old_rows // rows)), total))


def log_likelihood_rows(network: Network, data: Dataset) -> NDArray[np.float64]:
    """Score rows by table look-up, the sum over nodes of ln P(state | parents' states).

    Returns
    -------
    float64 (rows,)
        In nats; -inf where the network says impossible, NaN where a cell is missing (`inference` sums those out).

    Raises
    ------
    DataError
        The data have another schema.
    """
    if data.schema != network.schema:
        raise DataError("the data have another schema than the network")
    total: NDArray[np.float64] = np.zeros(data.rows)
    for node in network.nodes:
        with np.errstate(divide="ignore"):
            logs = np.log(network.cpd(node).table).ravel()
        flat, *rest = _family_codes(data, node, network.parents[node])
        places = flat.astype(np.int64)
        for codes, name in zip(rest, (*network.parents[node], node)[1:], strict=True):
            places = places * data.schema[name].cardinality + codes
        total += logs[np.minimum(places, logs.size - 1)]
    total[~data.complete] = np.nan
    return total


def _family_codes(data: Dataset, node: str, parents: Sequence[str]) -> list[NDArray[np.uint8]]:
    return [data.column(name) for name in (*parents, node)]


def _count(
    data: Dataset, parents: Mapping[str, Sequence[str]], node: str, *, compiled: bool | None = None
) -> FamilyCounts:
    variables = [data.schema.index(name) for name in (*parents[node], node)]
    cardinalities = [data.schema.cardinalities[variable] for variable in variables]
    try:
        return family_counts(
            data.codes, cardinalities, data.clusters, data.cluster_count, variables=variables, compiled=compiled
        )
    except NetworkError as error:
        raise NetworkError(f"{node}: {error}") from error


def _count_all(data: Dataset, parents: Mapping[str, Sequence[str]], threads: int | None) -> dict[str, FamilyCounts]:
    """Count every family."""
    nodes = data.schema.names
    if not compiled_pays(data.rows, len(nodes)):
        return {node: _count(data, parents, node, compiled=False) for node in nodes}
    from bnpipe.kernels import in_threads, usable_cores

    at_once = min(threads or usable_cores(), max(1, ROWS_AT_ONCE // max(1, data.rows)))
    counted = in_threads(lambda node: _count(data, parents, node, compiled=True), nodes, at_once)
    return dict(zip(nodes, counted, strict=True))


def _relabelled(network: Network, labels: tuple[str, ...]) -> dict[str, FamilyCounts]:
    """Give the counts of every node over a longer list of clusters."""
    places = _places(network.cluster_labels, labels)
    return {node: network.family_counts(node).place(places, max(1, len(labels))) for node in network.nodes}


def _places(own: tuple[str, ...], labels: tuple[str, ...]) -> NDArray[np.int64]:
    place_of = {label: place for place, label in enumerate(labels)}
    return np.array([place_of[label] for label in own] or [0], dtype=np.int64)


def _check_mergeable(first: Network, other: Network) -> None:
    if first.schema != other.schema:
        raise NetworkError("networks of different schemas can't be merged")
    if dict(first.parents) != dict(other.parents):
        changed = [node for node in first.nodes if first.parents[node] != other.parents[node]]
        raise NetworkError(f"networks of different graphs can't be merged; parents differ at {shorten(changed)}")
    if first.prior != other.prior:
        raise NetworkError("networks with different priors can't be merged; use with_prior first")
    if bool(first.cluster_labels) != bool(other.cluster_labels):
        raise NetworkError("networks with and without clusters can't be merged")
