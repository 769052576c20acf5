"""The chain of one drift run: snapshot, validate, compare, decide, act, report.

As in a training, each verb reads only what the snapshot froze and what earlier verbs left in the store, so that any of
them can be killed and run again. What follows from a look is in :mod:`bnpipe.steps.reaction`.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from bnpipe.config import ModelSpec, Overrides, Settings, load_spec
from bnpipe.errors import BnpipeError, EmptyWindowError, VersionNotFound, shorten
from bnpipe.registry import Registry, Version
from bnpipe.steps.live import Champion, LiveWindow, Look, LookBench, LookRecipe, Obstacle
from bnpipe.steps.proof import load_rival
from bnpipe.steps.reaction import look_act, look_decide, look_report
from bnpipe.steps.recipe import REFIT_OF_TAG, code_version
from bnpipe.steps.situation import KEY_TAG, WINDOW_END_TAG
from bnpipe.steps.train import train
from bnpipe.steps.training import Record, close_failed, step
from bnpipe.steps.units import in_another_unit
from bnpipe.store import Snapshot, Store
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.expectations import FeatureRule
    from bnpipe.network import Network
    from bnpipe.release import DriftDecision

log = logging.getLogger("bnpipe.steps")

LOOK_STEPS = ("snapshot", "validate", "compare", "decide", "act", "report")


@dataclass(frozen=True, slots=True)
class LookValidated(Record):
    """How many expectations failed, by severity."""

    critical: int
    warnings: int


@dataclass(frozen=True, slots=True)
class Compared(Record):
    """What the comparison found, in short.

    Parameters
    ----------
    nodes : int
    flagged, unknown : tuple of str
        Names; flagged ones the surest and largest first.
    least_p : float or None
        Over all known nodes; None where there is none.
    skipped : str
        Why nothing was compared, '' if it was.
    """

    nodes: int
    flagged: tuple[str, ...]
    unknown: tuple[str, ...]
    least_p: float | None
    skipped: str = ""


def look_snapshot(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    run_key: str,
    actor: str,
    start: date | None = None,
    end: date | None = None,
    actions: Literal["advise", "auto"] | None = None,
    reason: str | None = None,
    airflow_run: str | None = None,
    run_url: str | None = None,
    settings: Settings | None = None,
) -> Look:
    """Freeze what this look compares: the resolved spec, the live window's rows and the champion.

    A window without rows, or a model without champion, is no error: later verbs say so, and nothing is done.

    Parameters
    ----------
    spec : Path or ModelSpec
        A file under ``config/models`` or a spec read from one.
    at : datetime or date
        End of the data interval; the window ends at the last local midnight at or before it, less ``drift.label_lag``.
        A date, or `end`, is taken as that local midnight itself.
    run_key : str
        Identity of the run that asks; a retry with the same key continues the same MLflow run.
    actor : str
        Who started it: a user or ``schedule``.
    start, end : date or None
        The days to test, ``[start, end)``; None: those before `at`.
    actions : {"advise", "auto"} or None
        Instead of the spec's.

    Raises
    ------
    SpecError, SettingsError, SourceError, StoreError, RegistryError
        The MLflow run, if it could be opened, is marked as failed.
    """
    settings = settings or Settings.from_environ()
    started = time.perf_counter()
    model = load_spec(spec) if isinstance(spec, Path) else spec
    asked = model.live_window_at(end or at, start=start)
    model = model.with_actions(actions)
    registry = Registry(settings.tracking_uri)
    run_id = registry.start_run(
        model=model.name,
        key=run_key,
        tags={
            "bnpipe.kind": "drift",
            "bnpipe.actor": actor,
            "bnpipe.airflow_run": airflow_run or "",
            "bnpipe.airflow_url": run_url or "",
            "bnpipe.reason": reason or "",
        },
        params={
            "tested_from": asked.train_end.date().isoformat(),
            "window_end": asked.end.date().isoformat(),
            "actions": model.reaction_rule().actions,
        },
    )
    try:
        store = Store(settings.store)
        champion, network, obstacle = _find_champion(registry, model.name)
        window = LiveWindow.after(asked, None if champion is None else champion.train_end)
        if champion is not None and window is None:
            learned = champion.train_end.astimezone(asked.end.tzinfo).date()
            said = f"champion {champion.number} learned from rows until {learned}; none of {asked} is later"
            obstacle = Obstacle(said, alert=False)
        window = window or LiveWindow.of(asked)
        kept: Snapshot | None = None
        absent: tuple[str, ...] = ()
        if obstacle is None:
            kept, absent, obstacle = _take_live_rows(model, window, settings=settings, store=store)
        recipe = LookRecipe(model, window, kept, absent, champion, obstacle, code_version())
    except BnpipeError as error:
        if not error.retryable:
            close_failed(registry, run_id, f"snapshot: {error}")
        raise
    look = Look(model.name, recipe.key, run_id, actor)
    bench = LookBench(look, settings)
    with step("snapshot", bench, started=started):
        bench.keep("look.json", recipe.to_json())
        if network is not None:
            bench.keep("champion.json", network.to_json(), log_to_run=False)
        if kept is not None:
            registry.log_snapshot(run_id, model.name, kept.uri, kept.fingerprint, "live")
            registry.log_metrics(run_id, {"rows.snapshot": float(kept.rows)})
        registry.log_tags(
            run_id,
            {
                KEY_TAG: look.key,
                "bnpipe.champion": "" if champion is None else str(champion.number),
                "bnpipe.data_fingerprint": "" if kept is None else kept.fingerprint,
                "bnpipe.code_version": recipe.code_version,
                "bnpipe.tested_from": window.tested.isoformat(),
                WINDOW_END_TAG: window.end.isoformat(),
            },
        )
        log.info("%s: %s", model.name, obstacle.reason if obstacle else f"live rows of {window}")
    return look


def _champion(registry: Registry, version: Version) -> Champion | None:
    """Read a version, and those that it is a refit of, as far as they are still there."""
    base = None
    if REFIT_OF_TAG in version.tags:
        with suppress(VersionNotFound):
            base = _champion(registry, registry.version(version.model, int(version.tags[REFIT_OF_TAG])))
    return Champion.of(version, base)


def _find_champion(registry: Registry, model: str) -> tuple[Champion | None, Network | None, Obstacle | None]:
    version = registry.champion(model)
    if version is None:
        if vacant := registry.vacancy(model):
            return None, None, Obstacle(f"there is nothing to compare with: {vacant}")
        return None, None, Obstacle(f"{model} has no champion yet: there is nothing to compare with", alert=False)
    champion, network = _champion(registry, version), load_rival(registry, version)
    if champion is None or network is None or not network.has_counts:
        said = f"champion {version.number} was not made by bnpipe: nobody knows from which rows it was learned"
        return None, None, Obstacle(said)
    return champion, network, None


def _take_live_rows(
    model: ModelSpec, window: LiveWindow, *, settings: Settings, store: Store
) -> tuple[Snapshot | None, tuple[str, ...], Obstacle | None]:
    """Read the live window once; columns that the source lacks are left out and named."""
    from bnpipe.source import absent_columns, read_window
    from bnpipe.store import load_frame

    source = model.drift_rule().source or model.source
    connection, query = settings.connection(source.connection), model.live_query()
    gone = absent_columns(connection, query, window.start, window.end)
    absent = tuple(name for column, name in query.renamed if column in gone)
    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        local = Path(folder) / "rows.parquet"
        try:
            read_window(connection, query.without(gone), window.start, window.end, local)
        except EmptyWindowError as error:
            return None, absent, Obstacle(f"the live window is empty: {error}")
        if load_frame(local, ("_cluster",), start=window.tested).empty:
            newest = load_frame(local, ("_time",))["_time"].max().astimezone(window.end.tzinfo)
            said = f"the live window is empty: no rows in {window}, the newest is of {newest:%Y-%m-%d}"
            return None, absent, Obstacle(said)
        return store.put_snapshot(local), absent, None


def look_validate(look: Look) -> LookValidated:
    """Check the tested days with Great Expectations; a failure is recorded and never raised.

    What is asked is what a training asks of its rows, with as many fewer rows as there are days. Targets may be absent
    or incomplete: labels come late or never, and their nodes are unknown then. Besides, no numbers may look as if they
    were those that the champion learned from in another unit.
    """
    from bnpipe import expectations

    bench = LookBench(look)
    with step("validate", bench):
        recipe = bench.recipe
        if recipe.obstacle is not None:
            failed = (Verdict("live window", "fail", recipe.obstacle.reason),) if recipe.obstacle.alert else ()
            bench.keep_verdicts("verdicts/validation.json", failed)
            return LookValidated(len(failed), 0)
        spec, window = recipe.spec, recipe.window
        rules = _live_rules(recipe)
        held = tuple(rule.name for rule in rules if rule.name not in recipe.absent)
        report = expectations.validate(
            bench.live_frame((*held, "_time", "_cluster"), start=window.tested),
            variables=rules,
            min_rows=spec.drift_rule().min_rows or spec.fewest_rows(window.days),
            max_duplicate_share=spec.validation.max_duplicates,
            extra=_live_expectations(recipe),
            name=spec.name,
            time_zone=window.time_zone,
        )
        units = in_another_unit(bench)
        verdicts = (*report.verdicts, *units, *_late(bench))
        bench.keep("validation.json", report.json)
        bench.keep("validation.html", report.html)
        bench.keep_verdicts("verdicts/validation.json", verdicts)
        critical = sum(failure.severity == "critical" for failure in report.failures)
        warnings = len(report.failures) - critical
        critical += sum(not verdict.passed for verdict in units)
        bench.registry.log_metrics(look.run_id, {"validation.critical": critical, "validation.warnings": warnings})
        return LookValidated(critical, warnings)


def _live_rules(recipe: LookRecipe) -> tuple[FeatureRule, ...]:
    return tuple(
        replace(rule, target=False, max_missing=1.0) if rule.target else rule
        for rule in recipe.spec.feature_rules()
        if not (rule.target and rule.name in recipe.absent)
    )


def _live_expectations(recipe: LookRecipe) -> tuple[dict[str, Any], ...]:
    """Leave out what is about the clusters of a training's window, or about labels that are not there."""
    gone = (name for name in recipe.absent if name in recipe.spec.targets)
    return recipe.spec.further_expectations(but=("_cluster", *gone))


