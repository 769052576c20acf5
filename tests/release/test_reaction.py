"""What a drift run does is a pure function: tables of situations in, decisions out."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bnpipe.drift import AddedArc, DriftReport, NodeDrift
from bnpipe.errors import FormatError, SpecError
from bnpipe.evaluation import Comparison
from bnpipe.release import DriftDecision, DriftSituation, Proof, ReactionRule, react
from bnpipe.release.bounds import error_factor
from bnpipe.verdict import Verdict

AUTO = ReactionRule(actions="auto")
CALM = NodeDrift("hour", known=True, p=0.6)
LATE = NodeDrift("late", known=True, p=0.001, effect=0.12, flagged=True, change_point="2013-06-09")
DELAY = NodeDrift("delay", known=True, p=0.002, effect=0.08, flagged=True, change_point="2013-06-03")
WIND = NodeDrift("wind", known=False, reason="2 live clusters only")
ARC = AddedArc("wind", "late", 0.02, (0.01, 0.03), 0.002)
SOUND = Verdict("validation", "pass", "31 of 31 expectations met by 9,000 rows")
BAD = Verdict("validation temp", "fail", "temp: 84 % above 45; expected between -40 and 45")


def report(*nodes: NodeDrift, arcs: tuple[AddedArc, ...] = ()) -> DriftReport:
    """A report on these nodes, seven live days."""
    return DriftReport(
        nodes={node.name: node for node in nodes},
        variables={},
        level=0.001,
        min_effect=0.02,
        independent_rows=False,
        reference_clusters=56,
        live_clusters=7,
        live_rows=6300,
        first_cluster="2013-06-07",
        last_cluster="2013-06-13",
        replays=999,
        seed=0,
        network="abc",
        added_arcs=arcs,
    )


def against(mean: float, deviation: float = 0.001, clusters: int = 10) -> Comparison:
    """The predecessor against the champion: d with exactly this mean and standard deviation."""
    noise = np.resize([-1.0, 1.0], clusters).astype(float)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    return Comparison(True, True, 9000, 0, tuple((mean + deviation * noise).tolist()), None, None)


QUIET = DriftSituation(
    validation=(SOUND,),
    report=report(CALM),
    champion=7,
    champion_age=10,
    predecessor=6,
    against_predecessor=None,
)
DRIFTED = replace(QUIET, report=report(CALM, LATE, DELAY))
WORSE = replace(QUIET, against_predecessor=against(0.05))
TORN = replace(DRIFTED, against_predecessor=against(0.05))
REWIRED = replace(QUIET, report=report(CALM, LATE, arcs=(ARC,)))


@pytest.mark.parametrize(
    ("situation", "action", "alert"),
    [
        (QUIET, "nothing", False),
        (DRIFTED, "refit", True),
        (REWIRED, "relearn", True),
        (replace(QUIET, report=report(CALM, arcs=(ARC,))), "relearn", True),  # no CPD changed, an arc won
        (WORSE, "roll back", True),
        (replace(QUIET, validation=(BAD,)), "hold", True),
        (replace(QUIET, report=None), "hold", True),
        (replace(QUIET, report=report(CALM, WIND)), "nothing", False),  # unknown alone never acts
        (replace(QUIET, report=report(WIND)), "nothing", False),
        # in this order
        (replace(TORN, validation=(SOUND, BAD)), "hold", True),
        (replace(TORN, validation=(BAD,), report=None), "hold", True),
        (TORN, "roll back", True),
        (replace(TORN, days_since_action=1.0, retrain_running=True), "roll back", True),  # that need not wait
        (replace(DRIFTED, days_since_action=6.9), "nothing", True),
        (replace(REWIRED, days_since_action=0.0), "nothing", True),
        (replace(DRIFTED, days_since_action=7.0), "refit", True),
        (replace(DRIFTED, retrain_running=True), "nothing", True),
        (replace(REWIRED, retrain_running=True), "nothing", True),
        (replace(QUIET, retrain_running=True, days_since_action=1.0), "nothing", False),
        # a refit that nobody could judge yet
        (replace(DRIFTED, proof=Proof(9, "2026-06-10", "2026-06-17")), "nothing", True),
        (replace(DRIFTED, proof=Proof(9)), "nothing", True),
        (replace(DRIFTED, proof=Proof(10, "2026-06-10", None)), "refit", True),
        (replace(REWIRED, proof=Proof(2)), "relearn", True),  # a whole training has days enough
        (replace(TORN, proof=Proof(2)), "roll back", True),
        # without a way back
        (replace(TORN, predecessor=None), "refit", True),
        (replace(TORN, against_predecessor=None), "refit", True),
        (replace(TORN, champion_age=27), "roll back", True),
        (replace(TORN, champion_age=28), "refit", True),
        (replace(TORN, against_predecessor=against(0.05, clusters=6)), "refit", True),
        (replace(TORN, against_predecessor=against(0.05, clusters=7)), "roll back", True),
        (replace(TORN, against_predecessor=against(0.05, deviation=0.05)), "refit", True),  # undecided
        (replace(TORN, against_predecessor=against(0.004)), "refit", True),  # within the rope
        (replace(TORN, against_predecessor=against(-0.05)), "refit", True),  # the champion is better
        (replace(TORN, against_predecessor=replace(against(0.05), same_schema=False)), "refit", True),
        (replace(TORN, against_predecessor=replace(against(0.05), impossible_rows=3)), "refit", True),
    ],
)
def test_the_table_of_reactions(situation: DriftSituation, action: str, alert: bool) -> None:
    """Bad data, rollback, relearning, refit, nothing: the first that applies; a person hears of all but the calm."""
    decision = react(situation, AUTO)
    assert (decision.action, decision.alert, decision.advised_only) == (action, alert, False)
    assert decision.reason.endswith(".")
    assert decision.to == (6 if action == "roll back" else None)
    assert bool(decision.families) == (action == "refit")
    assert decision.verdicts[: len(situation.validation)] == situation.validation


@pytest.mark.parametrize("situation", [DRIFTED, REWIRED, WORSE, TORN])
@pytest.mark.parametrize(
    ("rule", "frozen", "told"),
    [
        (ReactionRule(), None, "actions: advise"),
        (AUTO, "audit until July", "frozen (audit until July)"),
        (ReactionRule(), "audit until July", "frozen (audit until July)"),
    ],
)
def test_advice_is_the_same_decision_not_done(
    situation: DriftSituation, rule: ReactionRule, frozen: str | None, told: str
) -> None:
    """Frozen or `advise`: same action, figures and alert; the reason says why it is only advice."""
    done = react(situation, AUTO)
    advised = react(replace(situation, frozen=frozen), rule)
    assert advised.advised_only
    assert replace(advised, advised_only=False, reason=done.reason) == done
    assert advised.reason.startswith(done.reason)
    assert told in advised.reason


@pytest.mark.parametrize("rule", [ReactionRule(), AUTO])
def test_nothing_and_hold_are_no_advice(rule: ReactionRule) -> None:
    """What changes nothing is done also by a frozen model: hold stays hold, and nothing nothing."""
    assert not react(replace(QUIET, frozen="audit"), rule).advised_only
    assert not react(replace(QUIET, frozen="audit", validation=(BAD,)), rule).advised_only
    assert not react(replace(DRIFTED, frozen="audit", retrain_running=True), rule).advised_only


def test_a_refit_names_its_families_and_the_earliest_change() -> None:
    """Flagged nodes, surest first; the change-point is the earliest, in the labels' own order."""
    decision = react(DRIFTED, AUTO)
    assert (decision.families, decision.since) == (("late", "delay"), "2013-06-03")
    numbered = report(replace(LATE, change_point="10"), replace(DELAY, change_point="9"))
    assert react(replace(DRIFTED, report=numbered), AUTO).since == "9"
    undated = report(replace(LATE, change_point=None))
    assert react(replace(DRIFTED, report=undated), AUTO).since is None


