"""What `bn_train__NAME` and `bn_drift__NAME` have in common: how they are made, and how their runs begin."""

from __future__ import annotations

import logging
from abc import abstractmethod
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import DAG, BaseOperator, BaseOperatorLink, CronTriggerTimetable

from bnpipe.airflow.alerts import after_failure
from bnpipe.airflow.forms import actor_of
from bnpipe.airflow.tasks import (
    DRIFT_PREFIX,
    SNAPSHOT,
    TRAIN_PREFIX,
    MlflowRunLink,
    as_xcom,
    connection_in_environment,
    refusal_in_mlflow,
    retry_settings,
    run_key,
    run_url,
    short_errors,
)

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec

log = logging.getLogger("bnpipe.airflow")


def train_dag_id(name: str) -> str:
    """Name the training Dag of a model."""
    return f"{TRAIN_PREFIX}{name}"


def drift_dag_id(name: str) -> str:
    """Name the drift Dag of a model."""
    return f"{DRIFT_PREFIX}{name}"


def model_dag(dag_id: str, kind: Literal["train", "drift"], spec: ModelSpec, **options: Any) -> DAG:
    """Make a Dag of a model, without its tasks: tags, owner, retries, and what happens when a task fails."""
    return DAG(
        dag_id,
        catchup=False,
        tags=["bnpipe", kind, spec.name],
        default_args={"owner": spec.owner, "on_failure_callback": after_failure(spec.name), **retry_settings()},
        **options,
    )


def daily(cron: str, spec: ModelSpec) -> CronTriggerTimetable:
    """Give a cron in the source's time zone with a data interval of a day; without `interval` it had no length."""
    return CronTriggerTimetable(cron, timezone=spec.source.time_zone, interval=timedelta(days=1))


class BeginOperator(BaseOperator):
    """Freeze what a run is about; every later task reads only that.

    Parameters
    ----------
    spec_path : str
        The YAML file.

    Returns
    -------
    dict
        The reference of the training or look: model, key, MLflow run, actor.
    """

    ui_color = "#e8f1fb"
    operator_extra_links: tuple[BaseOperatorLink, ...] = (MlflowRunLink(),)
    verb: ClassVar[str]

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(task_id=SNAPSHOT, **kwargs)
        self.spec_path = spec_path

    @abstractmethod
    def asked(self, context: Any, spec: ModelSpec) -> tuple[ModelSpec, datetime | date, dict[str, Any]]:
        """Read the form: the spec as it is for this run, as of when, and what else `verb` takes."""

    def execute(self, context: Any) -> dict[str, Any]:
        """Take the snapshot."""
        from bnpipe import steps
        from bnpipe.config import load_spec

        run, path = context["dag_run"], Path(self.spec_path)
        with short_errors(context):
            with refusal_in_mlflow(context):
                spec, at, options = self.asked(context, load_spec(path))
            log.info("%s: as of %s, started by %s", spec.name, at, actor_of(run))
            with connection_in_environment(spec.source.connection):
                begun = getattr(steps, self.verb)(
                    spec=path,
                    at=at,
                    **options,
                    run_key=run_key(run),
                    actor=actor_of(run),
                    airflow_run=run_key(run),
                    run_url=run_url(context["ti"]),
                )
        return as_xcom(begun)
