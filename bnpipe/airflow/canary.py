"""`bn_canary__NAME`: every hour, what a challenger's answers to part of the requests were worth, and what follows."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, BaseOperator, CronTriggerTimetable

from bnpipe.airflow.alerts import AlertNotifier
from bnpipe.airflow.forms import actor_of
from bnpipe.airflow.specs import models
from bnpipe.airflow.tasks import as_xcom, retry_settings, run_key, run_url, short_errors

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec
    from bnpipe.steps.canary import CanaryStep

log = logging.getLogger("bnpipe.airflow")

HOURLY = "23 * * * *"


def canary_dag_id(name: str) -> str:
    """Name the canary Dag of a model."""
    return f"bn_canary__{name}"


def canary_dags() -> dict[str, DAG]:
    """Make the canary Dag of every spec with a section `canary`; a broken spec is told by its training Dag alone."""
    made = [canary_dag(model.spec, model.path) for model in models() if model.spec and model.spec.canary]
    return {dag.dag_id: dag for dag in made}


def canary_dag(spec: ModelSpec, path: Path) -> DAG:
    """Make the canary Dag of one spec; without a canary its runs end at once."""
    dag = DAG(
        canary_dag_id(spec.name),
        description=f"Move, halt or promote the canary of {spec.name} by what its answers were worth"[:200],
        doc_md=_DOCUMENT.format(name=spec.name, owner=spec.owner, stages=" → ".join(map(_percent, _stages(spec)))),
        schedule=CronTriggerTimetable(HOURLY, timezone=spec.source.time_zone),
        is_paused_upon_creation=False,  # a canary that nobody looks at would not be halted either
        catchup=False,
        max_active_runs=1,
        tags=["bnpipe", "canary", spec.name],
        default_args={
            "owner": spec.owner,
            "on_failure_callback": AlertNotifier(model=spec.name),
            **retry_settings(),
        },
    )
    with dag:
        step = CanaryOperator(spec_path=str(path))
        step.returns_dag_result = True
    return dag


class CanaryOperator(BaseOperator):
    """Look at the canary once, decide, act, and tell people when something moved.

    Parameters
    ----------
    spec_path : str
        The YAML file.

    Returns
    -------
    dict
        Action, version, share, reason and verdicts.
    """

    ui_color = "#e8f1fb"

    def __init__(self, *, spec_path: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="step", doc_md="Compare both arms by the log of answers and their labels; act on it.", **kwargs
        )
        self.spec_path = spec_path

    def execute(self, context: Any) -> dict[str, Any]:
        """Step."""
        from bnpipe.config import load_spec
        from bnpipe.steps.canary import canary_step

        run = context["dag_run"]
        with short_errors(context):
            spec = load_spec(Path(self.spec_path))
            now = run.data_interval_end or run.run_after
            found = canary_step(spec, actor=actor_of(run), now=now, key=run_key(run))
        log.info("%s: %s: %s", spec.name, found.action, found.reason)
        if found.news:
            _tell(spec.name, found, link=run_url(context["ti"]))
        return as_xcom(found)


def _tell(model: str, found: CanaryStep, *, link: str) -> None:
    from bnpipe.alerts import Alert, send

    what = {
        "halt": f"the canary of version {found.version} was halted",
        "advance": f"version {found.version} now answers {_percent(found.share)} of the requests",
        "promote": f"version {found.version} was promoted after its canary",
        "await approval": f"the canary of version {found.version} is proved; a person promotes it",
    }[found.action]
    send(Alert(model, "message", f"{model}: {what}", reason=found.reason, action=found.action, link=link))


def _stages(spec: ModelSpec) -> tuple[float, ...]:
    return spec.canary.stages if spec.canary else ()


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


_DOCUMENT = """# Canary of {name}

While `bnpipe canary {name} start VERSION` is under way, a challenger answers part of the requests: {stages}.
Each hour both arms are compared by the log of answers and the labels that came for them.

| outcome | meaning |
|---|---|
| `none` | no canary is running |
| `wait` | not proved yet; the reason says what is missing |
| `advance` | surely not worse than the next stage may bear: it answers more |
| `halt` | worse, failing, or not proved in time: every request is the champion's again |
| `promote` | it is the champion now |
| `await approval` | proved, and the spec leaves the promotion to a person |

`bnpipe canary {name} halt --reason …`, or deleting the tag `bnpipe.canary` in MLflow, ends it at once.

Owner: {owner}
"""
