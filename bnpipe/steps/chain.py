"""The chain of one training: snapshot, validate, learn, audit, fit, evaluate, register.

Each verb reads only what the snapshot froze and what earlier verbs left in the store, so that any of them can be
killed and run again; promotion is in :mod:`bnpipe.steps.promotion`.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bnpipe.config import ModelSpec, Overrides, Settings, load_spec
from bnpipe.errors import BnpipeError, DataError, GateFailed, VersionNotFound
from bnpipe.registry import Registry, Version
from bnpipe.source import Window
from bnpipe.steps.learning import find_graph, fit_network, fix_schema, load_base, measure_likelihoods
from bnpipe.steps.proof import load_rival, reasons
from bnpipe.steps.recipe import REFIT_OF_TAG, Recipe, code_version
from bnpipe.steps.training import Bench, Record, Training, close_failed, step
from bnpipe.store import Snapshot, Store

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.network import Network
    from bnpipe.strength import ArcStrength

log = logging.getLogger("bnpipe.steps")

CARRIED_TAGS = ("bnpipe.airflow_run", "bnpipe.airflow_url", "bnpipe.reason")


@dataclass(frozen=True, slots=True)
class Validated(Record):
    """How many expectations failed, by severity."""

    critical: int
    warnings: int


@dataclass(frozen=True, slots=True)
class Learned(Record):
    """Size of the learned graph."""

    nodes: int
    arcs: int
    score: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Fitted(Record):
    """Size and identity of the fitted network."""

    parameters: int
    rows: int
    content_hash: str


@dataclass(frozen=True, slots=True)
class Audited(Record):
    """Free parameters of the graph, its largest clique and the cells of that clique's table."""

    free_parameters: int
    largest_clique: tuple[str, ...]
    clique_cells: int


@dataclass(frozen=True, slots=True)
class Registered(Record):
    """The version that this training has, made now or by an earlier run of the same training."""

    model: str
    version: int


def snapshot(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    run_key: str,
    actor: str,
    overrides: Overrides | None = None,
    airflow_run: str | None = None,
    run_url: str | None = None,
    settings: Settings | None = None,
) -> Training:
    """Freeze what this training learns from: the resolved spec, the window and its rows.

    Parameters
    ----------
    spec : Path or ModelSpec
        A file under ``config/models`` or a spec read from one.
    at : datetime or date
        End of the data interval; the window ends at the last local midnight at or before it, less the lag.
        A date, or `overrides.end`, is taken as that local midnight itself.
    run_key : str
        Identity of the run that asks; a retry with the same key continues the same MLflow run.
    actor : str
        Who started it: a user or ``schedule``.

    Raises
    ------
    SpecError, SettingsError, SourceError, EmptyWindowError, StoreError, RegistryError
        Nothing is registered then; the MLflow run, if it could be opened, is marked as failed.
    """
    settings = settings or Settings.from_environ()
    overrides = overrides or Overrides()
    started = time.perf_counter()
    base_dir = spec.parent if isinstance(spec, Path) else Path.cwd()
    model = (load_spec(spec) if isinstance(spec, Path) else spec).apply(overrides)
    window = _window_of(model, overrides, overrides.end or at)
    registry = Registry(settings.tracking_uri)
    run_id = registry.start_run(
        model=model.name,
        key=run_key,
        tags={
            "bnpipe.actor": actor,
            "bnpipe.airflow_run": airflow_run or "",
            "bnpipe.airflow_url": run_url or "",
            "bnpipe.reason": overrides.reason or "",
        },
        params={
            "score": model.structure.score,
            "max_parents": model.structure.max_parents,
            "seed": model.structure.seed,
            "estimator": model.parameters.estimator,
            "equivalent_sample_size": model.equivalent_sample_size(),
            "promotion": model.promotion.policy,
            "window_start": window.start.date().isoformat(),
            "train_end": window.train_end.date().isoformat(),
            "window_end": window.end.date().isoformat(),
            **({"refit": ", ".join(overrides.refit)} if overrides.refit else {}),
        },
    )
    try:
        store = Store(settings.store)
        kept = _take_rows(model, window_start=window.start, window_end=window.end, settings=settings, store=store)
        refitted = _refitted(registry, model, overrides)
        recipe = Recipe(
            spec=model,
            window=window,
            snapshot=kept,
            base=refitted.number
            if refitted
            else _base_version(registry, model, window.end, relearn=overrides.relearn_schema),
            parents=model.expert_parents(base_dir),
            code_version=code_version(),
            refit=overrides.refit,
        )
        base = load_base(recipe, store, registry)
    except BnpipeError as error:
        if not error.retryable:
            close_failed(registry, run_id, f"snapshot: {error}")
        raise
    training = Training(model.name, recipe.training_key, run_id, actor)
    bench = Bench(training, settings)
    with step("snapshot", bench, started=started):
        if base is not None:
            bench.keep("base.json", base.to_json(), log_to_run=False)
        bench.keep("training.json", recipe.to_json())
        registry.log_snapshot(run_id, model.name, kept.uri, kept.fingerprint)
        registry.log_metrics(run_id, {"rows.snapshot": float(kept.rows)})
        registry.log_tags(
            run_id,
            {
                "bnpipe.training_key": training.key,
                "bnpipe.data_fingerprint": kept.fingerprint,
                "bnpipe.code_version": recipe.code_version,
                "bnpipe.window_start": window.start.isoformat(),
                "bnpipe.train_end": window.train_end.isoformat(),
                "bnpipe.window_end": window.end.isoformat(),
            },
        )
        log.info("%s: %d rows of %s, fingerprint %s", model.name, kept.rows, window, kept.fingerprint[:12])
    return training


