"""What a drift run does: hold, roll back, refit, relearn, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from bnpipe.data import order_labels
from bnpipe.errors import FormatError, SpecError, shorten
from bnpipe.release.bounds import bounded, correlation_of, not_comparable
from bnpipe.release.promotion import reasons
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.evaluation import Comparison

Action = Literal["nothing", "hold", "roll back", "refit", "relearn"]


@dataclass(frozen=True, slots=True)
class ReactionRule:
    """What a drift run may do by itself, and how sure it must be.

    Parameters
    ----------
    actions : {"advise", "auto"}
        ``advise`` says what would be done, and leaves it to a person.
    rope : float
        Region of practical equivalence, nats per row: a predecessor must be better by more.
    rollbacks_per_year : float
        Rollbacks of an equal model a year that may come from luck alone.
    looks_per_year : float
        How often drift is looked for; each look spends ``rollbacks_per_year / looks_per_year``.
    youth : int
        Matured clusters after its promotion during which a champion may be rolled back.
    min_clusters : int
        Fewest matured clusters since the promotion for a rollback.
    cool_down : int
        Days after a refit, relearning or rollback during which nothing is learned anew.
    proof_clusters : int
        Fewest clusters that a promotion is decided on: a refit with fewer to prove it would be held, and is not begun.

    Raises
    ------
    SpecError
        A number is out of range.
    """

    actions: Literal["advise", "auto"] = "advise"
    rope: float = 0.005
    rollbacks_per_year: float = 0.2
    looks_per_year: float = 365.0
    youth: int = 28
    min_clusters: int = 7
    cool_down: int = 7
    proof_clusters: int = 10

    def __post_init__(self) -> None:
        if not self.rope > 0:
            raise SpecError(f"drift.rope: {self.rope} must be above 0 nats/row")
        if not (self.rollbacks_per_year > 0 and self.looks_per_year > 0):
            raise SpecError("drift.rollbacks_per_year and looks_per_year must be above 0")
        if self.min_clusters < 2:
            raise SpecError(f"drift.min_clusters: {self.min_clusters}; a t interval needs at least 2")
        for name in ("youth", "cool_down"):
            if getattr(self, name) < 0:
                raise SpecError(f"drift.{name}: {getattr(self, name)} is below 0")

    @property
    def alpha(self) -> float:
        """One-sided error of one look."""
        return min(self.rollbacks_per_year / self.looks_per_year, 0.5)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a refit on rows since the earliest change-point would be learned from and proved on.

    Parameters
    ----------
    clusters : int
        To prove it on.
    learned_until : str or None
        Label of the first cluster that it would not learn from; None where clusters are in no order of time.
    ready : str or None
        Day of the first look with enough clusters, as far as is known now; None: nobody can say, or never.
    """

    clusters: int
    learned_until: str | None = None
    ready: str | None = None


