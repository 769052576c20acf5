"""`bn_release__NAME`: a person approves a winner in the Airflow UI, or three days go by and it is rejected."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, BaseOperator, Param, chain

from bnpipe.airflow.forms import actor_of
from bnpipe.airflow.specs import models
from bnpipe.airflow.tasks import retry_settings, short_errors
from bnpipe.errors import PromotionRefused

if TYPE_CHECKING:
    from bnpipe.registry import Registry, Version
    from bnpipe.steps import Release

log = logging.getLogger("bnpipe.airflow")

PATIENCE = timedelta(hours=72)


def release_dag_id(name: str) -> str:
    """Name the release Dag of a model."""
    return f"bn_release__{name}"


def release_dags() -> dict[str, DAG]:
    """Make the release Dag of every model, also of one whose spec is broken just now: its requests stay open."""
    made = [release_dag(model.name, owner=model.spec.owner if model.spec else "bnpipe") for model in models()]
    return {dag.dag_id: dag for dag in made}


def release_dag(name: str, *, owner: str) -> DAG:
    """Make the release Dag of one model; it is never paused, or requests would queue unseen."""
    dag = DAG(
        release_dag_id(name),
        description=f"A person's approval before a version of {name} becomes champion",
        doc_md=_DOCUMENT.format(name=name),
        schedule=None,
        is_paused_upon_creation=False,
        params=_form(),
        tags=["bnpipe", "release", name],
        default_args={"owner": owner, **retry_settings()},
    )
    with dag:
        approval = ApprovalOperator(
            task_id="approval",
            subject="Make {{ ti.xcom_pull(task_ids='brief')['title'] }} the champion?",
            body="{{ ti.xcom_pull(task_ids='brief')['body'] }}",
            params={
                "comment": Param(
                    None,
                    type=["null", "string"],
                    maxLength=500,
                    title="Comment",
                    description="Goes into the ledger as the reason.",
                )
            },
            response_timeout=PATIENCE,
            defaults="Reject",
        )
        approve = ApproveOperator(model=name)
        approve.returns_dag_result = True
        chain(BriefOperator(model=name), approval, approve)
    return dag


def _form() -> dict[str, Param]:
    return {
        "version": Param(type="integer", minimum=1, title="Version", description="The MLflow version to promote."),
        "compared_with": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Compared with",
            description=(
                "The champion it was compared with, 0 if there was none; the approval is refused if the champion is "
                "another one by then. Blank: the champion at the time of this request."
            ),
        ),
        "run_id": Param(
            None,
            type=["null", "string"],
            title="MLflow run",
            description="The run whose verdicts are shown. Blank: the one that made the version.",
        ),
    }


class BriefOperator(BaseOperator):
    """Gather what a person needs to decide: verdicts, windows and links.

    Returns
    -------
    dict
        ``title``, ``body`` (Markdown), ``version``, ``compared_with`` (None: there was no champion),
        ``judged_against``, the champion that the verdicts are against, and ``run_id``, the MLflow run they are from.
    """

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="brief", doc_md="Gather verdicts, windows and links for the person who decides.", **kwargs
        )
        self.model = model

    def execute(self, context: Any) -> dict[str, Any]:
        """Read the version from the registry."""
        from bnpipe import steps
        from bnpipe.config import Settings
        from bnpipe.registry import Registry

        asked = context["params"]
        with short_errors(context):
            registry = Registry(Settings.from_environ().tracking_uri)
            version = registry.version(self.model, int(asked["version"]))
            present = registry.champion(self.model)
            champion = present.number if present else None
            compared_with = champion if asked["compared_with"] is None else asked["compared_with"] or None
            run_id = _run_of(registry, version, asked["run_id"])
            release = steps.read_release(registry, run_id)
            body = brief(
                version, release, compared_with=compared_with, champion=champion, run_url=registry.run_url(run_id)
            )
        return {
            "title": f"{self.model} version {version.number}",
            "body": body,
            "version": version.number,
            "compared_with": compared_with,
            "judged_against": release.compared_with,
            "run_id": run_id,
        }


def _run_of(registry: Registry, version: Version, asked: str | None) -> str:
    """Choose whose verdicts to show; those of another training would say nothing about this version."""
    if not asked:
        return version.run_id
    if registry.run_tags(asked).get("bnpipe.training_key") != version.training_key:
        raise PromotionRefused(
            f"the MLflow run {asked} did not train version {version.number} of {version.model}; leave `run_id` blank"
        )
    return asked


def brief(version: Version, release: Release, *, compared_with: int | None, champion: int | None, run_url: str) -> str:
    """Write what a person needs to decide, as Markdown.

    Parameters
    ----------
    release : Release
        The verdicts, and which champion they are against.
    compared_with : int or None
        The champion that the request is about.
    champion : int or None
        The champion now.
    """
    tags = version.tags
    title = f"**{version.model} version {version.number}**"
    judged = release.compared_with
    against = f"Compared with the champion, version {judged}" if judged else "There was no champion when it was judged"
    dates = [str(tags.get(f"bnpipe.{name}", "?"))[:10] for name in ("window_start", "train_end", "end")]
    lines = [
        *_doubts(judged, compared_with, champion),
        f"{title} learned from {dates[0]} until {dates[1]} and was proved on rows until {dates[2]}. {against}.",
        "",
        "| gate | verdict | why |",
        "|---|---|---|",
        *(f"| {_cell(item.gate)} | {_cell(item.outcome)} | {_cell(item.reason)} |" for item in release.verdicts),
        "",
        f"[MLflow run]({run_url})",
    ]
    if tags.get("bnpipe.airflow_url"):
        lines[-1] += f" · [Airflow run]({tags['bnpipe.airflow_url']})"
    return "\n".join(lines)


def _doubts(judged: int | None, compared_with: int | None, champion: int | None) -> list[str]:
    """Warn, before all else, of verdicts that say nothing about this decision: an approval would be refused."""
    if judged == compared_with == champion:
        return []
    asked = "" if compared_with in (judged, champion) else f", the request is about {_version(compared_with)}"
    facts = f"These verdicts are against {_version(judged)}{asked}, the champion is {_version(champion)}"
    return [f"**{facts}: an approval will be refused. Train again for verdicts that count.**", ""]


def _version(number: int | None) -> str:
    return f"version {number}" if number else "no version"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


class ApproveOperator(BaseOperator):
    """Promote what was approved, if it is still what the person was shown.

    Returns
    -------
    dict
        The outcome.

    Raises
    ------
    PromotionRefused
        The verdicts are against another champion than the request, the champion is another one by now, or a newer
        challenger has come.
    """

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="approve", doc_md="Move the champion, if nothing has changed since the request.", **kwargs
        )
        self.model = model

    def execute(self, context: Any) -> dict[str, Any]:
        """Promote."""
        from bnpipe import steps

        ti = context["ti"]
        asked = ti.xcom_pull(task_ids="brief")
        answer = ti.xcom_pull(task_ids="approval")
        with short_errors(context):
            if asked["judged_against"] != asked["compared_with"]:
                raise PromotionRefused(
                    f"{self.model} version {asked['version']} was not promoted: its verdicts are against "
                    f"{_version(asked['judged_against'])}, the request is about {_version(asked['compared_with'])}; "
                    "train again"
                )
            outcome = steps.approve(
                model=self.model,
                version=asked["version"],
                compared_with=asked["compared_with"],
                actor=approver_of(answer) or actor_of(context["dag_run"]),
                reason=comment_of(answer) or "approved in Airflow",
                run_id=asked["run_id"],
            )
            if outcome.outcome not in ("promoted", "already champion"):
                raise PromotionRefused(f"{self.model} version {outcome.version} was not promoted: {outcome.reason}")
        log.info("%s: version %d %s: %s", self.model, outcome.version, outcome.outcome, outcome.reason)
        return outcome.to_dict()


def approver_of(answer: Any) -> str | None:
    """Name the Airflow user who answered."""
    user = answer.get("responded_by_user") or {}
    return user.get("name") or user.get("id")


def comment_of(answer: Any) -> str | None:
    """Read the comment field of the answer."""
    comment = (answer.get("params_input") or {}).get("comment")
    return str(comment).strip() if comment else None


_DOCUMENT = """# Release of {name}

`bn_train__{name}` starts this Dag when a version wins and the spec says `promotion: approval`.
The request shows on Home under **Required Actions** and on the tab of the task `approval`.

- **Approve** moves the alias `champion`, with you as actor in the ledger and, as reason, your comment and why it won.
- **Reject**, or 72 hours without an answer, leaves everything as it is.
- If the champion is not the one that the verdicts are against, or a newer challenger has come, an approval is refused;
  what can be known before is said at the top of the request.
"""
