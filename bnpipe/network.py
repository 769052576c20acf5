"""The network as a frozen value: schema, graph, counts by cluster (or imported CPDs) and prior.

CPDs are not stored but follow from counts N_ijk and prior pseudo-counts alpha (node i, parent configuration j,
state k): (N_ijk + alpha) / (N_ij + alpha r_i), with alpha = 0 for maximum likelihood. So another prior is another
view of the same data, and versions can be added, compared and refitted without the raw rows.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import FamilyCounts, table_cells
from bnpipe.cpd import CPD, Prior, estimate
from bnpipe.errors import FormatError, NetworkError, NoCountsError, SchemaError, shorten
from bnpipe.graph import topological_order
from bnpipe.schema import Schema

if TYPE_CHECKING:
    from pgmpy.models import DiscreteBayesianNetwork

FORMAT: Final[int] = 1
"""Newest file format this code reads and the one it writes."""

ROW_SUM_TOLERANCE: Final[float] = 0.01
"""How far from 1 a row of an imported CPD may sum; published BIF files are rounded."""


@dataclass(frozen=True, eq=False)
class Network:
    """A discrete Bayesian network; immutable, also its arrays.

    Parameters
    ----------
    schema : Schema
    parents : mapping of str to tuple of str
        Of every variable; the order of parents is the order of the axes of its table. Absent means no parents.
    counts : mapping of str to FamilyCounts, optional
        Of every variable, over the clusters `cluster_labels` (a single cluster if there are none).
    tables : mapping of str to float64 (*parent cardinalities, states), optional
        CPDs of an imported network. Exactly one of `counts` and `tables` is given.
    prior : Prior
    cluster_labels : tuple of str

    Raises
    ------
    NetworkError
        Cycle, unknown parent, wrong shape, no distribution; the node is named.
    """

    schema: Schema
    parents: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, FamilyCounts] | None = None
    tables: Mapping[str, NDArray[np.float64]] | None = None
    prior: Prior = field(default_factory=Prior)
    cluster_labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "cluster_labels", tuple(self.cluster_labels))
        parents = complete_parents(self.schema.names, self.parents)
        object.__setattr__(self, "parents", MappingProxyType(parents))
        object.__setattr__(self, "order", topological_order(parents))
        if (self.counts is None) == (self.tables is None):
            raise NetworkError("a network has either counts or tables")
        held = self.counts if self.counts is not None else self.tables
        assert held is not None
        if set(held) != set(self.nodes):
            odd = sorted(set(held) ^ set(self.nodes))
            raise NetworkError(f"counts or tables must be those of the nodes; missing or too many: {shorten(odd)}")
        if self.counts is not None:
            counts = {node: self._checked_counts(node, self.counts[node]) for node in self.nodes}
            object.__setattr__(self, "counts", MappingProxyType(counts))
        elif self.tables is not None:
            tables = {node: self._checked_table(node, self.tables[node]) for node in self.nodes}
            object.__setattr__(self, "tables", MappingProxyType(tables))

    order: tuple[str, ...] = field(init=False, repr=False)
    """Nodes, parents before children; among free ones in the order of the schema."""

    def _checked_counts(self, node: str, counts: FamilyCounts) -> FamilyCounts:
        *parent_cards, states = self._shape(node)
        expected = (max(1, len(self.cluster_labels)), math.prod(parent_cards), states)
        if counts.shape != expected:
            raise NetworkError(f"{node}: counts have shape {counts.shape}, expected {expected}")
        return counts

    def _checked_table(self, node: str, table: NDArray[np.float64]) -> NDArray[np.float64]:
        held = np.array(table, dtype=np.float64, order="C")
        if held.shape != self._shape(node):
            raise NetworkError(f"{node}: table has shape {held.shape}, expected {self._shape(node)}")
        if not np.isfinite(held).all() or held.min() < 0:
            raise NetworkError(f"{node}: probabilities must be finite and not negative")
        sums = held.sum(axis=-1)
        if (worst := float(np.abs(sums - 1).max())) > ROW_SUM_TOLERANCE:
            raise NetworkError(f"{node}: a row of the table sums to 1 only within {worst:.3g}")
        held.flags.writeable = False
        return held

    def _shape(self, node: str) -> tuple[int, ...]:
        shape = tuple(self.schema[name].cardinality for name in (*self.parents[node], node))
        try:
            table_cells(shape)
        except NetworkError as error:
            raise NetworkError(f"{node}: {error}") from None
        return shape

    def __reduce__(self) -> tuple[Any, ...]:
        counts = None if self.counts is None else dict(self.counts)
        tables = None if self.tables is None else dict(self.tables)
        return Network, (self.schema, dict(self.parents), counts, tables, self.prior, self.cluster_labels)

    def __repr__(self) -> str:
        source = f"{len(self.cluster_labels)} clusters" if self.has_counts else "imported"
        return f"Network({len(self.nodes)} nodes, {len(self.arcs)} arcs, {source}, {self.content_hash[:12]})"

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the variables, in the order of the schema."""
        return self.schema.names

    @cached_property
    def arcs(self) -> tuple[tuple[str, str], ...]:
        """All (parent, child), children in the order of the schema."""
        return tuple((parent, node) for node in self.nodes for parent in self.parents[node])

    @cached_property
    def parameters(self) -> int:
        """Number of free parameters: the sum over nodes of configurations times (states - 1)."""
        return sum(math.prod(self._shape(node)[:-1]) * (self._shape(node)[-1] - 1) for node in self.nodes)

    @property
    def has_counts(self) -> bool:
        """Whether the network knows the rows it came from; an imported one does not."""
        return self.counts is not None

    def family_counts(self, node: str) -> FamilyCounts:
        """Give the counts of one family.

        Raises
        ------
        NoCountsError
            The network was imported.
        NetworkError
            There is no such node.
        """
        self._check_node(node)
        if self.counts is None:
            raise NoCountsError(f"{node}: an imported network has no counts; fit it to data first")
        return self.counts[node]

    def _check_node(self, node: str) -> None:
        if node not in self.parents:
            raise NetworkError(f"no node {shorten([repr(node)])}; there are {shorten(self.nodes)}")

    def cpd(self, node: str) -> CPD:
        """Give one node's conditional probabilities under the prior; computed once.

        Raises
        ------
        NetworkError
            There is no such node.
        """
        self._check_node(node)
        if node not in self._cpds:
            self._cpds[node] = self._compute_cpd(node)
        return self._cpds[node]

    @cached_property
    def _cpds(self) -> dict[str, CPD]:
        return {}

    def _compute_cpd(self, node: str) -> CPD:
        shape = self._shape(node)
        if self.tables is not None:
            table, unseen = self.tables[node], np.zeros(shape[:-1], dtype=np.bool_)
        else:
            table, seen = estimate(self.family_counts(node).total(), self.prior)
            table, unseen = table.reshape(shape), np.logical_not(seen).reshape(shape[:-1])
        for array in (table, unseen):
            array.flags.writeable = False
        parents = self.parents[node]
        parent_states = tuple(self.schema[parent].states for parent in parents)
        return CPD(node, parents, self.schema[node].states, parent_states, table, unseen)

    def with_prior(self, prior: Prior) -> Network:
        """Give the same counts another prior.

        Raises
        ------
        NoCountsError
            The network was imported.
        """
        if not self.has_counts:
            raise NoCountsError("an imported network has no counts; its prior can't be changed")
        return replace(self, prior=prior)

    @cached_property
    def structure_hash(self) -> str:
        """SHA-256 of the graph alone: nodes and their parents, whatever their order."""
        return _hash_json({node: sorted(parents) for node, parents in self.parents.items()})

    def family_hash(self, node: str) -> str:
        """SHA-256 of all that determines one CPD; clusters without rows of the family do not matter.

        Raises
        ------
        NetworkError
            There is no such node.
        """
        self._check_node(node)
        family = [self.schema[name].to_dict() for name in (*self.parents[node], node)]
        if self.tables is not None:
            return _hash_json({"family": family}, self.tables[node])
        counts = self.family_counts(node)
        occupied = np.flatnonzero(counts.cluster_rows)
        labels = [self.cluster_labels[place] for place in occupied] if self.cluster_labels else []
        local = counts.select(occupied) if occupied.size else counts
        return _hash_json(
            {"family": family, "prior": _prior_fields(self.prior), "labels": labels}, local.cells, local.counts
        )

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of everything the network is; equal networks have equal hashes, on any machine."""
        fields = {
            "schema": self.schema.to_dict(),
            "parents": {node: list(parents) for node, parents in self.parents.items()},
            "prior": _prior_fields(self.prior),
            "cluster_labels": list(self.cluster_labels),
            "has_counts": self.has_counts,
        }
        if self.tables is not None:
            return _hash_json(fields, *(self.tables[node] for node in self.nodes))
        families = [self.family_counts(node) for node in self.nodes]
        return _hash_json(fields, *itertools.chain.from_iterable((f.cells, f.counts) for f in families))

    def to_json(self) -> str:
        """Give the text that :meth:`save` writes: readable but for the counts, which are packed."""
        fields: dict[str, Any] = {
            "format": FORMAT,
            "kind": "bnpipe network",
            "content_hash": self.content_hash,
            "schema": self.schema.to_dict(),
            "parents": {node: list(parents) for node, parents in self.parents.items()},
            "prior": _prior_fields(self.prior),
            "cluster_labels": list(self.cluster_labels),
        }
        if self.tables is not None:
            fields["tables"] = {node: table.tolist() for node, table in self.tables.items()}
        else:
            fields["counts"] = {node: self.family_counts(node).to_dict() for node in self.nodes}
        return json.dumps(fields, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Network:
        """Read what :meth:`to_json` gave; bit for bit the same network.

        Raises
        ------
        FormatError
            The text is damaged, not a network, or of a newer format.
        """
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise FormatError(f"not a bnpipe network: {shorten([error])}") from error
        _check_format(fields)
        try:
            network = cls(
                schema=Schema.from_dict(fields["schema"]),
                parents={node: tuple(parents) for node, parents in fields["parents"].items()},
                counts=_read(fields.get("counts"), FamilyCounts.from_dict),
                tables=_read(fields.get("tables"), lambda table: np.array(table, dtype=np.float64)),
                prior=Prior(**fields["prior"]),
                cluster_labels=tuple(fields["cluster_labels"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, SchemaError, NetworkError) as error:
            raise FormatError(f"a damaged bnpipe network: {type(error).__name__}: {shorten([error])}") from error
        if network.content_hash != fields.get("content_hash"):
            raise FormatError("a damaged bnpipe network: its content hash is not the one it was saved with")
        return network

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network as JSON; the file appears whole or not at all."""
        _write_whole(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FormatError
            The file is damaged, not a network, or of a newer format.
        """
        try:
            return cls.from_json(Path(path).read_bytes().decode("utf-8"))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error.__cause__
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: not a bnpipe network: not UTF-8 text") from error

    def to_bif(self, path: str | os.PathLike[str]) -> None:
        """Write the CPDs as BIF that pgmpy, pyAgrum and bnlearn read; names BIF can't hold are made safe."""
        from bnpipe.bif import write_bif

        cpds = {node: self.cpd(node).table for node in self.nodes}
        _write_whole(Path(path), write_bif(self.schema, self.parents, cpds))

    @classmethod
    def from_bif(cls, path: str | os.PathLike[str]) -> Network:
        """Read a BIF file, gzipped if its name ends in ``.gz``; the network has no counts.

        Raises
        ------
        FormatError
            The text is not BIF; file and line are named.
        NetworkError
            It is BIF but not a network.
        """
        from bnpipe.bif import load_bif

        schema, parents, tables = load_bif(Path(path))
        return cls(schema, parents, tables=tables)

    def to_pgmpy(self) -> DiscreteBayesianNetwork:
        """Give a pgmpy network with the same CPDs and state names."""
        from bnpipe.pgmpy_models import pgmpy_model

        return pgmpy_model(self.schema, self.parents, {node: self.cpd(node).table for node in self.nodes})

    @classmethod
    def from_pgmpy(cls, model: DiscreteBayesianNetwork) -> Network:
        """Take over the CPDs of a pgmpy network; it has no counts.

        Raises
        ------
        NetworkError
            A node has no CPD, or a CPD names its parents' states otherwise than their own CPDs do.
        """
        from bnpipe.pgmpy_models import read_pgmpy

        schema, parents, tables = read_pgmpy(model)
        return cls(schema, parents, tables=tables)


def complete_parents(nodes: Sequence[str], parents: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Give every node its parents, none where absent, in the order of the nodes.

    Raises
    ------
    NetworkError
        A node or parent is unknown, a node its own parent, or a parent named twice.
    """
    known = set(nodes)
    if strangers := [node for node in parents if node not in known]:
        raise NetworkError(f"parents of unknown nodes {shorten(strangers)}; there are {shorten(nodes)}")
    completed = {node: tuple(parents.get(node, ())) for node in nodes}
    for node, family in completed.items():
        if isinstance(parents.get(node), str):
            raise NetworkError(f"{node}: parents are a list of names, got the text {shorten([parents[node]])!r}")
        if strangers := [parent for parent in family if parent not in known]:
            raise NetworkError(f"{node}: unknown parents {shorten(strangers)}; there are {shorten(nodes)}")
        if node in family or len(set(family)) < len(family):
            raise NetworkError(f"{node}: a parent is the node itself or named twice: {shorten(family)}")
    return completed


def _prior_fields(prior: Prior) -> dict[str, Any]:
    return {"kind": prior.kind, "equivalent_sample_size": float(prior.equivalent_sample_size)}


def _hash_json(fields: Mapping[str, Any], *arrays: NDArray[Any]) -> str:
    """Hash canonical JSON, then each array with its shape, in little-endian order."""
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode("ascii"))
    for array in arrays:
        digest.update(f"{array.dtype.kind}{array.shape}".encode("ascii"))
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def _read(packed: Mapping[str, Any] | None, read: Any) -> dict[str, Any] | None:
    return None if packed is None else {node: read(fields) for node, fields in packed.items()}


def _check_format(fields: object) -> None:
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int) or isinstance(fields["format"], bool):
        raise FormatError('not a bnpipe network: there is no "format"')
    if fields["format"] > FORMAT:
        raise FormatError(
            f"format {fields['format']} was written by a newer bnpipe; this one reads up to {FORMAT}: upgrade bnpipe"
        )
    if fields["format"] < 1:
        raise FormatError(f"there never was a format {fields['format']}")


def _write_whole(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        scratch.write_bytes(text.encode("utf-8"))
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
