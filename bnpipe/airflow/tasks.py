"""Tasks as thin wrappers of the verbs in :mod:`bnpipe.steps`: errors made short, retries only where they can heal."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.sdk import BaseOperator, BaseOperatorLink, ExceptionRetryPolicy, RetryAction, RetryRule

from bnpipe import errors
from bnpipe.airflow.forms import actor_of
from bnpipe.errors import BnpipeError

if TYPE_CHECKING:
    from bnpipe.steps import Look, Training

log = logging.getLogger("bnpipe.airflow")

Kind = Literal["Training", "Look"]

TRAIN_PREFIX = "bn_train__"
DRIFT_PREFIX = "bn_drift__"
SNAPSHOT = "snapshot"
ERROR_KEY = "error"


def retryable_errors() -> list[type[BaseException]]:
    """Name what may heal by itself: an outage, never a wrong spec, a failed gate or a bug."""
    ours = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BnpipeError)]
    return [*(kind for kind in ours if kind.retryable), ConnectionError, TimeoutError]


def retry_settings() -> dict[str, Any]:
    """Give the ``default_args`` of every task: three more tries about 10, 20 and 40 seconds apart, or none.

    A task whose worker was killed is not asked for its exception and is tried again as well.
    """
    rule = RetryRule(exception=list(retryable_errors()), action=RetryAction.RETRY, reason="it may be back in a minute")
    return {
        "retries": 3,
        "retry_delay": timedelta(seconds=10),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(minutes=2),
        "retry_policy": ExceptionRetryPolicy(rules=[rule], default=RetryAction.FAIL),
    }


@contextmanager
def short_errors(context: Any) -> Iterator[None]:
    """Log what went wrong as one line before Airflow's traceback, and keep it as the XCom ``error``.

    The traceback of an error that bnpipe raised on purpose says nothing more than its message and is cut.
    """
    try:
        yield
    except BnpipeError as error:
        text = f"{type(error).__name__}: {error}"
        log.error(text)  # noqa: TRY400
        context["ti"].xcom_push(key=ERROR_KEY, value=text)
        raise error.with_traceback(None) from None


class MlflowRunLink(BaseOperatorLink):
    """Button from a task to the MLflow run that tells of its training or look."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Find the address in the worker, when the task has ended; empty if there is no MLflow run to be found."""
        begun = reference_of(ti_key)
        if begun is None:
            return ""
        from bnpipe.config import Settings
        from bnpipe.registry import Registry

        try:
            return str(Registry(Settings.from_environ().tracking_uri).run_url(begun.run_id))
        except BnpipeError:
            return ""


class StepOperator(BaseOperator):
    """Run one verb of :mod:`bnpipe.steps` on the training that the snapshot task began.

    Parameters
    ----------
    verb : str
        Name of a function in ``bnpipe.steps`` that takes what the snapshot task began.

    Returns
    -------
    dict
        The verb's small record, as XCom.
    """

    ui_color = "#e8f1fb"
    operator_extra_links: tuple[BaseOperatorLink, ...] = (MlflowRunLink(),)
    kind: ClassVar[Kind] = "Training"

    def __init__(self, *, verb: str, **kwargs: Any) -> None:
        super().__init__(task_id=verb, **kwargs)
        self.verb = verb

    def execute(self, context: Any) -> dict[str, Any]:
        """Call the verb."""
        begun = reference_of(context["ti"], self.kind)
        if begun is None:
            raise RuntimeError(f"nothing to {self.verb}: the task {SNAPSHOT!r} left no result; clear it and try again")
        with short_errors(context):
            record = self.call(begun, context)
        return as_xcom(record)

    def call(self, begun: Any, context: Any) -> Any:
        """Do the work of the task, given what the snapshot task began."""
        from bnpipe import steps

        return getattr(steps, self.verb)(begun)


