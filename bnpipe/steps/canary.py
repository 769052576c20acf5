"""Canaries: begun by a person, moved on, halted or ended by what the log of answers shows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnpipe.config import ModelSpec, Settings
from bnpipe.config.canary import canary_policy
from bnpipe.errors import PromotionRefused, VersionNotFound
from bnpipe.registry import CanaryEntry, Registry, describe_canary
from bnpipe.steps.training import Record

if TYPE_CHECKING:
    from bnpipe.network import Network
    from bnpipe.release.canary import CanaryDecision, CanaryPolicy, CanaryState, ClusterOutcome
    from bnpipe.schema import Schema
    from bnpipe.steps.outcomes import Arm

log = logging.getLogger("bnpipe.steps")

PROVED = "await approval"


@dataclass(frozen=True, slots=True)
class CanaryStep(Record):
    """What became of a canary.

    Parameters
    ----------
    action : str
        ``none`` (there is no canary), ``wait``, ``advance``, ``halt``, ``promote`` or ``await approval``.
    version : int or None
        The challenger.
    share : float
        Of the requests, after this step.
    reason : str
        One or two sentences with the figures.
    verdicts : tuple of dict
        What it rests on.
    news : bool
        Whether something was entered into the ledger, by this try or an earlier one of the same step.
    """

    action: str
    version: int | None
    share: float
    reason: str
    verdicts: tuple[dict[str, Any], ...] = ()
    news: bool = False


def canary_start(
    spec: ModelSpec,
    version: int,
    *,
    actor: str,
    reason: str,
    shadow: float | None = None,
    key: str = "",
    settings: Settings | None = None,
) -> CanaryEntry:
    """Begin a canary.

    Parameters
    ----------
    shadow : float or None
        Share of the requests that it answers unheard first; None: it begins with the first stage.
    key : str
        What makes a retry the same request.

    Raises
    ------
    PromotionRefused
        The model is frozen, has no champion or another canary; the version is the champion, barred, or never passed
        its gates; or no target can be compared between the two.
    VersionNotFound
    """
    from bnpipe.steps.outcomes import comparable

    registry, policy = _registry(settings), canary_policy(spec)
    champion = registry.champion(spec.name)
    if champion is not None and champion.number != version:
        networks = _networks(registry, spec.name, champion.number, version)
        if not comparable(networks["champion"].schema, networks["challenger"].schema, spec.targets):
            raise PromotionRefused(
                f"{spec.name}: versions {champion.number} and {version} have no target with the same states; "
                "their answers can't be compared"
            )
    return registry.start_canary(spec.name, version, policy=policy, actor=actor, reason=reason, shadow=shadow, key=key)


def canary_halt(
    model: str, *, actor: str, reason: str, key: str = "", settings: Settings | None = None
) -> CanaryEntry | None:
    """Give every request back to the champion; None if no canary is running.

    Raises
    ------
    VersionNotFound
        No such model.
    """
    return _registry(settings).halt_canary(model, actor=actor, reason=reason, key=key)


def canary_step(
    spec: ModelSpec,
    *,
    actor: str,
    answers: Path | None = None,
    now: datetime | None = None,
    key: str = "",
    settings: Settings | None = None,
) -> CanaryStep:
    """Look at what the canary's answers were worth, decide, and do it.

    Safe to repeat and to run twice at once: a change is entered once, against the state that it was decided about.

    Parameters
    ----------
    spec : ModelSpec
    actor : str
    answers : Path or None
        Folder of the log of answers; None: the settings'.
    now : datetime or None
        With its offset; None: the clock's.
    key : str
        What makes a retry the same step.
    """
    settings = settings or Settings.from_environ()
    registry, model, policy = _registry(settings), spec.name, canary_policy(spec)
    try:
        entries = registry.canary_entries(model)
        stopped = registry.stopped_by_hand(model)
    except VersionNotFound as error:
        return CanaryStep("none", None, 0.0, str(error))
    mine = stopped or next((entry for entry in entries if key and entry.key == key), None)
    if mine is not None:
        return _entered(mine)
    state = registry.open_canary(model)
    if state is None:
        return CanaryStep("none", None, 0.0, f"no canary of {model} is running")
    now = now or datetime.now(UTC)
    decision = _overtaken(registry, model, state)
    if decision is None:
        outcomes = outcomes_of(registry, spec, state, answers=answers or settings.answers, policy=policy, now=now)
        decision = _decide(state, outcomes, policy, now)
    log.info("%s: canary of version %d: %s: %s", model, state.version, decision.action, decision.reason)
    verdicts = tuple(verdict.to_dict() for verdict in decision.verdicts)
    try:
        entry = _act(registry, spec, state, decision, policy=policy, actor=actor, key=key, now=now)
    except PromotionRefused as refusal:  # a freeze, or somebody else's move: to be looked at again
        return CanaryStep("wait", state.version, _share(state), str(refusal), verdicts)
    if entry is not None:
        return replace(_entered(entry), verdicts=verdicts)
    action = "wait" if decision.action == "wait" else PROVED
    return CanaryStep(action, state.version, _share(state), decision.reason, verdicts)


def canary_status(model: str, *, settings: Settings | None = None) -> tuple[str, ...]:
    """Tell every change of a model's canaries, oldest first, a line each.

    Raises
    ------
    VersionNotFound
        No such model.
    """
    return tuple(describe_canary(entry) for entry in _registry(settings).canary_entries(model))


def outcomes_of(
    registry: Registry,
    spec: ModelSpec,
    state: CanaryState,
    *,
    answers: Path,
    policy: CanaryPolicy,
    now: datetime,
) -> tuple[ClusterOutcome, ...]:
    """Read the log of answers since the canary began, and put together what became of each cluster."""
    from bnpipe.answers.reading import ALL_ARMS, labelled, rows
    from bnpipe.steps.outcomes import Log

    networks = _networks(registry, spec.name, state.champion, state.version)
    schemas = {network.content_hash: network.schema for network in networks.values()}

    def schema_of(_: str, content_hash: str) -> Schema | None:
        return schemas.get(content_hash)

    seen = Log(state, policy, networks, tuple(spec.targets), spec.source.time_zone)
    return seen.outcomes(
        rows(answers, spec.name, state.began, now, arms=ALL_ARMS, schema_of=schema_of),
        labelled(answers, spec.name, state.began, now, arms=ALL_ARMS, schema_of=schema_of),
    )


def _networks(registry: Registry, model: str, champion: int, challenger: int) -> dict[Arm, Network]:
    numbers: Mapping[Arm, int] = {"champion": champion, "challenger": challenger}
    return {arm: registry.load_network(registry.version(model, number)) for arm, number in numbers.items()}


def _decide(
    state: CanaryState, outcomes: tuple[ClusterOutcome, ...], policy: CanaryPolicy, now: datetime
) -> CanaryDecision:
    from bnpipe.release.canary import advance

    return advance(state, outcomes, policy, now)


def _overtaken(registry: Registry, model: str, state: CanaryState) -> CanaryDecision | None:
    """Say what the registry alone decides: another champion, or a version that must not serve any more."""
    from bnpipe.release.canary import CanaryDecision

    champion = registry.champion(model)
    number = None if champion is None else champion.number
    if number == state.version:
        return CanaryDecision("promote", f"version {state.version} is the champion")
    if number != state.champion:
        now_is = "there is none now" if number is None else f"version {number} is now"
        return CanaryDecision("halt", f"it was compared with champion {state.champion}, and {now_is}")
    try:
        barred = registry.version(model, state.version).barred
    except VersionNotFound:
        return CanaryDecision("halt", f"version {state.version} was deleted")
    return None if barred is None else CanaryDecision("halt", f"version {state.version} is barred: {barred}")


def _act(
    registry: Registry,
    spec: ModelSpec,
    state: CanaryState,
    decision: CanaryDecision,
    *,
    policy: CanaryPolicy,
    actor: str,
    key: str,
    now: datetime,
) -> CanaryEntry | None:
    """Do what was decided and give its entry; None where there is nothing to enter."""
    if decision.action == "wait":
        return None
    if decision.action == "promote" and not _promoted(registry, spec, state, decision, actor=actor):
        if state.reason.startswith(PROVED):
            return None
        said = f"{PROVED}: bnpipe promote {spec.name} {state.version} ({decision.reason})"
        return registry.note_canary(spec.name, state, said, actor=actor, key=key)
    return registry.move_canary(
        spec.name, state, decision, policy=policy, actor=actor, evidence=_evidence(decision), key=key, now=now
    )


def _promoted(registry: Registry, spec: ModelSpec, state: CanaryState, decision: CanaryDecision, *, actor: str) -> bool:
    """Move the champion, unless that is a person's to do; the champion already, it stays."""
    champion = registry.champion(spec.name)
    if champion is not None and champion.number == state.version:
        return True
    if (frozen := registry.frozen(spec.name)) is not None:
        raise PromotionRefused(f"{spec.name} is frozen {frozen}")
    if spec.promotion.policy != "auto":
        return False
    registry.promote(
        spec.name,
        state.version,
        actor=actor,
        reason=f"canary: {decision.reason}",
        evidence=registry.run_url(registry.version(spec.name, state.version).run_id),
        expected=state.champion,
        key=f"canary {state.salt}",
    )
    return True


def _evidence(decision: CanaryDecision) -> str:
    """Tell the verdicts in short."""
    return "; ".join(f"{verdict.gate}: {verdict.outcome}, {verdict.reason}" for verdict in decision.verdicts)


def _entered(entry: CanaryEntry) -> CanaryStep:
    """Tell what an entry did."""
    state = entry.state
    action = {"halted": "halt", "promoted": "promote", "running": "advance"}[state.status]
    if state.running and state.reason.startswith(PROVED):
        action = PROVED
    return CanaryStep(action, state.version, _share(state), state.reason, news=True)


def _share(state: CanaryState) -> float:
    return 0.0 if state.mode == "shadow" or state.status == "halted" else state.share


def _registry(settings: Settings | None) -> Registry:
    return Registry((settings or Settings.from_environ()).tracking_uri)
