"""Gates and promotion are pure functions: tables of records in, verdicts out."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from bnpipe.errors import FormatError, SpecError
from bnpipe.evaluation import BaselineScores, Comparison, Evaluation, TargetDifference, TargetScores
from bnpipe.release import (
    MOST_CLUSTERS,
    GateLimits,
    PromotionDecision,
    PromotionRule,
    absolute_gates,
    clusters_to_decide,
    decide_promotion,
    judge,
)
from bnpipe.release.bounds import error_factor
from bnpipe.verdict import Verdict

TARGET = TargetScores(
    name="late",
    evidence=("hour",),
    rows=1000,
    missing_rows=0,
    impossible_rows=0,
    log_loss=0.4,
    log_loss_interval=(0.38, 0.42),
    brier=0.1,
    roc_auc=0.8,
    calibration=(),
    expected_calibration_error=0.02,
    calibration_error_interval=(0.0, 0.03),
)
MARGINAL = BaselineScores("marginal", "late", 0.5, 0.2, 0.5, -0.1, (-0.12, -0.08))
EVALUATION = Evaluation(
    rows=1000,
    clusters=14,
    independent_rows=False,
    training_rows=9000,
    held_out_nats=-5.0,
    training_nats=-4.9,
    held_out_interval=(-5.1, -4.9),
    overfit=0.1,
    impossible_rows=10,
    unseen_rows=0,
    other_rows=3,
    targets=(TARGET,),
    baselines=(MARGINAL,),
)
RULE = PromotionRule(rope=0.005, tolerances={"late": 0.002})
NOISE = np.array([-1.0, 1.0] * 10) / np.std([-1.0, 1.0] * 10, ddof=1)


def means(mean: float, deviation: float, clusters: int = 20) -> tuple[float, ...]:
    """Cluster means with exactly this mean and standard deviation."""
    noise = NOISE if clusters == 20 else np.linspace(-1, 1, clusters)
    if clusters > 1:
        noise = (noise - noise.mean()) / np.std(noise, ddof=1)
    return tuple((mean + deviation * noise).tolist())


def comparison(values: tuple[float, ...], *, same_graph: bool = True, worse: tuple[float, ...] = ()) -> Comparison:
    """A comparison on one target, the same schema."""
    targets = (TargetDifference("late", 1000, worse, None, None),) if worse else ()
    return Comparison(True, same_graph, 1000, 0, values, None, None, targets)


def outcomes(verdicts: tuple[Verdict, ...]) -> dict[str, str]:
    """Outcome of each gate."""
    return {verdict.gate: verdict.outcome for verdict in verdicts}


def test_a_sound_version_passes_every_absolute_gate() -> None:
    """Each gate answers once, and once a target."""
    verdicts = absolute_gates(EVALUATION, limits=GateLimits())
    assert outcomes(verdicts) == {
        "min_rows": "pass",
        "max_impossible_share": "pass",
        "max_unseen_share": "pass",
        "max_overfit": "pass",
        "beat_marginal late": "pass",
        "max_calibration_error late": "pass",
    }
    assert {verdict.kind for verdict in verdicts} == {"absolute"}


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"rows": 99}, "min_rows"),
        ({"impossible_rows": 51}, "max_impossible_share"),
        ({"unseen_rows": 11}, "max_unseen_share"),
        ({"overfit": 1.01}, "max_overfit"),
        ({"baselines": (replace(MARGINAL, difference=0.0),)}, "beat_marginal late"),
        ({"targets": (replace(TARGET, calibration_error_interval=(0.11, 0.2)),)}, "max_calibration_error late"),
    ],
)
def test_each_absolute_gate_fails_alone(change: dict[str, object], gate: str) -> None:
    """One breach fails one gate, and its reason has the numbers."""
    limits = GateLimits(max_impossible_share=1.0 if gate == "min_rows" else 0.05)
    verdicts = absolute_gates(replace(EVALUATION, **change), limits=limits)
    assert [verdict.gate for verdict in verdicts if verdict.outcome == "fail"] == [gate]
    failed = next(verdict for verdict in verdicts if verdict.gate == gate)
    assert any(letter.isdigit() for letter in failed.reason)


def test_limits_are_inclusive() -> None:
    """What is exactly allowed passes."""
    evaluation = replace(EVALUATION, rows=1000, impossible_rows=50, unseen_rows=10, overfit=1.0)
    assert all(verdict.passed for verdict in absolute_gates(evaluation, limits=GateLimits(min_rows=1000)))


def test_nothing_measured_is_undecided_not_passed() -> None:
    """Without held-out rows only the row count can fail; nothing passes by default."""
    target = replace(TARGET, rows=0, log_loss=None, expected_calibration_error=None, note="no row")
    empty = replace(
        EVALUATION,
        rows=0,
        impossible_rows=0,
        overfit=None,
        targets=(target,),
        baselines=(replace(MARGINAL, difference=None),),
    )
    found = outcomes(absolute_gates(empty, limits=GateLimits()))
    assert found.pop("min_rows") == "fail"
    assert set(found.values()) == {"undecided"}


def test_the_marginal_need_not_be_beaten_if_the_spec_says_so() -> None:
    """`beat_marginal: false` leaves the gate out."""
    verdicts = absolute_gates(EVALUATION, limits=GateLimits(beat_marginal=False))
    assert not any("marginal" in verdict.gate for verdict in verdicts)


@pytest.mark.parametrize(
    ("mean", "deviation", "same_graph", "outcome"),
    [
        (0.0, 0.001, True, "pass"),  # the same graph: no worse is enough
        (-0.004, 0.0001, True, "pass"),
        (-0.02, 0.001, True, "fail"),
        (-0.005, 0.01, True, "undecided"),
        (0.0, 0.1, True, "undecided"),
        (0.0, 0.001, False, "fail"),  # a new graph: equal is not enough
        (0.02, 0.001, False, "pass"),
        (0.006, 0.01, False, "undecided"),
        (0.0, 0.0, True, "pass"),
        (0.0, 0.0, False, "fail"),
    ],
)
def test_the_challenger_table(mean: float, deviation: float, same_graph: bool, outcome: str) -> None:
    """Lower bound above −rope for the same graph, above +rope for a new one."""
    (verdict,) = judge(comparison(means(mean, deviation), same_graph=same_graph), rule=RULE)
    assert (verdict.gate, verdict.outcome, verdict.kind) == ("challenger", outcome, "relative")
    assert verdict.threshold == (-0.005 if same_graph else 0.005)


def test_the_bound_allows_for_neighbours_that_correlate_by_a_half() -> None:
    """Half-width is t(1 − 1/365) · standard error, by the moments of that correlation matrix."""
    from scipy.stats import t

    (verdict,) = judge(comparison(means(0.0, 0.004)), rule=RULE)
    factor, degrees = error_factor(20, 0.5)
    assert verdict.interval is not None
    assert verdict.interval[0] == pytest.approx(-t.ppf(1 - 1 / 365, degrees) * 0.004 * factor)
    assert verdict.interval[1] == pytest.approx(-verdict.interval[0])


def test_rows_without_clusters_get_students_bound() -> None:
    """Half-width is t(1 − 1/365, C − 1) · sd / √C where rows are taken as independent."""
    from scipy.stats import t

    (verdict,) = judge(replace(comparison(means(0.0, 0.004)), independent_rows=True), rule=RULE)
    assert verdict.interval is not None
    assert verdict.interval[0] == pytest.approx(-t.ppf(1 - 1 / 365, 19) * 0.004 / np.sqrt(20))


@pytest.mark.parametrize(
    ("mean", "deviation", "outcome"),
    [
        (0.0, 0.0005, "pass"),
        (-0.1, 0.01, "pass"),
        (0.0015, 0.0002, "pass"),  # worse, but surely within the tolerance
        (0.003, 0.0005, "fail"),
        (0.001, 0.01, "undecided"),
        (0.003, 0.01, "undecided"),
    ],
)
def test_a_target_may_not_worsen_beyond_its_tolerance(mean: float, deviation: float, outcome: str) -> None:
    """Upper bound within: pass; lower bound beyond: fail; between: undecided."""
    verdicts = judge(comparison(means(0, 0), worse=means(mean, deviation)), rule=RULE)
    verdict = verdicts[1]
    assert (verdict.gate, verdict.outcome) == ("tolerance late", outcome)
    assert verdict.statistic == pytest.approx(mean, abs=1e-12)
    assert verdict.threshold == 0.002
    assert verdict.interval is not None
    assert verdict.interval[0] <= mean + 1e-12
    assert verdict.interval[1] >= mean - 1e-12


def test_few_clusters_are_undecided_and_say_how_many_would_do() -> None:
    """Nine days are too few whatever they show; noisy ones ask for more than the least."""
    (verdict,) = judge(comparison(means(1.0, 0.001, clusters=9)), rule=RULE)
    assert verdict.outcome == "undecided"
    assert "about 10 clusters would decide" in verdict.reason
    (noisy,) = judge(comparison(means(0.02, 0.1, clusters=9)), rule=RULE)
    count = int(noisy.reason.split("about ")[1].split()[0])
    assert count > 100
    (nothing,) = judge(comparison(()), rule=RULE)
    assert (nothing.outcome, "0 clusters" in nothing.reason) == ("undecided", True)


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_clusters_to_decide_is_what_a_power_formula_gives(correlation: float) -> None:
    """With the number it names the test decides with 80 % power, with one fewer it does not; no gap is out of reach."""
    from scipy.stats import t

    def reached(clusters: int) -> bool:
        factor, degrees = error_factor(clusters, correlation)
        return bool((t.ppf(0.95, degrees) + t.ppf(0.8, degrees)) * factor <= 0.5)

    needed = clusters_to_decide(gap=0.5, deviation=1.0, alpha=0.05, correlation=correlation)
    assert reached(needed)
    assert not reached(needed - 1)
    assert clusters_to_decide(gap=0.0, deviation=1.0, alpha=0.05) == MOST_CLUSTERS + 1
    (verdict,) = judge(comparison(means(-0.005, 0.01)), rule=RULE)
    assert f"more than {MOST_CLUSTERS} clusters" in verdict.reason


def test_a_window_that_ends_no_later_is_superseded() -> None:
    """Backfills never replace a newer champion, however good."""
    now, earlier = datetime(2013, 6, 1, tzinfo=UTC), datetime(2013, 5, 1, tzinfo=UTC)
    good = comparison(means(1.0, 0.001))
    for challenger in (earlier, now):
        (verdict,) = judge(good, rule=RULE, challenger_window_end=challenger, champion_window_end=now)
        assert verdict.outcome == "superseded"
    (verdict,) = judge(good, rule=RULE, challenger_window_end=now, champion_window_end=earlier)
    assert verdict.outcome == "pass"


def test_different_schemas_and_impossible_rows_are_incomparable() -> None:
    """Common targets are still judged; a person decides."""
    other = replace(comparison((), worse=means(0.0, 0.0001)), same_schema=False, same_graph=False)
    assert outcomes(judge(other, rule=RULE)) == {"challenger": "incomparable", "tolerance late": "pass"}
    imported = replace(comparison(means(1.0, 0.01)), impossible_rows=3)
    assert outcomes(judge(imported, rule=RULE)) == {"challenger": "incomparable"}


def verdict(outcome: str, kind: str = "absolute") -> Verdict:
    """A verdict that matters only by outcome and kind."""
    return Verdict("gate", outcome, "because", kind=kind)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("absolute", "relative", "policy", "first", "expected"),
    [
        ("pass", None, "auto", True, "promote"),
        ("pass", None, "approval", True, "await approval"),
        ("pass", None, "manual", True, "left to MLflow"),
        ("fail", None, "auto", True, "refused"),
        ("undecided", None, "auto", True, "held"),
        ("pass", "fail", "auto", True, "promote"),  # the first has no one to lose against
        ("pass", "pass", "auto", False, "promote"),
        ("pass", "pass", "approval", False, "await approval"),
        ("pass", "pass", "manual", False, "left to MLflow"),
        ("pass", "fail", "auto", False, "held"),
        ("pass", "undecided", "auto", False, "held"),
        ("pass", "undecided", "approval", False, "held"),
        ("pass", "superseded", "auto", False, "held"),
        ("pass", "superseded", "manual", False, "held"),
        ("pass", "incomparable", "auto", False, "await approval"),
        ("pass", "incomparable", "manual", False, "left to MLflow"),
        ("fail", "pass", "auto", False, "refused"),
        ("fail", "incomparable", "auto", False, "refused"),
        ("pass", None, "auto", False, "held"),  # there is a champion, and nothing was compared
    ],
)
def test_the_promotion_table(absolute: str, relative: str | None, policy: str, first: bool, expected: str) -> None:
    """Absolute gates, then the comparison, then the policy."""
    verdicts = [verdict(absolute)] + ([verdict(relative, "relative")] if relative else [])
    decision = decide_promotion(verdicts, policy=policy, first=first)  # type: ignore[arg-type]
    assert decision.outcome == expected
    assert decision.reason
    assert decision.verdicts == tuple(verdicts)


def test_an_incomparable_challenger_that_hurts_a_target_is_held() -> None:
    """A person is asked only about what nothing else speaks against."""
    verdicts = [verdict("pass"), verdict("incomparable", "relative"), verdict("fail", "relative")]
    assert decide_promotion(verdicts, policy="auto", first=False).outcome == "held"


def test_reasons_stay_short() -> None:
    """Three reasons are told, the rest counted."""
    decision = decide_promotion([verdict("fail")] * 7, policy="auto", first=True)
    assert decision.reason.count("because") == 3
    assert decision.reason.endswith("and 4 more")


def test_a_decision_is_read_as_it_was_written() -> None:
    """Through JSON and back; anything else is a FormatError."""
    decision = decide_promotion(absolute_gates(EVALUATION, limits=GateLimits()), policy="auto", first=True)
    assert PromotionDecision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision
    with pytest.raises(FormatError, match="promotion decision"):
        PromotionDecision.from_dict({"outcome": "promote"})


@pytest.mark.parametrize(
    "make",
    [
        lambda: GateLimits(max_overfit=-1.0),
        lambda: GateLimits(max_overfit=float("nan")),
        lambda: PromotionRule(rope=0.0),
        lambda: PromotionRule(lucky_per_year=0.0),
        lambda: PromotionRule(looks_per_year=0.0),
        lambda: PromotionRule(min_clusters=1),
    ],
)
def test_senseless_limits_are_refused(make: object) -> None:
    """A limit out of range is the spec's mistake."""
    with pytest.raises(SpecError):
        make()  # type: ignore[operator]
