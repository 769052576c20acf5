"""The proof of one network: held-out scores, its baselines, the champion beside it, and what follows from them."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bnpipe.errors import BnpipeError, GateFailed, VersionNotFound
from bnpipe.registry import Registry, Version
from bnpipe.steps.recipe import Recipe
from bnpipe.steps.training import Bench, Record, Release, Training, step
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.evaluation import Comparison
    from bnpipe.network import Network
    from bnpipe.release import GateLimits

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Evaluated(Record):
    """Held-out score in nats per row, how many verdicts passed, and the champion it was compared with."""

    nats_per_row: float | None
    passed: int
    verdicts: int
    champion: int | None


def evaluate(training: Training) -> Evaluated:
    """Score the network on the held-out rows, beside its baselines and against the champion.

    Raises
    ------
    GateFailed
        An absolute gate failed. Scores, verdicts and the report are in the MLflow run all the same.
    """
    from bnpipe import evaluation, release
    from bnpipe.steps.page import keep_page

    bench = Bench(training)
    with step("evaluate", bench):
        spec = bench.recipe.spec
        scores = evaluation.evaluate(
            bench.network,
            bench.training_rows(),
            bench.held_out_rows(),
            targets=tuple(spec.targets),
            evidence={target: spec.evidence(target) for target in spec.targets},
            seed=spec.structure.seed,
        )
        verdicts = release.absolute_gates(scores, limits=_limits(bench))
        champion = bench.registry.champion(spec.name)
        rival = champion or last_champion(bench.registry, spec.name)
        itself = rival is not None and rival.training_key == training.key
        if rival is not None and not itself:
            verdicts += _against(bench, rival)
        found = Release(champion.number if champion else None, verdicts)
        bench.keep("evaluation.json", json.dumps(scores.to_dict(), indent=1))
        bench.keep_release(found)
        bench.registry.log_metrics(training.run_id, scores.metrics())
        decision = release.decide_promotion(verdicts, policy=spec.promotion.policy, first=rival is None or itself)
        keep_page(bench, scores, verdicts, None if itself else decision)
        failed = tuple(verdict for verdict in verdicts if verdict.kind == "absolute" and not verdict.passed)
        if failed:
            raise GateFailed(f"{spec.name} failed {reasons(failed)}", verdicts=failed)
        return Evaluated(
            scores.held_out_nats, sum(verdict.passed for verdict in verdicts), len(verdicts), found.compared_with
        )


def _limits(bench: Bench) -> GateLimits:
    """Ask for as many fewer rows as there are fewer days to prove a refit on."""
    spec = bench.recipe.spec
    limits = spec.gate_limits()
    return replace(limits, min_rows=limits.min_rows * bench.recipe.window.held_out_days // spec.window.held_out)


def last_champion(registry: Registry, model: str) -> Version | None:
    """Find the version that reigned last, for a model whose champion alias was taken away."""
    try:
        ledger = registry.history(model)
    except VersionNotFound:
        return None
    for entry in reversed(ledger):
        if entry.to is not None and entry.outcome in ("done", "by hand"):
            try:
                return registry.version(model, entry.to)
            except VersionNotFound:
                continue
    return None


def load_rival(registry: Registry, version: Version) -> Network | None:
    """Load a champion's network; None where a version set by hand holds none that bnpipe reads."""
    try:
        return registry.load_network(version)
    except BnpipeError as error:
        if error.retryable:
            raise
        log.warning("%s version %d can't be read as a network: %s", version.model, version.number, error)
        return None


def _against(bench: Bench, rival: Version) -> tuple[Verdict, ...]:
    from bnpipe import release

    network = load_rival(bench.registry, rival)
    if network is None or rival.window_end is None or rival.train_end is None:
        reason = f"champion {rival.number} was not made by bnpipe: there is nothing to compare with, a person decides"
        return (Verdict("challenger", "incomparable", reason, kind="relative"),)
    comparison = _compare(bench, rival, network)
    bench.keep("comparison.json", json.dumps(comparison.to_dict(), indent=1), of_run=True)
    return release.judge(
        comparison,
        rule=bench.recipe.spec.promotion_rule(),
        challenger_window_end=None if refits(bench.recipe, rival) else bench.recipe.window.end,
        champion_window_end=rival.window_end,
    )


def refits(recipe: Recipe, champion: Version) -> bool:
    """Whether this is a refit of that champion, learned from days up to the same end or later: newer all the same."""
    ends = champion.window_end
    return (
        recipe.refit is not None and recipe.base == champion.number and ends is not None and ends <= recipe.window.end
    )


def _compare(bench: Bench, rival: Version, network: Network) -> Comparison:
    """Compare on rows that neither has learned from."""
    from bnpipe.evaluation import compare

    spec = bench.recipe.spec
    same = network.schema.hash == bench.schema.hash
    since = rival.train_end
    known = not same and set(network.schema.names) <= set(spec.variables)
    return compare(
        bench.network,
        network,
        bench.held_out_rows(since=since),
        targets=tuple(spec.targets),
        evidence={target: spec.evidence(target) for target in spec.targets},
        champion_held_out=None
        if same or not known
        else bench.held_out_rows(schema=network.schema, since=rival.train_end),
    )


def reasons(verdicts: tuple[Verdict, ...]) -> str:
    """Name the first three that did not pass, and count the rest."""
    failed = [f"{verdict.gate}: {verdict.reason}" for verdict in verdicts if not verdict.passed]
    return "; ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
