"""One look for drift on one page: what was decided, which CPDs changed, where and since when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from bnpipe.drift import AddedArc, DriftReport, NodeDrift, RowDrift, VariableDrift
from bnpipe.errors import shorten
from bnpipe.release import DriftDecision
from bnpipe.report.changes import history_figure, row_figure
from bnpipe.report.graph import HATCHED, INK, NodeLook, draw_network
from bnpipe.report.layout import has_bands
from bnpipe.report.page import Badge, Pairs, badges, count, nats, render
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from markupsafe import Markup

EVIDENTLY: Final = "Evidently"
"""Label of the link to Evidently's page."""
MOST_FIGURES: Final = 6

# Each from its palest to its darkest; ever darker in grey too.
PALE, CHANGED = ("#fbfaf8", "#fbe3cc"), ("#f5a35b", "#8f2d00")
PALE_EDGE, CHANGED_EDGE, UNKNOWN_EDGE = "#9aa5b1", "#4f1800", "#7b8794"


@dataclass(frozen=True, slots=True)
class _NodeLine:
    """One line of the table of nodes; cells in the order of its head."""

    name: str
    badge: Badge
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _RowLine:
    name: str
    cells: tuple[str, ...]
    changed: bool
    figure: Markup | None


@dataclass(frozen=True, slots=True)
class _Change:
    """A flagged node: what it says, its rows, its past."""

    name: str
    said: str
    rows: tuple[_RowLine, ...]
    history: Markup


@dataclass(frozen=True, slots=True)
class _Link:
    label: str
    url: str

    @property
    def safe(self) -> bool:
        return urlsplit(self.url).scheme in {"", "http", "https"}


