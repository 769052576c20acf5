"""`bn_drift__NAME`: live rows against the champion, by the clock, when rows are announced, or by hand."""

from __future__ import annotations

import logging
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, BaseOperatorLink, chain
from airflow.sdk.exceptions import AirflowSkipException

from bnpipe.airflow.alerts import news_of, tell_once
from bnpipe.airflow.dags import BeginOperator, daily, drift_dag_id, model_dag, train_dag_id
from bnpipe.airflow.forms import LookRequest, announced_end, drift_form, moment_of
from bnpipe.airflow.plugin import TAB
from bnpipe.airflow.specs import models
from bnpipe.airflow.tasks import Kind, MlflowRunLink, StepOperator, run_url

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec
    from bnpipe.config.drift import DriftSpec
    from bnpipe.steps import Look

log = logging.getLogger("bnpipe.airflow")

ACT = "act"
UNFINISHED = ["queued", "running"]


def drift_dags() -> dict[str, DAG]:
    """Make the drift Dag of every spec with a section `drift`; a broken spec is told by its training Dag alone."""
    made = [drift_dag(model.spec, model.path) for model in models() if model.spec and model.spec.drift]
    return {dag.dag_id: dag for dag in made}


def live_asset(name: str) -> Asset:
    """Give the asset by which an outside system announces live rows; an event's extra may say ``to``."""
    return Asset(f"live rows of {name}", uri=f"bnpipe://live/{name}", group="bnpipe")


def drift_dag(spec: ModelSpec, path: Path) -> DAG:
    """Make the drift Dag of one spec.

    It never starts because a champion has moved: promotion, look and retraining would chase each other for ever. One
    run at a time, since what a look may do depends on what the one before it did.
    """
    from bnpipe.config.builders import drift_of

    drift = drift_of(spec)
    dag = model_dag(
        drift_dag_id(spec.name),
        "drift",
        spec,
        description=f"Compare live rows of {spec.name} with its champion, and act on what changed"[:200],
        doc_md=_document(spec, drift),
        schedule=_timetable(spec, drift),
        max_active_runs=1,
        params=drift_form(spec),
    )
    with dag:
        act = ActOperator()
        report = LookOperator(verb="report", doc_md="Write the page of the look and end its MLflow run.")
        report.returns_dag_result = True
        chain(
            LookSnapshotOperator(
                spec_path=str(path), doc_md="Read the live rows once and keep them, with the champion of the moment."
            ),
            LookOperator(
                verb="validate", doc_md="Great Expectations over the tested days; bad data are held, not learned."
            ),
            LookOperator(verb="compare", doc_md="Compare each distribution of the live rows with the champion's."),
            DecideOperator(model=spec.name),
            act,
            [report, StartTraining(model=spec.name)],
        )
    return dag


class ReportLink(BaseOperatorLink):
    """Button from a task to the report of its run."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Give the address of the run's tab."""
        return report_url(ti_key)


def report_url(ti: Any) -> str:
    """Give the address of the report of a task instance's Dag run in Airflow."""
    return f"{run_url(ti)}/plugin/{TAB}"


class LookSnapshotOperator(BeginOperator):
    """Freeze what this run looks at."""

    operator_extra_links = (MlflowRunLink(), ReportLink())
    verb = "look_snapshot"

    def asked(self, context: Any, spec: ModelSpec) -> tuple[ModelSpec, datetime | date, dict[str, Any]]:
        """Read the form, and the events that announced rows."""
        form = LookRequest.of(context["params"])
        at = moment_of(spec, context["dag_run"], form.end or announced_end(context), live=True)
        return spec, at, {"start": form.start, "actions": form.actions, "reason": form.reason}


class LookOperator(StepOperator):
    """Run one verb of a look.

    Parameters
    ----------
    verb : str
        What follows ``look_`` in the name of a function of ``bnpipe.steps``.
    """

    operator_extra_links = (MlflowRunLink(), ReportLink())
    kind: ClassVar[Kind] = "Look"

    def call(self, begun: Look, context: Any) -> Any:
        """Call the verb."""
        from bnpipe import steps

        return getattr(steps, f"look_{self.verb}")(begun)


