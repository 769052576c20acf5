"""Intervals of posteriors: slopes, draws, odd counts, and a seeded part of the simulation of their coverage."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from reference_networks import published, random_network, sample

import bnpipe
from benchmarks.coverage import DAY_EFFECTS, Situation, share, simulate
from bnpipe.counts import FamilyCounts
from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, NoCountsError
from bnpipe.intervals import (
    best_pseudo_count,
    contrasts,
    family_uncertainty,
    intervals,
    intra_cluster_correlation,
    student_quantile,
)
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable


def repeated(data: Dataset, times: int) -> Dataset:
    """The rows `times` times over, without clusters."""
    return Dataset(data.schema, np.tile(data.codes, (1, times)))


def in_days(data: Dataset, days: int) -> Dataset:
    """The rows dealt out to days."""
    clusters = np.arange(data.rows, dtype=np.int32) % days
    return Dataset(data.schema, data.codes, clusters, tuple(f"d{day:03}" for day in range(days)))


def hidden(data: Dataset, rows: int, share_hidden: float, seed: int) -> Dataset:
    codes = data.codes[:, :rows].copy()
    codes[np.random.default_rng(seed).random(codes.shape) < share_hidden] = MISSING
    return Dataset(data.schema, codes)


def test_slopes_are_the_derivatives_of_the_log_posterior():
    """Family posteriors, contrasted by the target's state, equal central differences of logit p by ln theta to 1e-7."""
    network = random_network(3, 6, arcs=0.5)
    engine = bnpipe.compile(network)
    evidence = hidden(sample(network, 8, 1), 8, 0.5, 2).codes
    target = max(range(6), key=lambda place: network.schema[network.nodes[place]].cardinality)
    states = network.schema[network.nodes[target]].cardinality
    clamped = np.tile(evidence, (1, states))
    clamped[target] = np.repeat(np.arange(states, dtype=np.uint8), 8)
    tables = {place: np.asarray(network.cpd(node).table).reshape(-1) for place, node in enumerate(network.nodes)}
    slopes, mass = engine.family_tables(clamped, tables)
    step = 1e-5
    for place, table in tables.items():
        found = np.einsum("klr,lrc->krc", contrasts(mass.reshape(states, 8)), slopes[place].reshape(states, 8, -1))
        for cell in range(table.size):
            moved = []
            for sign in (1, -1):
                other = table.copy()
                other[cell] *= np.exp(sign * step)
                logs = engine.log_mass_under(clamped, {**tables, place: other}).reshape(states, 8)
                weights = np.exp(logs - logs.max(axis=0))
                moved.append(np.log(weights) - np.log(weights.sum(axis=0) - weights))
            np.testing.assert_allclose(found[:, :, cell], (moved[0] - moved[1]) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("rows", [2000, 20000])
def test_draws_by_slopes_agree_with_draws_propagated(rows: int):
    """Interval ends lie within 15 % of the half-width of quantiles of the posterior under each draw of all CPDs."""
    network = random_network(5, 6, arcs=0.5)
    fitted = bnpipe.fit(sample(network, rows, 1), network.parents)
    engine = bnpipe.compile(fitted)
    held = engine.uncertainty
    evidence = hidden(sample(network, 6, 2), 6, 0.6, 3)
    target = next(node for node in fitted.nodes if fitted.schema[node].cardinality > 1 and fitted.parents[node])
    found = engine.posterior(evidence, [target], interval=0.9).interval[target]
    tables = {fitted.nodes[place]: family.draw(500, 0) for place, family in held.families.items()}
    for row in range(6):
        drawn = engine.posterior_of_draws(np.ascontiguousarray(evidence.codes[:, row]), [target], tables)[target]
        ends = np.quantile(drawn, [0.05, 0.95], axis=0, method="weibull").T
        half = (ends[:, 1] - ends[:, 0]) / 2
        assert (np.abs(found[row] - ends) <= 0.15 * half[:, None] + 1e-9).all()


def test_one_variable_has_the_interval_of_its_dirichlet():
    """Without parents or evidence the interval is the quantiles of the Beta posterior, to Monte Carlo's 10 %."""
    from scipy.stats import beta

    frame = pd.DataFrame({"x": ["a"] * 300 + ["b"] * 700})
    engine = bnpipe.compile(bnpipe.fit(Dataset.from_pandas(frame), {}))
    lower, upper = engine.posterior(pd.DataFrame(index=[0]), ["x"], interval=0.95).interval["x"][0, 0]
    exact = beta.ppf([0.025, 0.975], 300.5, 700.5)
    np.testing.assert_allclose([lower, upper], exact, atol=0.1 * (exact[1] - exact[0]))


def test_width_falls_with_the_root_of_the_rows():
    """Sixteen times the rows give a quarter of the width, to 15 %."""
    network = published("asia")
    data = sample(network, 4000, 1)
    widths = []
    for times in (1, 16):
        engine = bnpipe.compile(bnpipe.fit(repeated(data, times), network.parents))
        ends = engine.posterior(hidden(data, 1, 1.0, 1), ["bronc"], interval=0.95).interval["bronc"][0, 0]
        widths.append(ends[1] - ends[0])
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.15)


