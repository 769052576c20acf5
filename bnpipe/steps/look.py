"""The chain of one drift run: snapshot, validate, compare, decide, act, report.

As in a training, each verb reads only what the snapshot froze and what earlier verbs left in the store, so that any of
them can be killed and run again. What a look decides is in :mod:`bnpipe.release`; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bnpipe.config import ModelSpec, Settings
from bnpipe.steps.training import Record, Reference

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.registry import Registry
    from bnpipe.release import DriftDecision

LOOK_STEPS = ("snapshot", "validate", "compare", "decide", "act", "report")


class Look(Reference):
    """One look on its way; its key is the hash of resolved spec, window, rows, champion and code."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LookValidated(Record):
    """How many expectations failed, by severity."""

    critical: int
    warnings: int


@dataclass(frozen=True, slots=True)
class Compared(Record):
    """What the comparison found, in short.

    Parameters
    ----------
    nodes : int
    flagged, unknown : tuple of str
        Names; flagged ones the surest and largest first.
    least_p : float or None
        Over all known nodes; None where there is none.
    skipped : str
        Why nothing was compared, '' if it was.
    """

    nodes: int
    flagged: tuple[str, ...]
    unknown: tuple[str, ...]
    least_p: float | None
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class Decided(Record):
    """The decision without its verdicts; the whole of it is ``decision.json`` in the MLflow run.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
    advised_only : bool
        It would be done, but the spec says advise, or the model is frozen.
    reason : str
    families : tuple of str
        To refit.
    since : str or None
        Earliest change-point among them.
    to : int or None
        Version to roll back to.
    alert : bool
        A person should be told.
    champion : int or None
        The version compared with.
    """

    action: str
    advised_only: bool
    reason: str
    families: tuple[str, ...]
    since: str | None
    to: int | None
    alert: bool
    champion: int | None


@dataclass(frozen=True, slots=True)
class Acted(Record):
    """What was done.

    Parameters
    ----------
    action : {"nothing", "hold", "roll back", "refit", "relearn"}
        The decision's.
    done : bool
        The champion was moved, or a training is to be started with `conf`.
    reason : str
        One sentence: what was done, or why it was not.
    conf : dict or None
        Of the ``bn_train__NAME`` run to start, as :meth:`bnpipe.config.Overrides.of` reads it; None: start none. The
        same look always gives the same.
    key : str
        Names what was done for good, to derive the id of that run from.
    """

    action: str
    done: bool
    reason: str
    conf: dict[str, Any] | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class LookReported(Record):
    """How the look ended, and the artifacts that tell of it.

    Parameters
    ----------
    outcome : str
        The decision's action.
    reason : str
    pages : tuple of str
        Artifacts of the MLflow run: ``report.html``, ``evidently.html``.
    """

    outcome: str
    reason: str
    pages: tuple[str, ...]


def look_snapshot(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    run_key: str,
    actor: str,
    start: date | None = None,
    end: date | None = None,
    actions: Literal["advise", "auto"] | None = None,
    reason: str | None = None,
    airflow_run: str | None = None,
    run_url: str | None = None,
    settings: Settings | None = None,
) -> Look:
    """Freeze what this look compares: the resolved spec, the live window's rows and the champion.

    A window without rows, or a model without champion, is no error: later verbs say so, and the decision is to hold.

    Parameters
    ----------
    spec : Path or ModelSpec
        A file under ``config/models`` or a spec read from one.
    at : datetime or date
        End of the data interval; the window ends at the last local midnight at or before it, less ``drift.label_lag``.
        A date, or `end`, is taken as that local midnight itself.
    run_key : str
        Identity of the run that asks; a retry with the same key continues the same MLflow run.
    actor : str
        Who started it: a user or ``schedule``.
    start, end : date or None
        The days to test, ``[start, end)``; None: those before `at`.
    actions : {"advise", "auto"} or None
        Instead of the spec's.

    Raises
    ------
    SpecError, SettingsError, SourceError, StoreError, RegistryError
        The MLflow run, if it could be opened, is marked as failed.
    """
    raise NotImplementedError


def look_validate(look: Look) -> LookValidated:
    """Check the tested days with Great Expectations; a failure is recorded and never raised."""
    raise NotImplementedError


def look_compare(look: Look) -> Compared:
    """Compare each CPD of the live rows with the champion's; nothing is compared where the data are bad."""
    raise NotImplementedError


def look_decide(look: Look, *, retrain_running: bool = False) -> Decided:
    """Decide what is to be done, and write the decision with its reasons into the MLflow run.

    Parameters
    ----------
    retrain_running : bool
        A training of this model is under way.
    """
    raise NotImplementedError


def look_act(look: Look) -> Acted:
    """Roll back, or say which training to start; once for each look, and only if the champion is still the same."""
    raise NotImplementedError


def look_report(look: Look) -> LookReported:
    """Write the page of the look and end its MLflow run."""
    raise NotImplementedError


def look(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    actor: str,
    start: date | None = None,
    end: date | None = None,
    act: bool = False,
    reason: str | None = None,
    around: Callable[[str], AbstractContextManager[object]] = lambda step: nullcontext(),
    settings: Settings | None = None,
) -> tuple[Look, DriftDecision]:
    """Run every verb of a look, one after the other; the same rows give the same decision as in Airflow.

    Parameters
    ----------
    act : bool
        Do what is decided, whatever ``drift.actions`` says, trainings included; without it nothing is done.
    around : callable
        Gives, for the name of a step, a context in which it runs; the command line shows progress with it.
    """
    raise NotImplementedError


def read_look(registry: Registry, run_id: str) -> tuple[DriftDecision, DriftReport | None]:
    """Read from MLflow what a look decided and found; no report where nothing could be compared.

    Raises
    ------
    RegistryError
        The run has no ``decision.json``: it did not come that far, or is no look.
    """
    raise NotImplementedError
