"""The audit of a learned graph: what a reviewer asks before its numbers are believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from bnpipe.counts import contingency
from bnpipe.errors import DataError, NetworkError, shorten
from bnpipe.graph import Arc, GraphDifference, Parents, arcs_of, graph_difference
from bnpipe.junction import MAX_CLIQUE_CELLS, InferenceCost, inference_cost
from bnpipe.knowledge import Knowledge

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.network import Network

THIN_ROWS: Final = 10
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
    problems : tuple of str
        Constraints that are not kept, a cycle, a clique too large for exact inference; empty when all is well.
    free_parameters : int
        Of the network.
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

    problems: tuple[str, ...]
    free_parameters: int
    rows: int
    nodes: tuple[NodeAudit, ...]
    cost: InferenceCost
    difference: GraphDifference | None = None
    strength: tuple[tuple[Arc, float], ...] = ()

    @property
    def rows_per_parameter(self) -> float:
        """Rows for each free parameter; infinite without parameters."""
        return self.rows / self.free_parameters if self.free_parameters else math.inf

    @property
    def largest_clique(self) -> tuple[str, ...]:
        """Variables of the largest clique of the junction tree."""
        return self.cost.largest_clique

    @property
    def clique_cells(self) -> int:
        """Cells of the largest clique's table."""
        return self.cost.largest_cells

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

    def metrics(self) -> dict[str, float]:
        """Give the numbers worth a curve over versions."""
        numbers: dict[str, float] = {
            "audit.free_parameters": self.free_parameters,
            "audit.rows_per_parameter": self.rows_per_parameter,
            "audit.configurations": self.configurations,
            "audit.unseen_configurations": self.unseen,
            "audit.thin_configurations": self.thin,
            "audit.clique_cells": self.clique_cells,
            "audit.inference_cells": self.cost.cells,
        }
        if self.difference is not None:
            numbers["audit.distance_to_champion"] = self.difference.distance
        return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}

    def lines(self) -> tuple[str, ...]:
        """Say the findings, a sentence each."""
        found = [
            shorten(self.problems) if self.problems else "every constraint is kept",
            f"{self.free_parameters} free parameters from {self.rows} rows: {self.rows_per_parameter:.3g} rows each",
            f"of {self.configurations} parent configurations {self.unseen} have no row, {self.thin} under {THIN_ROWS}",
            f"largest clique {shorten(self.largest_clique)}: {self.clique_cells} of {self.cost.cells} cells",
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
        return asdict(self)


def audit(
    graph: Network | Parents,
    data: Dataset,
    *,
    champion: Network | Parents | None = None,
    knowledge: Knowledge | None = None,
    max_parents: int | None = None,
    strength: Mapping[Arc, float] | None = None,
    max_clique_cells: int = MAX_CLIQUE_CELLS,
) -> Audit:
    """Audit a graph on the rows it was learned from.

    Parameters
    ----------
    graph : Network or mapping of str to sequence of str
        What was learned, fitted or not.
    data : Dataset
        Each family is counted on its own complete rows, as it is fitted.
    champion : Network, mapping or None
        What the graph is compared to.
    knowledge, max_parents
        The constraints it was learned under.
    strength : mapping of (str, str) to float or None
        From :func:`bnpipe.structure.arc_strength`.
    max_clique_cells : int
        As in :func:`bnpipe.inference.compile`.

    Raises
    ------
    DataError
        The graph names what is no variable of the data.
    NetworkError
        A node's table is too large to be fitted; the node is named.
    """
    parents = _parents(graph, data.schema.names)
    if strange := {*parents, *(name for names in parents.values() for name in names)} - set(data.schema.names):
        raise DataError(f"the graph names what is no variable of the data: {shorten(sorted(strange))}")
    cost = inference_cost(parents, {variable.name: variable.cardinality for variable in data.schema.variables})
    problems = (knowledge or Knowledge()).violations(parents, max_parents)
    if cost.largest_cells > max_clique_cells:
        clique = shorten(cost.largest_clique)
        problems += (f"too dense for exact inference: {cost.largest_cells} cells over {clique}",)
    nodes = tuple(_audit_node(parents[node], data, node) for node in parents)
    shares = [] if strength is None else [(arc, float(strength.get(arc, 0.0))) for arc in arcs_of(parents)]
    return Audit(
        problems=problems,
        free_parameters=sum(node.parameters for node in nodes),
        rows=data.rows,
        nodes=nodes,
        cost=cost,
        difference=None if champion is None else graph_difference(_parents(champion), parents),
        strength=tuple(sorted(shares, key=lambda entry: (entry[1], entry[0]))),
    )


def _parents(graph: Network | Parents, names: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    given = graph if isinstance(graph, Mapping) else graph.parents
    return {name: tuple(given.get(name, ())) for name in dict.fromkeys([*names, *given])}


def _audit_node(parents: tuple[str, ...], data: Dataset, node: str) -> NodeAudit:
    family = (*parents, node)
    cardinalities = [data.schema[name].cardinality for name in family]
    variables = [data.schema.index(name) for name in family]
    try:
        rows = contingency(data.codes, cardinalities, variables=variables).sum(axis=-1)
    except NetworkError as error:
        raise NetworkError(f"{node}: {error}") from error
    return NodeAudit(
        node=node,
        parents=parents,
        parameters=math.prod(cardinalities[:-1]) * (cardinalities[-1] - 1),
        rows=int(rows.sum()),
        configurations=int(rows.size),
        unseen=int((rows == 0).sum()),
        thin=int(((rows > 0) & (rows < THIN_ROWS)).sum()),
    )