@pytest.mark.parametrize(
    ("until", "families"),
    [
        (None, ("late", "delay")),
        ("2013-06-10", ("late", "delay")),
        ("2013-06-09", ("delay",)),  # the first day it would not learn from
        ("2013-06-04", ("delay",)),
        ("2013-06-03", ("late", "delay")),  # too short a window to tell them apart
    ],
)
def test_a_refit_leaves_out_what_changed_after_its_rows(until: str | None, families: tuple[str, ...]) -> None:
    """A family counted anew on days before its change would be the old one, from fewer rows."""
    decision = react(replace(DRIFTED, proof=Proof(10, until)), AUTO)
    assert (decision.action, decision.families, decision.since) == ("refit", families, "2013-06-03")
    assert all(name in decision.reason for name in ("late", "delay"))


def test_a_refit_keeps_what_nothing_dates() -> None:
    """A node without change-point is refitted with the others."""
    undated = report(LATE, replace(DELAY, change_point=None))
    assert react(replace(QUIET, report=undated, proof=Proof(10, "2013-06-20")), AUTO).families == ("late", "delay")


@pytest.mark.parametrize(
    ("situation", "reason"),
    [
        (
            DRIFTED,
            (
                "2 of 3 CPDs changed in total variation: late by 0.120 (p = 0.001), delay by 0.080 (p = 0.002). "
                "The graph still fits, so these families are to be refitted on rows since 2013-06-03."
            ),
        ),
        (
            replace(DRIFTED, days_since_action=3.0),
            (
                "2 of 3 CPDs changed in total variation: late by 0.120 (p = 0.001), delay by 0.080 (p = 0.002). "
                "Nothing is learned now: the last action was 3 days ago, and 7 must pass."
            ),
        ),
        (
            replace(DRIFTED, proof=Proof(6, "2013-06-07", "2013-06-18")),
            (
                "2 of 3 CPDs changed in total variation: late by 0.120 (p = 0.001), delay by 0.080 (p = 0.002). "
                "Nothing is learned now: a refit could be proved on 6 clusters only, and 10 decide; the look of "
                "2013-06-18 can have as many."
            ),
        ),
        (
            replace(DRIFTED, proof=Proof(6)),
            (
                "2 of 3 CPDs changed in total variation: late by 0.120 (p = 0.001), delay by 0.080 (p = 0.002). "
                "Nothing is learned now: a refit could be proved on 6 clusters only, and 10 decide."
            ),
        ),
        (
            replace(DRIFTED, proof=Proof(10, "2013-06-07")),
            (
                "2 of 3 CPDs changed in total variation: late by 0.120 (p = 0.001), delay by 0.080 (p = 0.002). "
                "The graph still fits, so delay is to be refitted on rows since 2013-06-03; late changed later than "
                "those learned from."
            ),
        ),
        (
            replace(QUIET, report=report(CALM, arcs=(ARC,))),
            (
                "Arcs that the graph lacks won on later live clusters: wind -> late gains 0.02 nats/row. "
                "The graph no longer fits, so it is to be learned anew."
            ),
        ),
        (
            replace(QUIET, report=report(CALM, WIND)),
            "None of 1 CPDs of version 7 changed on 7 live clusters (level 0.001); 1 more are unknown: wind.",
        ),
        (
            replace(QUIET, report=report(WIND)),
            "No CPD could be compared with version 7 (wind: 2 live clusters only).",
        ),
        (
            replace(QUIET, validation=(BAD,)),
            (
                "The live window did not pass validation: validation temp: fail, temp: 84 % above 45; expected between "
                "-40 and 45. Nothing is learned from it."
            ),
        ),
        (
            replace(QUIET, report=None),
            "The live window can't be compared with version 7. Nothing is learned from it.",
        ),
    ],
)
def test_reasons_can_be_quoted(situation: DriftSituation, reason: str) -> None:
    """Each is whole sentences with the figures that decided."""
    assert react(situation, AUTO).reason == reason