def _late(bench: LookBench) -> tuple[Verdict, ...]:
    """Name tested days without rows, but for weekdays that never have any; only where days are the clusters."""
    recipe, window = bench.recipe, bench.recipe.window
    if recipe.spec.source.cluster is not None:
        return ()
    held = {date.fromisoformat(day) for day in bench.live_frame(("_cluster",), start=window.start)["_cluster"].unique()}
    open_ = {day.weekday() for day in held}
    tested = (window.tested.date() + timedelta(days=place) for place in range(window.days))
    late = [str(day) for day in tested if day not in held and day.weekday() in open_]
    if not late:
        return ()
    return (Verdict("late rows", "pass", f"warning: {len(late)} of {window.days} days have no rows: {shorten(late)}"),)


def look_compare(look: Look) -> Compared:
    """Compare each CPD of the live rows with the champion's; nothing is compared where the data are bad."""
    bench = LookBench(look)
    with step("compare", bench):
        if hindrance := bench.hindrance:
            found = Compared(0, (), (), None, hindrance)
        else:
            report = _compare(bench)
            bench.keep("drift.json", json.dumps(report.to_dict(), indent=1))
            bench.registry.log_metrics(look.run_id, _metrics(report))
            least = min((node.p for node in report.nodes.values() if node.known), default=None)
            found = Compared(len(report.nodes), report.flagged, report.unknown, least)
        bench.keep("compared.json", json.dumps(found.to_dict()), log_to_run=False)
    log.info("%s: %s", look.model, found.skipped or f"{len(found.flagged)} of {found.nodes} CPDs changed")
    return found


