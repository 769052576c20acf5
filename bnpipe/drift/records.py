"""What a comparison of live rows with a registered network found: frozen values that save, load and print."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from bnpipe.errors import FormatError

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class RowDrift:
    """One row of a CPD, the distribution under one configuration of the parents, before and now.

    Parameters
    ----------
    configuration : mapping of str to str
        Parent -> state; empty for a root.
    share : float
        Of the live rows of the family.
    live_rows, reference_rows : int
    p : float
        Of this row, adjusted for all rows of the node.
    effect : float
        Total variation between before and now, less what chance makes of it.
    interval : (float, float)
        95 % of the total variation, clusters resampled; as measured, chance included.
    before, now : tuple of float
        Shares of the node's states.
    changed : bool
        Whether this row is named as changed.
    """

    configuration: Mapping[str, str]
    share: float
    live_rows: int
    reference_rows: int
    p: float
    effect: float
    interval: tuple[float, float]
    before: tuple[float, ...]
    now: tuple[float, ...]
    changed: bool

    @property
    def name(self) -> str:
        """The configuration as text."""
        return ", ".join(f"{parent}={state}" for parent, state in self.configuration.items()) or "(no parents)"


@dataclass(frozen=True, slots=True)
class NodeDrift:
    """Whether one node's CPD changed.

    Parameters
    ----------
    name : str
    known : bool
        False: the rows or clusters do not tell; `reason` says why, and nothing else means anything.
    reason : str
        One sentence.
    p : float
        Adjusted for all nodes of the look (Westfall & Young); 1 where it is not known.
    own_p : float
        Of this node alone.
    effect : float
        The larger of the CPD's mean total variation over live traffic and that of its most changed row, both less what
        chance makes of them.
    flagged : bool
        ``p`` is at most the level and `effect` at least the least that matters.
    share : float
        Nats a live row that this CPD's change costs: its part of the divergence of live rows from the reference, less
        what chance makes of it.
    rows, clusters : int
        Live rows where the whole family is observed, and the clusters they come from.
    inflation : float
        How much more alike neighbouring clusters make the rows of a window than one cluster does; 1 where they do not.
    smallest_shift : float
        Total variation of the whole CPD that these clusters would have shown in four of five cases.
    states : tuple of str
    changed_rows : tuple of RowDrift
        Of a flagged node, the most changed first.
    change_point : str or None
        Of a flagged node: label of the cluster by which half of the change had happened.
    history : tuple of (str, float)
        Label of the last cluster of each window of reference clusters and its statistic, then that of the live
        window: the node's own past, in units in which `threshold` says what is unusual.
    threshold : float
        Of the statistic, at the level of the look.
    """

    name: str
    known: bool
    reason: str = ""
    p: float = 1.0
    own_p: float = 1.0
    effect: float = 0.0
    flagged: bool = False
    share: float = 0.0
    rows: int = 0
    clusters: int = 0
    inflation: float = 1.0
    smallest_shift: float = 1.0
    states: tuple[str, ...] = ()
    changed_rows: tuple[RowDrift, ...] = ()
    change_point: str | None = None
    history: tuple[tuple[str, float], ...] = ()
    threshold: float = 0.0


@dataclass(frozen=True, slots=True)
class VariableDrift:
    """What is kept apart from CPDs: how the cells of one variable look.

    Parameters
    ----------
    name : str
    marginal_shift : float
        Total variation between the shares of its states then and now; parents may have made it.
    missing : float
        Share of live rows without a value.
    unseen : float
        Share of live rows with a value that no state takes.
    new_configurations, thin_configurations : float
        Share of live family rows under parent configurations with no, or fewer than five, reference rows.
    """

    name: str
    marginal_shift: float
    missing: float
    unseen: float
    new_configurations: float
    thin_configurations: float


@dataclass(frozen=True, slots=True)
class AddedArc:
    """An arc that the graph lacks and live rows ask for: fitted on earlier clusters, scored on later ones.

    Parameters
    ----------
    parent, child : str
    gain : float
        Nats a row on the later clusters.
    interval : (float, float)
        95 % over cluster means.
    p : float
        One-sided, times the number of arcs tried.
    """

    parent: str
    child: str
    gain: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What :func:`bnpipe.compare_cpds` found.

    Parameters
    ----------
    nodes : mapping of str to NodeDrift
        In the order of the schema.
    variables : mapping of str to VariableDrift
    level : float
        Family-wise error of this look.
    min_effect : float
        Total variation below which a change does not matter.
    independent_rows : bool
        True: there were no clusters, so rows were taken as independent of one another.
    reference_clusters, live_clusters : int
        Compared.
    live_rows : int
        Of the live window.
    first_cluster, last_cluster : str
        Of the live window, '' without clusters.
    replays : int
    seed : int
    network : str
        Content hash of the network compared with.
    added_arcs : tuple of AddedArc
        Structure drift; empty where it was not asked for or nothing won.
    """

    nodes: Mapping[str, NodeDrift]
    variables: Mapping[str, VariableDrift]
    level: float
    min_effect: float
    independent_rows: bool
    reference_clusters: int
    live_clusters: int
    live_rows: int
    first_cluster: str
    last_cluster: str
    replays: int
    seed: int
    network: str
    added_arcs: tuple[AddedArc, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "variables", MappingProxyType(dict(self.variables)))

    def __reduce__(self) -> tuple[Any, ...]:
        return DriftReport.from_dict, (self.to_dict(),)

    @property
    def flagged(self) -> tuple[str, ...]:
        """Names of the nodes that changed, the surest and largest first."""
        found = [node for node in self.nodes.values() if node.flagged]
        return tuple(node.name for node in sorted(found, key=lambda node: (node.p, -node.effect)))

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the nodes of which nothing can be said."""
        return tuple(name for name, node in self.nodes.items() if not node.known)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("nodes", "variables")}
        fields["added_arcs"] = [asdict(arc) for arc in self.added_arcs]
        fields["nodes"] = {name: _node_fields(node) for name, node in self.nodes.items()}
        fields["variables"] = {name: asdict(variable) for name, variable in self.variables.items()}
        return {"format": FORMAT, **fields}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` gave.

        Raises
        ------
        FormatError
            A field is missing or unknown, or the format is newer than this code.
        """
        given = dict(fields)
        if (found := given.pop("format", None)) != FORMAT:
            raise FormatError(f"a drift report of format {found!r}; this bnpipe reads format {FORMAT}")
        try:
            given["nodes"] = {name: _read_node(node) for name, node in given["nodes"].items()}
            given["variables"] = {name: VariableDrift(**each) for name, each in given["variables"].items()}
            given["added_arcs"] = tuple(
                AddedArc(**{**arc, "interval": tuple(arc["interval"])}) for arc in given["added_arcs"]
            )
            return cls(**given)
        except (KeyError, TypeError, AttributeError) as error:
            raise FormatError(f"not a drift report: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        FormatError
            The file is no drift report.
        """
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{path}: not a drift report: {error}") from error
        return cls.from_dict(fields)

    def table(self) -> str:
        """Give a line a node, flagged ones first, as plain text."""
        lines = [("node", "p", "effect", "nats/row", "rows", "")]
        ranked = sorted(self.nodes.values(), key=lambda node: (not node.flagged, node.p, -node.effect))
        for node in ranked:
            said = _said(node)
            if not node.known:
                lines.append((node.name, "?", "?", "?", str(node.rows), said))
                continue
            lines.append((node.name, f"{node.p:.3g}", f"{node.effect:.3f}", f"{node.share:.4f}", str(node.rows), said))
        widths = [max(len(line[place]) for line in lines) for place in range(5)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in range(1, 5)), line[5]]).rstrip()
            for line in lines
        )

    def __str__(self) -> str:
        compared = (
            f"{self.live_rows} rows taken as independent"
            if self.independent_rows
            else f"{self.live_clusters} live clusters, {self.first_cluster} to {self.last_cluster}, "
            f"against {self.reference_clusters}"
        )
        head = f"{len(self.flagged)} of {len(self.nodes)} CPDs changed ({compared}; level {self.level:g})"
        return f"{head}\n{self.table()}"


def _said(node: NodeDrift) -> str:
    if not node.known:
        return f"unknown: {node.reason}"
    if not node.flagged:
        return ""
    rows = [row.name for row in node.changed_rows if row.changed]
    where = f" at {rows[0]}" + (f" and {len(rows) - 1} more rows" if len(rows) > 1 else "") if rows else ""
    since = f", since {node.change_point}" if node.change_point else ""
    return f"CHANGED{where}{since}"


def _node_fields(node: NodeDrift) -> dict[str, Any]:
    fields = {name: getattr(node, name) for name in NodeDrift.__slots__ if name != "changed_rows"}
    fields["changed_rows"] = [
        {name: getattr(row, name) for name in RowDrift.__slots__} | {"configuration": dict(row.configuration)}
        for row in node.changed_rows
    ]
    return fields


def _read_node(fields: Mapping[str, Any]) -> NodeDrift:
    given = dict(fields)
    given["changed_rows"] = tuple(_read_row(row) for row in given["changed_rows"])
    given["history"] = tuple((str(label), float(value)) for label, value in given["history"])
    given["states"] = tuple(given["states"])
    return NodeDrift(**given)


def _read_row(fields: Mapping[str, Any]) -> RowDrift:
    return RowDrift(
        **{
            **fields,
            "interval": tuple(fields["interval"]),
            "before": tuple(fields["before"]),
            "now": tuple(fields["now"]),
        }
    )
