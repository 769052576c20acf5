"""`bn_train__NAME`: rows to champion, nightly or by hand, one Dag for every spec."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, BaseOperator, chain
from airflow.sdk.exceptions import AirflowSkipException

from bnpipe.airflow.dags import BeginOperator, daily, model_dag, train_dag_id
from bnpipe.airflow.forms import moment_of, overrides_of, training_form
from bnpipe.airflow.release import release_dag_id
from bnpipe.airflow.specs import Model, models
from bnpipe.airflow.tasks import StepOperator, short_errors

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec
    from bnpipe.errors import SpecError

VERBS = {
    "validate": "Great Expectations over the snapshot; a critical failure ends the run.",
    "learn": "Fix states and bins, then learn the graph, or take the experts'.",
    "audit": "Check every constraint on the graph and what it costs to use.",
    "fit": "Count every family, day by day.",
    "evaluate": "Score on held-out rows beside baselines and the champion; a failing absolute gate ends the run.",
    "register": "Create the MLflow version: one per training, however often this is tried.",
    "promote": "Promote, hold, ask a person or leave it to MLflow, as the verdicts and the spec's policy say.",
}


def train_dags() -> dict[str, DAG]:
    """Make the training Dags of all specs, by Dag id; a broken spec's Dag raises what is wrong with it."""
    made = [
        train_dag(model.spec, model.path) if model.spec is not None else broken_dag(model, model.error)
        for model in models()
    ]
    return {dag.dag_id: dag for dag in made}


def train_dag(spec: ModelSpec, path: Path) -> DAG:
    """Make the training Dag of one spec.

    Runs of several dates may overlap: each training has its own key, and an older window never replaces a newer
    champion.
    """
    dag = model_dag(
        train_dag_id(spec.name),
        "train",
        spec,
        description=_first_line(spec.description),
        doc_md=_document(spec, path),
        schedule=None if spec.schedule is None else daily(spec.schedule, spec),
        max_active_runs=3,
        params=training_form(spec),
    )
    with dag:
        verbs = [StepOperator(verb=verb, doc_md=about) for verb, about in VERBS.items()]
        verbs[-1].returns_dag_result = True
        begin = SnapshotOperator(
            spec_path=str(path), doc_md="Read the window's rows once and keep them, addressed by content."
        )
        chain(begin, *verbs, AskForApproval(model=spec.name))
    return dag


class SnapshotOperator(BeginOperator):
    """Freeze what this run learns from."""

    verb = "snapshot"

    def asked(self, context: Any, spec: ModelSpec) -> tuple[ModelSpec, datetime | date, dict[str, Any]]:
        """Read the form."""
        overrides = overrides_of(context["params"])
        spec = spec.apply(overrides)
        return spec, moment_of(spec, context["dag_run"], overrides.end), {"overrides": overrides}


class AskForApproval(TriggerDagRunOperator):
    """Hand a winner over to `bn_release__NAME` where the spec wants a person's approval; skipped otherwise.

    The release run's id follows from this run's, the version's and the champion's that it was compared with: a retry
    does not ask twice, and a run that was cleared because the champion had changed asks again.
    """

    template_fields = ()

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="ask_for_approval",
            trigger_dag_id=release_dag_id(model),
            skip_when_already_exists=True,
            doc_md=f"Start `{release_dag_id(model)}` if the outcome is `await approval`.",
            **kwargs,
        )

    def execute(self, context: Any) -> None:
        """Start the release run."""
        outcome = context["ti"].xcom_pull(task_ids="promote")
        if outcome["outcome"] != "await approval":
            raise AirflowSkipException(f"the outcome is {outcome['outcome']!r}: {outcome['reason']}")
        run = context["dag_run"]
        champion = outcome["champion"] or 0
        self.trigger_run_id = f"{run.run_id}__version_{outcome['version']}_over_{champion}"
        self.conf = {"version": outcome["version"], "compared_with": champion, "run_id": outcome["run_id"]}
        self.note = outcome["reason"]
        super().execute(context)


def broken_dag(model: Model, error: SpecError | None) -> DAG:
    """Make a Dag whose only task raises what is wrong with the spec, so that it is seen where people look."""
    text = str(error)
    dag = DAG(
        train_dag_id(model.name),
        description=f"{model.path.name} is broken"[:200],
        doc_md=_BROKEN.format(name=model.name, file=model.path.name, text=text),
        schedule=None,
        tags=["bnpipe", "train", "broken spec"],
        default_args={"owner": "bnpipe", "retries": 0},
    )
    with dag:
        RaiseSpecError(task_id="spec", message=text)
    return dag


class RaiseSpecError(BaseOperator):
    """Raise what is wrong with a spec."""

    def __init__(self, *, message: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.message = message

    def execute(self, context: Any) -> None:
        """Fail."""
        from bnpipe.errors import SpecError

        with short_errors(context):
            raise SpecError(self.message)


_DOCUMENT = """# {name}

{description}

Owner: {owner}

`{file}`:

```yaml
{yaml}
```
"""

_BROKEN = """# {name}

`{file}` is broken; correct it and this Dag comes back.

```
{text}
```
"""


def _first_line(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= 200 else line[:197] + "..."


def _document(spec: ModelSpec, path: Path) -> str:
    return _DOCUMENT.format(
        name=spec.name,
        description=spec.description.strip(),
        owner=spec.owner,
        file=path.name,
        yaml=path.read_text(encoding="utf-8").strip(),
    )