def _compare(bench: LookBench) -> DriftReport:
    from bnpipe.drift import compare_cpds, look_level

    spec, window, network = bench.recipe.spec, bench.recipe.window, bench.network
    drift, days = spec.drift_rule(), spec.source.cluster is None
    clusters = bench.live_frame(("_cluster",), start=window.tested)["_cluster"].nunique()
    return compare_cpds(
        network,
        bench.live_rows(network.schema, start=window.start if days else window.tested),
        level=look_level(drift.alarms_per_year, drift.looks_per_year),
        min_effect=drift.min_effect,
        seed=spec.structure.seed,
        window=int(clusters) if days else None,  # other clusters are in no order of time: nothing dates a change
        min_row_share=drift.min_row_share,
        knowledge=spec.knowledge() if days and spec.structure.graph is None else None,
        max_parents=spec.structure.max_parents,
    )


def _metrics(report: DriftReport) -> dict[str, float]:
    known = [node for node in report.nodes.values() if node.known]
    metrics = {"drift.flagged": float(len(report.flagged)), "drift.unknown": float(len(report.unknown))}
    if known:
        metrics["drift.least_p"] = min(node.p for node in known)
    return metrics | {f"drift.effect.{name}": report.nodes[name].effect for name in report.flagged}


def look(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    actor: str,
    start: date | None = None,
    end: date | None = None,
    act: bool = False,
    reason: str | None = None,
    around: Callable[[str], AbstractContextManager[object]] = lambda step: nullcontext(),
) -> tuple[Look, DriftDecision]:
    """Run every verb of a look, one after the other; the same rows give the same decision as in Airflow.

    Parameters
    ----------
    act : bool
        Do what is decided, whatever ``drift.actions`` says, trainings included; without it nothing is done.
    around : callable
        Gives, for the name of a step, a context in which it runs; the command line shows progress with it.

    Raises
    ------
    BnpipeError
        As the verbs do.
    """
    with around("snapshot"):
        begun = look_snapshot(
            spec=spec,
            at=at,
            run_key=f"terminal/{uuid4()}",
            actor=actor,
            start=start,
            end=end,
            actions="auto" if act else None,
            reason=reason,
        )
    bench = LookBench(begun)
    try:
        for verb in (look_validate, look_compare, look_decide):
            with around(verb.__name__.removeprefix("look_")):
                verb(begun)
        conf = None
        if act:
            with around("act"):
                conf = look_act(begun).conf
        with around("report"):
            look_report(begun)
    except BaseException as error:  # also Ctrl-C: nobody comes back to this run
        close_failed(bench.registry, begun.run_id, f"{type(error).__name__}: {error}")
        raise
    if conf is not None:
        train(spec=spec, at=at, actor=actor, overrides=Overrides.of(conf), around=around)
    return begun, bench.decision
