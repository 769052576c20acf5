"""``compare_cpds``: which conditional distributions of live rows are not those of the registered network.

The null is found by replay. Were nothing changed, the live clusters would be clusters like the reference's, and any W
of all of them could have been the live ones. So windows of W clusters are drawn from reference and live clusters
together, and a node's p is the rank of the live window among them: exact for independent clusters whatever their
distribution (Pesarin & Salmaso 2010, ch. 1), also where one day is wilder than all before. Three things are added:

- *Neighbouring clusters are alike.* Windows of W neighbours in the reference, the network's own past, are compared with
  windows drawn at random from it; by what they vary more, the live window's statistic is divided
  (:mod:`bnpipe.drift.past`).
- *Many nodes.* The greatest statistic of all nodes in each replay bounds what chance does to any of them; step-down, so
  a changed node does not hide another (Westfall & Young 1993, algorithm 4.1).
- *Many looks.* A look at level a alarms by chance with probability a at most, so n looks a year alarm n a times in the
  mean, however much their windows overlap: :func:`look_level` spends a year's budget so.

References
----------
Pesarin, F. & Salmaso, L. (2010). Permutation Tests for Complex Data. Wiley.
Westfall, P. H. & Young, S. S. (1993). Resampling-Based Multiple Testing. Wiley.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from bnpipe.counts import FamilyCounts, family_counts
from bnpipe.drift.arcs import added_arcs
from bnpipe.drift.effects import (
    ROW_LEVEL,
    RowEffects,
    change_point,
    cpd_effect,
    named_rows,
    row_effects,
    shift_intervals,
    smallest_shift,
)
from bnpipe.drift.families import Bools, FamilySample, Floats, rng_of
from bnpipe.drift.past import inflations
from bnpipe.drift.records import DriftReport, NodeDrift, RowDrift, VariableDrift
from bnpipe.drift.rows import row_statistics
from bnpipe.drift.variables import compare_variable
from bnpipe.drift.windows import (
    NONE,
    Inflation,
    Scale,
    WindowStatistics,
    consecutive_windows,
    random_windows,
    window_statistics,
)
from bnpipe.errors import DataError, NoCountsError

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.knowledge import Knowledge
    from bnpipe.network import Network

FEWEST_LIVE: Final = 3
"""Live clusters below which a window may be one storm."""


def look_level(alarms_per_year: float, looks_per_year: float) -> float:
    """Level of one look such that a year of looks without change alarms so often in the mean, over all nodes.

    Raises
    ------
    DataError
        A number is not above 0.
    """
    if not (alarms_per_year > 0 and looks_per_year > 0):
        raise DataError("alarms and looks a year must be above 0")
    return min(alarms_per_year / looks_per_year, 0.5)


def fewest_replays(level: float) -> int:
    """Replays from which a p of `level` can be reached, and half of it; at least 999."""
    return max(999, math.ceil(2.0 / level) - 1)


@dataclass(frozen=True, slots=True)
class Options:
    """How a look is made; see :func:`compare_cpds`."""

    level: float
    min_effect: float
    seed: int
    window: int | None
    replays: int
    min_row_share: float

    def __post_init__(self) -> None:
        if not 0.0 < self.level < 1.0:
            raise DataError(f"level must lie between 0 and 1, not {self.level!r}")
        for name, value in (("min_effect", self.min_effect), ("min_row_share", self.min_row_share)):
            if not 0.0 <= value <= 1.0:
                raise DataError(f"{name} must lie between 0 and 1, not {value!r}")
        if self.window is not None and self.window < 1:
            raise DataError(f"window must be 1 cluster or more, not {self.window!r}")
        if 1.0 / (self.replays + 1.0) > self.level:
            least = math.ceil(1.0 / self.level) - 1
            raise DataError(f"{self.replays} replays can't reach level {self.level:g}; take {least} or more")


@dataclass(frozen=True, eq=False)
class _Node:
    """One family of a look: all its clusters, those of the window, and what they show."""

    whole: FamilySample
    sample: FamilySample
    null: WindowStatistics
    own: WindowStatistics
    inflation: Inflation

    @cached_property
    def scale(self) -> Scale:
        """How far chance drives the statistics."""
        return Scale.of(self.null, self.own)

    @cached_property
    def score(self) -> float:
        """What is most striking in the live window."""
        return float(self.scale.score(self.own)[0])

    @cached_property
    def replayed(self) -> Floats:
        """The same of each replay."""
        return self.scale.score(self.null)


def compare_cpds(
    network: Network,
    live_data: Dataset,
    level: float = 0.05,
    min_effect: float = 0.02,
    seed: int = 0,
    *,
    window: int | None = None,
    replays: int | None = None,
    min_row_share: float = 0.01,
    knowledge: Knowledge | None = None,
    max_parents: int | None = None,
) -> DriftReport:
    """Compare the conditional distributions of live rows with those of a network, node by node.

    Parameters
    ----------
    network : Network
        With counts, best by cluster.
    live_data : Dataset
        Of the network's schema, with clusters of the same kind.
    level : float
        Probability that a look without any change flags a node at all; for a year of looks see :func:`look_level`.
    min_effect : float
        Total variation below which a change does not matter.
    seed : int
        Of the replays.
    window : int, optional
        Test only the last so many clusters of `live_data`; earlier ones serve to date the change. None: all.
    replays : int, optional
        Windows drawn; p is at least ``1 / (replays + 1)``. None: 999, or as many as `level` needs.
    min_row_share : float
        Share of live traffic from which a row of a CPD is named.
    knowledge : Knowledge, optional
        Given, arcs into changed nodes are looked for that it allows (:mod:`bnpipe.drift.arcs`); None: none.
    max_parents : int, optional
        Of a node that gets an arc.

    Returns
    -------
    DriftReport

    Raises
    ------
    NoCountsError
        The network was imported.
    DataError
        Another schema, or an option out of its range.

    Notes
    -----
    Without cluster labels on both sides rows are taken as independent, and the report says so. A node is `known` if its
    live rows come from at least three clusters and there are windows enough to reach `level`.
    """
    drawn = fewest_replays(level) if replays is None and 0 < level < 1 else replays or 0
    options = Options(level, min_effect, seed, window, drawn, min_row_share)
    if not network.has_counts:
        raise NoCountsError("an imported network has no counts to compare live rows with; fit it to data first")
    if live_data.schema != network.schema:
        raise DataError("the live rows have another schema than the network; encode them with the network's own")
    clustered = bool(network.cluster_labels) and live_data.clusters is not None
    live_counts = {node: _live_counts(network, live_data, node, clustered=clustered) for node in network.nodes}
    whole = {
        node: FamilySample.of(node, _reference_counts(network, node, clustered=clustered), live_counts[node])
        for node in network.nodes
    }
    size = min(window or live_data.cluster_count, live_data.cluster_count) if clustered else 1
    samples = {node: sample.last(size) for node, sample in whole.items()}
    doubts = {node: _doubt(sample, options.level, clustered=clustered) for node, sample in samples.items()}
    known = {node: sample for node, sample in samples.items() if not doubts[node]}
    compared = _replayed(known, whole, options, clustered=clustered)
    adjusted, bounds = _step_down(compared, options.level)
    past, now = (network.cluster_labels, live_data.cluster_labels) if clustered else ((), ())
    teller = _Teller(network, options, past, now)
    nodes = {}
    for node, sample in samples.items():
        if node in compared:
            nodes[node] = teller.describe(compared[node], adjusted[node], bounds[node], rng_of(node, options.seed))
        else:
            live = sample.rows[sample.reference :].sum(axis=1)
            clusters = int((live > 0).sum()) if clustered else 0
            nodes[node] = NodeDrift(node, known=False, reason=doubts[node], rows=int(live.sum()), clusters=clusters)
    labels = now[len(now) - size :]
    flagged = [node for node in network.nodes if nodes[node].flagged]
    arcs = added_arcs(network, live_data, flagged, knowledge=knowledge, max_parents=max_parents) if knowledge else ()
    return DriftReport(
        nodes=nodes,
        variables=_variables(network, live_data, live_counts, size if clustered else None),
        level=options.level,
        min_effect=options.min_effect,
        independent_rows=not clustered,
        reference_clusters=len(network.cluster_labels) if clustered else 0,
        live_clusters=size if clustered else 0,
        live_rows=int(_in_window(live_data, size if clustered else None).sum()),
        first_cluster=labels[0] if labels else "",
        last_cluster=labels[-1] if labels else "",
        replays=options.replays,
        seed=options.seed,
        network=network.content_hash,
        added_arcs=arcs,
    )


def _in_window(live: Dataset, size: int | None) -> Bools:
    """Tell which rows are of the last `size` clusters, bool (rows,); None: all."""
    if size is None or live.clusters is None:
        return np.ones(live.rows, dtype=np.bool_)
    found: Bools = live.clusters >= live.cluster_count - size
    return found


def _variables(
    network: Network, live: Dataset, counts: Mapping[str, FamilyCounts], size: int | None
) -> dict[str, VariableDrift]:
    """Describe the window's cells variable by variable."""
    if size is not None and size < live.cluster_count:
        live = live.select(_in_window(live, size))
        counts = {node: each.select(np.arange(each.shape[0] - size, each.shape[0])) for node, each in counts.items()}
    return {node: compare_variable(network, live, node, counts[node]) for node in network.nodes}


