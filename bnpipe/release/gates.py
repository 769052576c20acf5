"""Gates that need no champion: does a version stand on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnpipe.errors import SpecError
from bnpipe.evaluation import Evaluation, TargetScores
from bnpipe.verdict import Verdict


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What a version must keep to whether or not there is a champion.

    Parameters
    ----------
    min_rows : int
        Held-out rows below which nothing is proven.
    max_impossible_share : float
        Share of held-out rows to which the served CPDs give probability zero.
    max_unseen_share : float
        Share of held-out rows with a value that no state takes.
    max_overfit : float
        Training minus held-out log-likelihood, nats per row.
    beat_marginal : bool
        Each target's log-loss must be below that of the target's own shares in training.
    max_calibration_error : float
        Expected calibration error of each target; fails only where the lower bound lies above.

    Raises
    ------
    SpecError
        A limit is negative.
    """

    min_rows: int = 100
    max_impossible_share: float = 0.05
    max_unseen_share: float = 0.01
    max_overfit: float = 1.0
    beat_marginal: bool = True
    max_calibration_error: float = 0.1

    def __post_init__(self) -> None:
        for name in ("min_rows", "max_impossible_share", "max_unseen_share", "max_overfit", "max_calibration_error"):
            if not getattr(self, name) >= 0:
                raise SpecError(f"gates.{name}: {getattr(self, name)} is below 0")


def absolute_gates(evaluation: Evaluation, *, limits: GateLimits) -> tuple[Verdict, ...]:
    """Hold a version against limits that need no champion.

    Parameters
    ----------
    evaluation : Evaluation
        Held-out scores.
    limits : GateLimits
        What is allowed.

    Returns
    -------
    tuple of Verdict
        One a gate, and one a target for ``beat_marginal`` and ``max_calibration_error``; all of kind ``absolute``.
        ``undecided`` where nothing could be measured.
    """
    verdicts = [
        _rows_gate(evaluation, limits.min_rows),
        _share_gate(
            "max_impossible_share",
            evaluation.impossible_rows,
            evaluation.rows,
            limits.max_impossible_share,
            "held-out rows are impossible under the served CPDs",
        ),
        _share_gate(
            "max_unseen_share",
            evaluation.unseen_rows,
            evaluation.rows,
            limits.max_unseen_share,
            "held-out rows have a value that no state takes",
        ),
        _overfit_gate(evaluation.overfit, limits.max_overfit),
    ]
    for target in evaluation.targets:
        if limits.beat_marginal:
            verdicts.append(_marginal_gate(evaluation, target))
        verdicts.append(_calibration_gate(target, limits.max_calibration_error))
    return tuple(verdicts)


def _rows_gate(evaluation: Evaluation, least: int) -> Verdict:
    enough = evaluation.rows >= least
    reason = f"{evaluation.rows} held-out rows, {'at least' if enough else 'fewer than the'} {least} asked for"
    return Verdict(
        "min_rows", "pass" if enough else "fail", reason, statistic=evaluation.rows, threshold=least, unit="rows"
    )


def _share_gate(gate: str, count: int, rows: int, limit: float, what: str) -> Verdict:
    if rows == 0:
        return Verdict(gate, "undecided", "no held-out rows", threshold=limit, unit="share")
    share = count / rows
    kept = share <= limit
    reason = f"{count} of {rows} {what}: {share:.2%}, {'within' if kept else 'above'} the {limit:.2%} allowed"
    return Verdict(gate, "pass" if kept else "fail", reason, statistic=share, threshold=limit, unit="share")


def _overfit_gate(overfit: float | None, limit: float) -> Verdict:
    if overfit is None or math.isnan(overfit):
        return Verdict("max_overfit", "undecided", "no rows to compare", threshold=limit, unit="nats/row")
    kept = overfit <= limit
    reason = (
        f"training rows score {overfit:+.3g} nats/row above held-out rows, "
        f"{'within' if kept else 'more than'} the {limit:g} allowed"
    )
    return Verdict(
        "max_overfit", "pass" if kept else "fail", reason, statistic=overfit, threshold=limit, unit="nats/row"
    )


def _marginal_gate(evaluation: Evaluation, target: TargetScores) -> Verdict:
    gate = f"beat_marginal {target.name}"
    marginal = evaluation.baseline("marginal", target.name)
    if marginal is None or marginal.difference is None:
        reason = f"{target.name}: not measured{f' ({target.note})' if target.note else ''}"
        return Verdict(gate, "undecided", reason, threshold=0.0, unit="nats/row")
    beats = marginal.difference < -1e-9
    reason = (
        f"{target.name}: log-loss {target.log_loss:.4f} against {marginal.log_loss:.4f} of its own shares in "
        f"training ({marginal.difference:+.4f}){'' if beats else '; the network adds nothing'}"
    )
    return Verdict(
        gate,
        "pass" if beats else "fail",
        reason,
        statistic=marginal.difference,
        threshold=0.0,
        interval=marginal.difference_interval,
        unit="nats/row",
    )


def _calibration_gate(target: TargetScores, limit: float) -> Verdict:
    gate, error = f"max_calibration_error {target.name}", target.expected_calibration_error
    if error is None:
        return Verdict(gate, "undecided", f"{target.name}: not measured", threshold=limit, unit="share")
    interval = target.calibration_error_interval
    low = interval[0] if interval else error
    kept = low <= limit
    bounds = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
    reason = (
        f"{target.name}: probabilities are off by {error:.3f}{bounds} on average, "
        f"{'not clearly above' if kept else 'clearly above'} the {limit:g} allowed"
    )
    return Verdict(
        gate, "pass" if kept else "fail", reason, statistic=error, threshold=limit, interval=interval, unit="share"
    )
