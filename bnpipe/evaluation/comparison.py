"""Challenger against champion on rows that postdate both training windows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset, order_labels
from bnpipe.errors import DataError, SchemaError
from bnpipe.evaluation.calibration import sum_by
from bnpipe.evaluation.records import Comparison, TargetDifference
from bnpipe.evaluation.scores import (
    Codes,
    Evidence,
    Floats,
    Ints,
    Scorer,
    evidence_of,
    log_loss_rows,
    members,
    proper_network,
)
from bnpipe.graph import cpdag
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema


def compare(
    challenger: Network,
    champion: Network,
    held_out: Dataset,
    *,
    targets: Sequence[str],
    after: str | None = None,
    evidence: Evidence | None = None,
    champion_held_out: Dataset | None = None,
) -> Comparison:
    """Measure d = ln p_new − ln p_old and the targets' log-loss, cluster by cluster, under the Jeffreys prior.

    Markov equivalent graphs hold the same distributions (Verma & Pearl 1990), so they count as the same graph.

    Parameters
    ----------
    challenger, champion : Network
        New and old. One without counts is scored by the CPDs it has.
    held_out : Dataset
        With the challenger's schema. Without clusters rows are taken as independent, in 100 blocks.
    targets : sequence of str
        The challenger's; those the champion has with the same states are compared.
    after : str or None
        Label of the last cluster that either learned from; only later ones are used.
    evidence : mapping of str to sequence of str, optional
        As in :func:`~bnpipe.evaluation.evaluate`; the champion gets those of them it knows.
    champion_held_out : Dataset, optional
        The same rows with the champion's schema. Where schemas differ no target is compared without it.

    Raises
    ------
    SchemaError
        Rows have another schema than their network.
    DataError
        `after` is given and rows have no clusters, or the two sets of rows differ in number.
    """
    same_schema = challenger.schema.hash == champion.schema.hash
    champion_rows = held_out if same_schema and champion_held_out is None else champion_held_out
    _check_rows(challenger, champion, held_out, champion_rows)
    kept = _later(held_out, after)
    new = _Side(Scorer(proper_network(challenger)), held_out.select(kept))
    old = None if champion_rows is None else _Side(Scorer(proper_network(champion)), champion_rows.select(kept))
    means: tuple[float, ...] = ()
    impossible = 0
    if same_schema and old is not None:
        with np.errstate(invalid="ignore"):
            gains = new.scorer.log_likelihood(new.rows) - old.scorer.log_likelihood(old.rows)
        finite = np.isfinite(gains)
        impossible = int((~finite).sum())
        means = _cluster_means(gains[finite], members(new.rows)[finite])
    mean, standard_error = _moments(means)
    return Comparison(
        same_schema=same_schema,
        same_graph=same_schema and cpdag(challenger.parents) == cpdag(champion.parents),
        rows=new.rows.rows,
        impossible_rows=impossible,
        cluster_means=means,
        mean=mean,
        standard_error=standard_error,
        targets=() if old is None else tuple(_targets(new, old, targets, evidence)),
        independent_rows=held_out.clusters is None,
        after=after,
    )


def _check_rows(challenger: Network, champion: Network, new_rows: Dataset, old_rows: Dataset | None) -> None:
    for name, network, data in (("challenger", challenger, new_rows), ("champion", champion, old_rows)):
        if data is not None and data.schema.hash != network.schema.hash:
            raise SchemaError(f"rows have another schema than the {name}; encode them with its schema")
    if old_rows is not None and old_rows.rows != new_rows.rows:
        raise DataError(f"{new_rows.rows} rows for the challenger but {old_rows.rows} for the champion")


def _later(data: Dataset, after: str | None) -> NDArray[np.bool_]:
    """Mask the rows of clusters with a later label."""
    if after is None:
        return np.ones(data.rows, dtype=np.bool_)
    if data.clusters is None:
        raise DataError(f"rows have no cluster labels, so which came after {after!r} is unknown")
    ordered = order_labels([*data.cluster_labels, after])
    later = set(ordered[ordered.index(after) + 1 :])
    wanted = np.array([label in later for label in data.cluster_labels], dtype=np.bool_)
    mask: NDArray[np.bool_] = wanted[data.clusters] if len(wanted) else np.zeros(data.rows, dtype=np.bool_)
    return mask


def _cluster_means(values: Floats, groups: Ints) -> tuple[float, ...]:
    present, places = np.unique(groups, return_inverse=True)
    means = sum_by(places, len(present), values) / sum_by(places, len(present))
    return tuple(means.tolist())


def _moments(means: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean and standard error over clusters, each cluster counting once."""
    mean = float(np.mean(means)) if means else None
    return mean, float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else None


@dataclass(frozen=True)
class _Side:
    """One of the two networks with the rows in its own schema."""

    scorer: Scorer
    rows: Dataset

    @property
    def schema(self) -> Schema:
        return self.rows.schema

    def losses(self, target: str, evidence: Evidence | None, kept: NDArray[np.bool_], codes: Codes) -> Floats:
        """Log-loss of the kept rows, whose target came as `codes`; evidence it does not know is left out."""
        asked = self.schema.names if evidence is None or target not in evidence else evidence[target]
        known = [name for name in asked if name in self.schema and name != target]
        return log_loss_rows(self.scorer.probabilities(self.rows.select(kept), target, known)[0], codes)


def _targets(new: _Side, old: _Side, targets: Sequence[str], evidence: Evidence | None) -> Iterator[TargetDifference]:
    for target in targets:
        evidence_of(target, new.schema, evidence)
        if target not in old.schema or old.schema[target].states != new.schema[target].states:
            continue
        kept = (new.rows.column(target) != MISSING) & (old.rows.column(target) != MISSING)
        if not kept.any():
            yield TargetDifference(target, 0, (), None, None)
            continue
        codes, groups = new.rows.column(target)[kept], members(new.rows)[kept]
        with np.errstate(invalid="ignore"):
            worse = new.losses(target, evidence, kept, codes) - old.losses(target, evidence, kept, codes)
        finite = np.isfinite(worse)
        means = _cluster_means(worse[finite], groups[finite])
        yield TargetDifference(target, int(finite.sum()), means, *_moments(means))
