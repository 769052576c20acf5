"""What a look knows when it decides: the reign of the champion, its predecessor on the same days, the last act."""

from __future__ import annotations

import logging
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING

from bnpipe.config import ModelSpec
from bnpipe.errors import VersionNotFound
from bnpipe.registry import Registry
from bnpipe.source import find_time_zone
from bnpipe.steps.live import Champion, LiveWindow, LookBench, LookRecipe

if TYPE_CHECKING:
    from bnpipe.evaluation import Comparison
    from bnpipe.network import Network
    from bnpipe.registry import Version
    from bnpipe.release import DriftSituation, Proof

log = logging.getLogger("bnpipe.steps")

ACTED_TAG = "bnpipe.acted"
KEY_TAG = "bnpipe.look_key"
WINDOW_END_TAG = "bnpipe.window_end"
LEAST_REFIT_DAYS = 3
"""Days that a refit has at least, to learn from and to be proved on."""


def situation_of(bench: LookBench, champion: Champion, *, retrain_running: bool) -> DriftSituation:
    """Gather what the decision rests on."""
    from bnpipe.release import DriftSituation

    registry, model, window = bench.registry, bench.reference.model, bench.recipe.window
    report = bench.report
    began = reign_begin(registry, model, champion, window)
    predecessor = registry.predecessor(model) if report is not None else None
    comparison: Comparison | None = None
    losses: tuple[float, ...] = ()
    if predecessor is not None and predecessor.number != champion.number:
        comparison, losses = _against(bench, predecessor, champion, began)
    return DriftSituation(
        validation=bench.validation(),
        report=report,
        champion=champion.number,
        champion_age=_age(bench, began) if report is not None else 0,
        predecessor=None if predecessor is None else predecessor.number,
        against_predecessor=comparison,
        past_losses=losses,
        frozen=registry.frozen(model),
        days_since_action=_days_since_action(bench),
        retrain_running=retrain_running,
        proof=_proof(bench),
    )


def refit_since(recipe: LookRecipe, label: str | None) -> date:
    """Say from which day on a refit has rows: that of a cluster; the first tested where no cluster is a day."""
    window = recipe.window
    latest = window.end.date() - timedelta(days=LEAST_REFIT_DAYS)
    if label is None or recipe.spec.source.cluster is not None:
        return min(window.tested.date(), latest)
    return min(date.fromisoformat(label), latest)


def _proof(bench: LookBench) -> Proof | None:
    from bnpipe.release import earliest_change

    recipe, report = bench.recipe, bench.report
    if report is None or not report.flagged:
        return None
    since, end = refit_since(recipe, earliest_change(report)), recipe.window.end.date()
    begin = recipe.spec.refit_window_at(end, since).train_end
    held = int(bench.live_frame(("_cluster",), start=begin)["_cluster"].nunique())
    return proof_of(recipe.spec, since, end, clusters=held)


def proof_of(spec: ModelSpec, since: date, end: date, *, clusters: int) -> Proof:
    """Say what a refit on the days ``[since, end)`` would be proved on.

    Parameters
    ----------
    clusters : int
        Those that have rows in the days held out.
    """
    from bnpipe.release import Proof

    if spec.source.cluster is not None:
        return Proof(clusters)
    window, drift = spec.refit_window_at(end, since), spec.drift_rule()
    needed = spec.promotion.min_clusters + window.held_out_days - clusters  # days without rows prove nothing
    later = (end + timedelta(days=days) for days in range(1, 2 * needed))
    enough = next((day for day in later if spec.refit_window_at(day, since).held_out_days >= needed), None)
    lag = timedelta(days=spec.source.lag if drift.label_lag is None else drift.label_lag)
    return Proof(clusters, str(window.train_end.date()), str(enough + lag) if enough else None)


def reign_begin(registry: Registry, model: str, champion: Champion, window: LiveWindow) -> datetime:
    """Say from which midnight on the rows are later than the champion's promotion.

    It is the one after the promotion that the ledger has; where days of the past are looked at again, that lies after
    all of them, and the end of the days the champion was proved on counts instead: it can't have reigned before.
    """
    try:
        moves = [entry.time for entry in registry.history(model) if entry.to == champion.number]
    except VersionNotFound:
        moves = []
    if moves:
        zone = find_time_zone(window.time_zone)
        promoted = datetime.combine(moves[-1].astimezone(zone).date() + timedelta(days=1), time(), zone)
        if champion.window_end < promoted < window.end:
            return promoted
    return champion.window_end


def _age(bench: LookBench, began: datetime) -> int:
    """Count the days with live rows since the reign began; of those before the live rows, all."""
    window = bench.recipe.window
    if bench.recipe.spec.source.cluster is not None:
        return (window.end - began).days
    seen = bench.live_frame(("_cluster",), start=max(began, window.start))["_cluster"].nunique()
    return int(seen) + max(0, (window.start - began).days)


def _against(
    bench: LookBench, predecessor: Version, champion: Champion, began: datetime
) -> tuple[Comparison | None, tuple[float, ...]]:
    """Compare predecessor and champion on rows neither learned from: since the promotion, and before it."""
    if predecessor.train_end is None:
        return None, ()
    network = bench.registry.load_network(predecessor)
    clean = max(predecessor.train_end, champion.train_end, bench.recipe.window.start)
    before = _compare(bench, network, clean, began)
    since = _compare(bench, network, max(clean, began), bench.recipe.window.end)
    return since, before.cluster_means if before is not None else ()


def _compare(bench: LookBench, predecessor: Network, start: datetime, end: datetime) -> Comparison | None:
    from bnpipe.evaluation import compare

    if start >= end:
        return None
    rows = bench.live_rows(predecessor.schema, start=start, end=end)
    return compare(predecessor, bench.network, rows, targets=()) if rows.rows else None


def _days_since_action(bench: LookBench) -> float | None:
    """Count days, in the time of the data, since another look of this model acted; 0 where that was later."""
    end = bench.recipe.window.end
    acted = bench.registry.tags_of_runs(model=bench.reference.model, having=ACTED_TAG)
    ends = [
        datetime.fromisoformat(tags[WINDOW_END_TAG])
        for tags in acted
        if tags.get(KEY_TAG) != bench.reference.key and WINDOW_END_TAG in tags
    ]
    return min((max(0.0, (end - other) / timedelta(days=1)) for other in ends), default=None)
