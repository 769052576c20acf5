"""What was measured: frozen records that can be written to JSON and read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bnpipe.errors import FormatError
from bnpipe.evaluation.calibration import CalibrationBin, Interval


@dataclass(frozen=True, slots=True)
class TargetScores:
    """How well one target is predicted on held-out rows.

    Log-loss is scored under the Jeffreys prior, so that no row costs infinity; Brier, ROC-AUC and calibration under
    the served CPDs, on rows that are possible under them.

    Parameters
    ----------
    name : str
        The target.
    evidence : tuple of str
        Variables it was predicted from.
    rows, missing_rows, impossible_rows : int
        Rows scored; rows without the target, left out; rows whose evidence is impossible under the served CPDs.
    log_loss : float or None
        Mean of −ln p(target given evidence), nats per row. None, like every score, where nothing could be measured.
    log_loss_interval : tuple of float or None
        95 %, by resampled clusters; None from fewer than two.
    brier : float or None
        Brier score: Σ over states of (p − came)², halved for two states (Brier 1950; as in scikit-learn).
    roc_auc : float or None
        Of the second state of two; else the mean over states of one against the rest.
    calibration : tuple of CalibrationBin
        Equal-mass bins; of two states those of the second.
    expected_calibration_error : float or None
        Mean distance of probability and share that came.
    calibration_error_interval : tuple of float or None
        95 %, by resampled clusters.
    note : str
        Why a score is None, or which states ROC-AUC leaves out.
    """

    name: str
    evidence: tuple[str, ...]
    rows: int
    missing_rows: int
    impossible_rows: int
    log_loss: float | None
    log_loss_interval: Interval | None
    brier: float | None
    roc_auc: float | None
    calibration: tuple[CalibrationBin, ...]
    expected_calibration_error: float | None
    calibration_error_interval: Interval | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class BaselineScores:
    """The same scores of another model, from the same evidence on the same rows.

    Parameters
    ----------
    model : str
        ``marginal``, ``naive Bayes`` or ``gradient boosting``.
    target : str
        The target.
    log_loss, brier, roc_auc : float or None
        As in :class:`TargetScores`.
    difference : float or None
        Log-loss of the network minus that of the baseline, nats per row: below 0 the network wins.
    difference_interval : tuple of float or None
        95 %, by resampled clusters.
    note : str
        Why a score is None.
    """

    model: str
    target: str
    log_loss: float | None
    brier: float | None
    roc_auc: float | None
    difference: float | None
    difference_interval: Interval | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A network's held-out scores.

    Parameters
    ----------
    rows, clusters : int
        Held-out rows and their clusters.
    independent_rows : bool
        There were no cluster labels: rows were taken as independent and intervals may be too narrow.
    training_rows : int
        Rows it learned from.
    held_out_nats, training_nats : float or None
        Mean log-likelihood, nats per row, under the Jeffreys prior.
    held_out_interval : tuple of float or None
        95 %, by resampled clusters.
    overfit : float or None
        Training minus held-out nats per row.
    impossible_rows : int
        Held-out rows of probability zero under the served CPDs.
    unseen_rows : int
        Held-out rows with a value that no state takes (``other`` not counted).
    other_rows : int
        Held-out rows with an unseen value that a state ``other`` took.
    targets : tuple of TargetScores
        In the order asked for.
    baselines : tuple of BaselineScores
        The marginal always; the others if asked for.
    """

    rows: int
    clusters: int
    independent_rows: bool
    training_rows: int
    held_out_nats: float | None
    training_nats: float | None
    held_out_interval: Interval | None
    overfit: float | None
    impossible_rows: int
    unseen_rows: int
    other_rows: int
    targets: tuple[TargetScores, ...]
    baselines: tuple[BaselineScores, ...]

    def baseline(self, model: str, target: str) -> BaselineScores | None:
        """Give the scores of one baseline on one target, if measured."""
        for scores in self.baselines:
            if (scores.model, scores.target) == (model, target):
                return scores
        return None

    def metrics(self) -> dict[str, float]:
        """Give every finite score under a flat name, as MLflow keeps them: ``arrival.log_loss``."""
        values: dict[str, float | None] = {
            "held_out_rows": self.rows,
            "training_rows": self.training_rows,
            "held_out_clusters": self.clusters,
            "held_out_nats_per_row": self.held_out_nats,
            "training_nats_per_row": self.training_nats,
            "overfit_nats_per_row": self.overfit,
            "impossible_share": self.impossible_rows / self.rows if self.rows else None,
            "unseen_share": self.unseen_rows / self.rows if self.rows else None,
        }
        for target in self.targets:
            values[f"{target.name}.log_loss"] = target.log_loss
            values[f"{target.name}.brier"] = target.brier
            values[f"{target.name}.roc_auc"] = target.roc_auc
            values[f"{target.name}.calibration_error"] = target.expected_calibration_error
        for scores in self.baselines:
            prefix = f"{scores.target}.{scores.model.replace(' ', '_')}"
            values[f"{prefix}.log_loss"] = scores.log_loss
            values[f"{prefix}.brier"] = scores.brier
            values[f"{prefix}.roc_auc"] = scores.roc_auc
        return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        fields: dict[str, Any] = _writable(asdict(self))
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Evaluation:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            values = _readable(fields)
            values["targets"] = tuple(_target(target) for target in values["targets"])
            values["baselines"] = tuple(BaselineScores(**_readable(scores)) for scores in values["baselines"])
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not an evaluation: {error}") from error


