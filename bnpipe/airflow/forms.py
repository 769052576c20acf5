"""The trigger forms: what a person may choose for one run, and what a run's conf means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

from bnpipe.errors import SpecError, shorten

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec, Overrides
    from bnpipe.config.drift import Actions

BY_TIMETABLE = ("scheduled", "backfill")


def training_form(spec: ModelSpec) -> dict[str, Param]:
    """Give the params of a training Dag; None means "as in the spec" throughout.

    What people choose most stands in the section that the form shows open, the rest under *Learning*.
    """
    from bnpipe.config.spec import Estimator, Policy, Score

    learning = {"section": "Learning"}
    return {
        "end": Param(
            None,
            type=["null", "string"],
            format="date",
            title="End of the window",
            description=(
                f"Learn from rows before this midnight in {spec.source.time_zone}. "
                "Blank: as of the run's date, or the day on which the source ended."
            ),
        ),
        "promotion": _choice(
            get_args(Policy),
            spec.promotion.policy,
            title="What happens if it wins",
            description="auto: it is promoted. approval: a person is asked here. manual: it is left to MLflow.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=1000,
            title="Reason",
            description="Why you start this run; kept with the MLflow run and the version.",
        ),
        "score": _choice(get_args(Score), spec.structure.score, title="Score of the search", **learning),
        "max_parents": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=30,
            title="Most parents of a node",
            description=f"Blank: as in the spec ({spec.structure.max_parents}).",
            **learning,
        ),
        "estimator": _choice(
            get_args(Estimator), spec.parameters.estimator, title="Estimator of the parameters", **learning
        ),
        "equivalent_sample_size": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            title="Equivalent sample size",
            description="Rows that the prior of the estimator bayes is worth. Blank: as in the spec.",
            **learning,
        ),
        "relearn_schema": Param(
            False,
            type="boolean",
            title="Learn bins anew",
            description="Otherwise learned bins are the champion's. With other bins it can't be compared row by row.",
            **learning,
        ),
        **_refit_form(spec),
    }


def _refit_form(spec: ModelSpec) -> dict[str, Param]:
    refit = {"section": "Refit"}
    return {
        "refit": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            examples=list(spec.variables),
            title="Only these distributions",
            description="Learn these anew; graph and all others stay the champion's. Blank: learn everything.",
            **refit,
        ),
        "since": Param(
            None,
            type=["null", "string"],
            format="date",
            title="Since",
            description="With a refit: the first day of the rows to learn from.",
            **refit,
        ),
        "refit_of": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Of version",
            description="With a refit: the version whose graph is kept. Blank: the champion.",
            **refit,
        ),
    }


def drift_form(spec: ModelSpec) -> dict[str, Param]:
    """Give the params of a drift Dag; None means "as in the spec" throughout.

    Raises
    ------
    SpecError
        The spec has no section `drift`.
    """
    from bnpipe.config.builders import drift_of
    from bnpipe.config.drift import Actions

    drift = drift_of(spec)
    return {
        "from": Param(
            None,
            type=["null", "string"],
            format="date",
            title="First day",
            description=f"First day to test. Blank: {drift.window} days before the end.",
        ),
        "to": Param(
            None,
            type=["null", "string"],
            format="date",
            title="End",
            description=(
                f"Test rows before this midnight in {spec.source.time_zone}; their labels must be there. "
                "Blank: as of the run's date less the time that labels take, or the day on which the source ended."
            ),
        ),
        "actions": _choice(
            get_args(Actions),
            drift.actions,
            title="What may follow",
            description="advise: say what should be done. auto: do it.",
        ),
        "reason": Param(
            None,
            type=["null", "string"],
            maxLength=1000,
            title="Reason",
            description="Why you start this run; kept with the MLflow run.",
        ),
    }


def _choice(allowed: Sequence[str], default: str, **shown: str) -> Param:
    as_in_the_spec = {"null": f"as in the spec: {default}"}
    return Param(None, type=["null", "string"], enum=[None, *allowed], values_display=as_in_the_spec, **shown)


def overrides_of(params: Mapping[str, Any]) -> Overrides:
    """Read a filled form.

    Raises
    ------
    SpecError
        A field or a value that the form does not have, e.g. in a conf over REST.
    """
    from bnpipe.config import Overrides

    return Overrides.of(params)


@dataclass(frozen=True, slots=True)
class LookRequest:
    """A filled form of a drift Dag: the days to test, ``[start, end)``, what may follow, and why."""

    start: date | None = None
    end: date | None = None
    actions: Actions | None = None
    reason: str | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> LookRequest:
        """Read a form that Airflow has checked.

        Raises
        ------
        SpecError
            A field that the form does not have, e.g. in a conf over REST.
        """
        fields = {"from": "start", "to": "end", "actions": "actions", "reason": "reason"}
        if strangers := [name for name in params if name not in fields]:
            raise SpecError(f"{strangers[0]}: no such field; a drift run takes {', '.join(fields)}")
        given = {fields[name]: value for name, value in params.items() if value is not None}
        for name in ("start", "end"):
            if name in given:
                given[name] = date.fromisoformat(given[name])
        return cls(**given)


def announced_end(context: Any) -> date | None:
    """Read until when an outside system says that live rows are there: the latest ``to`` of the asset's events.

    Raises
    ------
    SpecError
        It is no date.
    """
    events = [event for events in context["triggering_asset_events"].values() for event in events]
    said = [event.extra["to"] for event in events if event.extra.get("to")]
    try:
        return max((date.fromisoformat(str(end)) for end in said), default=None)
    except ValueError:
        raise SpecError(f"an event says to: {shorten(said)}; write a day as 2026-02-01") from None


def moment_of(spec: ModelSpec, run: Any, end: date | None, *, live: bool = False) -> datetime | date:
    """Decide as of when a run learns: the form's date, else the end of its data interval, else when it was started.

    Parameters
    ----------
    run : DagRun
        The run as the task sees it.
    end : date or None
        What the form says.
    live : bool
        The run looks at the live window rather than learn.

    Raises
    ------
    DataError
        The form asks for rows that can't be there: after the run was started, or after the source ended.
    AirflowSkipException
        The timetable asks for a window after the end of the source: nothing to learn, and no error.
    """
    if end is not None:
        spec.check_end(end, now=max(run.run_after, run.start_date or run.run_after))
        return end
    asked: datetime = run.data_interval_end or run.logical_date or run.run_after
    last, until = spec.source.last_end, (spec.live_window_at if live else spec.window_at)(asked).end.date()
    if last is None or until <= last:
        return asked
    if run.run_type in BY_TIMETABLE:
        ended = f"the source of {spec.name} has ended: source.until is {spec.source.until}"
        raise AirflowSkipException(f"{ended}; this run's window would end on {until}")
    return last


def actor_of(run: Any) -> str:
    """Name who started a run: an Airflow user, ``asset event`` or ``schedule``."""
    return str(run.triggering_user_name or ("asset event" if run.run_type == "asset_triggered" else "schedule"))
