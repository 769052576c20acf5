"""A network on rows it did not learn from, beside what else could have been used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bnpipe.data import Dataset
from bnpipe.errors import SchemaError
from bnpipe.evaluation.baselines import (
    BOOSTING,
    MARGINAL,
    NAIVE_BAYES,
    boosting_probabilities,
    marginal_probabilities,
    naive_bayes_probabilities,
)
from bnpipe.evaluation.calibration import calibrate, mean_interval
from bnpipe.evaluation.records import BaselineScores, Evaluation, TargetScores
from bnpipe.evaluation.scores import (
    Evidence,
    Floats,
    Ints,
    Scorer,
    brier,
    evidence_of,
    log_loss_rows,
    members,
    proper_network,
    roc_auc,
)
from bnpipe.network import Network
from bnpipe.schema import MISSING


def evaluate(
    network: Network,
    training: Dataset,
    held_out: Dataset,
    *,
    targets: Sequence[str],
    evidence: Evidence | None = None,
    seed: int = 0,
    bootstraps: int = 1000,
    baselines: bool = True,
    bins: int = 10,
) -> Evaluation:
    """Score a network on held-out rows.

    Log-likelihood, over-fit and the targets' log-loss are measured under the Jeffreys prior, whatever prior serves, so
    that a single row never seen does not cost infinity; Brier, ROC-AUC and calibration under the served CPDs, on rows
    possible under them (the others are counted). A network without counts has no other prior and is scored as it is.
    Intervals are of 95 %, from whole clusters resampled; without cluster labels rows are taken as independent, and the
    record says so.

    Parameters
    ----------
    network : Network
        As served.
    training, held_out : Dataset
        With the network's schema.
    targets : sequence of str
        Variables to predict. Rows without the target are left out and counted.
    evidence : mapping of str to sequence of str, optional
        What each target is predicted from: what is known before it. A target not named is predicted from all others.
    seed, bootstraps : int
        Of the cluster bootstrap.
    baselines : bool
        Also naive Bayes and gradient boosting; the marginal is always there.
    bins : int
        Bins of equal mass for calibration.

    Raises
    ------
    SchemaError
        Rows have another schema than the network, or a target is no variable of it.
    TooDenseError
        Exact inference would cost too much.
    """
    _check_schema(network, training, held_out)
    proper, served = Scorer(proper_network(network)), Scorer(network)
    groups = members(held_out)
    held_out_rows = proper.log_likelihood(held_out)
    training_nats = float(proper.log_likelihood(training).mean()) if training.rows else None
    held_out_nats = float(held_out_rows.mean()) if held_out.rows else None
    overfit = None if training_nats is None or held_out_nats is None else training_nats - held_out_nats
    unseen, other = _unseen_rows(held_out)
    scored = [
        _Target(name, evidence_of(name, network.schema, evidence), proper, served, seed, bootstraps, bins)
        for name in targets
    ]
    scores = [target.scores(training, held_out, baselines=baselines) for target in scored]
    return Evaluation(
        rows=held_out.rows,
        clusters=len(np.unique(groups)) if held_out.clusters is not None else 0,
        independent_rows=held_out.clusters is None,
        training_rows=training.rows,
        held_out_nats=held_out_nats,
        training_nats=training_nats,
        held_out_interval=mean_interval(held_out_rows, groups, bootstraps=bootstraps, seed=seed),
        overfit=overfit,
        impossible_rows=int(np.isneginf(served.log_likelihood(held_out)).sum()),
        unseen_rows=unseen,
        other_rows=other,
        targets=tuple(of_network for of_network, _ in scores),
        baselines=tuple(scores for _, of_baselines in scores for scores in of_baselines),
    )


def _check_schema(network: Network, training: Dataset, held_out: Dataset) -> None:
    for name, data in (("training", training), ("held-out", held_out)):
        if data.schema.hash != network.schema.hash:
            raise SchemaError(f"{name} rows have another schema than the network; encode them with network.schema")


def _unseen_rows(data: Dataset) -> tuple[int, int]:
    """Count rows with an unseen value that no state took, and that a state ``other`` took."""
    if data.unseen is None:
        return 0, 0
    lost = data.unseen & (data.codes == MISSING)
    return int(lost.any(axis=0).sum()), int((data.unseen & ~lost).any(axis=0).sum())


@dataclass(frozen=True)
class _Target:
    """How one target is to be scored."""

    name: str
    evidence: tuple[str, ...]
    proper: Scorer
    served: Scorer
    seed: int
    bootstraps: int
    bins: int

    def scores(
        self, training: Dataset, held_out: Dataset, *, baselines: bool
    ) -> tuple[TargetScores, tuple[BaselineScores, ...]]:
        present = held_out.column(self.name) != MISSING
        data = held_out if present.all() else held_out.select(present)
        missing = held_out.rows - data.rows
        models = self._models(training, data, every=baselines)
        if not data.rows:
            note = f"no held-out row has {self.name!r}"
            empty = TargetScores(self.name, self.evidence, 0, missing, 0, None, None, None, None, (), None, None, note)
            return empty, tuple(
                BaselineScores(model, self.name, None, None, None, None, None, note) for model in models
            )
        codes, groups = data.column(self.name), members(data)
        probabilities, impossible = self.served.probabilities(data, self.name, self.evidence)
        losses = log_loss_rows(self.proper.probabilities(data, self.name, self.evidence)[0], codes)
        states = data.schema[self.name].states
        possible = ~impossible
        calibration = calibrate(
            probabilities[possible],
            codes[possible],
            groups[possible],
            states=states,
            bins=self.bins,
            bootstraps=self.bootstraps,
            seed=self.seed,
        )
        area, note = roc_auc(probabilities[possible], codes[possible], states)
        network_scores = TargetScores(
            name=self.name,
            evidence=self.evidence,
            rows=data.rows,
            missing_rows=missing,
            impossible_rows=int(impossible.sum()),
            log_loss=float(losses.mean()),
            log_loss_interval=self._interval(losses, groups),
            brier=brier(probabilities[possible], codes[possible]) if possible.any() else None,
            roc_auc=area,
            calibration=calibration.bins,
            expected_calibration_error=calibration.error,
            calibration_error_interval=calibration.error_interval,
            note=note,
        )
        return network_scores, tuple(self._baselines(models, data, possible, losses))

    def _interval(self, values: Floats, groups: Ints) -> tuple[float, float] | None:
        return mean_interval(values, groups, bootstraps=self.bootstraps, seed=self.seed)

    def _models(self, training: Dataset, data: Dataset, *, every: bool) -> dict[str, Floats | None]:
        """Predict by each baseline; None where it can't be fitted."""
        models: dict[str, Floats | None] = {MARGINAL: marginal_probabilities(training, data.rows, target=self.name)}
        if every:
            models[NAIVE_BAYES] = naive_bayes_probabilities(training, data, target=self.name, evidence=self.evidence)
            models[BOOSTING] = boosting_probabilities(
                training, data, target=self.name, evidence=self.evidence, seed=self.seed
            )
        return models

    def _baselines(
        self,
        models: dict[str, Floats | None],
        data: Dataset,
        possible: np.ndarray[tuple[int], np.dtype[np.bool_]],
        losses: Floats,
    ) -> Iterator[BaselineScores]:
        """Score each baseline on the rows the network was scored on."""
        codes, groups = data.column(self.name), members(data)
        for model, probabilities in models.items():
            if probabilities is None:
                note = "needs evidence and two states of the target in training rows"
                yield BaselineScores(model, self.name, None, None, None, None, None, note)
                continue
            own = log_loss_rows(probabilities, codes)
            area, note = roc_auc(probabilities[possible], codes[possible], data.schema[self.name].states)
            yield BaselineScores(
                model=model,
                target=self.name,
                log_loss=float(own.mean()),
                brier=brier(probabilities[possible], codes[possible]) if possible.any() else None,
                roc_auc=area,
                difference=float((losses - own).mean()),
                difference_interval=self._interval(losses - own, groups),
                note=note,
            )
