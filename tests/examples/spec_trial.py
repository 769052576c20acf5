"""Try a spec without MLflow or Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from bnpipe.config import ModelSpec, load_spec
from bnpipe.data import Dataset
from bnpipe.evaluation import Evaluation, evaluate
from bnpipe.expectations import ValidationReport, validate
from bnpipe.parameters import fit
from bnpipe.release import absolute_gates
from bnpipe.source import Connection, read_window
from bnpipe.store import load_dataset, load_frame
from bnpipe.structure import learn_structure
from bnpipe.verdict import Verdict


@dataclass(frozen=True)
class Trial:
    """A spec learned as of one date, without MLflow or Airflow."""

    spec: ModelSpec
    rows: int
    validation: ValidationReport
    training: Dataset
    parents: dict[str, tuple[str, ...]]
    evaluation: Evaluation
    verdicts: tuple[Verdict, ...]


def try_spec(path: Path, end: date, *, data: Path | None, scratch: Path) -> Trial:
    """Read, validate, learn, fit and evaluate a spec as of one date; `data` is where its files lie."""
    spec = load_spec(path)
    window = spec.window_at(end)
    connection = Connection("local", "files", str(data) if data else None)
    read = read_window(connection, spec.query(), window.start, window.end, scratch / "rows.parquet")
    report = validate(
        read.path,
        variables=spec.feature_rules(),
        min_rows=spec.validation.min_rows,
        max_duplicate_share=spec.validation.max_duplicates,
        window=window,
        extra=[item.model_dump() for item in spec.validation.expectations],
    )
    frame = load_frame(read.path, tuple(spec.variables), start=window.start, end=window.train_end)
    schema = spec.learn_schema(frame)
    training = load_dataset(read.path, schema, start=window.start, end=window.train_end)
    held_out = load_dataset(read.path, schema, start=window.train_end, end=window.end)
    structure = spec.structure
    learned = learn_structure(
        training, score=structure.score, max_parents=structure.max_parents, knowledge=spec.knowledge()
    )
    network = fit(training, learned.parents, equivalent_sample_size=spec.equivalent_sample_size())
    evaluation = evaluate(
        network,
        training,
        held_out,
        targets=tuple(spec.targets),
        evidence={target: spec.evidence(target) for target in spec.targets},
        baselines=False,
        bootstraps=100,
    )
    verdicts = absolute_gates(evaluation, limits=spec.gate_limits())
    return Trial(spec, read.rows, report, training, dict(learned.parents), evaluation, tuple(verdicts))
