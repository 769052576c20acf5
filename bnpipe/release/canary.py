"""Does a challenger get more of the traffic: stage by stage, on what its answers turned out to be worth.

Two things are compared, cluster by cluster, by the bound of promotion (:mod:`bnpipe.release.bounds`). *Pairs*: both
versions on the same rows, whoever answered them; they tell small differences, since what a row has in it cancels.
*Arms*: what each arm said on the rows it got; they alone would tell that the answers themselves change what happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal

from bnpipe.errors import FormatError, SpecError
from bnpipe.release.bounds import bounded
from bnpipe.release.promotion import reasons
from bnpipe.verdict import Verdict

Mode = Literal["canary", "shadow"]
Status = Literal["running", "halted", "promoted"]
CanaryAction = Literal["wait", "advance", "halt", "promote"]

OBJECTION: Final = 0.1
"""Level at which arms keep a challenger waiting: that costs days at most, and no budget."""
SHADOW: Final = -1
"""The stage before the first: the challenger answers unheard."""


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """How a challenger earns its traffic.

    Parameters
    ----------
    stages : tuple of float
        Shares of the traffic, rising to 1: the last is the promotion.
    cluster : {"day", "hour"}
        What is compared as one; hours of one day may be too much alike where answers are few.
    min_clusters : int
        Whole matured clusters that a stage lasts at least.
    min_rows : int
        Rows the challenger must have answered in a stage.
    min_labels : int
        Labelled rows that an arm, or the pairs, need in a cluster for it to count.
    max_days : float
        Age of a stage at which a challenger that proved nothing is halted.
    label_lag : float
        Days that labels need; a cluster counts when it ended so long ago.
    error : float
        Chance that luck, in all looks of a canary together, halts a challenger that is worse by just the tolerance;
        and that it lets one pass that is.
    tolerances : Mapping[str, float]
        Targets, and by how many nats per row their log-loss may worsen over all requests. Empty: every target that
        has labels, by `default_tolerance`.
    default_tolerance : float
    max_error_share, max_unseen_share : float
        Of the challenger's rows; a champion that does worse excuses it.
    max_slowdown : float
        What most of the challenger's calls of the engine may take, over the champion's median of like ones.

    Raises
    ------
    SpecError
        A number is out of range.
    """

    stages: tuple[float, ...] = (0.01, 0.1, 0.5, 1.0)
    cluster: Literal["day", "hour"] = "day"
    min_clusters: int = 3
    min_rows: int = 100
    min_labels: int = 10
    max_days: float = 28.0
    label_lag: float = 0.0
    error: float = 0.05
    tolerances: Mapping[str, float] = field(default_factory=dict)
    default_tolerance: float = 0.01
    max_error_share: float = 0.01
    max_unseen_share: float = 0.01
    max_slowdown: float = 2.0

    def __post_init__(self) -> None:
        rising = all(low < high for low, high in pairwise(self.stages))
        if len(self.stages) < 2 or not rising or not (self.stages[0] > 0 and self.stages[-1] == 1):
            raise SpecError(f"canary.stages: {list(self.stages)}; shares must rise from above 0 to 1, in two or more")
        if not (0 < self.error < 1):
            raise SpecError(f"canary.error: {self.error} must be between 0 and 1")
        if not (self.max_days > 0 and self.label_lag >= 0):
            raise SpecError(
                f"canary.max_days: {self.max_days} must be above 0, label_lag ({self.label_lag}) at least 0"
            )
        for name in ("min_clusters", "min_rows", "min_labels"):
            if getattr(self, name) < 1:
                raise SpecError(f"canary.{name}: {getattr(self, name)} is below 1")
        if not all(tolerance > 0 for tolerance in (self.default_tolerance, *self.tolerances.values())):
            raise SpecError("canary: a tolerance must be above 0 nats/row, or no challenger can be proved")
        object.__setattr__(self, "tolerances", MappingProxyType(dict(self.tolerances)))

    def tolerance(self, target: str) -> float:
        """Worsening of log-loss that `target` may suffer over all requests, nats per row."""
        return self.tolerances.get(target, self.default_tolerance)

    def looks(self, per_day: int | None = None) -> float:
        """Count the looks at new clusters that a canary may take: `max_days` in each stage, the shadow's too."""
        each = per_day or (24 if self.cluster == "hour" else 1)
        return self.max_days * each * len(self.stages)


