"""Moving the champion: by the rule, by a person's approval, by hand; and putting ledger and alias together again."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime

from bnpipe.config import Settings
from bnpipe.errors import PromotionRefused
from bnpipe.registry import Reconciliation, Registry, Version
from bnpipe.release import decide_promotion
from bnpipe.steps.training import Bench, Record, Training, step

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """How a training ended.

    Parameters
    ----------
    outcome : str
        ``promoted``, ``already champion``, ``held``, ``superseded``, ``await approval`` or ``left to MLflow``.
    version : int
        The version that was judged.
    champion : int or None
        The version it was judged against; None for a first version.
    reason : str
        One sentence for a person.
    """

    outcome: str
    version: int
    champion: int | None
    reason: str


def promote(training: Training) -> Outcome:
    """Act on the verdicts by the spec's policy, and end the MLflow run.

    Losing, being undecided or superseded is a success with outcome ``held`` or ``superseded``.
    """
    bench = Bench(training)
    with step("promote", bench):
        spec = bench.recipe.spec
        version = bench.registry.find(spec.name, training.key)
        if version is None:
            raise PromotionRefused(f"{spec.name}: training {training.key[:12]} has no version; run `register` first")
        outcome = _settle(bench, version, json.loads(bench.read("compared_with.json", step="evaluate")))
    bench.registry.log_tags(
        training.run_id, {"bnpipe.outcome": outcome.outcome, "bnpipe.outcome_reason": outcome.reason[:2000]}
    )
    bench.registry.finish_run(training.run_id, "FINISHED")
    log.info("%s: version %d %s: %s", spec.name, outcome.version, outcome.outcome, outcome.reason)
    return outcome


def _settle(bench: Bench, version: Version, compared_with: int | None) -> Outcome:
    spec = bench.recipe.spec
    champion = bench.registry.champion(spec.name)
    if champion is not None and champion.number == version.number:
        return _already_champion(bench, version)
    first = compared_with is None
    decision = decide_promotion(bench.verdicts("release"), policy=spec.promotion.policy, first=first)
    if decision.outcome in ("held", "refused"):
        superseded = any(verdict.outcome == "superseded" for verdict in decision.verdicts)
        return Outcome("superseded" if superseded else "held", version.number, compared_with, decision.reason)
    if champion is not None and _ends(champion) >= _ends(version):
        reason = f"champion {champion.number} was trained on a window that ends no earlier"
        return Outcome("superseded", version.number, champion.number, reason)
    bench.registry.set_challenger(spec.name, version.number)
    if decision.outcome != "promote":
        return Outcome(decision.outcome, version.number, compared_with, decision.reason)
    try:
        bench.registry.promote(
            spec.name,
            version.number,
            actor=bench.training.actor,
            reason=decision.reason,
            evidence=bench.registry.run_url(bench.training.run_id),
            expected=compared_with,
            key=bench.training.run_id,
        )
    except PromotionRefused as refusal:
        return Outcome("held", version.number, compared_with, str(refusal))
    return Outcome("promoted", version.number, compared_with, decision.reason)


def _already_champion(bench: Bench, version: Version) -> Outcome:
    """Repeat what the first attempt of this very run said; another run has nothing to do."""
    evidence = bench.registry.run_url(bench.training.run_id)
    for entry in reversed(bench.registry.history(version.model)):
        if entry.outcome == "done" and entry.to == version.number and entry.evidence == evidence:
            return Outcome("promoted", version.number, entry.source, entry.reason)
    return Outcome("already champion", version.number, version.number, "this training's version is the champion")


def _ends(version: Version) -> datetime:
    return datetime.fromisoformat(version.tags["bnpipe.end"])


def approve(
    *, model: str, version: int, compared_with: int | None, actor: str, reason: str, settings: Settings | None = None
) -> Outcome:
    """Promote what a person approved, if it is still what that person was shown.

    The champion must still be the one that was compared, and no newer challenger may have come meanwhile.
    """
    registry = _registry(settings)
    chosen = registry.version(model, version)
    challenger = registry.challenger(model)
    if challenger is not None and challenger.number > version:
        reason = f"version {challenger.number} is a newer challenger; approve that one"
        return Outcome("superseded", version, compared_with, reason)
    try:
        registry.promote(
            model,
            version,
            actor=actor,
            reason=reason,
            evidence=registry.run_url(chosen.run_id),
            expected=compared_with,
        )
    except PromotionRefused as refusal:
        return Outcome("held", version, compared_with, str(refusal))
    return Outcome("promoted", version, compared_with, reason)


def promote_by_hand(
    *, model: str, version: int, actor: str, reason: str, force: bool = False, settings: Settings | None = None
) -> Outcome:
    """Promote a version from the terminal.

    Raises
    ------
    PromotionRefused
        The version never passed its gates or is barred, and `force` was not given; or somebody else moved the
        champion at the same moment.
    VersionNotFound
        There is no such version.
    """
    registry = _registry(settings)
    chosen = registry.version(model, version)
    current = registry.champion(model)
    if current is not None and current.number == version:
        return Outcome("already champion", version, version, "nothing to do")
    doubts = [
        doubt
        for doubt, there in (
            ("it never passed its gates", chosen.tags.get("bnpipe.verdict") != "pass"),
            (f"it is barred ({chosen.tags.get('bnpipe.barred', '')})", "bnpipe.barred" in chosen.tags),
        )
        if there
    ]
    if doubts and not force:
        raise PromotionRefused(f"{model} {version}: {' and '.join(doubts)}; --force promotes it all the same")
    registry.promote(
        model,
        version,
        actor=actor,
        reason=reason,
        evidence=registry.run_url(chosen.run_id),
        expected=current.number if current else None,
    )
    return Outcome("promoted", version, current.number if current else None, reason)


def reconcile(model: str | None = None, *, settings: Settings | None = None) -> tuple[Reconciliation, ...]:
    """Close what a crash left open in the ledgers, and write down what was moved by hand. Idempotent."""
    registry = _registry(settings)
    found = tuple(registry.reconcile(name) for name in ([model] if model else registry.models()))
    for reconciliation in found:
        for warning in reconciliation.warnings:
            log.warning("%s", warning)
    return found


def _registry(settings: Settings | None) -> Registry:
    return Registry((settings or Settings.from_environ()).tracking_uri)
