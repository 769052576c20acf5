"""Does a version beat the champion, and who promotes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

from bnpipe.errors import FormatError, SpecError
from bnpipe.evaluation import Comparison
from bnpipe.release.bounds import bounded, correlation_of, not_comparable
from bnpipe.verdict import Verdict

Policy = Literal["auto", "approval", "manual"]
PromotionOutcome = Literal["promote", "await approval", "left to MLflow", "held", "refused"]


@dataclass(frozen=True, slots=True)
class PromotionRule:
    """How sure an automatic promotion must be.

    Parameters
    ----------
    rope : float
        Region of practical equivalence, nats per row: the same graph may be worse by less, a new graph must be
        better by more.
    lucky_per_year : float
        Promotions a year that may come from luck alone.
    looks_per_year : float
        How often a challenger is judged; each look spends ``lucky_per_year / looks_per_year``. Expectations add
        whatever the dependence between looks, so overlapping held-out windows keep the budget.
    min_clusters : int
        Fewer clusters (days) leave the question undecided.
    tolerances : Mapping[str, float]
        Worsening of log-loss a target may suffer, nats per row.
    default_tolerance : float
        For a target that `tolerances` does not name.

    Raises
    ------
    SpecError
        A number is out of range.
    """

    rope: float = 0.005
    lucky_per_year: float = 1.0
    looks_per_year: float = 365.0
    min_clusters: int = 10
    tolerances: Mapping[str, float] = field(default_factory=dict)
    default_tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not self.rope > 0:
            raise SpecError(f"promotion.rope: {self.rope} must be above 0 nats/row")
        if not (self.lucky_per_year > 0 and self.looks_per_year > 0):
            raise SpecError("promotion.lucky_per_year and looks_per_year must be above 0")
        if self.min_clusters < 2:
            raise SpecError(f"promotion.min_clusters: {self.min_clusters}; a t interval needs at least 2")
        object.__setattr__(self, "tolerances", MappingProxyType(dict(self.tolerances)))

    @property
    def alpha(self) -> float:
        """One-sided error of one look."""
        return min(self.lucky_per_year / self.looks_per_year, 0.5)

    def tolerance(self, target: str) -> float:
        """Worsening of log-loss that `target` may suffer, nats per row."""
        return self.tolerances.get(target, self.default_tolerance)


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """What happens to a version, why, and on which verdicts."""

    outcome: PromotionOutcome
    reason: str
    verdicts: tuple[Verdict, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {
            "outcome": self.outcome,
            "reason": self.reason,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> PromotionDecision:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing.
        """
        try:
            verdicts = tuple(Verdict.from_dict(verdict) for verdict in fields["verdicts"])
            return cls(fields["outcome"], fields["reason"], verdicts)
        except (KeyError, TypeError) as error:
            raise FormatError(f"not a promotion decision: {error}") from error


