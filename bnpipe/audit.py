"""The audit of a learned graph: what a reviewer asks before its numbers are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bnpipe.errors import shorten
from bnpipe.graph import Arc, GraphDifference, graph_difference
from bnpipe.inference import InferenceCost, inference_cost
from bnpipe.knowledge import Knowledge

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.network import Network

THIN_ROWS = 10
"""A parent configuration with fewer rows than this is thin."""


@dataclass(frozen=True, slots=True)
class NodeAudit:
    """How well the rows cover one node's CPD.

    Parameters
    ----------
    node : str
    parents : tuple of str
    parameters : int
        Free parameters.
    rows : int
        Rows with the whole family observed.
    configurations, unseen, thin : int
        Parent configurations; those without a row; those with 1 to 9 rows.
    """

    node: str
    parents: tuple[str, ...]
    parameters: int
    rows: int
    configurations: int
    unseen: int
    thin: int


@dataclass(frozen=True)
class Audit:
    """What was found.

    Parameters
    ----------
    violations : tuple of str
        Constraints that are not kept; empty when all are.
    parameters : int
        Free parameters of the network.
    rows : int
        Rows learned from.
    nodes : tuple of NodeAudit
    cost : InferenceCost
        Of exact inference.
    difference : GraphDifference or None
        To the champion, up to Markov equivalence.
    strength : tuple of ((str, str), float)
        Of each arc of the graph, weakest first; empty when it was not measured.
    """

    violations: tuple[str, ...]
    parameters: int
    rows: int
    nodes: tuple[NodeAudit, ...]
    cost: InferenceCost
    difference: GraphDifference | None = None
    strength: tuple[tuple[Arc, float], ...] = ()

    @property
    def constraints_kept(self) -> bool:
        """Whether every constraint is kept; acyclicity is one of them."""
        return not self.violations

    @property
    def rows_per_parameter(self) -> float:
        """Rows for each free parameter; infinite without parameters."""
        return self.rows / self.parameters if self.parameters else math.inf

    @property
    def configurations(self) -> int:
        """Parent configurations over all nodes."""
        return sum(node.configurations for node in self.nodes)

    @property
    def unseen(self) -> int:
        """Parent configurations without a row, over all nodes."""
        return sum(node.unseen for node in self.nodes)

    @property
    def thin(self) -> int:
        """Parent configurations with 1 to 9 rows, over all nodes."""
        return sum(node.thin for node in self.nodes)

    def lines(self) -> tuple[str, ...]:
        """Say the findings, a sentence each."""
        kept = "every constraint is kept" if self.constraints_kept else f"broken: {shorten(self.violations)}"
        found = [
            f"{kept}; {len(self.nodes)} nodes, {sum(len(node.parents) for node in self.nodes)} arcs",
            f"{self.parameters} free parameters from {self.rows} rows: {self.rows_per_parameter:.3g} rows each",
            f"of {self.configurations} parent configurations {self.unseen} have no row, {self.thin} under {THIN_ROWS}",
            f"largest clique {shorten(self.cost.largest_clique)}: {self.cost.largest_cells} of {self.cost.cells} cells",
        ]
        if self.difference is not None:
            change = self.difference
            found.append(
                f"against the champion: {len(change.added)} arcs added, {len(change.removed)} removed, "
                f"{len(change.reversed)} turned"
            )
        if self.strength:
            weakest = shorten((f"{arc[0]} -> {arc[1]} {share:.0%}" for arc, share in self.strength), limit=3)
            found.append(f"weakest arcs over bootstraps: {weakest}")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {**asdict(self), "constraints_kept": self.constraints_kept}


def audit(
    network: Network,
    data: Dataset,
    *,
    champion: Network | None = None,
    knowledge: Knowledge | None = None,
    max_parents: int | None = None,
    strength: Mapping[Arc, float] | None = None,
) -> Audit:
    """Audit a fitted network on the rows it was learned from.

    Parameters
    ----------
    network : Network
    data : Dataset
        Of the same schema.
    champion : Network or None
        What the graph is compared to.
    knowledge, max_parents
        The constraints it was learned under.
    strength : mapping of (str, str) to float or None
        From :func:`bnpipe.structure.arc_strength`.
    """
    shares = [] if strength is None else [(arc, float(strength.get(arc, 0.0))) for arc in network.arcs]
    return Audit(
        violations=(knowledge or Knowledge()).violations(network.parents, max_parents),
        parameters=network.parameters,
        rows=data.rows,
        nodes=tuple(_audit_node(network, data, node) for node in network.nodes),
        cost=inference_cost(network),
        difference=None if champion is None else graph_difference(champion.parents, network.parents),
        strength=tuple(sorted(shares, key=lambda entry: (entry[1], entry[0]))),
    )


def _audit_node(network: Network, data: Dataset, node: str) -> NodeAudit:
    """Count the family's rows anew: a network without counts is audited just the same."""
    from bnpipe.counts import contingency

    parents = network.parents[node]
    cardinalities = [data.schema[name].cardinality for name in (*parents, node)]
    codes = np.stack([data.column(name) for name in (*parents, node)])
    rows = contingency(codes, cardinalities).sum(axis=-1)
    return NodeAudit(
        node=node,
        parents=parents,
        parameters=math.prod(cardinalities[:-1]) * (cardinalities[-1] - 1),
        rows=int(rows.sum()),
        configurations=int(rows.size),
        unseen=int((rows == 0).sum()),
        thin=int(((rows > 0) & (rows < THIN_ROWS)).sum()),
    )
