"""Alerts from Airflow: a notifier for callbacks, and what tasks tell people."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseNotifier

from bnpipe.airflow.tasks import mark_failed
from bnpipe.alerts import Alert, send, ways
from bnpipe.errors import BnpipeError

if TYPE_CHECKING:
    from bnpipe.drift import DriftReport
    from bnpipe.registry import Registry
    from bnpipe.release import DriftDecision
    from bnpipe.steps import Look
    from bnpipe.steps.reaction import Acted

log = logging.getLogger("bnpipe.airflow")

TOLD_TAG: Final = "bnpipe.told"


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


def news_of(look: Look, decision: DriftDecision, report: DriftReport | None, acted: Acted) -> str:
    """Name what an alert about a look would tell, so that it need not be told again.

    What was done is news each time. What was not is the same news as long as the same is held for the same reason,
    whatever the numbers and days in it, or the same distributions changed and the same would follow.
    """
    if acted.done:
        return look.key
    found: list[object] = [decision.action, decision.advised_only, decision.to]
    if report is None:
        found.append(re.sub(r"\b\d[\d.,:e+-]*", "#", decision.reason))
    else:
        found += [report.network, sorted(report.flagged), sorted((arc.parent, arc.child) for arc in report.added_arcs)]
    return hashlib.sha256(repr(found).encode()).hexdigest()


def tell_once(registry: Registry, look: Look, news: str, alert: Alert) -> bool:
    """Send an alert about a look, unless an earlier try of it or the look before told the same.

    It is marked as told after it was sent: a worker that dies in between lets it be told twice, never not at all. So
    does an alert that went nowhere.

    Returns
    -------
    bool
        Whether it was sent.
    """
    from bnpipe.registry.runs import RUN_KEY_TAG
    from bnpipe.steps.situation import KEY_TAG

    mine = registry.run_tags(look.run_id)
    looks = registry.tags_of_runs(model=look.model, having=KEY_TAG, newest=2)
    before = next((tags for tags in looks if tags[RUN_KEY_TAG] != mine[RUN_KEY_TAG]), {})
    told = news in (mine.get(TOLD_TAG), before.get(TOLD_TAG))
    if told:
        log.info("%s: not told again: %s", look.model, alert.headline)
    elif send(alert) == ("log",) != ways():
        return True  # nobody has heard of it
    try:
        registry.log_tags(look.run_id, {TOLD_TAG: news})
    except BnpipeError as error:
        log.warning("%s: it may be told again: %s", look.model, error)
    return not told


def registry_alert(warnings: Sequence[str], *, link: str) -> Alert:
    """Tell what `bn_registry` found that a person should look at; each warning names its model."""
    headline = "bn_registry: a champion needs a look" if len(warnings) == 1 else "bn_registry: champions need a look"
    return Alert("bn_registry", "registry", headline, "\n".join(warnings), link=link)