def _window_of(model: ModelSpec, overrides: Overrides, at: datetime | date) -> Window:
    if overrides.refit is None or overrides.since is None:
        return model.window_at(at)
    return model.refit_window_at(at, overrides.since)


def _refitted(registry: Registry, model: ModelSpec, overrides: Overrides) -> Version | None:
    """Find the version to refit, and refuse where the spec has other variables by now."""
    if overrides.refit is None:
        return None
    number = overrides.refit_of
    version = registry.champion(model.name) if number is None else registry.version(model.name, number)
    if version is None:
        raise DataError(f"{model.name} has no champion to refit; train it first")
    learned_by = Recipe.from_json(registry.read_text(version.run_id, "training.json")).spec
    resolved = ModelSpec.from_resolved(model.resolved_json())  # its variables in the order that schemas have
    if not resolved.schema_reusable_from(registry.load_network(version).schema, learned_by):
        raise DataError(
            f"{model.name}: the variables of the spec changed since version {version.number}; train instead of refit"
        )
    return version


def _take_rows(
    model: ModelSpec, *, window_start: datetime, window_end: datetime, settings: Settings, store: Store
) -> Snapshot:
    from bnpipe.source import read_window

    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        local = Path(folder) / "rows.parquet"
        read_window(settings.connection(model.source.connection), model.query(), window_start, window_end, local)
        return store.put_snapshot(local)


def _base_version(registry: Registry, model: ModelSpec, end: datetime, *, relearn: bool) -> int | None:
    """Find the newest champion that was trained on an earlier window: its learned bins are kept."""
    if relearn or model.fixed_schema() is not None:
        return None
    try:
        ledger = registry.history(model.name)
    except VersionNotFound:
        return None
    reigned = {entry.to for entry in ledger if entry.outcome in ("done", "by hand") and entry.to}
    earlier = [
        version
        for version in registry.versions(model.name)
        if version.number in reigned
        and version.barred is None
        and version.window_end is not None
        and version.window_end < end
    ]
    if not earlier:
        return None
    newest = max(earlier, key=lambda version: (version.window_end, version.number))
    return newest.number