def test_rows_repeated_within_days_do_not_narrow_the_interval():
    """Nine copies of each row of a day tell nothing new: with clusters the width stays, without it is a third."""
    network = published("asia")
    data = in_days(sample(network, 3000, 1), 3000)
    copies = Dataset(data.schema, np.tile(data.codes, (1, 9)), np.tile(data.clusters, 9), data.cluster_labels)
    nothing = hidden(data, 1, 1.0, 1)

    def width(rows: Dataset) -> float:
        engine = bnpipe.compile(bnpipe.fit(rows, network.parents))
        ends = engine.posterior(nothing, ["smoke"], interval=0.95).interval["smoke"][0, 0]
        return float(ends[1] - ends[0])

    assert width(copies) / width(data) == pytest.approx(1, rel=0.2)
    assert width(repeated(data, 9)) / width(data) == pytest.approx(1 / 3, rel=0.2)


def test_what_days_move_together_widens_the_interval():
    """Two nodes that a day moves at once: the sandwich sees it, the families by themselves do not."""
    rng = np.random.default_rng(0)
    mood = rng.random(40) < 0.5
    days = np.repeat(np.arange(40), 50)
    a = np.where(rng.random(2000) < np.where(mood, 0.9, 0.1)[days], "y", "n")
    b = np.where(rng.random(2000) < np.where(mood, 0.9, 0.1)[days], "y", "n")
    c = np.where(rng.random(2000) < np.where(mood, 0.6, 0.4)[days], "y", "n")
    frame = pd.DataFrame({"a": a, "b": b, "c": c, "day": days})
    network = bnpipe.fit(Dataset.from_pandas(frame, clusters="day"), {"b": ("a",), "c": ("a",)})
    together = family_uncertainty("a", network.family_counts("a"))
    assert together.influence is not None
    ends = bnpipe.compile(network).posterior(frame[["c"]].iloc[:1], ["b"], interval=0.95).interval["b"][0]
    plain = bnpipe.compile(bnpipe.fit(Dataset.from_pandas(frame[["a", "b", "c"]]), {"b": ("a",), "c": ("a",)}))
    other = plain.posterior(frame[["c"]].iloc[:1], ["b"], interval=0.95).interval["b"][0]
    assert ((ends[:, 1] - ends[:, 0]) > 3 * (other[:, 1] - other[:, 0])).all()


