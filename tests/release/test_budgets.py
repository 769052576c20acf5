"""What luck does in simulated years stays within the yearly budgets, also where days are not independent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.decisions import OURS, TAILS, Tail, allowing, draw, main, nights, shifts_to_roll_back
from bnpipe.evaluation import Comparison
from bnpipe.release import PromotionRule, ReactionRule, judge
from bnpipe.release.bounds import error_factor


@pytest.mark.parametrize("clusters", [2, 7, 14, 30])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5, 0.9])
def test_the_standard_error_is_that_of_the_correlation_matrix(clusters: int, correlation: float) -> None:
    """Closed sums agree with traces of the matrix; without correlation 1 / √C and C − 1."""
    lags = np.abs(np.subtract.outer(np.arange(clusters), np.arange(clusters)))
    matrix = np.where(lags == 0, 1.0, correlation**lags)
    centred = (np.eye(clusters) - 1.0 / clusters) @ matrix
    factor, degrees = error_factor(clusters, correlation)
    assert factor**2 == pytest.approx(matrix.mean() * (clusters - 1) / np.trace(centred))
    assert degrees == pytest.approx(np.trace(centred) ** 2 / np.trace(centred @ centred))
    if correlation == 0:
        assert (factor, degrees) == pytest.approx((clusters**-0.5, clusters - 1))


def test_simulated_nights_are_judged_as_real_ones() -> None:
    """The array formula of the simulation and `judge` promote on the same nights, some of them and not all."""
    days = draw(1, 120, 0.5, "t, 4 degrees", np.random.default_rng(1))[0] + 2.0
    rule = PromotionRule(rope=1e-9)
    windows = np.stack([days[first : first + 14] for first in range(107)])
    formula = windows.mean(axis=1) - OURS(windows, rule.alpha) > rule.rope
    judged = [judge(Comparison(True, False, 1, 0, tuple(each), None, None), rule=rule)[0].passed for each in windows]
    assert judged == formula.tolist()
    assert 0 < sum(judged) < len(judged)


@pytest.mark.parametrize("tail", TAILS[:2])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5])
def test_luck_promotes_at_most_once_a_year(correlation: float, tail: Tail) -> None:
    """At the threshold, nights on sliding 14-day windows, days correlated or not: ≤ 1 a year.

    At most 0.75 in long runs; the mean of 1 000 years has a standard error of at most 0.07, so luck fails this in
    fewer than one of 1 000 seeds.
    """
    days = draw(1000, 365 + 13, correlation, tail, np.random.default_rng(11))
    assert nights(days, 14, alpha=PromotionRule().alpha).mean() <= 1.0


def test_students_t_would_break_the_budget() -> None:
    """Where neighbours correlate by 0.5 a bound for independent days promotes more than ten times a year.

    16 in long runs, standard error 0.7 on 300 years: fewer than one of 1 000 seeds fails.
    """
    days = draw(300, 365 + 13, 0.5, "normal", np.random.default_rng(12))
    assert nights(days, 14, alpha=PromotionRule().alpha, margin=allowing(0.0)).mean() > 10.0


@pytest.mark.parametrize("references", [7, 56])
@pytest.mark.parametrize("tail", TAILS[:2])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5])
def test_luck_rolls_back_at_most_once_in_five_years(correlation: float, tail: Tail, references: int) -> None:
    """A look a day in each of 13 youths a year, by the mean or by every cluster: ≤ 0.2 a year.

    At most 0.12 in long runs; the standard error on 10 000 youths is below 0.015, so luck fails this in fewer than one
    of 1 000 seeds.
    """
    days = draw(10_000, references + 27, correlation, tail, np.random.default_rng(13))
    found = shifts_to_roll_back(days[:, :references], days[:, references:], alpha=ReactionRule().alpha)
    assert 13 * (np.minimum(*found).min(axis=1) < 0).mean() <= 0.2


def test_a_real_difference_is_found() -> None:
    """A challenger better by 2.3 days' deviations wins on 14 days, a predecessor by 2.9 is back within 14: in ≥ 80 %.

    2.1 and 2.6 are found in 80 % of long runs, 2.3 and 2.9 in 88 % and more; on 2 000 draws luck fails this in fewer
    than one of 1 000 seeds.
    """
    days = draw(2000, 56 + 14, 0.5, "normal", np.random.default_rng(14))
    since = days[:, 56:]
    assert (since.mean(axis=1) - OURS(since, PromotionRule().alpha) + 2.3 > 0).mean() >= 0.8
    found = shifts_to_roll_back(days[:, :56], since, alpha=ReactionRule().alpha)
    assert (np.minimum(*found).min(axis=1) < 2.9).mean() >= 0.8


def test_the_tables_are_written_between_the_marks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text around the marks stays; each of the four tables is there."""
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- decisions: begin -->\nstale\n<!-- decisions: end -->\nafter\n", encoding="utf-8")
    main(["--share", "0.002", "--page", str(page)])
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    for title in ("Lucky promotions", "Lucky rollbacks", "What is found", "Bounds that were tried"):
        assert f"**{title}" in text
    assert capsys.readouterr().out