def _live_counts(network: Network, live: Dataset, node: str, *, clustered: bool) -> FamilyCounts:
    places = [network.schema.index(name) for name in (*network.parents[node], node)]
    cardinalities = [network.schema.cardinalities[place] for place in places]
    clusters, count = (live.clusters, max(1, live.cluster_count)) if clustered else (None, 0)
    return family_counts(live.codes, cardinalities, clusters, count, variables=places)


def _reference_counts(network: Network, node: str, *, clustered: bool) -> FamilyCounts:
    counts = network.family_counts(node)
    return counts if clustered else counts.place(np.zeros(counts.shape[0], dtype=np.int64), 1)


def _doubt(sample: FamilySample, level: float, *, clustered: bool) -> str:
    """Say why nothing can be said of a node, '' if something can."""
    live, reference = sample.rows[sample.reference :], sample.rows[: sample.reference]
    if not live.sum():
        return "no live row has the whole family"
    if not reference.sum():
        return "the reference has no row of this family"
    if not ((live.sum(axis=0) > 0) & (reference.sum(axis=0) > 0)).any():
        return "live rows have none of the parents' configurations that the reference has"
    if not clustered:
        return ""
    ours, theirs = int((live.sum(axis=1) > 0).sum()), int((reference.sum(axis=1) > 0).sum())
    if ours < FEWEST_LIVE:
        return f"{ours} live clusters with rows of this family; {FEWEST_LIVE} are needed"
    if math.comb(ours + theirs, ours) < 1.0 / level:
        return f"{ours} live and {theirs} reference clusters are too few for level {level:g}"
    return ""


