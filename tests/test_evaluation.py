"""Held-out scores against independent formulas, simulated truth and the corners that break scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bnpipe.cpd import Prior
from bnpipe.data import Dataset
from bnpipe.errors import DataError, FormatError, SchemaError
from bnpipe.evaluation import Comparison, Evaluation, compare, evaluate
from bnpipe.evaluation.calibration import calibrate, equal_mass_bins, mean_interval, percentile_interval, resample
from bnpipe.evaluation.scores import brier, log_loss_rows, restrict, roc_auc
from bnpipe.network import Network
from bnpipe.parameters import fit, log_likelihood_rows
from bnpipe.schema import MISSING, Schema, Variable

SCHEMA = Schema(
    (
        Variable("rain", ("no", "yes")),
        Variable("hour", ("am", "noon", "pm")),
        Variable("late", ("no", "yes")),
        Variable("how", ("early", "fine", "bad")),
    )
)
PARENTS: Mapping[str, tuple[str, ...]] = {"rain": (), "hour": (), "late": ("rain", "hour"), "how": ("late",)}


def simulate(rows: int, seed: int, *, days: int = 20, effect: float = 0.0) -> Dataset:
    """Rows of the graph above in `days` clusters; `effect` moves whole days."""
    rng = np.random.default_rng(seed)
    clusters = np.sort(rng.integers(0, days, rows)).astype(np.int32)
    day = effect * rng.standard_normal(days)[clusters]
    rain, hour = rng.random(rows) < 0.3, rng.integers(0, 3, rows)
    late = rng.random(rows) < 1 / (1 + np.exp(1.0 - 1.5 * rain - 0.5 * hour - day))
    how = np.where(late, rng.choice(3, rows, p=[0.1, 0.3, 0.6]), rng.choice(3, rows, p=[0.5, 0.4, 0.1]))
    codes = np.stack([rain, hour, late, how]).astype(np.uint8)
    labels = tuple(f"2024-03-{day + 1:02d}" for day in range(days))
    return Dataset(SCHEMA, codes, clusters, labels)


TRAINING = simulate(6000, 1)
HELD_OUT = simulate(3000, 2)
NETWORK = fit(TRAINING, PARENTS)


def with_codes(data: Dataset, name: str, codes: NDArray[np.uint8] | int) -> Dataset:
    """The same rows with one column replaced."""
    changed = data.codes.copy()
    changed[data.schema.index(name)] = codes
    return replace(data, codes=changed)


def test_scores_are_those_of_scikit_learn() -> None:
    """Log-loss, Brier and ROC-AUC, of two and of more states."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    rng = np.random.default_rng(0)
    two, three = rng.dirichlet([1, 1], 500).round(2), rng.dirichlet([1, 1, 1], 500)
    two = np.clip(two, 0.01, 0.99) / np.clip(two, 0.01, 0.99).sum(axis=1, keepdims=True)
    came2, came3 = (rng.random(500) < two[:, 1]).astype(np.uint8), rng.integers(0, 3, 500).astype(np.uint8)
    assert log_loss_rows(three, came3).mean() == pytest.approx(log_loss(came3, three))
    assert brier(two, came2) == pytest.approx(brier_score_loss(came2, two[:, 1]))
    assert brier(three, came3) == pytest.approx(((three - np.eye(3)[came3]) ** 2).sum(axis=1).mean())
    assert roc_auc(two, came2, ("a", "b"))[0] == pytest.approx(roc_auc_score(came2, two[:, 1]))
    expected = roc_auc_score(came3, three, multi_class="ovr", average="macro")
    assert roc_auc(three, came3, ("a", "b", "c")) == (pytest.approx(expected), "")


def test_roc_auc_says_what_it_leaves_out() -> None:
    """A state that never came has no curve; if one alone came there is none at all."""
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.6, 0.3, 0.1]])
    area, note = roc_auc(probabilities, np.array([0, 1, 0], dtype=np.uint8), ("a", "b", "c"))
    assert area == 1.0
    assert "'c'" in note
    area, note = roc_auc(probabilities, np.zeros(3, dtype=np.uint8), ("a", "b", "c"))
    assert area is None
    assert "only 'a' came" in note
    assert roc_auc(probabilities[:0], np.zeros(0, dtype=np.uint8), ("a", "b", "c"))[0] is None


def test_whole_clusters_are_resampled_and_the_seed_decides() -> None:
    """Totals come from as many clusters as there are; the mean over draws is the sum."""
    sums = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    totals = resample(sums, bootstraps=4000, seed=0)
    assert np.allclose(totals[:, 1], 10 * totals[:, 0])
    assert set(totals[:, 0]) <= {float(a + b + c) for a in (1, 2, 4) for b in (1, 2, 4) for c in (1, 2, 4)}
    assert totals[:, 0].mean() == pytest.approx(7.0, abs=0.15)
    assert np.array_equal(totals, resample(sums, bootstraps=4000, seed=0))