class DecideOperator(LookOperator):
    """Decide what is to be done, knowing from Airflow whether a training of the model runs or waits.

    Parameters
    ----------
    model : str
        Name of the network.
    """

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            verb="decide", doc_md="Decide: nothing, hold, roll back, refit or relearn; with the reasons.", **kwargs
        )
        self.model = model

    def call(self, begun: Look, context: Any) -> Any:
        """Decide."""
        from bnpipe import steps

        running = context["ti"].get_dr_count(dag_id=train_dag_id(self.model), states=UNFINISHED) > 0
        return steps.look_decide(begun, retrain_running=running)


class ActOperator(LookOperator):
    """Do what was decided, and tell people where the decision says so."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            verb=ACT, doc_md="Roll back, or say which training to start; tell people what happened.", **kwargs
        )

    def call(self, begun: Look, context: Any) -> Any:
        """Act."""
        from bnpipe import steps
        from bnpipe.alerts import drift_alert
        from bnpipe.config import Settings
        from bnpipe.registry import Registry

        registry = Registry(Settings.from_environ().tracking_uri)
        decision, report = steps.read_look(registry, begun.run_id)
        acted = steps.look_act(begun)
        if decision.alert:
            link = report_url(context["ti"])
            alert = drift_alert(begun.model, decision, report, done=acted.done, note=acted.reason, link=link)
            tell_once(registry, begun, news_of(begun, decision, report, acted), alert)
        return acted


class StartTraining(TriggerDagRunOperator):
    """Start `bn_train__NAME` if the look asks for a refit or for learning anew; skipped otherwise.

    The training run's id follows from what the look asks for, so that a retry, or the same look again, starts no other.
    """

    template_fields = ()

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="start_training",
            trigger_dag_id=train_dag_id(model),
            skip_when_already_exists=True,
            doc_md=f"Start `{train_dag_id(model)}` for a refit or for learning anew, and wait for nothing.",
            **kwargs,
        )

    def execute(self, context: Any) -> None:
        """Start the training run."""
        acted = context["ti"].xcom_pull(task_ids=ACT)
        if acted["conf"] is None:
            raise AirflowSkipException(f"{acted['action']}: {acted['reason']}")
        if context["ti"].get_dag(self.trigger_dag_id).is_paused:
            log.warning("%s is paused: its run waits until somebody unpauses it", self.trigger_dag_id)
        self.trigger_run_id = f"drift__{acted['key'][:32]}"
        self.conf = acted["conf"]
        self.note = acted["reason"]
        super().execute(context)


def _timetable(spec: ModelSpec, drift: DriftSpec) -> AssetOrTimeSchedule | list[Asset]:
    """Give the cron, with a data interval of a day, beside the announcements; or these alone."""
    live = live_asset(spec.name)
    if drift.schedule is None:
        return [live]
    return AssetOrTimeSchedule(timetable=daily(drift.schedule, spec), assets=(live,))


_DOCUMENT = """# Drift of {name}

Compares {window} days of live rows with the champion, distribution by distribution, and says which changed.
`actions: {actions}`: {meaning}

| outcome | meaning |
|---|---|
| `nothing` | nothing changed, or nothing may be done now; the reason says which |
| `hold` | the live rows are bad, or there are none; nothing is learned from them |
| `roll back` | the champion's predecessor is better; it takes over |
| `refit` | the named distributions changed and the graph still fits: `bn_train__{name}` learns these anew |
| `relearn` | the graph lacks an arc: `bn_train__{name}` learns it anew |

Started by the clock, by an event of the asset `live rows of {name}`, or by hand.

Owner: {owner}
"""

_MEANINGS = {"advise": "it says what should be done, a person does it.", "auto": "it does what it decides."}


def _document(spec: ModelSpec, drift: DriftSpec) -> str:
    return _DOCUMENT.format(
        name=spec.name,
        window=drift.window,
        actions=drift.actions,
        meaning=_MEANINGS[drift.actions],
        owner=spec.owner,
    )
