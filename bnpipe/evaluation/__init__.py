"""Held-out scores, calibration, baselines, and a challenger against the champion, cluster by cluster."""

from __future__ import annotations

from bnpipe.evaluation.calibration import Calibration, CalibrationBin
from bnpipe.evaluation.comparison import compare
from bnpipe.evaluation.held_out import evaluate
from bnpipe.evaluation.records import BaselineScores, Comparison, Evaluation, TargetDifference, TargetScores

__all__ = [
    "BaselineScores",
    "Calibration",
    "CalibrationBin",
    "Comparison",
    "Evaluation",
    "TargetDifference",
    "TargetScores",
    "compare",
    "evaluate",
]