def _replayed(
    known: Mapping[str, FamilySample], whole: Mapping[str, FamilySample], options: Options, *, clustered: bool
) -> dict[str, _Node]:
    """Compute the statistics of the replays and of the live window, of every node that can be known."""
    if not known:
        return {}
    if not clustered:
        drawn = {
            node: row_statistics(sample, options.replays, rng_of(node, options.seed)) for node, sample in known.items()
        }
        return {node: _Node(whole[node], known[node], *statistics, NONE) for node, statistics in drawn.items()}
    first = next(iter(known.values()))
    clusters, size = first.counts.shape[0], first.live
    windows = random_windows(clusters, size, options.replays, np.random.default_rng(options.seed))
    factors = inflations(known, size, options.seed)
    found = {}
    for node, sample in known.items():
        null = window_statistics(sample, windows)
        own = window_statistics(sample, sample.observed[None], factors[node])
        found[node] = _Node(whole[node], sample, null, own, factors[node])
    return found


def _step_down(compared: Mapping[str, _Node], level: float) -> tuple[dict[str, float], dict[str, float]]:
    """Give each node's p adjusted for all nodes, and the statistic from which it would be at most `level`."""
    ranked = sorted(compared, key=lambda node: -compared[node].score)
    adjusted: dict[str, float] = {}
    bounds: dict[str, float] = {}
    greatest = None
    for node in reversed(ranked):  # the greatest of this node and all that rank below it
        null = compared[node].replayed
        greatest = null if greatest is None else np.maximum(greatest, null)
        count = greatest.size + 1.0
        adjusted[node] = float((1.0 + (greatest >= compared[node].score).sum()) / count)
        allowed = int(level * count) - 1  # replays that may reach the bound
        bounds[node] = float(np.sort(greatest)[::-1][allowed]) if allowed < greatest.size else 0.0
    worst = 0.0
    for node in ranked:
        worst = adjusted[node] = max(worst, adjusted[node])
    return {node: adjusted[node] for node in compared}, bounds