def test_a_rollback_rests_on_the_bound_at_its_own_share_of_the_budget() -> None:
    """The lower bound of d is t(1 − 0.2/365) standard errors below the mean; verdict and reason have the figures."""
    from scipy.stats import t

    decision = react(replace(QUIET, against_predecessor=against(0.05, deviation=0.004)), AUTO)
    verdict = decision.verdicts[-1]
    factor, degrees = error_factor(10, 0.5)
    assert (verdict.gate, verdict.outcome, verdict.kind, verdict.threshold) == (
        "predecessor",
        "pass",
        "relative",
        0.005,
    )
    assert verdict.interval is not None
    assert verdict.interval[0] == pytest.approx(0.05 - t.ppf(1 - 0.2 / 365, degrees) * factor * 0.004)
    bounds = f"[{verdict.interval[0]:.4g}, {verdict.interval[1]:.4g}]"
    assert decision.reason == (
        "Version 7, 10 matured clusters after its promotion, should give way to version 6: "
        f"ln p of version 6 less that of version 7, +0.05 {bounds} nats/row on 10 clusters: surely > 0.005."
    )


@pytest.mark.parametrize(
    ("means", "past", "action"),
    [
        ((0.2, 0.9, 0.3, 0.8, 0.2, 0.7, 0.9), (0.1,) * 7, "roll back"),
        ((0.2, 0.9, 0.3, 0.8, 0.1, 0.7, 0.9), (0.1,) * 7, "nothing"),  # one cluster no worse than the past
        ((0.2, 0.9, 0.3, 0.8, 0.2, 0.7, 0.9), (0.1,) * 6 + (0.25,), "nothing"),
        ((0.2, 0.9, 0.3, 0.8, 0.2, 0.7, 0.9), (0.1,) * 6, "nothing"),  # too short a past
        ((0.2, 0.9, 0.3, 0.8, 0.2, 0.7), (0.1,) * 7, "nothing"),  # too few clusters
        ((0.004, 0.9, 0.3, 0.8, 0.2, 0.7, 0.9), (-0.1,) * 7, "nothing"),  # beyond the past, within the rope
    ],
)
def test_failing_beyond_every_reference_cluster_rolls_back(
    means: tuple[float, ...], past: tuple[float, ...], action: str
) -> None:
    """Where days differ too much for the bound: every cluster beyond all the past and the rope, seven on both sides."""
    comparison = Comparison(True, True, 9000, 0, means, None, None)
    decision = react(replace(QUIET, against_predecessor=comparison, past_losses=past), AUTO)
    assert decision.action == action
    assert {verdict.gate: verdict.outcome for verdict in decision.verdicts}["predecessor"] == "undecided"
    if action == "roll back":
        assert (
            "+0.2 nats/row or more on each of 7 clusters, beyond the most on 7 reference clusters (+0.1)"
            in decision.reason
        )