def validate(training: Training) -> Validated:
    """Check the features with Great Expectations; a critical failure ends the run.

    Raises
    ------
    GateFailed
        An expectation of severity ``critical`` failed; the result and its page are in the MLflow run all the same.
    """
    from bnpipe import expectations

    bench = Bench(training)
    with step("validate", bench):
        recipe = bench.recipe
        spec = recipe.spec
        with bench.store.open_snapshot(recipe.snapshot) as path:
            report = expectations.validate(
                path,
                variables=spec.feature_rules(),
                min_rows=spec.fewest_rows(recipe.window.train_days + recipe.window.held_out_days),
                max_duplicate_share=spec.validation.max_duplicates,
                window=recipe.window,
                extra=tuple(spec.further_expectations(but=("_cluster",) if recipe.refit else ())),
                name=spec.name,
            )
        bench.keep("validation.json", report.json)
        bench.keep("validation.html", report.html)
        bench.keep_verdicts("verdicts/validation.json", report.verdicts)
        warnings = [failure for failure in report.failures if failure.severity != "critical"]
        critical = [failure for failure in report.failures if failure.severity == "critical"]
        told = [f"{failure.severity}: {failure}" for failure in report.failures]
        bench.keep("validation_failures.json", json.dumps(told, indent=1), log_to_run=False)
        for line in told:
            log.warning("%s: validation, %s", spec.name, line)
        bench.registry.log_metrics(
            training.run_id, {"validation.critical": len(critical), "validation.warnings": len(warnings)}
        )
        if report.critical:
            raise GateFailed(
                f"{spec.name} failed {reasons(report.verdicts)}; see validation.html in the MLflow run",
                verdicts=tuple(report.verdicts),
            )
        return Validated(len(critical), len(warnings))


def learn(training: Training) -> Learned:
    """Fix the schema, then learn the structure on the training rows (or take the experts' graph)."""
    from bnpipe.report import draw_network, network_png
    from bnpipe.structure import arc_strength

    bench = Bench(training)
    with step("learn", bench):
        recipe = bench.recipe
        spec = recipe.spec
        with bench.store.open_snapshot(recipe.snapshot) as path:
            schema = bench.base.schema if bench.base is not None else fix_schema(recipe, path, bench.registry)
        bench.keep("schema.json", json.dumps(schema.to_dict(), indent=1))
        data = bench.training_rows()
        graph = find_graph(recipe, data, bench.base)
        strength: ArcStrength | None = None
        if spec.structure.bootstraps and recipe.parents is None and bench.base is None:
            strength = arc_strength(
                data,
                score=spec.structure.score,
                max_parents=spec.structure.max_parents,
                knowledge=spec.knowledge(),
                bootstraps=spec.structure.bootstraps,
                seed=spec.structure.seed,
            )
        structure = {
            "parents": {node: list(parents) for node, parents in graph.parents.items()},
            "score": graph.score,
            "score_name": spec.structure.score,
            "drawn_by": _drawn_by(recipe),
            "seconds": round(graph.seconds, 3),
            "strength": [[parent, child, share] for (parent, child), share in sorted((strength or {}).items())],
            "threshold": strength and strength.threshold,
            "averaged": strength and {node: list(parents) for node, parents in strength.averaged.items()},
        }
        bench.keep("structure.json", json.dumps(structure, indent=1))
        tiers, targets = spec.structure.tiers, tuple(spec.targets)
        drawn = draw_network(graph.parents, tiers=tiers, strength=strength or None, targets=targets)
        bench.keep("graph.svg", drawn)
        picture = network_png(graph.parents, tiers=tiers, strength=strength or None, targets=targets)
        bench.registry.log_bytes(training.run_id, picture, "graph.png")
        arcs = sum(len(parents) for parents in graph.parents.values())
        bench.registry.log_metrics(training.run_id, {"graph.arcs": arcs, "graph.score": graph.score})
        return Learned(len(graph.parents), arcs, graph.score, round(graph.seconds, 3))


def _drawn_by(recipe: Recipe) -> str:
    if recipe.refit is not None:
        return f"version {recipe.base}"
    return "hill climbing" if recipe.parents is None else "experts"


def audit(training: Training) -> Audited:
    """Check every constraint on the learned graph and say what using it will cost."""
    from bnpipe.structure import audit as audit_graph

    bench = Bench(training)
    with step("audit", bench):
        spec = bench.recipe.spec
        data = bench.training_rows()
        champion = bench.registry.champion(spec.name)
        previous = load_rival(bench.registry, champion) if champion else None
        knowledge = spec.knowledge()
        found = audit_graph(
            bench.parents,
            data,
            champion=previous,
            knowledge=knowledge,
            max_parents=None if bench.recipe.parents is not None else spec.structure.max_parents,
        )
        bench.keep("audit.json", json.dumps({"findings": found.lines(), **found.to_dict()}, indent=1))
        bench.registry.log_metrics(training.run_id, found.metrics())
        if found.problems:
            raise GateFailed(f"{spec.name}: the learned graph breaks a constraint: {'; '.join(found.problems[:5])}")
        return Audited(found.free_parameters, found.largest_clique, found.clique_cells)


