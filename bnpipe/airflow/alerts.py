"""Alerts from Airflow: a notifier for callbacks, and what tasks tell people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from airflow.sdk import BaseNotifier

from bnpipe.airflow.tasks import mark_failed
from bnpipe.alerts import Alert, send
from bnpipe.errors import BnpipeError


class AlertNotifier(BaseNotifier):
    """Send an alert from a callback of a task: into its log, and wherever the ``BNPIPE_ALERT_*`` variables say.

    Parameters
    ----------
    model : str
        Name of the network.
    text : str
        What to say; a template. Left out: which task failed, and why.

    Examples
    --------
    A task of your own that tells the same people::

        @task(on_failure_callback=AlertNotifier(model="flights"))
        def publish(): ...
    """

    template_fields: Sequence[str] = ("text",)

    def __init__(self, *, model: str, text: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.text = text

    def notify(self, context: Any) -> None:
        """Send it."""
        if self.text:
            send(Alert(self.model, "message", f"{self.model}: {self.text}", link=context["ti"].log_url))
        else:
            send(failure_alert(self.model, context))


def after_failure(model: str) -> list[Callable[[Any], None]]:
    """Give what happens when a task has failed for good: its MLflow run ends as failed, and people are told."""
    return [mark_failed(model), AlertNotifier(model=model)]


def failure_alert(model: str, context: Any) -> Alert:
    """Tell which task failed and why; of an error that is not bnpipe's only the kind, it may quote rows."""
    ti, error = context["ti"], context.get("exception")
    why = "it was stopped from outside; see its log"
    if isinstance(error, BnpipeError):
        why = f"{type(error).__name__}: {error}"
    elif isinstance(error, BaseException):
        why = f"{type(error).__name__}; see its log"
    return Alert(model, "failure", f"{model}: the task {ti.task_id} of {ti.dag_id} failed", why, link=ti.log_url)


def registry_alert(warnings: Sequence[str], *, link: str) -> Alert:
    """Tell what `bn_registry` found that a person should look at; each warning names its model."""
    headline = "bn_registry: a champion needs a look" if len(warnings) == 1 else "bn_registry: champions need a look"
    return Alert("bn_registry", "registry", headline, "\n".join(warnings), link=link)