@dataclass(frozen=True, slots=True)
class TargetDifference:
    """Log-loss of the challenger minus the champion's on one target.

    Parameters
    ----------
    name : str
        The target.
    rows : int
        Rows with the target.
    cluster_means : tuple of float
        Mean within each cluster, nats per row; above 0 the challenger is worse.
    mean, standard_error : float or None
        Over cluster means. None from no, respectively fewer than two, clusters.
    """

    name: str
    rows: int
    cluster_means: tuple[float, ...]
    mean: float | None
    standard_error: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Challenger against champion on rows neither learned from, both under the Jeffreys prior.

    Parameters
    ----------
    same_schema, same_graph : bool
        Different schemas can't be compared row by row; then only common targets are.
    rows : int
        Rows compared.
    impossible_rows : int
        Rows of probability zero under a network without counts, which has no prior to fall back on; left out.
    cluster_means : tuple of float
        Mean of d = ln p_new − ln p_old within each cluster, nats per row, in the order of cluster labels.
    mean, standard_error : float or None
        Over cluster means. None from no, respectively fewer than two, clusters.
    targets : tuple of TargetDifference
        Of the targets both know with the same states.
    independent_rows : bool
        There were no cluster labels: rows were taken as independent, in 100 blocks.
    after : str or None
        Only clusters with a later label were used.
    """

    same_schema: bool
    same_graph: bool
    rows: int
    impossible_rows: int
    cluster_means: tuple[float, ...]
    mean: float | None
    standard_error: float | None
    targets: tuple[TargetDifference, ...] = ()
    independent_rows: bool = False
    after: str | None = None

    @property
    def clusters(self) -> int:
        """Clusters compared."""
        return len(self.cluster_means)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        fields: dict[str, Any] = _writable(asdict(self))
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Comparison:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            values = _readable(fields)
            values["targets"] = tuple(TargetDifference(**_readable(target)) for target in values["targets"])
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FormatError(f"not a comparison: {error}") from error


def _target(fields: Mapping[str, Any]) -> TargetScores:
    values = _readable(fields)
    values["calibration"] = tuple(CalibrationBin(**_readable(bin_)) for bin_ in values["calibration"])
    return TargetScores(**values)


def _writable(value: Any) -> Any:
    """Make a value JSON-ready: a number that is not finite becomes its text (JSON has none)."""
    if isinstance(value, Mapping):
        return {key: _writable(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_writable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _readable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Undo :func:`_writable` on one record: lists become tuples, ``inf`` a number."""
    return {key: _value(value) for key, value in fields.items()}


def _value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_value(item) for item in value)
    return float(value) if value in ("inf", "-inf", "nan") else value
