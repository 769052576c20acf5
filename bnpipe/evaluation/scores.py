"""Log-likelihoods, target probabilities and proper scores of encoded rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bnpipe.cpd import Prior
from bnpipe.data import Dataset
from bnpipe.errors import SchemaError, shorten
from bnpipe.inference import Engine
from bnpipe.inference import compile as compile_network
from bnpipe.network import Network
from bnpipe.parameters import log_likelihood_rows
from bnpipe.schema import MISSING, Schema

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Evidence = Mapping[str, Sequence[str]]

BLOCKS = 100


def proper_network(network: Network) -> Network:
    """Give the network under the Jeffreys prior, where no row is impossible; as it is if it has no counts."""
    return network.with_prior(Prior("jeffreys")) if network.has_counts else network


def members(data: Dataset) -> Ints:
    """Give each row's cluster, int64 (rows,); without clusters, one of 100 interleaved blocks of independent rows."""
    if data.clusters is None:
        return np.arange(data.rows, dtype=np.int64) % BLOCKS
    return data.clusters.astype(np.int64)


def evidence_of(target: str, schema: Schema, evidence: Evidence | None) -> tuple[str, ...]:
    """Name the variables that `target` is predicted from; all others if `evidence` does not say.

    Raises
    ------
    SchemaError
        The target or its evidence is no variable.
    """
    if target not in schema:
        raise SchemaError(f"target {target!r} is no variable; there are {shorten(schema.names)}")
    allowed = schema.names if evidence is None or target not in evidence else tuple(evidence[target])
    unknown = [name for name in allowed if name not in schema]
    if unknown:
        raise SchemaError(f"evidence of {target!r} has no variables {shorten(unknown)}")
    return tuple(name for name in allowed if name != target)


@dataclass(frozen=True)
class Scorer:
    """A network that scores rows; compiled when first needed."""

    network: Network

    @cached_property
    def engine(self) -> Engine:
        """The compiled network."""
        return compile_network(self.network)

    def log_likelihood(self, data: Dataset) -> Floats:
        """Give ln p of each row, float64 (rows,) nats; missing cells are summed out, −inf is impossible."""
        values = np.array(log_likelihood_rows(self.network, data), dtype=np.float64)
        incomplete = np.flatnonzero(~data.complete)
        if len(incomplete):
            values[incomplete] = self.engine.log_likelihood(data.select(incomplete))
        return values

    def probabilities(self, data: Dataset, target: str, evidence: Sequence[str]) -> tuple[Floats, NDArray[np.bool_]]:
        """Predict `target` from `evidence` only.

        Returns
        -------
        probabilities : float64 (rows, states)
            NaN where the evidence is impossible.
        impossible : bool (rows,)
        """
        posterior = self.engine.posterior(restrict(data, evidence), [target])
        return np.asarray(posterior[target], dtype=np.float64), np.asarray(posterior.impossible, dtype=np.bool_)


def restrict(data: Dataset, names: Sequence[str]) -> Dataset:
    """Blank every cell of the variables that are not named."""
    codes = np.full_like(data.codes, MISSING)
    kept = [data.schema.index(name) for name in names]
    codes[kept] = data.codes[kept]
    return replace(data, codes=codes)


def log_loss_rows(probabilities: Floats, codes: Codes) -> Floats:
    """Give −ln p of what came, float64 (rows,) nats."""
    with np.errstate(divide="ignore"):
        losses: Floats = -np.log(probabilities[np.arange(len(codes)), codes])
    return losses


def brier(probabilities: Floats, codes: Codes) -> float:
    """Give the Brier score: 0 best; worst 1 for two states, 2 for more (Brier 1950, as in scikit-learn)."""
    came = np.zeros_like(probabilities)
    came[np.arange(len(codes)), codes] = 1.0
    score = float(((probabilities - came) ** 2).sum(axis=1).mean())
    return score / 2.0 if probabilities.shape[1] == 2 else score


def roc_auc(probabilities: Floats, codes: Codes, states: Sequence[str]) -> tuple[float | None, str]:
    """Give the area under the ROC curve: of the second of two states, else the mean of one against the rest.

    Ties count half (Mann–Whitney). States that never or always came have no curve and are left out.

    Returns
    -------
    area : float or None
        None if no state has a curve.
    note : str
        Which states were left out.
    """
    came = np.bincount(codes, minlength=len(states))
    curved = [state for state in range(len(states)) if 0 < came[state] < len(codes)]
    if not curved:
        reason = f"only {states[int(came.argmax())]!r} came" if len(codes) else "no rows"
        return None, f"no ROC-AUC: {reason} in held-out rows"
    absent = [repr(states[state]) for state in range(len(states)) if not came[state]]
    note = f"ROC-AUC leaves out {shorten(absent)}: not in held-out rows" if absent and len(states) > 2 else ""
    chosen = [1] if len(states) == 2 else curved
    return float(np.mean([_area(probabilities[:, state], codes == state) for state in chosen])), note


def _area(scores: Floats, positive: NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    positives = int(positive.sum())
    pairs = positives * (len(positive) - positives)
    return float((rankdata(scores)[positive].sum() - positives * (positives + 1) / 2.0) / pairs)
