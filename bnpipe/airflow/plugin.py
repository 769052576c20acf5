"""What bnpipe adds to Airflow's pages: a tab on every Dag run with the report of its training or look.

Every component of Airflow loads this module, so the web application is built only when the first page is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

from airflow.plugins_manager import AirflowPlugin

PREFIX = "/bnpipe"
TAB = "bnpipe_report"


@cache
def _application() -> Any:
    from bnpipe.airflow.pages import application

    return application()


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """Answer a request below `PREFIX`."""
    await _application()(scope, receive, send)


class BnpipePlugin(AirflowPlugin):
    """The tab *Report* of a Dag run."""

    name = "bnpipe"
    fastapi_apps: ClassVar[list[Any]] = [{"app": pages, "url_prefix": PREFIX, "name": "bnpipe"}]
    external_views: ClassVar[list[Any]] = [
        {
            "name": "Report",
            "href": f"{PREFIX}/dags/{{DAG_ID}}/runs/{{RUN_ID}}/report",
            "destination": "dag_run",
            "url_route": TAB,
        }
    ]
