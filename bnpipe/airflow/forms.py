"""The trigger forms: what a person may choose for one run, and what a run's conf means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, get_args
from zoneinfo import ZoneInfo

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

from bnpipe.errors import DataError

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec, Overrides

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
    }


def _choice(allowed: Sequence[str], default: str, **shown: str) -> Param:
    as_in_the_spec = {"null": f"as in the spec: {default}"}
    return Param(None, type=["null", "string"], enum=[None, *allowed], values_display=as_in_the_spec, **shown)


def overrides_of(params: Mapping[str, Any]) -> Overrides:
    """Read a filled form.

    Raises
    ------
    pydantic.ValidationError
        A value that the form does not allow, e.g. given by an older client.
    """
    from bnpipe.config import Overrides

    known = Overrides.model_fields
    return Overrides(**{name: value for name, value in params.items() if name in known and value is not None})


def moment_of(spec: ModelSpec, run: Any, end: date | None) -> datetime | date:
    """Decide as of when a run learns: the form's date, else the end of its data interval, else when it was started.

    Parameters
    ----------
    run : DagRun
        The run as the task sees it.
    end : date or None
        What the form says.

    Raises
    ------
    DataError
        The form asks for rows that can't be there: after the run was started, or after the source ended.
    AirflowSkipException
        The timetable asks for a window after the end of the source: nothing to learn, and no error.
    """
    if end is not None:
        _refuse_future(spec, end, max(run.run_after, run.start_date or run.run_after))
    asked: datetime | date = end or run.data_interval_end or run.logical_date or run.run_after
    ended = spec.ended(asked)
    if ended is None or spec.source.until is None:
        return asked
    last = spec.source.until + timedelta(days=1)
    if end is not None:
        raise DataError(f"end: {end} is too late: {ended}; the latest end is {last}")
    if run.run_type in BY_TIMETABLE:
        raise AirflowSkipException(f"{ended}; this run's window would end on {spec.window_at(asked).end.date()}")
    return last


def _refuse_future(spec: ModelSpec, end: date, started: datetime) -> None:
    if datetime.combine(end, time(), ZoneInfo(spec.source.time_zone)) > started:
        raise DataError(
            f"end: {end} in {spec.source.time_zone} is later than this run's start, "
            f"{started.astimezone(UTC):%Y-%m-%d %H:%M} UTC: its rows are not there yet; choose an earlier date"
        )


def actor_of(run: Any) -> str:
    """Name who started a run: an Airflow user, or ``schedule``."""
    return str(run.triggering_user_name or "schedule")