@dataclass(frozen=True, slots=True)
class CanaryState:
    """Where a canary is.

    Parameters
    ----------
    version, champion : int
        The challenger, and the champion it is compared with.
    stage : int
        Place in the policy's stages; -1 while it only shadows.
    share : float
        Of the requests, answered by the challenger; in mode ``shadow`` answered unheard.
    began, since : datetime
        When the canary and when this stage began; UTC.
    mode : {"canary", "shadow"}
    status : {"running", "halted", "promoted"}
    salt : str
        What tells this canary's keys from another's; it stays through all stages.
    reason : str
        Of the last change.
    """

    version: int
    champion: int
    stage: int
    share: float
    began: datetime
    since: datetime
    mode: Mode = "canary"
    status: Status = "running"
    salt: str = ""
    reason: str = ""

    @property
    def running(self) -> bool:
        """Whether requests are routed or shadowed by it."""
        return self.status == "running"

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return asdict(self) | {"began": self.began.isoformat(), "since": self.since.isoformat()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> CanaryState:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            times = {name: datetime.fromisoformat(fields[name]) for name in ("began", "since")}
            return cls(**{**fields, **times})
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not the state of a canary: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Loss:
    """A mean in nats per row, and of how many rows."""

    rows: int
    mean: float


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """What became of one arm's requests in one cluster.

    Parameters
    ----------
    rows : int
        Answered, or meant for this arm and not answered by it.
    errors : int
        Not answered by it: they failed, unheard, or got a fallback's answer.
    unseen : int
        With a value that no state of its version takes.
    timed : int
        Calls of the engine, of the challenger's alone, that there were like ones of the champion's to compare with.
    slow : int
        Of them those that took more than `max_slowdown` times as long as half of the champion's.
    losses : Mapping[str, Loss]
        Log-loss of its answers on labelled rows, by target.
    """

    rows: int = 0
    errors: int = 0
    unseen: int = 0
    timed: int = 0
    slow: int = 0
    losses: Mapping[str, Loss] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterOutcome:
    """What became of one cluster of requests.

    Parameters
    ----------
    start, end : datetime
    champion, challenger : ArmOutcome
    pairs : Mapping[str, Loss]
        Log-loss of the challenger less the champion's on rows that both answered, by target.
    """

    start: datetime
    end: datetime
    champion: ArmOutcome = ArmOutcome()
    challenger: ArmOutcome = ArmOutcome()
    pairs: Mapping[str, Loss] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CanaryDecision:
    """What happens to a canary, why, and on which verdicts."""

    action: CanaryAction
    reason: str
    verdicts: tuple[Verdict, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The verdict that decided: the first that failed, else that is open, else the first."""
        for outcome in ("fail", "undecided"):
            for verdict in self.verdicts:
                if verdict.outcome == outcome:
                    return verdict
        return self.verdicts[0] if self.verdicts else None

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {"action": self.action, "reason": self.reason, "verdicts": [one.to_dict() for one in self.verdicts]}


def advance(
    state: CanaryState, outcomes: Sequence[ClusterOutcome], policy: CanaryPolicy, now: datetime
) -> CanaryDecision:
    """Decide about a running canary.

    A challenger that fails too often, meets too many unseen values or is too slow is halted at any time. One that is
    surely worse than a target's tolerance is halted. It goes on when what the next stage may cost *all* requests is
    surely within the tolerance: at a share s it may be worse by tolerance / s. While shadowing nothing is lost by
    waiting, so there the whole tolerance holds. Pairs count from the canary's beginning, arms from the stage's; where
    there are pairs they prove, and arms may only object: surely, and it is halted; or so that luck would do it once in
    ten, and it waits. All must agree (an intersection-union test), and each way of halting has its part of the error,
    so no test needs a correction for the others.

    Parameters
    ----------
    state : CanaryState
        Running.
    outcomes : sequence of ClusterOutcome
        Since the canary began, in order of time.
    policy : CanaryPolicy
    now : datetime
        With its offset.
    """
    stage = [one for one in outcomes if _is_of_stage(one, state)]
    guards = _guards([one for one in outcomes if one.end > state.since], policy)
    failed = [verdict for verdict in guards if verdict.outcome == "fail"]
    if failed:
        return CanaryDecision("halt", reasons(failed), guards)
    ripe = now - timedelta(days=policy.label_lag)
    verdicts = _comparisons(state, [one for one in outcomes if one.end <= ripe], policy)
    told = (*guards, *verdicts)
    failed = [verdict for verdict in verdicts if verdict.outcome == "fail"]
    if failed:
        return CanaryDecision("halt", reasons(failed), told)
    open_ = [_lasted([one for one in stage if one.end <= ripe], state, policy)]
    open_ += [verdict for verdict in _needed(verdicts) if not verdict.passed]
    open_ = [verdict for verdict in open_ if not verdict.passed]
    told = (*told, *(verdict for verdict in open_ if verdict not in told))
    if open_ and now - state.since > timedelta(days=policy.max_days):
        return CanaryDecision("halt", f"nothing was proved in {policy.max_days:g} days: {reasons(open_)}", told)
    if open_:
        return CanaryDecision("wait", reasons(open_), told)
    share = next_share(state, policy)
    what = "promoted" if share == 1 else f"now answers {share:.3g} of the requests"
    won = "; ".join(verdict.reason for verdict in _needed(verdicts))
    return CanaryDecision("promote" if share == 1 else "advance", f"{what}: {won}", told)


def next_share(state: CanaryState, policy: CanaryPolicy) -> float:
    """Give the share of the stage that follows; 1 where there is none."""
    return policy.stages[min(state.stage + 1, len(policy.stages) - 1)]


def begin(
    *, version: int, champion: int, policy: CanaryPolicy, now: datetime, salt: str, shadow: float | None = None
) -> CanaryState:
    """Give the state at the beginning: the first stage, or the shadowing of a share of the requests before it."""
    if shadow is None:
        return CanaryState(version, champion, 0, policy.stages[0], now, now, "canary", salt=salt)
    if not 0 < shadow <= 1:
        raise SpecError(f"shadow: {shadow} is no share of the requests; give a number above 0, at most 1")
    return CanaryState(version, champion, SHADOW, shadow, now, now, "shadow", salt=salt)


def follow(state: CanaryState, decision: CanaryDecision, policy: CanaryPolicy, now: datetime) -> CanaryState:
    """Give the state after a decision; itself after ``wait``."""
    if decision.action == "wait":
        return state
    if decision.action == "halt":
        return halted(state, decision.reason, now)
    promoted = decision.action == "promote"
    return replace(
        state,
        stage=state.stage + 1,
        share=next_share(state, policy),
        since=now,
        mode="canary",
        status="promoted" if promoted else "running",
        reason=decision.reason,
    )


def halted(state: CanaryState, reason: str, now: datetime) -> CanaryState:
    """Give the state after a halt: every request is the champion's again."""
    return replace(state, since=now, status="halted", reason=reason)


def _is_of_stage(cluster: ClusterOutcome, state: CanaryState) -> bool:
    """Whether a cluster saw this stage's share: a look that comes minutes after midnight does not cost the day."""
    return cluster.start + (cluster.end - cluster.start) / 20 >= state.since


# -- the guards


def _guards(clusters: Sequence[ClusterOutcome], policy: CanaryPolicy) -> tuple[Verdict, ...]:
    """Hold failures, unseen values and latency against their limits, on labelled rows or not."""
    # a look an hour whatever the clusters are, and three counts that may halt
    alpha = policy.error / policy.looks(24) / 3.0
    share = partial(_share_guard, clusters, alpha=alpha)
    return (
        share("errors", lambda arm: arm.errors, "not answered by it", policy.max_error_share),
        share("unseen", lambda arm: arm.unseen, "with a value that no state takes", policy.max_unseen_share),
        _latency_guard(clusters, policy.max_slowdown, alpha),
    )


def _share_guard(
    clusters: Sequence[ClusterOutcome],
    gate: str,
    count: Callable[[ArmOutcome], int],
    what: str,
    limit: float,
    *,
    alpha: float,
) -> Verdict:
    """Ask whether a share of the challenger's rows is surely above the limit and the champion's (exact binomial)."""
    bad, rows = (sum(each(one.challenger) for one in clusters) for each in (count, _rows))
    others, other_rows = (sum(each(one.champion) for one in clusters) for each in (count, _rows))
    usual = others / other_rows if other_rows else 0.0
    allowed = max(limit, usual)
    if not rows:
        return Verdict(gate, "undecided", "the challenger has answered nothing yet", threshold=allowed, unit="share")
    failed = _chance(bad, rows, allowed) < alpha
    reason = (
        f"{bad} of the challenger's {rows} rows were {what}: {bad / rows:.2%}, "
        f"{'surely' if failed else 'not surely'} above the {allowed:.2%} allowed (the champion's: {usual:.2%})"
    )
    return Verdict(gate, "fail" if failed else "pass", reason, statistic=bad / rows, threshold=allowed, unit="share")


def _rows(arm: ArmOutcome) -> int:
    return arm.rows


def _latency_guard(clusters: Sequence[ClusterOutcome], limit: float, alpha: float) -> Verdict:
    """Ask whether most calls are surely too slow in each of the last two clusters that could tell."""
    least = math.ceil(-math.log2(alpha))  # of fewer luck might make all slow
    told = [one.challenger for one in clusters if one.challenger.timed >= least][-2:]
    ask = partial(Verdict, "latency", threshold=0.5, unit="share")
    if len(told) < 2:
        return ask("undecided", f"two clusters with {least} calls of the engine to compare are needed")
    failed = all(_chance(arm.slow, arm.timed, 0.5) < alpha for arm in told)
    counts = " and ".join(f"{arm.slow} of {arm.timed}" for arm in told)
    reason = (
        f"{counts} of its calls of the engine took more than {limit:g} times the champion's median of like ones, "
        "in the last two clusters (half of them are allowed)"
    )
    return ask("fail" if failed else "pass", reason, statistic=min(arm.slow / arm.timed for arm in told))


def _chance(bad: int, rows: int, share: float) -> float:
    """Give the chance of as many or more, if each of the rows were bad with the chance `share` (binomial)."""
    from scipy.special import betainc

    return 1.0 if bad == 0 or share >= 1 else float(betainc(bad, rows - bad + 1, share))


# -- the comparisons


def _comparisons(state: CanaryState, ripe: Sequence[ClusterOutcome], policy: CanaryPolicy) -> tuple[Verdict, ...]:
    """Compare pairs and arms of every target; each verdict fails beyond the tolerance, passes within its reach."""
    targets = tuple(policy.tolerances) or _labelled(ripe)
    alpha = policy.error / policy.looks() / (2.0 * max(1, len(targets)))
    reach = next_share(state, policy) if state.mode == "canary" else 1.0
    verdicts = []
    for target in targets:
        tolerance = policy.tolerance(target)
        ask = partial(_within, alpha=alpha, tolerance=tolerance, reach=reach)
        verdicts.append(ask(f"pairs {target}", f"{target}: log-loss on the same rows, ", _pairs(ripe, target, policy)))
        if state.mode == "canary":
            arms = _arms([one for one in ripe if _is_of_stage(one, state)], target, policy)
            what = f"{target}: log-loss by arm, "
            verdicts.append(ask(f"arms {target}", what, arms))
            doubt = _within(f"objection {target}", what, arms, alpha=OBJECTION, tolerance=tolerance / reach, reach=1)
            if doubt.outcome == "fail":
                verdicts.append(replace(doubt, outcome="undecided", reason=f"{doubt.reason}, not yet beyond luck"))
    return tuple(verdicts)


def _labelled(clusters: Sequence[ClusterOutcome]) -> tuple[str, ...]:
    found = {name for one in clusters for name in (*one.pairs, *one.challenger.losses, *one.champion.losses)}
    return tuple(sorted(found))


def _pairs(clusters: Sequence[ClusterOutcome], target: str, policy: CanaryPolicy) -> list[float]:
    pairs = [one.pairs[target] for one in clusters if target in one.pairs]
    return [pair.mean for pair in pairs if pair.rows >= policy.min_labels]


def _arms(clusters: Sequence[ClusterOutcome], target: str, policy: CanaryPolicy) -> list[float]:
    both = [(one.challenger.losses.get(target), one.champion.losses.get(target)) for one in clusters]
    least = policy.min_labels
    return [new.mean - old.mean for new, old in both if new and old and min(new.rows, old.rows) >= least]


def _within(
    gate: str, what: str, differences: Sequence[float], *, alpha: float, tolerance: float, reach: float
) -> Verdict:
    """Ask whether log-loss worsens by less than the tolerance allows at this reach; fails only beyond the tolerance."""
    means = [-one for one in differences if math.isfinite(one)]
    ask = partial(bounded, gate, f"{what}new minus old, ", means, alpha=alpha, min_clusters=2, sign=-1.0)
    whole = ask(-tolerance)
    return whole if whole.outcome == "fail" or reach == 1 else ask(-tolerance / reach)


def _needed(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Give what must pass: pairs of each target where there are any, else arms; and no arms may object."""
    if not verdicts:
        return [Verdict("labels", "undecided", "no answer has a label yet", kind="relative", unit="nats/row")]
    by_gate = {verdict.gate: verdict for verdict in verdicts}
    needed = [verdict for verdict in verdicts if verdict.gate.startswith("objection ")]
    for gate, pairs in by_gate.items():
        kind, _, target = gate.partition(" ")
        if kind == "pairs":
            arms = by_gate.get(f"arms {target}")
            needed.append(pairs if arms is None or pairs.statistic is not None else arms)
    return needed


def _lasted(stage: Sequence[ClusterOutcome], state: CanaryState, policy: CanaryPolicy) -> Verdict:
    """Ask whether the stage has seen clusters and rows enough."""
    clusters, rows = len(stage), sum(one.challenger.rows for one in stage)
    enough = clusters >= policy.min_clusters and rows >= policy.min_rows
    reason = (
        f"{clusters} matured clusters and {rows} rows of the challenger at {state.share:.3g} of the requests; "
        f"{policy.min_clusters} and {policy.min_rows} are asked for"
    )
    return Verdict("stage", "pass" if enough else "undecided", reason, "relative", clusters, policy.min_clusters)