def test_two_states_mirror_each_other():
    """Of a binary target one state's interval is one less the other's."""
    network = published("asia")
    data = in_days(sample(network, 1000, 1), 20)
    engine = bnpipe.compile(bnpipe.fit(data, network.parents, equivalent_sample_size=5.0))
    ends = engine.posterior(hidden(data, 50, 0.7, 1), ["lung"], interval=0.9).interval["lung"]
    np.testing.assert_allclose(ends[:, 0, 0], 1 - ends[:, 1, 1], atol=1e-9)
    np.testing.assert_allclose(ends[:, 0, 1], 1 - ends[:, 1, 0], atol=1e-9)


def test_the_order_of_states_matters_no_more_than_the_draws():
    """States reversed: the same interval, to the 15 % of its width that other draws may move an end."""
    network = published("asia")
    frame = sample(network, 1000, 1).to_pandas()
    ends = []
    for turn in (1, -1):
        schema = Schema(tuple(Variable(v.name, v.states[::turn]) for v in network.schema))
        engine = bnpipe.compile(bnpipe.fit(Dataset.from_pandas(frame, schema), network.parents))
        ends.append(engine.posterior(frame[["dysp"]].iloc[:20], ["bronc"], interval=0.95).interval["bronc"][:, ::turn])
    width = ends[0][..., 1] - ends[0][..., 0]
    assert (np.abs(ends[0] - ends[1]) < 0.15 * width[..., None]).all()


@pytest.mark.parametrize("size", [0.0, 10.0])
@pytest.mark.parametrize("days", [0, 12])
def test_the_served_answer_lies_within_and_no_interval_is_a_point(size: float, days: int):
    """Also for answers of 0 and 1, unseen configurations and thin days; impossible rows have NaN and only they."""
    network = published("asia")
    data = sample(network, 150, 1)
    engine = bnpipe.compile(bnpipe.fit(in_days(data, days) if days else data, network.parents, size))
    answer = engine.posterior(hidden(sample(network, 300, 2), 300, 0.4, 1), interval=0.95)
    for target in network.nodes:
        ends, known = answer.interval[target], ~np.isnan(answer[target][:, 0])
        assert (np.isnan(ends).any(axis=(1, 2)) == ~known).all()
        assert (ends[known, :, 0] <= answer[target][known]).all()
        assert (answer[target][known] <= ends[known, :, 1]).all()
        assert (ends[known, :, 1] > ends[known, :, 0]).all()
        assert ends[known].min() >= 0
        assert ends[known].max() <= 1


def test_what_no_row_ever_showed_may_have_probability_zero():
    """A state without a supporting row begins at 0 whatever prior serves, and its only rival ends at 1."""
    frame = pd.DataFrame({"a": ["x", "y"] * 50, "b": ["u", "v"] * 50})
    engine = bnpipe.compile(bnpipe.fit(Dataset.from_pandas(frame), {"b": ("a",)}, equivalent_sample_size=4.0))
    ends = engine.posterior(pd.DataFrame({"a": ["x"]}), ["b"], interval=0.95).interval["b"][0]
    assert ends[1, 0] == 0
    assert ends[0, 1] == 1
    assert 0 < ends[1, 1] < 0.1


def test_a_wider_level_contains_a_narrower():
    """Intervals of 50, 90 and 99 % lie in one another."""
    network = published("asia")
    data = in_days(sample(network, 500, 1), 10)
    engine = bnpipe.compile(bnpipe.fit(data, network.parents, 1.0))
    ends = [engine.posterior(hidden(data, 20, 0.6, 1), ["lung"], interval=x).interval["lung"] for x in (0.5, 0.9, 0.99)]
    for inner, outer in itertools.pairwise(ends):
        assert (outer[..., 0] <= inner[..., 0] + 1e-12).all()
        assert (outer[..., 1] >= inner[..., 1] - 1e-12).all()