def test_intervals_cover_with_few_clusters_and_day_effects() -> None:
    """95 % intervals of a mean over 14 days cover in 93–97 % of 400 worlds.

    The true coverage is 94.2 %; a count of 400 falls outside 90.5–98 % by luck in less than one of 1 000 seeds.
    """
    rng = np.random.default_rng(3)
    covered = 0
    for world in range(400):
        clusters = np.repeat(np.arange(14), 30)
        values = 0.5 * rng.standard_normal(14)[clusters] + rng.standard_normal(14 * 30)
        interval = mean_interval(values, clusters, bootstraps=400, seed=world)
        assert interval is not None
        covered += interval[0] <= 0 <= interval[1]
    assert 0.905 <= covered / 400 <= 0.98


def test_one_cluster_has_no_interval() -> None:
    """A single day can't tell how days differ."""
    assert mean_interval(np.ones(5), np.zeros(5, dtype=np.int64), bootstraps=10, seed=0) is None
    assert percentile_interval(np.array([np.nan]), 5) is None


def test_bins_hold_equal_mass_and_ties_stay_together() -> None:
    """Ten bins of distinct values; equal probabilities are never split."""
    assert np.bincount(equal_mass_bins(np.linspace(0, 1, 1000), 10)).tolist() == [100] * 10
    tied = np.repeat([0.1, 0.2, 0.9], [800, 150, 50])
    bins = equal_mass_bins(tied, 10)
    assert all(len(set(bins[tied == value])) == 1 for value in (0.1, 0.2, 0.9))
    assert set(equal_mass_bins(np.full(10, 0.3), 10)) == {0}


def test_true_probabilities_are_calibrated_and_wrong_ones_are_not() -> None:
    """The error's interval starts near zero for the truth, clearly above for probabilities shifted by 0.15."""
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.8, 4000)
    came = (rng.random(4000) < p).astype(np.uint8)
    clusters = np.arange(4000) % 20
    truth = calibrate(np.stack([1 - p, p], axis=1), came, clusters, states=("no", "yes"))
    wrong = calibrate(np.stack([0.85 - p, p + 0.15], axis=1), came, clusters, states=("no", "yes"))
    assert {bin_.state for bin_ in truth.bins} == {"yes"}
    assert sum(bin_.rows for bin_ in truth.bins) == 4000
    assert sum(bin_.low <= bin_.mean_probability <= bin_.high for bin_ in truth.bins) >= 8
    assert truth.error is not None
    assert truth.error_interval is not None
    assert truth.error_interval[0] <= 0.01 <= truth.error_interval[1] + 0.01
    assert wrong.error == pytest.approx(0.15, abs=0.02)
    assert wrong.error_interval is not None
    assert wrong.error_interval[0] > 0.1


def test_what_never_came_is_not_known_to_be_impossible() -> None:
    """A bin without events has an upper bound above 0; without rows there is nothing."""
    probabilities = np.tile([0.99, 0.01], (60, 1))
    never = calibrate(probabilities, np.zeros(60, dtype=np.uint8), np.arange(60) % 6, states=("no", "yes"))
    assert (never.bins[0].observed, never.bins[0].low) == (0.0, 0.0)
    assert 0.03 < never.bins[0].high < 0.1
    empty = calibrate(probabilities[:0], np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64), states=("a", "b"))
    assert (empty.bins, empty.error) == ((), None)


def test_a_network_is_scored_on_held_out_rows() -> None:
    """Every number agrees with the look-up of the Jeffreys network."""
    found = evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late", "how"])
    proper = NETWORK.with_prior(Prior("jeffreys"))
    assert (found.rows, found.clusters, found.training_rows) == (3000, 20, 6000)
    assert found.held_out_nats == pytest.approx(log_likelihood_rows(proper, HELD_OUT).mean())
    assert found.training_nats == pytest.approx(log_likelihood_rows(proper, TRAINING).mean())
    assert found.overfit == pytest.approx(log_likelihood_rows(proper, TRAINING).mean() - found.held_out_nats)
    assert (found.impossible_rows, found.unseen_rows, found.other_rows) == (0, 0, 0)
    late = found.targets[0]
    assert late.evidence == ("rain", "hour", "how")
    assert late.log_loss_interval is not None
    assert late.log_loss is not None
    assert late.log_loss_interval[0] < late.log_loss < late.log_loss_interval[1]
    assert late.calibration_error_interval is not None
    assert late.calibration_error_interval[0] < 0.02
    for target in ("late", "how"):
        for model in ("marginal", "naive Bayes", "gradient boosting"):
            assert found.baseline(model, target) is not None
    marginal = found.baseline("marginal", "late")
    assert marginal is not None
    assert marginal.difference == pytest.approx(late.log_loss - marginal.log_loss)  # type: ignore[operator]
    assert marginal.difference_interval is not None
    assert marginal.difference_interval[1] < 0
    assert found.baseline("no such model", "late") is None


