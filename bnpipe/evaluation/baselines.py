"""What else could have been used: the target's own shares, naive Bayes, gradient boosting.

Each takes the same evidence and rows as the network and gives probabilities, float64 (rows, states).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bnpipe.counts import contingency
from bnpipe.data import Dataset
from bnpipe.schema import MISSING

Floats = NDArray[np.float64]

MARGINAL, NAIVE_BAYES, BOOSTING = "marginal", "naive Bayes", "gradient boosting"
BOOSTING_ROWS = 100_000
BOOSTING_STEPS = 60


def marginal_probabilities(training: Dataset, rows: int, *, target: str) -> Floats:
    """Give every row the target's shares in training, under the Jeffreys prior."""
    counts = contingency(training.column(target)[None, :], (training.schema[target].cardinality,)) + 0.5
    return np.tile(counts / counts.sum(), (rows, 1))


def naive_bayes_probabilities(training: Dataset, held_out: Dataset, *, target: str, evidence: Sequence[str]) -> Floats:
    """Treat evidence as independent given the target; Jeffreys priors, missing cells left out.

    Parameters
    ----------
    evidence : sequence of str
        Variables to predict from.
    """
    scores = np.log(marginal_probabilities(training, held_out.rows, target=target))
    states = training.schema[target].cardinality
    for name in evidence:
        width = training.schema[name].cardinality
        joint = contingency(np.stack([training.column(target), training.column(name)]), (states, width)) + 0.5
        likelihood = np.zeros((MISSING + 1, states))
        likelihood[:width] = np.log(joint / joint.sum(axis=1, keepdims=True)).T
        scores += likelihood[held_out.column(name)]
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    probabilities: Floats = shares / shares.sum(axis=1, keepdims=True)
    return probabilities


def boosting_probabilities(
    training: Dataset, held_out: Dataset, *, target: str, evidence: Sequence[str], seed: int = 0
) -> Floats | None:
    """Fit scikit-learn's histogram gradient boosting, 60 trees a state.

    Binned variables count as ordered, others as categories, missing cells as missing. Learns from at most 100 000
    rows, drawn with `seed`. Predictions are mixed with a 1/(n + 1) part of the marginal, so that a state it never saw
    costs ln n nats, as it costs the others.

    Returns
    -------
    float64 (rows, states), or None
        None if there is no evidence, or training rows hold fewer than two states of the target.
    """
    rows = np.flatnonzero(training.column(target) != MISSING)
    if len(rows) > BOOSTING_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, BOOSTING_ROWS, replace=False))
    outcome = training.column(target)[rows]
    if not evidence or len(np.unique(outcome)) < 2:
        return None
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = HistGradientBoostingClassifier(
        max_iter=BOOSTING_STEPS,
        learning_rate=0.15,
        max_leaf_nodes=31,
        min_samples_leaf=max(1, min(20, len(rows) // 10)),
        categorical_features=[training.schema[name].edges is None for name in evidence],
        early_stopping=False,
        random_state=seed,
    )
    probabilities = np.zeros((held_out.rows, training.schema[target].cardinality))
    with threadpool_limits(limits=1, user_api="openmp"):  # threads that wait for each other crawl on a busy machine
        model.fit(_features(training, evidence)[rows], outcome)
        if held_out.rows:
            probabilities[:, model.classes_] = model.predict_proba(_features(held_out, evidence))
    part = 1.0 / (len(rows) + 1.0)
    mixed: Floats = (1.0 - part) * probabilities
    mixed += part * marginal_probabilities(training, held_out.rows, target=target)
    return mixed


def _features(data: Dataset, names: Sequence[str]) -> NDArray[np.float32]:
    codes = np.stack([data.column(name) for name in names], axis=1)
    return np.where(codes == MISSING, np.float32(np.nan), codes.astype(np.float32))