def test_rows_without_clusters_are_taken_as_independent() -> None:
    """Blocks of independent rows get Student's bound, which is narrower."""
    close = against(0.05, deviation=0.025, clusters=10)
    assert react(replace(QUIET, against_predecessor=close), AUTO).action == "nothing"
    independent = replace(close, independent_rows=True)
    assert react(replace(QUIET, against_predecessor=independent), AUTO).action == "roll back"


@pytest.mark.parametrize("situation", [QUIET, DRIFTED, REWIRED, TORN, replace(QUIET, validation=(BAD,))])
def test_a_decision_is_read_as_it_was_written(situation: DriftSituation) -> None:
    """Through JSON and back."""
    decision = react(situation, ReactionRule())
    assert DriftDecision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


@pytest.mark.parametrize("change", [{"families": None}, {"verdicts": [{"gate": "x"}]}, {"surprise": 1}])
def test_anything_else_is_no_decision(change: dict[str, object]) -> None:
    """A wrong or unknown field is a FormatError."""
    fields = react(DRIFTED, AUTO).to_dict() | change
    with pytest.raises(FormatError):
        DriftDecision.from_dict(fields)
    with pytest.raises(FormatError, match="drift decision"):
        DriftDecision.from_dict({"action": "refit"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"rope": 0.0},
        {"rope": float("nan")},
        {"rollbacks_per_year": 0.0},
        {"looks_per_year": -1.0},
        {"min_clusters": 1},
        {"youth": -1},
        {"cool_down": -1},
    ],
)
def test_senseless_rules_are_refused(wrong: dict[str, float]) -> None:
    """A number out of range is the spec's mistake."""
    with pytest.raises(SpecError):
        ReactionRule(**wrong)  # type: ignore[arg-type]