def test_a_node_that_is_set_has_no_uncertainty():
    """After do(smoke=yes) smoke's own interval is a point; its effect's comes from the effect's CPD."""
    network = published("asia")
    engine = bnpipe.compile(bnpipe.fit(sample(network, 500, 1), network.parents)).do({"smoke": "yes"})
    answer = engine.posterior(pd.DataFrame(index=[0]), ["smoke", "bronc"], interval=0.95)
    yes = network.schema["smoke"].states.index("yes")
    np.testing.assert_array_equal(answer.interval["smoke"][0, yes], [1, 1])
    np.testing.assert_array_equal(answer.interval["smoke"][0, 1 - yes], [0, 0])
    lower, upper = answer.interval["bronc"][0, 0]
    assert 0.05 < upper - lower < 0.2


def test_soft_evidence_counts():
    """A likelihood of one state alone gives that state's interval, and rows may differ."""
    network = published("asia")
    engine = bnpipe.compile(bnpipe.fit(sample(network, 2000, 1), network.parents, 1.0))
    states = network.schema["dysp"].states
    soft = engine.posterior(pd.DataFrame(index=[0, 1]), ["bronc"], likelihood={"dysp": np.eye(2)}, interval=0.95)
    hard = engine.posterior(pd.DataFrame({"dysp": states}), ["bronc"], interval=0.95)
    np.testing.assert_allclose(soft.interval["bronc"], hard.interval["bronc"], atol=1e-9)


def test_rows_are_answered_alike_in_any_company_and_number_of_threads():
    """One row alone, among others, and by one thread: the same ends to the last bits."""
    network = published("alarm")
    data = in_days(sample(network, 1000, 1), 10)
    engine = bnpipe.compile(bnpipe.fit(data, network.parents, 1.0))
    evidence = hidden(data, 40, 0.7, 1)
    whole = engine.posterior(evidence, ["BP"], interval=0.95).interval["BP"]
    alone = engine.posterior(evidence.select(np.array([7])), ["BP"], interval=0.95, threads=1).interval["BP"]
    np.testing.assert_allclose(whole[7], alone[0], rtol=1e-9, atol=1e-12)


def test_without_counts_there_is_no_interval():
    """An imported network says what to do; without `interval` it answers and has none."""
    engine = bnpipe.compile(published("asia"))
    with pytest.raises(NoCountsError, match="fit it to data"):
        engine.posterior(pd.DataFrame(index=[0]), ["lung"], interval=0.95)
    assert engine.posterior(pd.DataFrame(index=[0]), ["lung"]).interval is None


@pytest.mark.parametrize("level", [0.0, 1.0, 95, -0.5, float("nan")])
def test_levels_lie_between_0_and_1(level: float):
    """Percent and nonsense are refused with the number received."""
    network = published("asia")
    engine = bnpipe.compile(bnpipe.fit(sample(network, 50, 1), network.parents))
    with pytest.raises(EvidenceError, match="between 0 and 1"):
        engine.posterior(pd.DataFrame(index=[0]), ["lung"], interval=level)


def test_single_states_no_rows_and_one_cluster():
    """Degenerate networks answer: a variable with one state, no training rows, one day only."""
    schema = Schema((Variable("a", ("only",)), Variable("b", ("u", "v"))))
    for rows, labels in ((0, ()), (5, ("day",))):
        codes = np.zeros((2, rows), dtype=np.uint8)
        data = Dataset(schema, codes, np.zeros(rows, dtype=np.int32) if labels else None, labels)
        engine = bnpipe.compile(bnpipe.fit(data, {"b": ("a",)}))
        answer = engine.posterior(pd.DataFrame(index=[0]), interval=0.95)
        np.testing.assert_array_equal(answer.interval["a"], [[[1, 1]]])
        some = engine.posterior(pd.DataFrame({"b": ["u", "u", None]}), interval=0.95)
        np.testing.assert_array_equal(some.interval["a"], 3 * [[[1, 1]]])
        assert (answer.interval["b"][0, :, 1] - answer.interval["b"][0, :, 0] > 0.3).all()
        none = engine.posterior(pd.DataFrame(index=[]), ["b"], interval=0.95)
        assert none.interval["b"].shape == (0, 2, 2)


