"""Airflow's REST interface, as far as starting a run and following it needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

import requests

from bnpipe.errors import PlatformError

_Json = Mapping[str, Any] | None
FINISHED = frozenset({"success", "failed"})
_TRIES = 4
_PAUSE = 1.0
"""Seconds before a look is tried again that Airflow answered with an error of its own."""


@dataclass(frozen=True)
class TaskState:
    """Where one task of a run stands; `state` is None while it has not been looked at."""

    task: str
    state: str | None
    tries: int
    start: datetime | None
    end: datetime | None
    map_index: int = -1

    @property
    def seconds(self) -> float | None:
        """How long the last try took, once it has ended."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None


@dataclass(frozen=True)
class RunState:
    """Where a run stands."""

    dag: str
    run: str
    state: str
    tasks: tuple[TaskState, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.state == "success"


class AirflowClient:
    """Logs in when first needed, and again when the token has run out.

    Every method raises PlatformError with Airflow's own words when it refuses, or does not answer.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout: float = 30) -> None:
        self.url = url.rstrip("/")
        self._login = {"username": username, "password": password}
        self._timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy and no .netrc between us and our own server

    def wait_for_dag(self, dag: str, *, timeout: float = 60) -> None:
        """Return once Airflow has read `dag`; raise with its import errors if it does not."""
        deadline = time.monotonic() + timeout
        while self._request("GET", _path("dags", dag), missing_ok=True) is None:
            if time.monotonic() > deadline:
                errors = self.import_errors() or "Airflow reports no import error"
                raise PlatformError(f"Airflow knows no Dag {dag} after {timeout:.0f} s: {errors}")
            time.sleep(0.3)

    def import_errors(self) -> str:
        """Return what Airflow could not import, file by file; empty when all is well."""
        found = self._request("GET", "importErrors")["import_errors"]
        return "\n".join(f"{error['filename']}: {error['stack_trace']}" for error in found)

    def unpause(self, dag: str) -> None:
        """Let `dag` run."""
        self._request("PATCH", _path("dags", dag), {"is_paused": False})

    def trigger(
        self, dag: str, *, conf: Mapping[str, Any] | None = None, run: str | None = None, at: datetime | None = None
    ) -> str:
        """Queue a run and return its id.

        Parameters
        ----------
        conf : Mapping, optional
            The params of the trigger form.
        run : str, optional
            Its id; Airflow makes one up when None.
        at : datetime, optional
            Its logical date; a run without one has no data interval either.
        """
        body: dict[str, Any] = {"logical_date": at.isoformat() if at else None, "conf": dict(conf or {})}
        if run is not None:
            body["dag_run_id"] = run
        made = self._request("POST", _path("dags", dag, "dagRuns"), body)
        return str(made["dag_run_id"])

    def runs(self, dag: str) -> tuple[RunState, ...]:
        """Return the runs of `dag`, the newest first, without their tasks."""
        found = self._request("GET", _path("dags", dag, "dagRuns") + "?order_by=-run_after")["dag_runs"]
        return tuple(RunState(dag, run["dag_run_id"], run["state"]) for run in found)

    def run(self, dag: str, run: str) -> RunState:
        """Return the state of one run and of its tasks, in the order in which they started."""
        state = self._request("GET", _path("dags", dag, "dagRuns", run))["state"]
        found = self._request("GET", _path("dags", dag, "dagRuns", run, "taskInstances"))["task_instances"]
        tasks = sorted((_task(each) for each in found), key=lambda task: (task.start is None, str(task.start)))
        return RunState(dag, run, state, tuple(tasks))

    def wait(
        self,
        dag: str,
        run: str,
        *,
        timeout: float,
        progress: Callable[[TaskState], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
        interval: float = 0.5,
    ) -> RunState:
        """Follow a run to its end.

        Parameters
        ----------
        timeout : float
            Seconds after which PlatformError tells where the run stands.
        progress : Callable
            Called with each task whose state has changed since the last look.
        check : Callable
            Called at each look; what it raises ends the wait, as :meth:`Platform.check` does for a dead scheduler.
        """
        deadline = time.monotonic() + timeout
        seen: dict[tuple[str, int], TaskState] = {}
        while True:
            now = self.run(dag, run)
            for task in now.tasks:
                before = seen.get((task.task, task.map_index))
                if task.state and (before is None or (before.state, before.tries) != (task.state, task.tries)):
                    progress(task)
                seen[task.task, task.map_index] = task
            if now.state in FINISHED:
                return now
            if time.monotonic() > deadline:
                states = ", ".join(f"{task.task} {task.state}" for task in now.tasks)
                raise PlatformError(f"{dag} {run} is {now.state} after {timeout:.0f} s: {states}")
            check()
            time.sleep(interval)

    def log(self, dag: str, run: str, task: str, *, tries: int = 1, map_index: int = -1) -> str:
        """Return what a task's try wrote, one line an event."""
        path = _path("dags", dag, "dagRuns", run, "taskInstances", task, "logs", str(tries))
        content = self._request("GET", f"{path}?full_content=true&map_index={map_index}")["content"]
        return "\n".join(_log_line(entry) for entry in content)

    def xcom(self, dag: str, run: str, task: str, *, key: str = "return_value") -> Any:
        """Return what a task handed on."""
        path = _path("dags", dag, "dagRuns", run, "taskInstances", task, "xcomEntries", key)
        return self._request("GET", f"{path}?deserialize=false&stringify=false")["value"]

    def run_url(self, dag: str, run: str) -> str:
        """Return the page of a run."""
        return f"{self.url}/dags/{quote(dag, safe='')}/runs/{quote(run, safe='')}"

    def report_url(self, dag: str, run: str) -> str:
        """Return the tab of a run that holds its report."""
        return f"{self.run_url(dag, run)}/plugin/bnpipe_report"

    def _request(self, method: str, path: str, body: _Json = None, *, missing_ok: bool = False) -> Any:
        answer = self._send(method, path, body)
        if answer.status_code == requests.codes.unauthorized:
            self._log_in()
            answer = self._send(method, path, body)
        for _ in range(_TRIES if method == "GET" else 0):
            if answer.status_code < requests.codes.server_error:
                break
            time.sleep(_PAUSE)  # SQLite was locked for longer than Airflow waits
            answer = self._send(method, path, body)
        if missing_ok and answer.status_code == requests.codes.not_found:
            return None
        return _json_or_error(answer)

    def _log_in(self) -> None:
        token = _json_or_error(self._post(f"{self.url}/auth/token", self._login))["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def _post(self, url: str, body: Mapping[str, Any]) -> requests.Response:
        try:
            return self._session.post(url, json=body, timeout=self._timeout)
        except requests.RequestException as error:
            raise PlatformError(f"Airflow does not answer at {self.url}: {error}") from error

    def _send(self, method: str, path: str, body: _Json) -> requests.Response:
        try:
            return self._session.request(method, f"{self.url}/api/v2/{path}", json=body, timeout=self._timeout)
        except requests.RequestException as error:
            raise PlatformError(f"Airflow does not answer at {self.url}: {error}") from error


def _path(*parts: str) -> str:
    return "/".join(quote(part, safe="") for part in parts)


def _json_or_error(answer: requests.Response) -> Any:
    if answer.ok:
        return answer.json() if answer.content else None
    try:
        detail = answer.json().get("detail", answer.text)
    except (ValueError, AttributeError):
        detail = answer.text
    raise PlatformError(
        f"Airflow refused {answer.request.method} {answer.url}: {answer.status_code} {str(detail)[:500]}"
    )


def _task(found: Mapping[str, Any]) -> TaskState:
    return TaskState(
        task=found["task_id"],
        state=found["state"],
        tries=found["try_number"],
        start=_time(found["start_date"]),
        end=_time(found["end_date"]),
        map_index=found["map_index"],
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _log_line(entry: Mapping[str, Any] | str | Sequence[str]) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    return f"{entry.get('timestamp') or ''} {entry.get('event', '')}".strip()
