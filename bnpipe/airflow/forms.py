"""The trigger forms: what a person may choose for one run, and what a run's conf means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, get_args

from airflow.sdk import Param
from airflow.sdk.exceptions import AirflowSkipException

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
    SpecError
        A field or a value that the form does not have, e.g. in a conf over REST.
    """
    from bnpipe.config import Overrides

    return Overrides.of(params)


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
        spec.check_end(end, now=max(run.run_after, run.start_date or run.run_after))
        return end
    asked: datetime = run.data_interval_end or run.logical_date or run.run_after
    ended = spec.ended(asked)
    if ended is not None and run.run_type in BY_TIMETABLE:
        raise AirflowSkipException(f"{ended}; this run's window would end on {spec.window_at(asked).end.date()}")
    return spec.newest(asked)


def actor_of(run: Any) -> str:
    """Name who started a run: an Airflow user, or ``schedule``."""
    return str(run.triggering_user_name or "schedule")
