"""One training on one page: HTML without scripts or outside references, so that it opens anywhere, years later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bnpipe.evaluation import BaselineScores, Evaluation, TargetScores
from bnpipe.network import Network
from bnpipe.release import PromotionDecision
from bnpipe.report.calibration import calibration_figure
from bnpipe.report.graph import draw_network
from bnpipe.report.layout import Arc, has_bands
from bnpipe.report.page import Badge, Pairs, badges, count, render
from bnpipe.verdict import Verdict


@dataclass(frozen=True, slots=True)
class _ScoreRow:
    target: str
    model: str
    log_loss: str
    brier: str
    roc_auc: str
    difference: str
    note: str
    own: bool


@dataclass(frozen=True, slots=True)
class _Step:
    name: str
    value: str
    share: int


@dataclass(frozen=True, slots=True)
class _Table:
    title: str
    rows: Pairs


def training_report(
    *,
    name: str,
    network: Network,
    evaluation: Evaluation | None = None,
    verdicts: Sequence[Verdict] = (),
    decision: PromotionDecision | None = None,
    description: str = "",
    targets: Sequence[str] = (),
    tiers: Sequence[Sequence[str]] = (),
    strength: Mapping[Arc, float] | None = None,
    windows: Pairs = (),
    audit: Sequence[str] = (),
    validation: Sequence[str] = (),
    seconds: Mapping[str, float] | None = None,
    provenance: Pairs = (),
    notes: Sequence[str] = (),
) -> str:
    """Write the page of one training.

    Parameters
    ----------
    name, description : str
        Of the model.
    network : Network
        What was learned; drawn with `targets`, `tiers` and `strength` as in :func:`~bnpipe.report.draw_network`.
    evaluation : Evaluation, optional
        Held-out scores and calibration.
    verdicts : sequence of Verdict
        In the order they are to be read.
    decision : PromotionDecision, optional
        What happened to the version; without it the page says how many gates passed.
    windows, provenance : sequence of (label, value)
        Training and held-out windows; fingerprints, hashes, versions, links as text.
    audit, validation, notes : sequence of str
        A finding each: of the graph, of the data, to stand at the top.
    seconds : mapping of str to float, optional
        Seconds of each step, in order.

    Returns
    -------
    str
        An HTML page; all texts are escaped.
    """
    from markupsafe import Markup

    marked = tuple(targets) or (tuple(target.name for target in evaluation.targets) if evaluation else ())
    passed = sum(verdict.passed for verdict in verdicts)
    return render(
        "training.html.j2",
        name=name,
        description=description,
        headline=f"{passed} of {len(verdicts)} gates passed" if verdicts else "trained",
        decision=Badge("", decision.outcome, decision.reason) if decision else None,
        facts=_facts(network, evaluation),
        notes=notes,
        graph=Markup(draw_network(network, tiers=tiers, strength=strength, targets=marked)),
        graph_caption=_graph_caption(network, marked, tiers=tiers, strength=strength),
        scores=tuple(_score_rows(evaluation)) if evaluation else (),
        score_notes=tuple(_score_notes(evaluation)) if evaluation else (),
        calibration=Markup(calibration_figure(evaluation)) if evaluation else "",
        clusters_word="blocks of rows" if evaluation and evaluation.independent_rows else "clusters",
        verdicts=badges(verdicts),
        tables=[_Table(title, rows) for title, rows in _tables(windows, validation, provenance) if rows],
        audit=audit,
        seconds=tuple(_steps(seconds or {})),
    )


def _tables(windows: Pairs, validation: Sequence[str], provenance: Pairs) -> Iterator[tuple[str, Pairs]]:
    yield "Windows", windows
    yield "Validation of features", [(str(number), line) for number, line in enumerate(validation, start=1)]
    yield "Where it came from", provenance


def _facts(network: Network, evaluation: Evaluation | None) -> Iterator[tuple[str, str]]:
    yield "nodes", str(len(network.nodes))
    yield "arcs", str(len(network.arcs))
    yield "free parameters", count(network.parameters)
    if evaluation is None:
        return
    yield "rows learned from", count(evaluation.training_rows)
    where = f" in {evaluation.clusters} clusters" if evaluation.clusters else ""
    yield f"held-out rows{where}", count(evaluation.rows)
    if evaluation.held_out_nats is not None:
        yield "held-out nats per row", f"{evaluation.held_out_nats:.3f}"
    if evaluation.overfit is not None:
        yield "over-fit, nats per row", f"{evaluation.overfit:+.3f}"


def _graph_caption(
    network: Network,
    targets: Sequence[str],
    *,
    tiers: Sequence[Sequence[str]],
    strength: Mapping[Arc, float] | None,
) -> str:
    parts = [f"{len(network.nodes)} variables, {len(network.arcs)} arcs."]
    if targets:
        parts.append(f"Orange: {', '.join(targets)}.")
    if has_bands(network.parents, tiers):
        parts.append("Bands are tiers: arcs never go up from one to an earlier one.")
    if strength is not None:
        parts.append("The thicker an arc, the more bootstraps found it.")
    parts.append("Hover over a node for its states.")
    return " ".join(parts)


def _score_rows(evaluation: Evaluation) -> Iterator[_ScoreRow]:
    for target in evaluation.targets:
        yield _row(target, "network", target.name, "")
        for rival in evaluation.baselines:
            if rival.target == target.name:
                yield _row(rival, rival.model, "", _signed(rival.difference, rival.difference_interval))


def _row(scores: TargetScores | BaselineScores, model: str, target: str, difference: str) -> _ScoreRow:
    interval = scores.log_loss_interval if isinstance(scores, TargetScores) else None
    bounds = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
    return _ScoreRow(
        target=target,
        model=model,
        log_loss=_number(scores.log_loss) + bounds,
        brier=_number(scores.brier),
        roc_auc=_number(scores.roc_auc),
        difference=difference,
        note=scores.note if isinstance(scores, TargetScores) or scores.log_loss is None else "",
        own=isinstance(scores, TargetScores),
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _signed(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return "–"
    return f"{value:+.4f}" + (f" [{interval[0]:+.4f}, {interval[1]:+.4f}]" if interval else "")


def _score_notes(evaluation: Evaluation) -> Iterator[str]:
    for target in evaluation.targets:
        known = ", ".join(target.evidence) or "nothing"
        counted = f"scored on {count(target.rows)} rows"
        if target.missing_rows:
            counted += f", {count(target.missing_rows)} without it left out"
        if target.impossible_rows:
            counted += f", on {count(target.impossible_rows)} of them its evidence is impossible under the served CPDs"
        yield f"{target.name} is predicted from {known}; {counted}."
    if evaluation.impossible_rows or evaluation.unseen_rows or evaluation.other_rows:
        yield (
            f"{count(evaluation.impossible_rows)} rows are impossible under the served CPDs, "
            f"{count(evaluation.unseen_rows)} have a value that no state takes, "
            f"in {count(evaluation.other_rows)} a state “other” took one."
        )
    if evaluation.independent_rows:
        yield "There are no cluster labels: rows are taken as independent, and intervals may be too narrow."
    yield (
        "Log-loss is scored under the Jeffreys prior; Brier, ROC-AUC and calibration under the served CPDs, on rows "
        "possible under them."
    )


def _steps(seconds: Mapping[str, float]) -> Iterator[_Step]:
    longest = max(seconds.values(), default=0.0)
    for name, value in seconds.items():
        yield _Step(name, f"{value:.1f} s", round(100 * value / longest) if longest else 0)
