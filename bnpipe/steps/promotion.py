"""Moving the champion: by the rule, by a person's approval, by hand; and putting ledger and alias together again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from bnpipe.config import Settings
from bnpipe.errors import PromotionRefused, RegistryError, VersionNotFound
from bnpipe.registry import LedgerEntry, Reconciliation, Registry, Sighting, Version
from bnpipe.release import decide_promotion
from bnpipe.steps.proof import last_champion
from bnpipe.steps.recipe import REFIT_OF_TAG
from bnpipe.steps.training import Bench, Record, Release, Training, read_release, step

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """How a training ended.

    Parameters
    ----------
    outcome : str
        ``promoted``, ``canary``, ``already champion``, ``held``, ``superseded``, ``await approval`` or
        ``left to MLflow``;
        of a rollback ``rolled back`` or ``already rolled back``.
    version : int
        The version that was judged.
    champion : int or None
        The version it was judged against; None where nobody held the alias.
    reason : str
        One sentence for a person.
    run_id : str
        The MLflow run whose ``release.json`` holds the verdicts.
    """

    outcome: str
    version: int
    champion: int | None
    reason: str
    run_id: str = ""


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
        found = bench.release()
        word, reason = _settle(bench, version, found)
        outcome = Outcome(word, version.number, found.compared_with, reason, training.run_id)
    bench.registry.log_tags(training.run_id, {"bnpipe.outcome": word, "bnpipe.outcome_reason": reason[:2000]})
    bench.registry.finish_run(training.run_id, "FINISHED")
    log.info("%s: version %d %s: %s", spec.name, outcome.version, word, reason)
    return outcome


def _settle(bench: Bench, version: Version, found: Release) -> tuple[str, str]:
    """Give outcome and reason; the alias moves here and nowhere else in a training."""
    registry, spec = bench.registry, bench.recipe.spec
    champion = registry.champion(spec.name)
    if champion is not None and champion.number == version.number:
        return _already_champion(bench, version, found)
    reigned = last_champion(registry, spec.name)
    if champion is None and reigned is not None and reigned.number == version.number:
        return "await approval", _taken(reigned)
    decision = decide_promotion(found.verdicts, policy=spec.promotion.policy, first=reigned is None)
    if decision.outcome in ("held", "refused"):
        superseded = any(verdict.outcome == "superseded" for verdict in decision.verdicts)
        return "superseded" if superseded else "held", decision.reason
    if barred := _barred(registry, version):
        return "held", barred
    if champion is not None and _ends_no_earlier(champion, version):
        return "superseded", f"champion {champion.number} was trained on a window that ends no earlier"
    challenger = registry.challenger(spec.name)
    if challenger is None or challenger.number == version.number or not _ends_no_earlier(challenger, version):
        registry.set_challenger(spec.name, version.number)
    if decision.outcome == "promote" and champion is None and reigned is not None:
        return "await approval", _taken(reigned)
    if decision.outcome != "promote":
        return decision.outcome, decision.reason
    return _promote_unless_frozen(bench, version, found, decision.reason)


def _promote_unless_frozen(bench: Bench, version: Version, found: Release, reason: str) -> tuple[str, str]:
    if (frozen := bench.registry.frozen(version.model)) is not None:
        return "held", f"{version.model} is frozen {frozen}"
    try:
        if bench.recipe.spec.canary is not None and found.compared_with is not None:
            return "canary", _begin_canary(bench, version, found, reason)
        _move(bench, version, found, reason)
    except PromotionRefused as refusal:
        return "held", str(refusal)
    return "promoted", reason


def _begin_canary(bench: Bench, version: Version, found: Release, reason: str) -> str:
    """Let a winner earn its traffic, where the spec says so, instead of making it champion at once."""
    from bnpipe.steps.canary import canary_start

    spec, champion = bench.recipe.spec, bench.registry.champion(version.model)
    assert spec.canary is not None
    if champion is None or champion.number != found.compared_with:
        raise PromotionRefused(
            f"version {version.number} was compared with {found.compared_with}, which reigns no more"
        )
    entry = canary_start(
        spec,
        version.number,
        actor=bench.training.actor,
        reason=reason,
        shadow=spec.canary.shadow,
        key=bench.training.run_id,
        settings=bench.settings,
    )
    return f"its canary began with {entry.state.share:.3g} of the requests: {reason}"


def _barred(registry: Registry, version: Version) -> str:
    """Say why a version must stay down, '' if nothing does: it is barred, or is the same network as one that is."""
    if version.barred is not None:
        return f"version {version.number} is barred from promotion: {version.barred}"
    content = version.tags.get("bnpipe.content_hash")
    for other in registry.versions(version.model):
        if content and other.barred is not None and other.tags.get("bnpipe.content_hash") == content:
            return f"version {version.number} is the same network as {other.number}, which is barred: {other.barred}"
    return ""


def _taken(reigned: Version) -> str:
    return f"the alias champion was taken from version {reigned.number} by hand; a person decides who follows"


def _move(bench: Bench, version: Version, found: Release, reason: str) -> LedgerEntry:
    return bench.registry.promote(
        version.model,
        version.number,
        actor=bench.training.actor,
        reason=reason,
        evidence=bench.registry.run_url(bench.training.run_id),
        expected=found.compared_with,
        key=bench.training.run_id,
    )


def _already_champion(bench: Bench, version: Version, found: Release) -> tuple[str, str]:
    """Repeat what the first attempt of this very run did, closing what it left open; another run has nothing to do."""
    try:
        return "promoted", _move(bench, version, found, "").reason
    except PromotionRefused:
        return "already champion", "this training's version is the champion"


def _ends_no_earlier(one: Version, other: Version) -> bool:
    """Whether the window of one version is known to end no earlier than that of another, which is no refit of it."""
    if other.tags.get(REFIT_OF_TAG) == str(one.number):
        return False
    return one.window_end is not None and other.window_end is not None and one.window_end >= other.window_end


def approve(
    *,
    model: str,
    version: int,
    compared_with: int | None,
    actor: str,
    reason: str,
    run_id: str | None = None,
    settings: Settings | None = None,
) -> Outcome:
    """Promote what a person approved, if it is still what that person was shown.

    The champion must still be the one that was compared, no challenger of a later window may have come meanwhile, and
    the version must have passed its gates and not be barred.

    Parameters
    ----------
    reason : str
        The person's own; what the verdicts said is added to it.
    run_id : str or None
        The MLflow run whose verdicts the person was shown, the ledger's evidence; None: the one that made the version.
    """
    registry = _registry(settings)
    chosen = registry.version(model, version)
    challenger = registry.challenger(model)
    newer = challenger is not None and challenger.number != version and _ends_no_earlier(challenger, chosen)
    if challenger is not None and newer:
        said = f"version {challenger.number}, of a window that ends no earlier, is the challenger now; approve that one"
        return Outcome("superseded", version, compared_with, said)
    if chosen.doubts:
        return Outcome("held", version, compared_with, f"version {version}: {' and '.join(chosen.doubts)}")
    shown = run_id or chosen.run_id
    said = f"{reason} ({_grounds(read_release(registry, shown))})"
    try:
        registry.promote(
            model, version, actor=actor, reason=said, evidence=registry.run_url(shown), expected=compared_with
        )
    except PromotionRefused as refusal:
        return Outcome("held", version, compared_with, str(refusal), shown)
    return Outcome("promoted", version, compared_with, said, shown)


def _grounds(found: Release) -> str:
    """Say in short what the verdicts a person was shown said of the champion."""
    relative = [verdict.reason for verdict in found.verdicts if verdict.kind == "relative"]
    return relative[0] if relative else "first version, every absolute gate passed"


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
    if chosen.doubts and not force:
        raise PromotionRefused(f"{model} {version}: {' and '.join(chosen.doubts)}; --force promotes it all the same")
    registry.promote(
        model,
        version,
        actor=actor,
        reason=reason,
        evidence=registry.run_url(chosen.run_id),
        expected=current.number if current else None,
        force=force,
    )
    return Outcome("promoted", version, current.number if current else None, reason)


def reconcile(
    model: str | None = None, *, sightings: Sequence[Sighting] = (), settings: Settings | None = None
) -> tuple[Reconciliation, ...]:
    """Close what a crash left open in the ledgers, and write down what was moved by hand. Idempotent.

    Parameters
    ----------
    model : str or None
        None: every model, and whatever else the watcher has seen; one that is gone since is told as a warning.
    sightings : sequence of Sighting
        What the watcher saw.

    Raises
    ------
    RegistryError
        A ledger could not be put together; all the others were, before it is raised.
    """
    registry = _registry(settings)
    found, failed = [], []
    for name in [model] if model else sorted({*registry.models(), *(seen.model for seen in sightings)}):
        try:
            found.append(registry.reconcile(name, sightings))
        except RegistryError as error:
            if isinstance(error, VersionNotFound) and not model:
                found.append(Reconciliation(warnings=(str(error),)))
                continue
            log.warning("%s: ledger and alias could not be put together: %s", name, error)
            failed.append(error)
    for reconciliation in found:
        for warning in reconciliation.warnings:
            log.warning("%s", warning)
    if failed:
        raise failed[0]
    return tuple(found)


def _registry(settings: Settings | None) -> Registry:
    return Registry((settings or Settings.from_environ()).tracking_uri)
