"""`bn_release__NAME`: a person approves a winner in the Airflow UI, or three days go by and it is rejected."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, BaseOperator, Param, chain

from bnpipe.airflow.forms import actor_of
from bnpipe.airflow.specs import models
from bnpipe.airflow.tasks import retry_settings, short_errors

if TYPE_CHECKING:
    from bnpipe.registry import Version
    from bnpipe.verdict import Verdict

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
    }


class BriefOperator(BaseOperator):
    """Gather what a person needs to decide: verdicts, windows and links.

    Returns
    -------
    dict
        ``title``, ``body`` (Markdown), ``version`` and ``compared_with`` (None: there was no champion).
    """

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="brief", doc_md="Gather verdicts, windows and links for the person who decides.", **kwargs
        )
        self.model = model

    def execute(self, context: Any) -> dict[str, Any]:
        """Read the version from the registry."""
        from bnpipe.config import Settings
        from bnpipe.registry import Registry
        from bnpipe.verdict import Verdict

        asked = context["params"]
        with short_errors(context):
            registry = Registry(Settings.from_environ().tracking_uri)
            version = registry.version(self.model, int(asked["version"]))
            compared_with = asked["compared_with"]
            if compared_with is None:
                champion = registry.champion(self.model)
                compared_with = champion.number if champion else 0
            stored = json.loads(registry.read_text(version.run_id, "verdicts/release.json"))
            body = brief(
                version,
                compared_with=compared_with or None,
                verdicts=[Verdict.from_dict(fields) for fields in stored],
                run_url=registry.run_url(version.run_id),
            )
        return {
            "title": f"{self.model} version {version.number}",
            "body": body,
            "version": version.number,
            "compared_with": compared_with or None,
        }


def brief(version: Version, *, compared_with: int | None, verdicts: Sequence[Verdict], run_url: str) -> str:
    """Write what a person needs to decide, as Markdown."""
    tags = version.tags
    title = f"**{version.model} version {version.number}**"
    against = f"Compared with the champion, version {compared_with}" if compared_with else "There is no champion yet"
    dates = [str(tags.get(f"bnpipe.{name}", "?"))[:10] for name in ("window_start", "train_end", "end")]
    lines = [
        f"{title} learned from {dates[0]} until {dates[1]} and was proved on rows until {dates[2]}. {against}.",
        "",
        "| gate | verdict | why |",
        "|---|---|---|",
        *(f"| {_cell(item.gate)} | {_cell(item.outcome)} | {_cell(item.reason)} |" for item in verdicts),
        "",
        f"[MLflow run]({run_url})",
    ]
    if tags.get("bnpipe.airflow_url"):
        lines[-1] += f" · [Airflow run]({tags['bnpipe.airflow_url']})"
    return "\n".join(lines)


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
        The champion is another one by now, or a newer challenger has come.
    """

    def __init__(self, *, model: str, **kwargs: Any) -> None:
        super().__init__(
            task_id="approve", doc_md="Move the champion, if nothing has changed since the request.", **kwargs
        )
        self.model = model

    def execute(self, context: Any) -> dict[str, Any]:
        """Promote."""
        from bnpipe import steps
        from bnpipe.errors import PromotionRefused

        ti = context["ti"]
        asked = ti.xcom_pull(task_ids="brief")
        answer = ti.xcom_pull(task_ids="approval")
        with short_errors(context):
            outcome = steps.approve(
                model=self.model,
                version=asked["version"],
                compared_with=asked["compared_with"],
                actor=approver_of(answer) or actor_of(context["dag_run"]),
                reason=comment_of(answer) or "approved in Airflow",
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

- **Approve** moves the alias `champion`, with you as actor and your comment as reason in the ledger.
- **Reject**, or 72 hours without an answer, leaves everything as it is.
- If the champion is no longer the one that was compared, or a newer challenger has come, an approval is refused.
"""