@dataclass(frozen=True, slots=True)
class DriftSituation:
    """What is known after a drift run.

    Parameters
    ----------
    validation : tuple of Verdict
        Of the live window; one that did not pass means that the data are bad.
    report : DriftReport or None
        None where the data were too bad to compare.
    champion : int
        Version.
    champion_age : int
        Matured clusters since its promotion.
    predecessor : int or None
        The ledger's previous good version that can still be loaded.
    against_predecessor : Comparison or None
        On clusters since the promotion, the predecessor as challenger: d = ln p of predecessor less ln p of champion.
    past_losses : tuple of float
        The same d of each reference cluster, nats per row.
    frozen : str or None
        Why, if the model is frozen.
    days_since_action : float or None
        Since the last refit, relearning or rollback; None: there was none.
    retrain_running : bool
        Whether a training of this network runs or waits.
    proof : Proof or None
        Of a refit, if it were begun now; None where no node is flagged.
    """

    validation: tuple[Verdict, ...]
    report: DriftReport | None
    champion: int
    champion_age: int
    predecessor: int | None
    against_predecessor: Comparison | None
    past_losses: tuple[float, ...] = ()
    frozen: str | None = None
    days_since_action: float | None = None
    retrain_running: bool = False
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class DriftDecision:
    """What a drift run does, why, and on which verdicts.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
    advised_only : bool
        It would be done, but the spec says ``advise`` or the model is frozen.
    reason : str
        One or two sentences with the figures.
    families : tuple of str
        To refit.
    since : str or None
        Label of the cluster of the earliest change-point among the families.
    to : int or None
        Version to roll back to.
    alert : bool
        Whether a person should be told.
    verdicts : tuple of Verdict
        What it rests on.
    """

    action: Action
    advised_only: bool
    reason: str
    families: tuple[str, ...] = ()
    since: str | None = None
    to: int | None = None
    alert: bool = False
    verdicts: tuple[Verdict, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {
            "action": self.action,
            "advised_only": self.advised_only,
            "reason": self.reason,
            "families": list(self.families),
            "since": self.since,
            "to": self.to,
            "alert": self.alert,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DriftDecision:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            given = dict(fields)
            given["families"] = tuple(given["families"])
            given["verdicts"] = tuple(Verdict.from_dict(verdict) for verdict in given["verdicts"])
            return cls(**given)
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not a drift decision: {error}") from error


def react(situation: DriftSituation, rule: ReactionRule) -> DriftDecision:
    """Decide what a drift run does.

    In this order: bad data are held and never learned; a young champion whose predecessor is better goes back to it;
    an arc that the graph lacks and that won on later live clusters asks for a new graph; flagged nodes whose graph
    still fits ask for new parameters. Neither is learned while cooling down or while a training runs, and no refit is
    begun that too few clusters could prove, nor one of a node that changed only after the days it would be learned
    from. A frozen model, and ``actions: advise``, get the same decision as advice. Nodes that are unknown never act
    alone.

    The predecessor is better if the mean of d over clusters since the promotion lies above `rope` by the bound of
    :func:`~bnpipe.release.judge` at ``rule.alpha``, or if d of every cluster is above `rope` and above all that was
    seen on at least as many reference clusters as a decision needs. The latter is sure only as far as the champion did
    not learn from those reference clusters: on what it learned from it looks better than it is.

    Parameters
    ----------
    situation : DriftSituation
        What is known.
    rule : ReactionRule
        What may be done, and how sure it must be.
    """
    report = situation.report
    bad = [verdict for verdict in situation.validation if not verdict.passed]
    if bad or report is None:
        why = f" did not pass validation: {reasons(bad)}" if bad else f" can't be compared with {_champion(situation)}"
        reason = f"The live window{why}. Nothing is learned from it."
        return DriftDecision("hold", False, reason, alert=True, verdicts=situation.validation)
    backward = _against_predecessor(situation, rule)
    verdicts = (*situation.validation, *backward)
    better = next((verdict.reason for verdict in backward if verdict.passed), None)
    if better is not None:
        reason = (
            f"{_champion(situation).capitalize()}, {situation.champion_age} matured clusters after its promotion, "
            f"should give way to version {situation.predecessor}: {better}."
        )
        decision = DriftDecision("roll back", False, reason, to=situation.predecessor, alert=True)
    else:
        decision = _learn(situation, report, rule)
    return replace(_as_advice(decision, situation, rule), verdicts=verdicts)


def _champion(situation: DriftSituation) -> str:
    return f"version {situation.champion}"


def _as_advice(decision: DriftDecision, situation: DriftSituation, rule: ReactionRule) -> DriftDecision:
    """Turn what would be done into advice where the model is frozen or the spec wants no more."""
    if decision.action == "nothing":
        return decision
    if situation.frozen is not None:
        why = f"the model is frozen ({situation.frozen})"
    elif rule.actions == "advise":
        why = "the spec says `actions: advise`"
    else:
        return decision
    return replace(decision, advised_only=True, reason=f"{decision.reason} This is advice only: {why}.")


def _against_predecessor(situation: DriftSituation, rule: ReactionRule) -> tuple[Verdict, ...]:
    """Judge the predecessor on clusters since the champion's promotion; empty where there is nothing to judge."""
    comparison = situation.against_predecessor
    if situation.predecessor is None or comparison is None or situation.champion_age >= rule.youth:
        return ()
    incomparable = not_comparable(comparison, "predecessor")
    if incomparable is not None:
        return (incomparable,)
    what = f"ln p of version {situation.predecessor} less that of {_champion(situation)}, "
    mean = bounded(
        "predecessor",
        what,
        comparison.cluster_means,
        rule.rope,
        alpha=rule.alpha,
        min_clusters=rule.min_clusters,
        correlation=correlation_of(comparison),
    )
    if min(comparison.clusters, len(situation.past_losses)) < rule.min_clusters:
        return (mean,)
    return mean, _beyond_the_past(comparison.cluster_means, situation.past_losses, rule.rope, what)


def _beyond_the_past(means: Sequence[float], past: Sequence[float], rope: float, what: str) -> Verdict:
    """Ask whether every cluster's d is above all of the `past`, and `rope`."""
    least, most = min(means), max(rope, *past)
    beyond = least > most
    reason = (
        f"{what}{least:+.4g} nats/row or more on each of {len(means)} clusters, "
        f"{'beyond' if beyond else 'not beyond'} the most on {len(past)} reference clusters ({max(past):+.4g}) "
        f"and {rope:g}"
    )
    outcome: Literal["pass", "fail"] = "pass" if beyond else "fail"
    return Verdict("predecessor on every cluster", outcome, reason, "relative", least, most, unit="nats/row")


def _learn(situation: DriftSituation, report: DriftReport, rule: ReactionRule) -> DriftDecision:
    flagged, arcs = report.flagged, report.added_arcs
    if not flagged and not arcs:
        return DriftDecision("nothing", False, _calm(situation, report))
    found = _found(report)
    wait = _wait(situation, rule)
    if wait:
        return DriftDecision("nothing", False, f"{found}. Nothing is learned now: {wait}.", alert=True)
    if arcs:
        reason = f"{found}. The graph no longer fits, so it is to be learned anew."
        return DriftDecision("relearn", False, reason, alert=True)
    return _refit(situation.proof, report, rule, found)


def _refit(proof: Proof | None, report: DriftReport, rule: ReactionRule, found: str) -> DriftDecision:
    """Refit what changed before the days that would be learned from end, if enough days are left to prove it."""
    if proof is not None and proof.clusters < rule.proof_clusters:
        when = f"; the look of {proof.ready} can have as many" if proof.ready else ""
        few = f"a refit could be proved on {proof.clusters} clusters only, and {rule.proof_clusters} decide{when}"
        return DriftDecision("nothing", False, f"{found}. Nothing is learned now: {few}.", alert=True)
    until = None if proof is None else proof.learned_until
    late = [name for name in report.flagged if until and not _before(report.nodes[name].change_point, until)]
    families = tuple(name for name in report.flagged if name not in late) or report.flagged
    since = earliest_change(report)
    reason = f"{found}. The graph still fits, so "
    if len(families) < len(report.flagged):
        reason += f"{shorten(families)} {'are' if families[1:] else 'is'} to be refitted"
    else:
        reason += f"{'these families are' if families[1:] else 'this family is'} to be refitted"
    reason += f" on rows since {since}" if since else ""
    reason += f"; {shorten(late)} changed later than those learned from" if len(families) < len(report.flagged) else ""
    return DriftDecision("refit", False, f"{reason}.", families=families, since=since, alert=True)


def _before(point: str | None, until: str) -> bool:
    return point is None or order_labels((point, until))[0] != until


def earliest_change(report: DriftReport) -> str | None:
    """Give the label of the earliest change-point among the flagged nodes; None if none is dated."""
    points = (report.nodes[name].change_point for name in report.flagged)
    return next(iter(order_labels(point for point in points if point)), None)


def _wait(situation: DriftSituation, rule: ReactionRule) -> str:
    """Say why nothing may be learned now; '' if it may."""
    if situation.retrain_running:
        return "a training of this model is running"
    days = situation.days_since_action
    if days is not None and days < rule.cool_down:
        return f"the last action was {days:.3g} days ago, and {rule.cool_down} must pass"
    return ""


def _found(report: DriftReport) -> str:
    nodes = [report.nodes[name] for name in report.flagged]
    told = []
    if nodes:
        changed = shorten(f"{node.name} by {node.effect:.3f} (p = {node.p:.2g})" for node in nodes)
        told.append(f"{len(nodes)} of {len(report.nodes)} CPDs changed in total variation: {changed}")
    if report.added_arcs:
        gains = shorten(f"{arc.parent} -> {arc.child} gains {arc.gain:.3g} nats/row" for arc in report.added_arcs)
        told.append(f"arcs that the graph lacks won on later live clusters: {gains}")
    text = "; ".join(told)
    return text[0].upper() + text[1:]


def _calm(situation: DriftSituation, report: DriftReport) -> str:
    unknown = report.unknown
    known = len(report.nodes) - len(unknown)
    if not known:
        why = shorten(f"{name}: {report.nodes[name].reason}" for name in unknown)
        return f"No CPD could be compared with {_champion(situation)} ({why})."
    rows = f"{report.live_rows} live rows" if report.independent_rows else f"{report.live_clusters} live clusters"
    rest = f"; {len(unknown)} more are unknown: {shorten(unknown)}" if unknown else ""
    return f"None of {known} CPDs of {_champion(situation)} changed on {rows} (level {report.level:g}){rest}."