def drift_report(
    *,
    model: str,
    version: int,
    report: DriftReport | None,
    parents: Mapping[str, tuple[str, ...]],
    decision: DriftDecision,
    validation: tuple[Verdict, ...] = (),
    targets: tuple[str, ...] = (),
    tiers: Sequence[Sequence[str]] = (),
    evidently: str | None = None,
    subtitle: str = "",
    links: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write the page of one look.

    Parameters
    ----------
    model, version : str, int
        The champion that live rows were compared with.
    report : DriftReport or None
        What was found; None where the rows were too bad to compare. All numbers of the page are from it.
    parents : mapping of str to tuple of str
        Of every node; drawn with `targets` and `tiers` as in :func:`~bnpipe.report.draw_network`.
    decision : DriftDecision
        What was done or advised.
    validation : tuple of Verdict
        Of the live rows.
    evidently : str, optional
        Evidently's page, put into this one; left out where `links` has an ``Evidently``.
    subtitle : str
        Below the name, as the window.
    links : mapping of str to str
        Label -> URL; ``Evidently`` stands in its own section.

    Returns
    -------
    str
        An HTML page that loads nothing and needs no script (Evidently's part does); all texts are escaped.
    """
    from markupsafe import Markup

    looks = _looks(parents, report)
    own = [verdict for verdict in decision.verdicts if verdict not in validation]
    return render(
        "drift.html.j2",
        model=model,
        version=version,
        subtitle=subtitle,
        headline=_headline(decision, report),
        decision=Badge("", _outcome(decision, report), decision.reason),
        steps=tuple(_steps(model, version, decision, report)),
        links=[_Link(label, url) for label, url in links.items() if label != EVIDENTLY],
        facts=tuple(_facts(version, report)),
        notes=tuple(_notes(report)),
        graph=Markup(draw_network(parents, tiers=tiers, targets=targets, looks=looks)),
        legend=_legend(report, targets, bands=has_bands(parents, tiers)),
        report=report,
        nodes=tuple(_node_lines(report)) if report else (),
        changes=tuple(_changes(report)) if report else (),
        variables=[(name, _variable_cells(each)) for name, each in report.variables.items()] if report else (),
        arcs=[(f"{arc.parent} → {arc.child}", _arc_cells(arc)) for arc in report.added_arcs] if report else (),
        validation=badges(validation),
        verdicts=badges(own),
        evidently=evidently if EVIDENTLY not in links else None,
        evidently_link=_Link(EVIDENTLY, links[EVIDENTLY]) if EVIDENTLY in links else None,
    )


def _outcome(decision: DriftDecision, report: DriftReport | None) -> str:
    if decision.action != "nothing":
        return decision.action
    return "changed" if report and report.flagged else "calm"


def _headline(decision: DriftDecision, report: DriftReport | None) -> str:
    said = {
        "calm": "calm",
        "changed": "changed, nothing done",
        "hold": "hold",
        "roll back": f"roll back to version {decision.to}",
        "refit": f"refit {shorten(decision.families, limit=3)}",
        "relearn": "relearn",
    }[_outcome(decision, report)]
    return f"advised: {said}" if decision.advised_only else said


def _steps(model: str, version: int, decision: DriftDecision, report: DriftReport | None) -> Iterator[str]:
    """Say what a person may do next."""
    action = decision.action
    if action == "hold":
        yield f"These rows are not learned. Mend their source, then start bn_drift__{model} for this window again."
        yield "If the rows are right and a limit is too narrow, change the limit in the spec."
    elif action == "nothing":
        changed = bool(report and report.flagged)
        yield (
            f"The next look decides anew. To act now, start bn_train__{model} by hand."
            if changed
            else "Nothing needs to be done."
        )
    elif decision.advised_only:
        yield "Nothing was done: the spec says actions: advise, or the model is frozen."
        yield f"To follow the advice: {_by_hand(model, decision)}"
    else:
        yield _by_itself(model, version, decision)
        yield f"To stop bnpipe from acting by itself: bnpipe freeze {model} --reason …"
    if report and report.unknown:
        yield (
            f"{len(report.unknown)} of {len(report.nodes)} nodes are unknown, which is not calm: the table of nodes "
            "says what is missing."
        )


def _by_hand(model: str, decision: DriftDecision) -> str:
    if decision.action == "roll back":
        return f"bnpipe rollback {model} --to {decision.to} --reason …"
    if decision.action == "relearn":
        return f"start bn_train__{model}."
    since = f" on rows since {decision.since}" if decision.since else ""
    return f"start bn_train__{model} and name the families to refit{since}: {', '.join(decision.families)}."


def _by_itself(model: str, version: int, decision: DriftDecision) -> str:
    if decision.action == "roll back":
        return (
            f"Version {version} is barred from automatic promotion; bnpipe history {model} shows the move. To bring it "
            f"back: bnpipe promote {model} {version} --force."
        )
    kept = "; every other family stays as it is" if decision.action == "refit" else ""
    return f"bn_train__{model} learns{kept}. What it makes must pass the gates, like any other version."


def _facts(version: int, report: DriftReport | None) -> Iterator[tuple[str, str]]:
    yield "champion", f"version {version}"
    if report is None:
        return
    yield "CPDs changed", f"{len(report.flagged)} of {len(report.nodes)}"
    yield "unknown", str(len(report.unknown))
    yield "live rows", count(report.live_rows)
    if not report.independent_rows:
        yield f"live clusters, {report.first_cluster} to {report.last_cluster}", count(report.live_clusters)
        yield "reference clusters", count(report.reference_clusters)
    yield "chance of a false alarm in such a look", f"{report.level:.3g}"
    yield "total variation that matters", f"{report.min_effect:g}"


def _notes(report: DriftReport | None) -> Iterator[str]:
    if report is None:
        yield "The live rows were not compared with the network: they are bad."
    elif report.independent_rows:
        yield "There are no cluster labels: rows are taken as independent, and p may be too small."


def _looks(parents: Mapping[str, tuple[str, ...]], report: DriftReport | None) -> dict[str, NodeLook]:
    nodes = report.nodes if report else {}
    most = max((node.share for node in nodes.values() if node.known), default=0.0)
    variables = report.variables if report else {}
    return {name: _look(nodes.get(name), variables.get(name), most) for name in parents}


def _look(node: NodeDrift | None, variable: VariableDrift | None, most: float) -> NodeLook:
    if node is None or not node.known:
        reason = node.reason if node else "not compared"
        return NodeLook(HATCHED, UNKNOWN_EDGE, told=f"unknown: {reason}")
    part = min(1.0, max(0.0, node.share / most)) if most > 0 else 0.0
    beside = f"; marginal shift {variable.marginal_shift:.3f}" if variable else ""
    told = f"p {node.p:.3g}, effect {node.effect:.3f}, {nats(node.share)} nats/row{beside}"
    if node.flagged:
        ink = "#ffffff" if part > 0.45 else INK
        return NodeLook(_mixed(*CHANGED, part), CHANGED_EDGE, ink, 3.0, f"CPD changed: {told}")
    return NodeLook(_mixed(*PALE, part), PALE_EDGE, told=f"CPD unchanged: {told}")


def _mixed(pale: str, dark: str, part: float) -> str:
    ends = zip(bytes.fromhex(pale[1:]), bytes.fromhex(dark[1:]), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in ends)


def _legend(report: DriftReport | None, targets: Sequence[str], *, bands: bool) -> Pairs:
    """Give (class of the swatch, words) of what is drawn."""
    nodes = [] if report is None else [node for node in report.nodes.values() if node.known]
    most = max((node.share for node in nodes), default=0.0)
    words = []
    if any(node.flagged for node in nodes):
        words.append(("changed", f"its CPD changed; the darker, the more it costs (most: {nats(most)} nats/row)"))
    if any(not node.flagged for node in nodes):
        words.append(("pale", "its CPD did not change, whatever its parents did"))
    if report is None or report.unknown:
        words.append(("unknown", "unknown"))
    if targets:
        words.append(("name", "bold: a target"))
    if bands:
        words.append(("band", "bands are tiers"))
    return words


def _node_lines(report: DriftReport) -> Iterator[_NodeLine]:
    """Give a line a node, flagged ones first, as in the report's own table."""
    for node in sorted(report.nodes.values(), key=lambda node: (not node.flagged, node.p, -node.effect)):
        if not node.known:
            badge = Badge("", "unknown", node.reason)
            yield _NodeLine(node.name, badge, ("–", "–", "–", count(node.rows), _clusters(node, report), "–", "–"))
            continue
        cells = (
            f"{node.p:.3g}",
            f"{node.effect:.3f}",
            nats(node.share),
            count(node.rows),
            _clusters(node, report),
            f"{node.inflation:.2f}",
            f"{node.smallest_shift:.3f}",
        )
        yield _NodeLine(node.name, Badge("", "changed" if node.flagged else "calm", ""), cells)


def _clusters(node: NodeDrift, report: DriftReport) -> str:
    return "–" if report.independent_rows else count(node.clusters)


def _changes(report: DriftReport) -> Iterator[_Change]:
    from markupsafe import Markup

    for name in report.flagged:
        node = report.nodes[name]
        drawn = [row for row in node.changed_rows if row.changed] or list(node.changed_rows)
        figures = {id(row): Markup(row_figure(row, node.states)) for row in drawn[:MOST_FIGURES]}
        rows = tuple(
            _RowLine(row.name, _row_cells(row), row.changed, figures.get(id(row))) for row in node.changed_rows
        )
        yield _Change(name, _said(node), rows, Markup(history_figure(node)))


def _said(node: NodeDrift) -> str:
    since = f"Half of the change had happened by {node.change_point}. " if node.change_point else ""
    named = sum(row.changed for row in node.changed_rows)
    where = {0: "No row stands out: all moved a little.", 1: "One row changed."}.get(named, f"{named} rows changed.")
    return f"p {node.p:.3g}, effect {node.effect:.3f}, {nats(node.share)} nats/row. {since}{where}"


def _row_cells(row: RowDrift) -> tuple[str, ...]:
    return (
        f"{row.share:.1%}",
        count(row.live_rows),
        count(row.reference_rows),
        f"{row.p:.3g}",
        f"{row.effect:.3f}",
        f"[{row.interval[0]:.3f}, {row.interval[1]:.3f}]",
    )


def _variable_cells(variable: VariableDrift) -> tuple[str, ...]:
    shares = (variable.missing, variable.unseen, variable.new_configurations, variable.thin_configurations)
    shift = "–" if variable.missing == 1 else f"{variable.marginal_shift:.3f}"
    return (shift, *(f"{share:.2%}" if share else "–" for share in shares))


def _arc_cells(arc: AddedArc) -> tuple[str, ...]:
    return f"{arc.gain:+.4f} [{arc.interval[0]:+.4f}, {arc.interval[1]:+.4f}]", f"{arc.p:.3g}"
