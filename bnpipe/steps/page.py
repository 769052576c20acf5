"""The pages of a training and of a look, from what their steps left."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnpipe.errors import DataError
from bnpipe.release import PromotionDecision
from bnpipe.report import calibration_png, training_report
from bnpipe.steps.training import Bench
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.evaluation import Evaluation
    from bnpipe.steps.live import LookBench

log = logging.getLogger("bnpipe.steps")


def keep_page(
    bench: Bench, scores: Evaluation, verdicts: Sequence[Verdict], decision: PromotionDecision | None
) -> None:
    """Write ``report.html`` and ``calibration.png`` into the MLflow run; both open offline."""
    recipe = bench.recipe
    spec = recipe.spec
    structure = json.loads(bench.read("structure.json", step="learn"))
    audit = json.loads(bench.read("audit.json", step="audit"))
    page = training_report(
        name=spec.name,
        description=spec.description,
        network=bench.network,
        evaluation=scores,
        verdicts=(*bench.validation(), *verdicts),
        decision=decision,
        targets=tuple(spec.targets),
        tiers=spec.structure.tiers,
        strength={(parent, child): share for parent, child, share in structure["strength"]} or None,
        windows=(
            ("learned from", f"{recipe.window.start.date()} until {recipe.window.train_end.date()}"),
            ("proved on", f"{recipe.window.train_end.date()} until {recipe.window.end.date()}"),
            ("days", f"in {recipe.window.time_zone}, each ends before its date begins"),
        ),
        audit=audit["findings"],
        validation=json.loads(bench.read("validation_failures.json", step="validate")),
        seconds={name: cost.seconds for name, cost in bench.costs().items()},
        provenance=(
            ("training key", bench.training.key),
            ("data fingerprint", recipe.snapshot.fingerprint),
            ("rows kept at", recipe.snapshot.uri),
            ("schema hash", bench.schema.hash),
            ("structure hash", bench.network.structure_hash),
            ("content hash", bench.network.content_hash),
            ("bins reused from version", "none, learned or given" if recipe.base is None else str(recipe.base)),
            ("graph", f"{structure['drawn_by']}, {structure['score_name']} {structure['score']:.1f}"),
            ("bnpipe", recipe.code_version),
            ("started by", bench.training.actor),
            ("MLflow run", bench.registry.run_url(bench.training.run_id)),
        ),
    )
    bench.keep("report.html", page)
    bench.registry.log_bytes(bench.training.run_id, calibration_png(scores), "calibration.png")


def keep_drift_page(bench: LookBench) -> tuple[str, ...]:
    """Write ``report.html`` and, where rows were compared, Evidently's page beside it into the MLflow run."""
    from bnpipe.report.drift import EVIDENTLY, drift_report

    recipe, report = bench.recipe, bench.report
    if recipe.champion is None:
        return ()
    links = {"MLflow run": bench.registry.run_url(bench.reference.run_id)}
    pages = ["report.html"]
    beside = "" if report is None else _evidently(bench, report)
    if beside:
        bench.registry.log_text(bench.reference.run_id, beside, "evidently.html")
        links[EVIDENTLY] = "evidently.html"
        pages.append("evidently.html")
    page = drift_report(
        model=recipe.spec.name,
        version=recipe.champion.number,
        report=report,
        parents=bench.network.parents,
        decision=bench.decision,
        validation=bench.validation(),
        targets=tuple(recipe.spec.targets),
        tiers=recipe.spec.structure.tiers,
        subtitle=f"days {recipe.window.tested.date()} until {recipe.window.end.date()} in {recipe.window.time_zone}",
        links=links,
    )
    bench.registry.log_text(bench.reference.run_id, page, "report.html")
    return tuple(pages)


def _evidently(bench: LookBench, report: DriftReport) -> str:
    """Write Evidently's page, '' where the rows the champion learned from are gone or share no variable with these."""
    from bnpipe.report.evidently_report import evidently_html

    learned = bench.learned_rows()
    if learned is None:
        return ""
    tested = bench.live_rows(bench.network.schema, start=bench.recipe.window.tested)
    try:
        return evidently_html(learned, tested, report)
    except DataError as error:
        log.warning("%s: no page of Evidently: %s", bench.reference.model, error)
        return ""
