"""What happened, as tables for a terminal: scores beside baselines, verdicts, costs, the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnpipe.registry import LedgerEntry, Registry, describe
from bnpipe.steps.training import read_release
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from rich.console import Console

    from bnpipe.drift import DriftReport
    from bnpipe.release import DriftDecision


def tell_training(console: Console, registry: Registry, run_id: str) -> None:
    """Print graph size, held-out scores beside the baselines, and every verdict of one training."""
    from rich.table import Table

    from bnpipe.evaluation import Evaluation

    structure = json.loads(registry.read_text(run_id, "structure.json"))
    scores = Evaluation.from_dict(json.loads(registry.read_text(run_id, "evaluation.json")))
    arcs = sum(len(parents) for parents in structure["parents"].values())
    console.print(
        f"graph: {len(structure['parents'])} nodes, {arcs} arcs, {structure['score_name']} {structure['score']:.1f}, "
        f"found in {structure['seconds']:.1f} s ({structure['drawn_by']})"
    )
    table = Table("target", "model", "log-loss (nats/row)", "Brier", "ROC-AUC", box=None, pad_edge=False)
    for target in scores.targets:
        table.add_row(target.name, "network", *_scores(target.log_loss, target.brier, target.roc_auc), style="bold")
        for rival in scores.baselines:
            if rival.target == target.name:
                table.add_row("", rival.model, *_scores(rival.log_loss, rival.brier, rival.roc_auc))
    console.print(table)
    verdicts = Table("gate", "outcome", "reason", box=None, pad_edge=False)
    validation = map(Verdict.from_dict, json.loads(registry.read_text(run_id, "verdicts/validation.json")))
    for verdict in (*validation, *read_release(registry, run_id).verdicts):
        verdicts.add_row(verdict.gate, verdict.outcome, verdict.reason)
    console.print(verdicts)


def _scores(*values: float | None) -> list[str]:
    return ["-" if value is None else f"{value:.4f}" for value in values]


def tell_costs(console: Console, registry: Registry, run_id: str, steps: Sequence[str]) -> None:
    """Print seconds and peak memory of each step."""
    from rich.table import Table

    metrics = registry.metrics(run_id)
    table = Table("step", "seconds", "peak MB", box=None, pad_edge=False)
    for name in steps:
        if f"seconds.{name}" in metrics:
            table.add_row(name, f"{metrics[f'seconds.{name}']:.1f}", f"{metrics[f'peak_mb.{name}']:.0f}")
    console.print(table)


def tell_look(console: Console, decision: DriftDecision, report: DriftReport | None) -> None:
    """Print what a look found, a line a node, and what was decided."""
    if report is not None:
        console.print(f"\n{report}", soft_wrap=True, markup=False)
    advice = " (advice only)" if decision.advised_only else ""
    console.print(f"\n{decision.action}{advice}: {decision.reason}", soft_wrap=True, markup=False)


def tell_history(console: Console, entries: Sequence[LedgerEntry]) -> None:
    """Print the ledger of one model, oldest first, a line each."""
    for entry in entries:
        console.print(describe(entry), soft_wrap=True, markup=False)
