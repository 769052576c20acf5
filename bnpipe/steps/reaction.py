"""What follows from a look: decide, act, report. The rules lie in :mod:`bnpipe.release`; nothing is weighed here."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bnpipe.errors import PromotionRefused, VersionNotFound
from bnpipe.registry import Registry
from bnpipe.steps.live import Champion, Look, LookBench, Obstacle
from bnpipe.steps.situation import ACTED_TAG, refit_since, situation_of
from bnpipe.steps.training import Record, step

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.release import DriftDecision

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Decided(Record):
    """The decision without its verdicts; the whole of it is ``decision.json`` in the MLflow run.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
    advised_only : bool
        It would be done, but the spec says advise, or the model is frozen.
    reason : str
    families : tuple of str
        To refit.
    since : str or None
        Earliest change-point among them.
    to : int or None
        Version to roll back to.
    alert : bool
        A person should be told.
    champion : int or None
        The version compared with.
    """

    action: str
    advised_only: bool
    reason: str
    families: tuple[str, ...]
    since: str | None
    to: int | None
    alert: bool
    champion: int | None


@dataclass(frozen=True, slots=True)
class Acted(Record):
    """What was done.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
        The decision's.
    done : bool
        The champion was moved, or a training is to be started with `conf`.
    reason : str
        One sentence: what was done, or why it was not.
    conf : dict or None
        Of the ``bn_train__NAME`` run to start, as :meth:`bnpipe.config.Overrides.of` reads it; None: start none. The
        same look always gives the same.
    key : str
        Names what was done for good, to derive the id of that run from.
    """

    action: str
    done: bool
    reason: str
    conf: dict[str, Any] | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class LookReported(Record):
    """How the look ended, and the artifacts that tell of it.

    Parameters
    ----------
    outcome : str
        The decision's action.
    reason : str
    pages : tuple of str
        Artifacts of the MLflow run: ``report.html``, ``evidently.html``.
    """

    outcome: str
    reason: str
    pages: tuple[str, ...]


def look_decide(look: Look, *, retrain_running: bool = False) -> Decided:
    """Decide what is to be done, and write the decision with its reasons into the MLflow run.

    Parameters
    ----------
    retrain_running : bool
        A training of this model is under way.
    """
    bench = LookBench(look)
    with step("decide", bench):
        decision = _decide(bench, retrain_running=retrain_running)
        bench.keep("decision.json", json.dumps(decision.to_dict(), indent=1), of_run=True)
        bench.registry.log_tags(
            look.run_id,
            {
                "bnpipe.action": decision.action,
                "bnpipe.decision": decision.reason[:2000],
                "bnpipe.advised_only": str(decision.advised_only).lower(),
            },
        )
    log.info("%s: %s: %s", look.model, decision.action, decision.reason)
    champion = bench.recipe.champion
    return Decided(
        action=decision.action,
        advised_only=decision.advised_only,
        reason=decision.reason,
        families=decision.families,
        since=decision.since,
        to=decision.to,
        alert=decision.alert,
        champion=None if champion is None else champion.number,
    )


def _decide(bench: LookBench, *, retrain_running: bool) -> DriftDecision:
    from bnpipe.release import DriftDecision, react

    recipe = bench.recipe
    if recipe.obstacle is not None or recipe.champion is None:
        found = recipe.obstacle or Obstacle("there is no champion to compare with")
        return DriftDecision("hold" if found.alert else "nothing", False, found.reason, alert=found.alert)
    situation = situation_of(bench, recipe.champion, retrain_running=retrain_running)
    return react(situation, recipe.spec.reaction_rule())


def look_act(look: Look) -> Acted:
    """Roll back, or say which training to start; once for each look, and only if the champion is still the same."""
    bench = LookBench(look)
    with step("act", bench):
        if bench.holds("acted.json"):
            acted = Acted(**json.loads(bench.read("acted.json", step="look_act")))
        else:
            acted = _act(bench, look)
            bench.keep("acted.json", json.dumps(acted.to_dict(), indent=1), of_run=not acted.done)
        tags = {"bnpipe.acted_reason": acted.reason[:2000]}
        bench.registry.log_tags(look.run_id, tags | ({ACTED_TAG: acted.action} if acted.done else {}))
    log.info("%s: %s: %s", look.model, acted.action, acted.reason)
    return acted


def _act(bench: LookBench, look: Look) -> Acted:
    decision, champion = bench.decision, bench.recipe.champion
    if decision.action in ("nothing", "hold") or champion is None:
        return Acted(decision.action, False, decision.reason)
    if decision.advised_only:
        return Acted(decision.action, False, f"only advised: {decision.reason}")
    if frozen := bench.registry.frozen(look.model):
        return Acted(decision.action, False, f"nothing was done, {look.model} was frozen meanwhile: {frozen}")
    if decision.action == "roll back":
        return _roll_back(bench, look, champion)
    now = bench.registry.champion(look.model)
    if now is None or now.number != champion.number:
        said = "there is no champion" if now is None else f"version {now.number} is the champion"
        reason = f"nothing was done: {said} by now, version {champion.number} was compared with"
        return Acted(decision.action, False, reason)
    return Acted(decision.action, True, decision.reason, _conf(bench, champion), look.key)


def _roll_back(bench: LookBench, look: Look, champion: Champion) -> Acted:
    decision = bench.decision
    try:
        entry = bench.registry.rollback(
            look.model,
            to=decision.to,
            actor=look.actor,
            reason=f"drift: {decision.reason}",
            evidence=bench.registry.run_url(look.run_id),
            expected=champion.number,
            key=look.key,
        )
    except (PromotionRefused, VersionNotFound) as refusal:
        return Acted(decision.action, False, f"nothing was done: {refusal}")
    reason = f"version {entry.to} is champion again instead of {entry.source}: {decision.reason}"
    return Acted(decision.action, True, reason, None, look.key)


def _conf(bench: LookBench, champion: Champion) -> dict[str, Any]:
    """Say what the training is to do; the same for each attempt of this look."""
    decision, window = bench.decision, bench.recipe.window
    conf = {"reason": f"drift: {decision.reason}"[:1000], "end": str(window.end.date())}
    if decision.action == "relearn":
        return conf
    since = refit_since(bench.recipe, decision.since)
    return conf | {"refit": list(decision.families), "since": str(since), "refit_of": champion.number}


def look_report(look: Look) -> LookReported:
    """Write the page of the look and end its MLflow run."""
    from bnpipe.steps.page import keep_drift_page

    bench = LookBench(look)
    with step("report", bench):
        pages = keep_drift_page(bench) if bench.recipe.champion is not None else ()
    decision = bench.decision
    bench.registry.log_tags(
        look.run_id, {"bnpipe.outcome": decision.action, "bnpipe.outcome_reason": decision.reason[:2000]}
    )
    bench.registry.finish_run(look.run_id, "FINISHED")
    return LookReported(decision.action, decision.reason, pages)


def read_look(registry: Registry, run_id: str) -> tuple[DriftDecision, DriftReport | None]:
    """Read from MLflow what a look decided and found; no report where nothing could be compared.

    Raises
    ------
    RegistryError
        The run has no ``decision.json``: it did not come that far, or is no look.
    """
    from bnpipe.drift import DriftReport
    from bnpipe.release import DriftDecision

    decision = DriftDecision.from_dict(json.loads(registry.read_text(run_id, "decision.json")))
    if "drift.json" not in registry.artifacts(run_id):
        return decision, None
    return decision, DriftReport.from_dict(json.loads(registry.read_text(run_id, "drift.json")))
