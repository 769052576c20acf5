"""Pure decisions: does a version stand on its own, does it beat the champion, who promotes it, what a drift run does.

Nothing here reads a clock, a file or a registry: records in, :class:`~bnpipe.verdict.Verdict` out.
"""

from __future__ import annotations

from bnpipe.release.bounds import MOST_CLUSTERS, POWER, clusters_to_decide
from bnpipe.release.gates import GateLimits, absolute_gates
from bnpipe.release.promotion import (
    Policy,
    PromotionDecision,
    PromotionOutcome,
    PromotionRule,
    decide_promotion,
    judge,
)
from bnpipe.release.reaction import Action, DriftDecision, DriftSituation, Proof, ReactionRule, earliest_change, react

__all__ = [
    "MOST_CLUSTERS",
    "POWER",
    "Action",
    "DriftDecision",
    "DriftSituation",
    "GateLimits",
    "Policy",
    "PromotionDecision",
    "PromotionOutcome",
    "PromotionRule",
    "Proof",
    "ReactionRule",
    "absolute_gates",
    "clusters_to_decide",
    "decide_promotion",
    "earliest_change",
    "judge",
    "react",
]
