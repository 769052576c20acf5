"""What a drift run does: hold, roll back, refit, relearn, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bnpipe.errors import FormatError, SpecError
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.evaluation import Comparison

Action = Literal["nothing", "hold", "roll back", "refit", "relearn"]


@dataclass(frozen=True, slots=True)
class ReactionRule:
    """What a drift run may do by itself, and how sure it must be.

    Parameters
    ----------
    actions : {"advise", "auto"}
        ``advise`` says what would be done, and leaves it to a person.
    rope : float
        Region of practical equivalence, nats per row: a predecessor must be better by more.
    rollbacks_per_year : float
        Rollbacks of an equal model a year that may come from luck alone.
    looks_per_year : float
        How often drift is looked for; each look spends ``rollbacks_per_year / looks_per_year``.
    youth : int
        Matured clusters after its promotion during which a champion may be rolled back.
    min_clusters : int
        Fewest matured clusters since the promotion for a rollback.
    cool_down : int
        Days after a refit, relearning or rollback during which nothing is learned anew.

    Raises
    ------
    SpecError
        A number is out of range.
    """

    actions: Literal["advise", "auto"] = "advise"
    rope: float = 0.005
    rollbacks_per_year: float = 0.2
    looks_per_year: float = 365.0
    youth: int = 28
    min_clusters: int = 7
    cool_down: int = 7

    def __post_init__(self) -> None:
        if not self.rope > 0:
            raise SpecError(f"drift.rope: {self.rope} must be above 0 nats/row")
        if not (self.rollbacks_per_year > 0 and self.looks_per_year > 0):
            raise SpecError("drift.rollbacks_per_year and looks_per_year must be above 0")
        if self.min_clusters < 2:
            raise SpecError(f"drift.min_clusters: {self.min_clusters}; a t interval needs at least 2")
        for name in ("youth", "cool_down"):
            if getattr(self, name) < 0:
                raise SpecError(f"drift.{name}: {getattr(self, name)} is below 0")

    @property
    def alpha(self) -> float:
        """One-sided error of one look."""
        return min(self.rollbacks_per_year / self.looks_per_year, 0.5)


@dataclass(frozen=True, slots=True)
class DriftSituation:
    """What is known after a drift run.

    Parameters
    ----------
    validation : tuple of Verdict
        Of the live window; one that did not pass means that the data are bad.
    report : DriftReport or None
        None where the data were too bad to compare.
    champion : int
        Version.
    champion_age : int
        Matured clusters since its promotion.
    predecessor : int or None
        The ledger's previous good version that can still be loaded.
    against_predecessor : Comparison or None
        On clusters since the promotion, the predecessor as challenger: d = ln p of predecessor less ln p of champion.
    past_losses : tuple of float
        The same d of each reference cluster, nats per row.
    frozen : str or None
        Why, if the model is frozen.
    days_since_action : float or None
        Since the last refit, relearning or rollback; None: there was none.
    retrain_running : bool
        Whether a training of this network runs or waits.
    """

    validation: tuple[Verdict, ...]
    report: DriftReport | None
    champion: int
    champion_age: int
    predecessor: int | None
    against_predecessor: Comparison | None
    past_losses: tuple[float, ...] = ()
    frozen: str | None = None
    days_since_action: float | None = None
    retrain_running: bool = False


@dataclass(frozen=True, slots=True)
class DriftDecision:
    """What a drift run does, why, and on which verdicts.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
    advised_only : bool
        It would be done, but the spec says ``advise`` or the model is frozen.
    reason : str
        One or two sentences with the figures.
    families : tuple of str
        To refit.
    since : str or None
        Label of the cluster of the earliest change-point among the families.
    to : int or None
        Version to roll back to.
    alert : bool
        Whether a person should be told.
    verdicts : tuple of Verdict
        What it rests on.
    """

    action: Action
    advised_only: bool
    reason: str
    families: tuple[str, ...] = ()
    since: str | None = None
    to: int | None = None
    alert: bool = False
    verdicts: tuple[Verdict, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {
            "action": self.action,
            "advised_only": self.advised_only,
            "reason": self.reason,
            "families": list(self.families),
            "since": self.since,
            "to": self.to,
            "alert": self.alert,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DriftDecision:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            given = dict(fields)
            given["families"] = tuple(given["families"])
            given["verdicts"] = tuple(Verdict.from_dict(verdict) for verdict in given["verdicts"])
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise FormatError(f"not a drift decision: {error}") from error


def react(situation: DriftSituation, rule: ReactionRule) -> DriftDecision:
    """Decide what a drift run does."""
    raise NotImplementedError