def reference_of(ti: Any, kind: Kind = "Training") -> Training | Look | None:
    """Read which training or look this Dag run is about, or None before the snapshot task has succeeded."""
    values = ti.xcom_pull(task_ids=SNAPSHOT)
    if not values:
        return None
    from bnpipe import steps

    begun: Training | Look = getattr(steps, kind).from_dict(values)
    return begun


def as_xcom(record: Any) -> dict[str, Any]:
    """Give a record as plain JSON values."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(record.to_dict(), default=str))
    return plain


def mark_failed(model: str) -> Callable[[Any], None]:
    """Make a failure callback that ends the MLflow run of a Dag run as failed, if one was begun.

    The run is found by its key, since a snapshot that failed has handed on nothing. The callback never raises.
    """

    def callback(context: Any) -> None:
        from bnpipe import steps

        try:
            ti = context["ti"]
            error = context.get("exception") or "the task was stopped from outside"
            steps.fail_run_of(model=model, run_key=run_key(ti), reason=f"{ti.task_id}: {error}")
        except Exception as second:  # noqa: BLE001  whatever goes wrong here must not hide what went wrong there
            log.warning("could not write the failure into MLflow: %s", second)

    return callback


@contextmanager
def refusal_in_mlflow(context: Any) -> Iterator[None]:
    """Give a run that is refused before its snapshot begins an MLflow run that ends as failed and says why.

    Whatever goes wrong with that is logged and never hides the refusal.
    """
    try:
        yield
    except BnpipeError as error:
        try:
            _tell_refusal(context, error)
        except Exception as second:  # noqa: BLE001  it must not hide the refusal
            log.warning("could not write the refusal into MLflow: %s", second)
        raise


def _tell_refusal(context: Any, error: BnpipeError) -> None:
    from bnpipe import steps
    from bnpipe.config import Settings
    from bnpipe.registry import Registry

    run = context["dag_run"]
    model, key = model_of(run.dag_id), run_key(run)
    tags = {"bnpipe.actor": actor_of(run), "bnpipe.airflow_run": key, "bnpipe.airflow_url": run_url(context["ti"])}
    if run.dag_id.startswith(DRIFT_PREFIX):
        tags["bnpipe.kind"] = "drift"
    Registry(Settings.from_environ().tracking_uri).start_run(model=model, key=key, tags=tags, params={})
    steps.fail_run_of(model=model, run_key=key, reason=f"{SNAPSHOT}: {error}")


def model_of(dag_id: str) -> str:
    """Name the model of a Dag that trains it or looks at it."""
    return dag_id.partition("__")[2]


def run_url(ti: Any) -> str:
    """Give the address of a task instance's Dag run in Airflow."""
    return str(ti.log_url).partition("/tasks/")[0]


def run_key(run: Any) -> str:
    """Name a Dag run for good: the key of its MLflow run, given the run or one of its task instances."""
    return f"{run.dag_id}/{run.run_id}"


@contextmanager
def connection_in_environment(name: str) -> Iterator[None]:
    """Let the steps see an Airflow connection as ``BNPIPE_CONN_<NAME>``, unless the environment has one already.

    Nothing is logged; Airflow masks the connection's secrets in whatever else is.
    """
    from bnpipe.source import connection_variable

    variable = connection_variable(name)
    url = None if variable in os.environ else airflow_connection(name)
    if url is None:
        yield
        return
    os.environ[variable] = url
    try:
        yield
    finally:
        del os.environ[variable]


def airflow_connection(name: str) -> str | None:
    """Look an Airflow connection up and give it as a URL; None if there is none of that name."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException
    from airflow.sdk.log import mask_secret

    try:
        connection = Connection.get(name)
    except AirflowNotFoundException:
        return None
    url = connection_url(connection)
    mask_secret(url)
    return url


def connection_url(connection: Any) -> str:
    """Write an Airflow connection the way ``BNPIPE_CONN_*`` is written.

    A connection of type *File (path)* is a folder; every other type keeps Airflow's own URI.
    """
    if connection.conn_type == "fs":
        return f"file://{connection.extra_dejson.get('path') or connection.host or '/'}"
    return str(connection.get_uri())
