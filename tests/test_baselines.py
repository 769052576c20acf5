"""Baselines against scikit-learn's own, and on data they can't learn from."""

from __future__ import annotations

import numpy as np
import pytest

from bnpipe.data import Dataset
from bnpipe.evaluation import baselines
from bnpipe.evaluation.baselines import boosting_probabilities, marginal_probabilities, naive_bayes_probabilities
from bnpipe.schema import MISSING, Schema, Variable

SCHEMA = Schema(
    (Variable("a", ("0", "1", "2")), Variable("b", ("<1", "1..2", ">=2"), edges=(1.0, 2.0)), Variable("y", ("n", "y")))
)


def simulate(rows: int, seed: int) -> Dataset:
    """The target depends on both others, through an interaction."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 3, rows), rng.integers(0, 3, rows)
    y = rng.random(rows) < np.where(a == b, 0.8, 0.3)
    return Dataset(SCHEMA, np.stack([a, b, y]).astype(np.uint8))


TRAINING, HELD_OUT = simulate(3000, 1), simulate(500, 2)
EVIDENCE = ("a", "b")


def blank(data: Dataset, name: str, rows: slice) -> Dataset:
    """The same rows with some cells missing."""
    codes = data.codes.copy()
    codes[data.schema.index(name), rows] = MISSING
    return Dataset(data.schema, codes)


def test_the_marginal_is_the_share_in_training() -> None:
    """Counts plus one half a state, the same for every row."""
    probabilities = marginal_probabilities(TRAINING, 4, target="y")
    share = ((TRAINING.column("y") == 1).sum() + 0.5) / (TRAINING.rows + 1.0)
    assert probabilities.shape == (4, 2)
    assert probabilities[:, 1] == pytest.approx([share] * 4)


def test_naive_bayes_is_scikit_learns() -> None:
    """CategoricalNB with alpha 1/2; its class prior is not smoothed, so compare odds."""
    from sklearn.naive_bayes import CategoricalNB

    features, outcome = TRAINING.codes[:2].T, TRAINING.column("y")
    prior = marginal_probabilities(TRAINING, 1, target="y")[0]
    model = CategoricalNB(alpha=0.5, class_prior=prior, min_categories=[3, 3]).fit(features, outcome)
    ours = naive_bayes_probabilities(TRAINING, HELD_OUT, target="y", evidence=EVIDENCE)
    assert ours == pytest.approx(model.predict_proba(HELD_OUT.codes[:2].T))


def test_naive_bayes_leaves_missing_cells_out() -> None:
    """Without any evidence only the marginal is left."""
    empty = blank(blank(HELD_OUT, "a", slice(None)), "b", slice(None))
    ours = naive_bayes_probabilities(TRAINING, empty, target="y", evidence=EVIDENCE)
    assert ours == pytest.approx(marginal_probabilities(TRAINING, HELD_OUT.rows, target="y"))


def test_boosting_learns_an_interaction_naive_bayes_can_not() -> None:
    """Rows sum to one and come close to the truth, also where cells are missing."""
    held_out = blank(HELD_OUT, "a", slice(0, 50))
    ours = boosting_probabilities(blank(TRAINING, "b", slice(0, 100)), held_out, target="y", evidence=EVIDENCE)
    assert ours is not None
    assert ours.sum(axis=1) == pytest.approx(np.ones(500))
    truth = np.where(HELD_OUT.column("a") == HELD_OUT.column("b"), 0.8, 0.3)
    assert np.abs(ours[50:, 1] - truth[50:]).mean() < 0.05
    naive = naive_bayes_probabilities(TRAINING, HELD_OUT, target="y", evidence=EVIDENCE)
    assert np.abs(naive[:, 1] - truth).mean() > 0.1


def test_boosting_gives_a_state_it_never_saw_a_little() -> None:
    """Never zero, so that log-loss stays finite."""
    schema = Schema((*SCHEMA.variables[:2], Variable("y", ("n", "y", "never"))))
    training, held_out = Dataset(schema, TRAINING.codes), Dataset(schema, HELD_OUT.codes)
    ours = boosting_probabilities(training, held_out, target="y", evidence=EVIDENCE)
    assert ours is not None
    assert (ours > 0).all()
    assert ours[:, 2].max() < 1e-3


def test_boosting_needs_evidence_and_two_states() -> None:
    """None, not an error, where nothing can be learned."""
    one = TRAINING.select(TRAINING.column("y") == 1)
    assert boosting_probabilities(one, HELD_OUT, target="y", evidence=EVIDENCE) is None
    assert boosting_probabilities(TRAINING, HELD_OUT, target="y", evidence=()) is None


def test_boosting_learns_from_a_seeded_part_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap is kept, the seed decides."""
    monkeypatch.setattr(baselines, "BOOSTING_ROWS", 400)
    first, again, other = (
        boosting_probabilities(TRAINING, HELD_OUT, target="y", evidence=EVIDENCE, seed=seed) for seed in (0, 0, 1)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_rows_without_the_target_teach_nothing() -> None:
    """Missing targets in training are left out by every baseline."""
    gappy = blank(TRAINING, "y", slice(0, 1000))
    kept = TRAINING.select(np.arange(1000, 3000))
    for ours, expected in (
        (marginal_probabilities(gappy, 3, target="y"), marginal_probabilities(kept, 3, target="y")),
        (
            naive_bayes_probabilities(gappy, HELD_OUT, target="y", evidence=EVIDENCE),
            naive_bayes_probabilities(kept, HELD_OUT, target="y", evidence=EVIDENCE),
        ),
        (
            boosting_probabilities(gappy, HELD_OUT, target="y", evidence=EVIDENCE),
            boosting_probabilities(kept, HELD_OUT, target="y", evidence=EVIDENCE),
        ),
    ):
        assert ours == pytest.approx(expected)
