"""Pure decisions: does a version stand on its own, does it beat the champion, who promotes it.

Nothing here reads a clock, a file or a registry: records in, :class:`~bnpipe.verdict.Verdict` out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from bnpipe.errors import FormatError, SpecError
from bnpipe.evaluation import Comparison, Evaluation, TargetScores
from bnpipe.verdict import Verdict

Policy = Literal["auto", "approval", "manual"]
PromotionOutcome = Literal["promote", "await approval", "left to MLflow", "held", "refused"]

POWER = 0.8
MOST_CLUSTERS = 10_000


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


def judge(
    comparison: Comparison,
    *,
    rule: PromotionRule,
    challenger_window_end: datetime | None = None,
    champion_window_end: datetime | None = None,
) -> tuple[Verdict, ...]:
    """Judge a challenger against the champion.

    The mean of d = ln p_new − ln p_old over cluster means must lie above −rope for the same graph with newer counts,
    above +rope for a new graph, with one-sided t bounds (C − 1 degrees) at ``rule.alpha``. Each target's worsening of
    log-loss passes if its upper bound is within the tolerance, fails if its lower bound lies beyond it, and is
    undecided between. All must pass (an intersection–union test: Berger 1982, Technometrics 24, p. 295), so no test
    needs a correction for the others.

    Clusters are taken as independent. Simulated nights (sliding 14-day windows, heavy-tailed day effects of
    0.04 nats/row) promote an equal new graph 0.2 times a year; where d of neighbouring days correlates by 0.3, 2 times.

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
    targets = tuple(
        _bounded(
            f"tolerance {target.name}",
            f"{target.name}: log-loss, new minus old, ",
            tuple(-mean for mean in target.cluster_means),
            -rule.tolerance(target.name),
            rule,
            sign=-1.0,
        )
        for target in comparison.targets
    )
    return (_challenger(comparison, rule), *targets)


def _superseded(challenger_end: datetime, champion_end: datetime) -> Verdict | None:
    if challenger_end > champion_end:
        return None
    reason = f"its window ends {challenger_end.isoformat()}, no later than the champion's ({champion_end.isoformat()})"
    return Verdict("challenger", "superseded", reason, kind="relative")


def _challenger(comparison: Comparison, rule: PromotionRule) -> Verdict:
    if not comparison.same_schema:
        reason = "its schema differs from the champion's, so rows can't be compared; a person decides"
        return Verdict("challenger", "incomparable", reason, kind="relative", unit="nats/row")
    if comparison.impossible_rows:
        reason = (
            f"{comparison.impossible_rows} of {comparison.rows} rows are impossible under a network without counts; "
            "a person decides"
        )
        return Verdict("challenger", "incomparable", reason, kind="relative", unit="nats/row")
    kind = "same graph, d " if comparison.same_graph else "new graph, d "
    threshold = -rule.rope if comparison.same_graph else rule.rope
    return _bounded("challenger", kind, comparison.cluster_means, threshold, rule)


def _bounded(
    gate: str, what: str, means: Sequence[float], threshold: float, rule: PromotionRule, *, sign: float = 1.0
) -> Verdict:
    """Ask whether the mean of cluster `means` lies above `threshold`; `sign` −1 states the answer mirrored."""
    unit, count = "nats/row", len(means)
    shown = sign * threshold
    if count < rule.min_clusters:
        needed = rule.min_clusters
        if count >= 2:
            needed = max(needed, _needed(*_moments(means), threshold, rule.alpha))
        reason = f"{what}known on {count} clusters only; {_more(needed)} would decide"
        return Verdict(gate, "undecided", reason, kind="relative", threshold=shown, unit=unit)
    mean, deviation = _moments(means)
    margin = _t_quantile(1.0 - rule.alpha, count - 1) * deviation / math.sqrt(count)
    low, high = mean - margin, mean + margin
    interval = (low, high) if sign > 0 else (-high, -low)
    shown_mean = sign * mean + 0.0  # no "-0"
    numbers = f"{what}{shown_mean:+.4g} [{interval[0]:.4g}, {interval[1]:.4g}] nats/row on {count} clusters"
    side = (">", "<") if sign > 0 else ("<", ">")

    def verdict(outcome: Literal["pass", "fail", "undecided"], reason: str) -> Verdict:
        return Verdict(gate, outcome, reason, "relative", shown_mean, shown, interval, unit)

    if low > threshold:
        return verdict("pass", f"{numbers}: surely {side[0]} {shown:g}")
    if high < threshold:
        return verdict("fail", f"{numbers}: surely {side[1]} {shown:g}")
    needed = max(_needed(mean, deviation, threshold, rule.alpha), count + 1)
    return verdict("undecided", f"{numbers} does not tell it from {shown:g}; {_more(needed)} would decide")


def _moments(means: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of cluster means."""
    mean = math.fsum(means) / len(means)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in means) / (len(means) - 1))


def _t_quantile(share: float, degrees: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, share))


def _needed(mean: float, deviation: float, threshold: float, alpha: float) -> int:
    return clusters_to_decide(gap=abs(mean - threshold), deviation=deviation, alpha=alpha)


def _more(clusters: int) -> str:
    return f"about {clusters} clusters" if clusters <= MOST_CLUSTERS else f"more than {MOST_CLUSTERS} clusters"


def clusters_to_decide(*, gap: float, deviation: float, alpha: float, power: float = POWER) -> int:
    """Count the clusters a one-sided t test needs to tell a mean from its threshold.

    Parameters
    ----------
    gap : float
        Distance of the observed mean from the threshold, nats per row.
    deviation : float
        Standard deviation of cluster means, nats per row.
    alpha, power : float
        Error of the test and the chance that it decides.

    Returns
    -------
    int
        Smallest C with (t_{1−alpha} + t_{power}) · deviation / √C ≤ gap at C − 1 degrees (Cohen 1988, Statistical
        Power Analysis, ch. 2); ``MOST_CLUSTERS + 1`` if no such number is in reach.
    """

    def decides(clusters: int) -> bool:
        quantiles = _t_quantile(1.0 - alpha, clusters - 1) + _t_quantile(power, clusters - 1)
        return quantiles * deviation <= gap * math.sqrt(clusters)

    return bisect_left(range(MOST_CLUSTERS + 1), True, lo=2, key=decides)


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
        return PromotionDecision("refused", _reasons(broken), given)
    if not first and not any(verdict.kind == "relative" for verdict in counted):
        return PromotionDecision("held", "there is a champion and nothing was compared with it", given)
    open_ = [verdict for verdict in counted if not verdict.passed and verdict.outcome != "incomparable"]
    if open_:
        return PromotionDecision("held", _reasons(open_), given)
    incomparable = [verdict for verdict in counted if verdict.outcome == "incomparable"]
    if policy == "manual":
        return PromotionDecision("left to MLflow", "promotion is manual: set the alias in MLflow", given)
    if incomparable:
        return PromotionDecision("await approval", _reasons(incomparable), given)
    if policy == "approval":
        return PromotionDecision("await approval", "every gate passed; a person's approval is asked for", given)
    if first:
        return PromotionDecision("promote", "first version, every absolute gate passed", given)
    won = next(verdict.reason for verdict in counted if verdict.kind == "relative")
    return PromotionDecision("promote", f"won over the champion: {won}", given)


def _reasons(verdicts: Sequence[Verdict], *, limit: int = 3) -> str:
    shown = "; ".join(f"{verdict.gate}: {verdict.outcome}, {verdict.reason}" for verdict in verdicts[:limit])
    rest = len(verdicts) - limit
    return f"{shown}; and {rest} more" if rest > 0 else shown