@dataclass(frozen=True, eq=False)
class _Teller:
    """Says what a look found of one node; labels are empty where rows are independent."""

    network: Network
    options: Options
    past: tuple[str, ...]
    live: tuple[str, ...]

    def describe(self, node: _Node, p: float, bound: float, rng: np.random.Generator) -> NodeDrift:
        sample, options = node.sample, self.options
        rows = row_effects(sample, node.null, node.own, node.scale)
        cpd = cpd_effect(sample, rows)
        named = (rows.p <= ROW_LEVEL) & (rows.effect >= options.min_effect) & (rows.share >= options.min_row_share)
        effect = max(cpd.effect, float(rows.effect[named].max(initial=0.0)))
        flagged = p <= options.level and effect >= options.min_effect
        since = self.live[change_point(node.whole, sample.live)] if flagged and self.live else None
        null, live = node.replayed, sample.rows[sample.reference :].sum(axis=1)
        return NodeDrift(
            sample.name,
            known=True,
            p=p,
            own_p=float((1.0 + (null >= node.score).sum()) / (null.size + 1.0)),
            effect=effect,
            flagged=flagged,
            share=cpd.divergence,
            rows=int(live.sum()),
            clusters=int((live > 0).sum()) if self.live else 0,
            inflation=node.inflation.factor,
            smallest_shift=smallest_shift(sample, bound * node.scale.summed, node.inflation.factor),
            states=self.network.schema[sample.name].states,
            changed_rows=self._rows(sample, rows, named, rng) if flagged else (),
            change_point=since,
            history=_history(node, self.past, self.live) if self.live else (),
            threshold=bound,
        )

    def _rows(
        self, sample: FamilySample, rows: RowEffects, named: Bools, rng: np.random.Generator
    ) -> tuple[RowDrift, ...]:
        schema, states = self.network.schema, self.network.schema[sample.name].cardinality
        parents = self.network.parents[sample.name]
        cardinalities = tuple(schema[parent].cardinality for parent in parents)
        places = named_rows(rows, min_row_share=self.options.min_row_share)
        intervals = shift_intervals(sample, places, rng, clustered=bool(self.live))
        found = []
        for place, interval in zip(places, intervals, strict=True):
            codes = np.unravel_index(int(sample.configurations[place]), cardinalities) if parents else ()
            before, now = np.zeros(states), np.zeros(states)
            before[sample.states], now[sample.states] = rows.before[place], rows.now[place]
            row = RowDrift(
                {name: schema[name].states[int(code)] for name, code in zip(parents, codes, strict=True)},
                share=float(rows.share[place]),
                live_rows=int(rows.live_rows[place]),
                reference_rows=int(rows.reference_rows[place]),
                p=float(rows.p[place]),
                effect=float(rows.effect[place]),
                interval=interval,
                before=tuple(before.tolist()),
                now=tuple(now.tolist()),
                changed=bool(named[place]),
            )
            found.append(row)
        return tuple(found)


def _history(node: _Node, past: tuple[str, ...], live: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Give the statistic of each window of the past and of the live one, by its last cluster."""
    sample = node.sample
    size = sample.live
    now = (live[-1], node.score)
    if sample.reference <= size:
        return (now,)
    windows = consecutive_windows(sample.reference, size)
    values = node.scale.score(window_statistics(sample.past(), windows, node.inflation))
    return (*zip(past[size - 1 :], values.tolist(), strict=True), now)