def fit(training: Training) -> Fitted:
    """Count every family of the graph, cluster by cluster, over the training rows."""
    bench = Bench(training)
    with step("fit", bench):
        data = bench.training_rows()
        network = fit_network(bench.recipe, data, bench.parents, bench.base)
        if bench.base is not None:
            bench.keep("families.json", json.dumps(_families(bench.base, network), indent=1))
        bench.keep("network.json", network.to_json(), log_to_run=False)
        bench.keep("likelihoods.json", measure_likelihoods(bench.recipe, network, data).to_json(), log_to_run=False)
        bench.registry.log_metrics(
            training.run_id, {"graph.parameters": network.parameters, "rows.training": data.rows}
        )
        return Fitted(network.parameters, data.rows, network.content_hash)


def _families(base: Network, network: Network) -> dict[str, dict[str, object]]:
    """Give each family's hash in the version that was refitted, in this one, and whether it is the same."""
    hashes = {node: (base.family_hash(node), network.family_hash(node)) for node in network.nodes}
    return {node: {"before": old, "now": new, "same": old == new} for node, (old, new) in hashes.items()}


def register(training: Training) -> Registered:
    """Create the version, once per training key."""
    bench = Bench(training)
    with step("register", bench):
        recipe = bench.recipe
        network = bench.network
        verdicts = bench.release().verdicts
        of_run = bench.registry.run_tags(training.run_id)
        tags = {
            "bnpipe.training_key": training.key,
            "bnpipe.data_fingerprint": recipe.snapshot.fingerprint,
            "bnpipe.snapshot_uri": recipe.snapshot.uri,
            "bnpipe.schema_hash": network.schema.hash,
            "bnpipe.structure_hash": network.structure_hash,
            "bnpipe.content_hash": network.content_hash,
            "bnpipe.code_version": recipe.code_version,
            "bnpipe.window_start": recipe.window.start.isoformat(),
            "bnpipe.train_end": recipe.window.train_end.isoformat(),
            "bnpipe.end": recipe.window.end.isoformat(),
            "bnpipe.verdict": "pass" if all(v.passed for v in verdicts if v.kind == "absolute") else "fail",
            "bnpipe.actor": training.actor,
            **(
                {}
                if recipe.refit is None
                else {REFIT_OF_TAG: str(recipe.base), "bnpipe.refit": ", ".join(recipe.refit)}
            ),
            **{name: value for name, value in of_run.items() if name in CARRIED_TAGS},
        }
        version = bench.registry.register(
            model=recipe.spec.name,
            network=network,
            targets=tuple(recipe.spec.targets),
            run_id=training.run_id,
            training_key=training.key,
            tags=tags,
            input_example=_typical_row(network, tuple(recipe.spec.targets)),
            likelihoods=bench.likelihoods,
        )
        bench.registry.log_tags(training.run_id, {"bnpipe.version": str(version.number)})
        window = recipe.window
        bench.registry.describe(
            version,
            model=f"{recipe.spec.description}\n\nOwner: {recipe.spec.owner}".strip(),
            version_text=f"{len(network.nodes)} nodes, {len(network.arcs)} arcs; {_learned(recipe)}learned from "
            f"{window.start.date()} until {window.train_end.date()}, proved on rows until {window.end.date()}",
        )
        log.info("%s: version %d", recipe.spec.name, version.number)
        return Registered(version.model, version.number)


def _learned(recipe: Recipe) -> str:
    return "" if recipe.refit is None else f"version {recipe.base}, with {', '.join(recipe.refit)} "


def _typical_row(network: Network, targets: tuple[str, ...]) -> pd.DataFrame:
    """Make an example of what can be asked: each variable's most frequent state. Customers' rows stay in the store."""
    import pandas as pd

    states = {}
    for node in network.nodes:
        if node not in targets:
            frequent = int(network.family_counts(node).total().sum(axis=0).argmax())
            states[node] = [network.schema[node].states[frequent]]
    return pd.DataFrame(states)