def judge(
    comparison: Comparison,
    *,
    rule: PromotionRule,
    challenger_window_end: datetime | None = None,
    champion_window_end: datetime | None = None,
) -> tuple[Verdict, ...]:
    """Judge a challenger against the champion.

    The mean of d = ln p_new − ln p_old over cluster means must lie above −rope for the same graph with newer counts,
    above +rope for a new graph, with one-sided t bounds at ``rule.alpha``. Each target's worsening of log-loss passes
    if its upper bound is within the tolerance, fails if its lower bound lies beyond it, and is undecided between. All
    must pass (an intersection–union test: Berger 1982, Technometrics 24, p. 295), so no test needs a correction for
    the others.

    Bounds allow for neighbouring clusters that correlate by 0.5. In simulated years of nights on sliding 14-day windows
    a challenger at the threshold is promoted by luck 0.5 to 0.8 times a year at that correlation, 0.1 times at 0.3
    (docs/decisions.md). Rows without clusters are taken as independent.

    Parameters
    ----------
    comparison : Comparison
        Cluster means on rows that postdate both training windows.
    rule : PromotionRule
        Thresholds and error budget.
    challenger_window_end, champion_window_end : datetime or None
        Ends of the two windows; unknown ends are not compared.

    Returns
    -------
    tuple of Verdict
        ``challenger`` first, then ``tolerance TARGET``; all of kind ``relative``. A superseded challenger gets only
        that verdict.
    """
    if challenger_window_end is not None and champion_window_end is not None:
        superseded = _superseded(challenger_window_end, champion_window_end)
        if superseded is not None:
            return (superseded,)
    ask = partial(bounded, alpha=rule.alpha, min_clusters=rule.min_clusters, correlation=correlation_of(comparison))
    targets = tuple(
        ask(
            f"tolerance {target.name}",
            f"{target.name}: log-loss, new minus old, ",
            tuple(-mean for mean in target.cluster_means),
            -rule.tolerance(target.name),
            sign=-1.0,
        )
        for target in comparison.targets
    )
    incomparable = not_comparable(comparison, "challenger")
    if incomparable is not None:
        return (incomparable, *targets)
    kind = "same graph, d " if comparison.same_graph else "new graph, d "
    threshold = -rule.rope if comparison.same_graph else rule.rope
    return (ask("challenger", kind, comparison.cluster_means, threshold), *targets)


def _superseded(challenger_end: datetime, champion_end: datetime) -> Verdict | None:
    if challenger_end > champion_end:
        return None
    reason = f"its window ends {challenger_end.isoformat()}, no later than the champion's ({champion_end.isoformat()})"
    return Verdict("challenger", "superseded", reason, kind="relative")


def decide_promotion(verdicts: Iterable[Verdict], *, policy: Policy, first: bool) -> PromotionDecision:
    """Say what happens to a version.

    Parameters
    ----------
    verdicts : iterable of Verdict
        Of :func:`absolute_gates` and, unless `first`, :func:`judge`.
    policy : {"auto", "approval", "manual"}
        Who moves the alias: bnpipe, a person asked in Airflow, a person in MLflow.
    first : bool
        There is no champion: only the absolute gates count.

    Returns
    -------
    PromotionDecision
        ``refused`` if an absolute gate failed, ``held`` if any other verdict is no pass; else what the policy says.
        A challenger that is ``incomparable`` and otherwise passes goes to a person whatever the policy.
    """
    given = tuple(verdicts)
    counted = tuple(verdict for verdict in given if not (first and verdict.kind == "relative"))
    broken = [verdict for verdict in counted if verdict.kind == "absolute" and verdict.outcome == "fail"]
    if broken:
        return PromotionDecision("refused", reasons(broken), given)
    if not first and not any(verdict.kind == "relative" for verdict in counted):
        return PromotionDecision("held", "there is a champion and nothing was compared with it", given)
    open_ = [verdict for verdict in counted if not verdict.passed and verdict.outcome != "incomparable"]
    if open_:
        return PromotionDecision("held", reasons(open_), given)
    incomparable = [verdict for verdict in counted if verdict.outcome == "incomparable"]
    if policy == "manual":
        return PromotionDecision("left to MLflow", "promotion is manual: set the alias in MLflow", given)
    if incomparable:
        return PromotionDecision("await approval", reasons(incomparable), given)
    if policy == "approval":
        return PromotionDecision("await approval", "every gate passed; a person's approval is asked for", given)
    if first:
        return PromotionDecision("promote", "first version, every absolute gate passed", given)
    won = next(verdict.reason for verdict in counted if verdict.kind == "relative")
    return PromotionDecision("promote", f"won over the champion: {won}", given)


def reasons(verdicts: Sequence[Verdict], *, limit: int = 3) -> str:
    """Tell the first `limit` and count the rest."""
    shown = "; ".join(f"{verdict.gate}: {verdict.outcome}, {verdict.reason}" for verdict in verdicts[:limit])
    rest = len(verdicts) - limit
    return f"{shown}; and {rest} more" if rest > 0 else shown
