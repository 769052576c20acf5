"""The pages of the plugin: for whoever may read a Dag, the report of a run's training or look as MLflow holds it.

The report is a file that a run wrote. It is shown in a frame without scripts and without an origin of its own, so that
nothing in the rows it was made from can act as the person who looks at it. Evidently's page is nothing without scripts:
it may run its own, still without that origin, and load nothing.
"""

from __future__ import annotations

from html import escape
from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse

from bnpipe.airflow.tasks import DRIFT_PREFIX, ERROR_KEY, SNAPSHOT, TRAIN_PREFIX, model_of
from bnpipe.errors import BnpipeError, RegistryUnavailable

REPORT = "report.html"
EVIDENTLY = "evidently.html"
POLICIES = {
    REPORT: "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    EVIDENTLY: "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:",
}
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'; frame-ancestors 'self'"

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Report</title>
<style>
html, body {{ height: 100%; margin: 0; font: 15px/1.5 system-ui, sans-serif; color: #1a202c; background: #fff; }}
body {{ display: flex; flex-direction: column; }}
p {{ margin: 0; padding: .7em 1em; border-bottom: 1px solid #cbd5e0; }}
iframe {{ border: 0; flex: 1; }}
</style>{body}</html>"""


def application() -> FastAPI:
    """Build the web application; every route asks Airflow whether the user may read that Dag's runs."""
    allowed = [Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.RUN))]
    app = FastAPI(openapi_url=None)
    base = "/dags/{dag_id}/runs/{run_id}"
    app.get(f"{base}/report", dependencies=allowed, response_class=HTMLResponse)(report_page)
    app.get(f"{base}/files/{{name}}", dependencies=allowed, response_class=HTMLResponse)(file_page)
    return app


def report_page(dag_id: str, run_id: str) -> HTMLResponse:
    """Say how the training or look ended, with links to MLflow and Evidently's page, and frame its report."""
    begun = begun_by_run(dag_id, run_id)
    if begun is None:
        return _page(f"<p>{_why_none(dag_id, run_id)}</p>")
    try:
        tags, address, files = _look_up(begun["run_id"])
    except BnpipeError as error:
        return _page(f"<p>{escape(str(error))}</p>", status=_status(error))
    beside = _open(f"files/{EVIDENTLY}", "Evidently's report") if EVIDENTLY in files else ""
    line = f"<p><b>{escape(begun['model'])}</b>: {escape(ending(tags))} {_link(address)} {beside}</p>"
    return _page(line + (f'<iframe src="files/{REPORT}" title="Report"></iframe>' if REPORT in files else ""))


def file_page(dag_id: str, run_id: str, name: str) -> HTMLResponse:
    """Give a page as it was written."""
    begun = begun_by_run(dag_id, run_id)
    if begun is None or name not in POLICIES:
        return _page("<p>No such report in this run.</p>", status=404)
    try:
        text = _registry().read_text(begun["run_id"], name)
    except BnpipeError as error:
        return _page(f"<p>{escape(str(error))}</p>", status=_status(error))
    return HTMLResponse(text, headers={"Content-Security-Policy": POLICIES[name]})


def ending(tags: Any) -> str:
    """Say in a sentence how a training or look ended, or that it has not."""
    outcome = tags.get("bnpipe.outcome")
    if not outcome:
        return "has not ended yet."
    if outcome == "failed":
        return f"failed. {tags.get('bnpipe.error', '')}"
    version = f"version {tags['bnpipe.version']}, " if tags.get("bnpipe.version") else ""
    reason, done = tags.get("bnpipe.outcome_reason", ""), tags.get("bnpipe.acted_reason", "")
    return f"{version}{outcome}. {done if reason in done else f'{reason} {done}'.strip()}"


def begun_by_run(dag_id: str, run_id: str) -> dict[str, str] | None:
    """Read which training or look the snapshot task of a Dag run began; None before it has succeeded."""
    found = _xcom_of_snapshot(dag_id, run_id, "return_value")
    return found if isinstance(found, dict) and {"run_id", "model"} <= set(found) else None


def _why_none(dag_id: str, run_id: str) -> str:
    """Say, as HTML, why a run has no report: with the error and the MLflow run of a snapshot that failed."""
    error = _xcom_of_snapshot(dag_id, run_id, ERROR_KEY)
    if not error or not dag_id.startswith((TRAIN_PREFIX, DRIFT_PREFIX)):
        return "No training or look in this run, or its snapshot has not been taken yet."
    model = model_of(dag_id)
    try:
        registry = _registry()
        found = registry.find_run(model=model, key=f"{dag_id}/{run_id}")
        address = str(registry.run_url(found)) if found else ""
    except BnpipeError:  # MLflow being away must not hide what went wrong
        address = ""
    return f"<b>{escape(model)}</b>: the snapshot failed. {escape(str(error))} {_link(address)}"


def _xcom_of_snapshot(dag_id: str, run_id: str, key: str) -> Any:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    query = select(XComModel.value).where(
        XComModel.dag_id == dag_id,
        XComModel.run_id == run_id,
        XComModel.task_id == SNAPSHOT,
        XComModel.key == key,
    )
    with create_session() as session:
        return session.execute(query).scalar()


def _look_up(mlflow_run: str) -> tuple[dict[str, str], str, set[str]]:
    registry = _registry()
    address = str(registry.run_url(mlflow_run))
    return registry.run_tags(mlflow_run), address, set(registry.artifacts(mlflow_run))


def _link(address: str) -> str:
    """Link to an MLflow run that a browser can reach; a file store has no page."""
    if not address.startswith(("http://", "https://")):
        return ""
    return _open(address, "MLflow run")


def _open(address: str, name: str) -> str:
    return f'<a href="{escape(address)}" target="_blank" rel="noopener">{name}</a>'


def _registry() -> Any:
    from bnpipe.config import Settings
    from bnpipe.registry import Registry

    return Registry(Settings.from_environ().tracking_uri)


def _status(error: BnpipeError) -> int:
    return 503 if isinstance(error, RegistryUnavailable) else 404


def _page(body: str, *, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_PAGE.format(body=body), status, headers={"Content-Security-Policy": PAGE_POLICY})