def test_intra_cluster_correlation_is_found():
    """Rows of Dirichlet days with correlation 0.2 give 0.2 (to 0.05), independent ones less than 0.01."""
    rng = np.random.default_rng(1)
    for correlation in (0.2, 0.0):
        shares = rng.dirichlet(np.full(3, 1 / 3) * 4, 400) if correlation else np.full((400, 3), 1 / 3)
        counts = np.stack([rng.multinomial(20, share_of_day) for share_of_day in shares])[:, None].astype(float)
        assert intra_cluster_correlation(counts) == pytest.approx(correlation, abs=0.05 if correlation else 0.01)


def test_pseudo_counts_follow_how_sparse_the_rows_are():
    """Deterministic rows ask for few pseudo-counts, even ones for many."""
    sparse = np.eye(4)[np.arange(40) % 4] * 10
    assert best_pseudo_count(sparse) < 0.1
    assert best_pseudo_count(np.full((40, 4), 10.0)) > 1


@pytest.mark.parametrize(("degrees", "exact"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (9, 2.26216), (89, 1.98698)])
def test_students_quantile(degrees: int, exact: float):
    """The series agrees with tables to 0.2 %."""
    assert student_quantile(0.95, degrees) == pytest.approx(exact, rel=2e-3)


def test_nothing_uncertain_gives_points():
    """Without uncertain families the ends are the answer itself."""
    logs = np.log(np.array([[0.3], [0.7]]))
    np.testing.assert_allclose(intervals([], [], [], logs, level=0.95)[0], [[0.3, 0.3], [0.7, 0.7]])


def test_clusters_far_apart_are_trusted_less():
    """A configuration seen on one day gets nothing from the sandwich, one seen evenly on 20 nearly all."""
    table = np.zeros((20, 2, 2), dtype=np.int64)
    table[:, 0] = 5
    table[3, 1] = 50
    cells = np.flatnonzero(table.ravel())
    held = family_uncertainty("x", FamilyCounts((20, 2, 2), cells, table.ravel()[cells]))
    assert held.trust[1] == 0
    assert held.trust[0] > 0.9


@pytest.mark.parametrize(
    "situation",
    [
        Situation("small", 0, 500, datasets=60),
        Situation("small", 30, 3000, DAY_EFFECTS, datasets=60),
        Situation("alarm", 0, 5000, datasets=30),
        Situation("alarm", 30, 3000, DAY_EFFECTS, datasets=30),
    ],
    ids=lambda situation: f"{situation.network}-{situation.days}-days",
)
def test_coverage(situation: Situation):
    """Coverage is not surely outside 93 to 97 %.

    The test's own t interval at 99.9 % must meet that range: with coverage at its edge it fails for one seed in 2 000.
    The seed is fixed, so that it fails by change of code only.
    """
    answers = simulate(situation, seed=11)
    mean, half = share(answers.covered, answers.dataset, level=0.999)
    assert mean + half > 0.93
    assert mean - half < 0.97


def test_ignoring_day_effects_is_seen_by_the_simulation():
    """Rows of days taken as independent cover less than 85 %: the simulation can tell."""
    answers = simulate(Situation("small", 30, 3000, (0.1, 0.25), datasets=25), seed=12, plain=True)
    assert answers.plainly_covered < 0.85


def test_networks_differ_from_their_own_year():
    """The simulated population is what it says: day's CPDs average to the generating ones within 4 standard errors."""
    from benchmarks.coverage import day_tables, small

    network: Network = small()
    tables = [network.cpd(node).table for node in network.nodes]
    days = day_tables(Situation("small", 2000, 0, (0.1,)), tables, np.random.default_rng(1))
    for place, table in enumerate(tables):
        drawn = np.stack([day[place] for day in days])
        np.testing.assert_allclose(drawn.mean(axis=0), table, atol=float(4 * drawn.std(axis=0).max() / np.sqrt(2000)))