def test_a_target_is_predicted_from_what_is_known_before_it() -> None:
    """Evidence leaves out what comes later, for the network and for its baselines alike."""
    every = evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late"], baselines=False)
    before = evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late"], evidence={"late": ("rain", "hour")})
    nothing = evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late"], evidence={"late": ()})
    losses = [found.targets[0].log_loss for found in (every, before, nothing)]
    assert losses == sorted(losses)  # type: ignore[type-var]
    assert before.targets[0].evidence == ("rain", "hour")
    shuffled = with_codes(HELD_OUT, "how", np.random.default_rng(0).permutation(HELD_OUT.column("how")))
    again = evaluate(NETWORK, TRAINING, shuffled, targets=["late"], evidence={"late": ("rain", "hour")})
    assert again.targets == before.targets
    assert again.baselines == before.baselines
    marginal = nothing.baseline("marginal", "late")
    assert marginal is not None
    assert marginal.difference == pytest.approx(0.0, abs=2e-3)


def test_restricting_blanks_all_other_cells() -> None:
    """Only the named columns stay."""
    kept = restrict(HELD_OUT, ["hour"])
    assert np.array_equal(kept.column("hour"), HELD_OUT.column("hour"))
    assert (kept.column("late") == MISSING).all()


def test_evaluation_is_the_same_twice() -> None:
    """Same rows, same seed, same record."""
    first, second = (evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late"], seed=3) for _ in range(2))
    assert first == second


def test_an_evaluation_is_read_as_it_was_written() -> None:
    """Through JSON and back, infinities included; anything else is a FormatError."""
    found = replace(evaluate(NETWORK, TRAINING, HELD_OUT, targets=["how"], baselines=False), overfit=float("inf"))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert Evaluation.from_dict(json.loads(text)) == found
    with pytest.raises(FormatError, match="not an evaluation"):
        Evaluation.from_dict({"rows": 1})
    assert "overfit_nats_per_row" not in found.metrics()
    assert found.metrics()["how.log_loss"] == found.targets[0].log_loss


def test_rows_impossible_under_the_served_cpds_are_counted_not_fatal() -> None:
    """Maximum likelihood never saw rain: log-loss stays finite, Brier is on the rows that are possible."""
    dry = fit(TRAINING.select(TRAINING.column("rain") == 0), PARENTS)
    found = evaluate(dry, TRAINING, HELD_OUT, targets=["late"], baselines=False)
    wet = int((HELD_OUT.column("rain") == 1).sum())
    assert found.impossible_rows == wet
    assert found.targets[0].impossible_rows == wet
    assert found.targets[0].log_loss is not None
    assert np.isfinite(found.targets[0].log_loss)
    assert found.targets[0].brier is not None


def test_missing_cells_are_summed_out_and_missing_targets_left_out() -> None:
    """Rows without the target are counted; rows with other gaps are still scored."""
    hours = HELD_OUT.column("hour").copy()
    hours[::3] = MISSING
    lates = HELD_OUT.column("late").copy()
    lates[:500] = MISSING
    found = evaluate(
        NETWORK, TRAINING, with_codes(with_codes(HELD_OUT, "hour", hours), "late", lates), targets=["late"]
    )
    assert (found.targets[0].rows, found.targets[0].missing_rows) == (2500, 500)
    assert found.held_out_nats is not None
    assert np.isfinite(found.held_out_nats)


def test_a_target_that_is_never_there_has_no_scores() -> None:
    """None with a reason, not zero and not an error; the marginal is still named."""
    found = evaluate(NETWORK, TRAINING, with_codes(HELD_OUT, "late", MISSING), targets=["late"])
    late = found.targets[0]
    assert (late.rows, late.missing_rows, late.log_loss, late.roc_auc) == (0, 3000, None, None)
    assert "no held-out row has 'late'" in late.note
    assert {scores.log_loss for scores in found.baselines} == {None}


def test_one_class_only_has_no_roc_auc() -> None:
    """Log-loss and Brier stay, ROC-AUC is None and says why."""
    found = evaluate(
        NETWORK, TRAINING, HELD_OUT.select(HELD_OUT.column("late") == 0), targets=["late"], baselines=False
    )
    assert found.targets[0].roc_auc is None
    assert "only 'no' came" in found.targets[0].note
    assert found.targets[0].brier is not None


def test_no_held_out_rows_is_an_answer() -> None:
    """Nothing measured, nothing raised: the gate on rows will say no."""
    none = HELD_OUT.select(np.zeros(HELD_OUT.rows, dtype=bool))
    found = evaluate(NETWORK, TRAINING, none, targets=["late"], baselines=False)
    assert (found.rows, found.held_out_nats, found.overfit) == (0, None, None)


def test_without_clusters_rows_are_independent_and_the_record_says_so() -> None:
    """Scores are the same; intervals come from blocks of rows."""
    bare = Dataset(SCHEMA, HELD_OUT.codes)
    found = evaluate(NETWORK, TRAINING, bare, targets=["late"], baselines=False)
    assert (found.independent_rows, found.clusters) == (True, 0)
    assert found.targets[0].log_loss_interval is not None


def test_day_effects_widen_intervals() -> None:
    """Whole days move together: intervals by day are at least twice those of the same rows without days."""
    stormy = simulate(6000, 9, effect=2.0)
    bare = Dataset(SCHEMA, stormy.codes[:, np.random.default_rng(0).permutation(stormy.rows)])
    widths = []
    for data in (stormy, bare):
        found = evaluate(NETWORK, TRAINING, data, targets=["how"], evidence={"how": ()}, baselines=False)
        interval = found.targets[0].log_loss_interval
        assert interval is not None
        widths.append(interval[1] - interval[0])
    assert widths[0] > 2 * widths[1]


def test_unseen_values_are_told_from_those_that_other_took() -> None:
    """A value no state takes counts as unseen; one that `other` takes does not."""
    import pandas as pd

    schema = Schema((Variable("a", ("x", "other"), other="other"), Variable("b", ("u", "v"))))
    frame = pd.DataFrame({"a": ["x", "strange", "x", "x"], "b": ["u", "v", "strange", "v"]})
    data = Dataset.from_pandas(frame, schema)
    found = evaluate(fit(data, {"a": (), "b": ("a",)}), data, data, targets=["a"], baselines=False)
    assert (found.unseen_rows, found.other_rows) == (1, 1)


def test_an_imported_network_is_scored_as_it_is() -> None:
    """No counts, no Jeffreys prior: the CPDs it came with."""
    tables = {node: np.asarray(NETWORK.cpd(node)) for node in NETWORK.nodes}
    imported = Network(SCHEMA, PARENTS, tables=tables)
    found = evaluate(imported, TRAINING, HELD_OUT, targets=["late"], baselines=False)
    assert found.held_out_nats == pytest.approx(log_likelihood_rows(imported, HELD_OUT).mean())


def test_rows_of_another_schema_and_unknown_targets_are_refused() -> None:
    """The message names what does not fit."""
    other = Schema(tuple(Variable(variable.name, (*variable.states, "more")) for variable in SCHEMA))
    with pytest.raises(SchemaError, match="held-out rows have another schema"):
        evaluate(NETWORK, TRAINING, Dataset(other, HELD_OUT.codes), targets=["late"])
    with pytest.raises(SchemaError, match="'lat'"):
        evaluate(NETWORK, TRAINING, HELD_OUT, targets=["lat"])
    with pytest.raises(SchemaError, match="no variables snow"):
        evaluate(NETWORK, TRAINING, HELD_OUT, targets=["late"], evidence={"late": ("snow",)})


def test_cluster_means_are_those_of_the_rows() -> None:
    """Gains are new minus old under the Jeffreys prior, averaged within each day."""
    old = fit(simulate(600, 7), PARENTS)
    found = compare(NETWORK, old, HELD_OUT, targets=["late"])
    jeffreys = Prior("jeffreys")
    gains = log_likelihood_rows(NETWORK.with_prior(jeffreys), HELD_OUT)
    gains = gains - log_likelihood_rows(old.with_prior(jeffreys), HELD_OUT)
    assert HELD_OUT.clusters is not None
    expected = [gains[HELD_OUT.clusters == day].mean() for day in range(20)]
    assert found.cluster_means == pytest.approx(expected)
    assert (found.same_schema, found.same_graph, found.clusters, found.rows) == (True, True, 20, 3000)
    assert found.mean == pytest.approx(np.mean(expected))
    assert found.standard_error == pytest.approx(np.std(expected, ddof=1) / np.sqrt(20))
    (late,) = found.targets
    assert (late.name, late.rows, len(late.cluster_means)) == ("late", 3000, 20)
    assert Comparison.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(FormatError, match="not a comparison"):
        Comparison.from_dict({})


def test_a_network_against_itself_is_no_difference() -> None:
    """No gain in any cluster, also with missing cells."""
    codes = HELD_OUT.codes.copy()
    codes[1, ::4] = MISSING
    found = compare(NETWORK, NETWORK, replace(HELD_OUT, codes=codes), targets=["late", "how"])
    assert np.allclose(found.cluster_means, 0.0)
    assert all(np.allclose(target.cluster_means, 0.0) for target in found.targets)


def test_another_graph_is_another_graph() -> None:
    """The same rows, one arc less."""
    poorer = fit(TRAINING, {**PARENTS, "late": ("rain",)})
    found = compare(poorer, NETWORK, HELD_OUT, targets=["late"])
    assert not found.same_graph
    assert found.mean is not None
    assert found.mean < 0
    assert found.targets[0].mean is not None
    assert found.targets[0].mean > 0


def test_equivalent_graphs_are_the_same_graph() -> None:
    """An arc that may be turned makes no other graph; one into a collider does."""
    turned = fit(TRAINING, {"rain": (), "hour": (), "late": ("how",), "how": ()})
    chain = fit(TRAINING, {"rain": (), "hour": (), "late": (), "how": ("late",)})
    assert turned.structure_hash != chain.structure_hash
    found = compare(turned, chain, HELD_OUT, targets=["late"])
    assert found.same_graph
    assert found.mean == pytest.approx(0.0, abs=0.01)
    out_of_collider = fit(TRAINING, {**PARENTS, "rain": ("late",), "late": ("hour",)})
    assert not compare(out_of_collider, NETWORK, HELD_OUT, targets=["late"]).same_graph


def test_only_later_clusters_count() -> None:
    """Labels after the bound; none left is an answer; rows without labels can't be told apart."""
    found = compare(NETWORK, NETWORK, HELD_OUT, targets=["late"], after="2024-03-15")
    assert (found.clusters, found.after) == (5, "2024-03-15")
    none = compare(NETWORK, NETWORK, HELD_OUT, targets=["late"], after="2024-04-01")
    assert (none.clusters, none.rows, none.mean, none.standard_error) == (0, 0, None, None)
    with pytest.raises(DataError, match="no cluster labels"):
        compare(NETWORK, NETWORK, Dataset(SCHEMA, HELD_OUT.codes), targets=["late"], after="2024-03-15")
    bare = compare(NETWORK, NETWORK, Dataset(SCHEMA, HELD_OUT.codes), targets=["late"])
    assert (bare.independent_rows, bare.clusters) == (True, 100)


def test_different_schemas_share_only_common_targets() -> None:
    """Rows in both encodings let the common targets be compared; without them nothing is."""
    coarse = Schema((*SCHEMA.variables[:1], Variable("hour", ("day", "night")), *SCHEMA.variables[2:]))
    hours = (HELD_OUT.column("hour") > 1).astype(np.uint8)
    codes = HELD_OUT.codes.copy()
    codes[1] = hours
    old_rows = Dataset(coarse, codes, HELD_OUT.clusters, HELD_OUT.cluster_labels)
    old = fit(old_rows, PARENTS)
    found = compare(NETWORK, old, HELD_OUT, targets=["late", "hour"], champion_held_out=old_rows)
    assert (found.same_schema, found.same_graph, found.clusters) == (False, False, 0)
    assert [target.name for target in found.targets] == ["late"]
    assert compare(NETWORK, old, HELD_OUT, targets=["late"]).targets == ()
    with pytest.raises(SchemaError, match="the champion"):
        compare(NETWORK, old, HELD_OUT, targets=["late"], champion_held_out=HELD_OUT)
    with pytest.raises(DataError, match="3000 rows for the challenger but 10"):
        compare(NETWORK, old, HELD_OUT, targets=[], champion_held_out=old_rows.select(np.arange(10)))


def test_rows_an_imported_champion_calls_impossible_are_counted_and_left_out() -> None:
    """Infinite gains never enter a mean."""
    tables = {node: np.asarray(NETWORK.cpd(node)) for node in NETWORK.nodes}
    tables["rain"] = np.array([1.0, 0.0])
    champion = Network(SCHEMA, PARENTS, tables=tables)
    found = compare(NETWORK, champion, HELD_OUT, targets=["late"])
    assert found.impossible_rows == int((HELD_OUT.column("rain") == 1).sum())
    assert np.isfinite(found.cluster_means).all()
