"""MLflow and Airflow's four components as child processes on 127.0.0.1, over SQLite: for one person on one machine.

Measured on two idle cores: all of it answers after 16–20 s (34 s of CPU; 43 s while there are no .pyc files), stops
within 3–12 s and holds 0.9 GB; the first task of a fresh Airflow takes 3 s more than later ones. For a team use
`docker-compose.yaml`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Self

import requests

from bnpipe.demo.airflow_client import AirflowClient
from bnpipe.demo.processes import Child, Processes, free_port

Progress = Callable[[str], None]
AIRFLOW_COMPONENTS = {
    "api-server": ("api-server", "--workers", "1"),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # the log servers would listen on every interface
    "triggerer": ("triggerer", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
}
_HEALTH_KEYS = {"scheduler": "scheduler", "triggerer": "triggerer", "dag-processor": "dag_processor"}


def _say_nothing(_: str) -> None:
    pass


class Platform:
    """An MLflow server and an Airflow, started together and stopped together.

    Parameters
    ----------
    home : Path
        Databases, artifacts, logs, passwords and records of running processes. One platform at a time may use it;
        what an interrupted one left running is ended first.
    dags, plugins : Path
        Airflow's folders.
    env : Mapping
        More environment for every process, as BNPIPE_STORE; wins over what is set here.
    airflow_port, mlflow_port, service_port : int
        Used if they are free, else others; 0: any.

    Examples
    --------
    >>> with Platform(Path(".demo"), dags=Path("dags"), plugins=Path("plugins")) as platform:  # doctest: +SKIP
    ...     print(platform.airflow_url, platform.username, platform.password, platform.mlflow_url)
    """

    username = "admin"

    def __init__(
        self,
        home: Path,
        *,
        dags: Path,
        plugins: Path,
        env: Mapping[str, str] | None = None,
        airflow_port: int = 8080,
        mlflow_port: int = 5000,
        service_port: int = 8800,
    ) -> None:
        self.home = home.resolve()
        self._dags, self._plugins = dags.resolve(), plugins.resolve()
        self._extra = dict(env or {})
        self._wanted_ports = {"Airflow": airflow_port, "MLflow": mlflow_port}
        self._service_port = service_port
        self._processes = Processes(self.home / "run")
        self._progress: Progress = _say_nothing
        self._restore_signals = contextlib.ExitStack()
        self.airflow_url = self.mlflow_url = self.password = ""

    @property
    def env(self) -> dict[str, str]:
        """The environment of every process, this platform's addresses and secrets included."""
        return _inherited() | self._mlflow_env() | self._airflow_env() | self._extra

    @property
    def client(self) -> AirflowClient:
        """A client that logs in as the administrator."""
        return AirflowClient(self.airflow_url, self.username, self.password)

    def start(self, progress: Progress = _say_nothing, *, timeout: float = 240) -> Self:
        """Start everything and return when all of it answers.

        Raises
        ------
        PlatformError
            With the end of the log of what failed; everything is stopped again.
        """
        for folder in ("", "artifacts", "logs", "run"):
            (self.home / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        self._processes.claim()
        self._restore_signals.enter_context(ending_on_signals())
        self._progress = progress
        try:
            self._choose_addresses(progress)
            self._start_all(progress, timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def check(self) -> None:
        """Raise PlatformError if a component has died."""
        self._processes.check()

    def start_service(self) -> str:
        """Start ``bnpipe serve`` and return its address; it is ready when ``/ready`` says so."""
        port = free_port(self._service_port)
        command = ["bnpipe.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
        self._python("serve", command, self.env)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        """Stop everything that was started here, and say so first; safe to call again."""
        progress, self._progress = self._progress, _say_nothing
        try:
            progress("stopping MLflow and Airflow, a few seconds … (Ctrl-C again kills them)")
        finally:  # the terminal may be gone
            self._processes.stop()
            self._restore_signals.close()

    def __enter__(self) -> Self:
        """Start, unless it was started already."""
        return self if self.airflow_url else self.start()

    def __exit__(self, *_: object) -> None:
        """Stop, whatever happened."""
        self.stop()

    def _choose_addresses(self, progress: Progress) -> None:
        chosen: dict[str, int] = {}
        for name, wanted in self._wanted_ports.items():
            chosen[name] = free_port(wanted, taken=chosen.values())
            if wanted and chosen[name] != wanted:
                progress(f"port {wanted} is taken, {name} will be at http://127.0.0.1:{chosen[name]}")
        self.airflow_url = f"http://127.0.0.1:{chosen['Airflow']}"
        self.mlflow_url = f"http://127.0.0.1:{chosen['MLflow']}"
        passwords = self.home / "airflow" / "passwords.json"
        passwords.parent.mkdir(exist_ok=True, mode=0o700)
        self.password = _kept_secrets(passwords, {self.username: 12})[self.username]

    def _start_all(self, progress: Progress, timeout: float) -> None:
        env = self.env
        progress("preparing the databases of MLflow and Airflow")
        mlflow_migration = self._python("mlflow-migrate", ["mlflow", "db", "upgrade", self._mlflow_db], env)
        airflow_migration = self._python("airflow-migrate", ["airflow", "db", "migrate"], env)
        self._processes.finish(mlflow_migration, timeout=timeout)
        progress("starting MLflow")
        self._python("mlflow", self._mlflow_command(), env)
        self._processes.finish(airflow_migration, timeout=timeout)
        progress("starting Airflow: " + ", ".join(AIRFLOW_COMPONENTS))
        for name, arguments in AIRFLOW_COMPONENTS.items():
            self._python(name, ["airflow", *arguments], env)
        self._processes.wait_until(self._not_ready, timeout=timeout)
        progress(f"ready: Airflow {self.airflow_url}, MLflow {self.mlflow_url}")

    def _python(self, name: str, arguments: list[str], env: Mapping[str, str]) -> Child:
        return self._processes.start(name, [sys.executable, "-m", *arguments], env=env, cwd=self.home)

    def _not_ready(self) -> Iterator[str]:
        if not _answers(f"{self.mlflow_url}/health"):
            yield "mlflow"
        health = _answers(f"{self.airflow_url}/api/v2/monitor/health")
        if not health:
            yield "api-server"
            return
        report = json.loads(health)
        for name, key in _HEALTH_KEYS.items():
            if (report.get(key) or {}).get("status") != "healthy":
                yield name

    @property
    def _mlflow_db(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    def _mlflow_command(self) -> list[str]:
        return [
            *("mlflow", "server", "--host", "127.0.0.1", "--port", self.mlflow_url.rsplit(":", 1)[1], "--workers", "1"),
            *("--backend-store-uri", self._mlflow_db, "--artifacts-destination", str(self.home / "artifacts")),
        ]

    def _mlflow_env(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",
        }

    def _airflow_env(self) -> dict[str, str]:
        home = self.home / "airflow"
        keys = _kept_secrets(self.home / "secrets.json", {"jwt": 64, "api": 32})
        settings = {
            "CORE__DAGS_FOLDER": self._dags,
            "CORE__PLUGINS_FOLDER": self._plugins,
            "CORE__LOAD_EXAMPLES": False,
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": 8,
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{self.username}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": home / "passwords.json",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.airflow_url}/execution/",
            "API__HOST": "127.0.0.1",
            "API__PORT": self.airflow_url.rsplit(":", 1)[1],
            "API__BASE_URL": self.airflow_url,
            "API__SECRET_KEY": keys["api"],
            "API_AUTH__JWT_SECRET": keys["jwt"],
            "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            "LOGGING__BASE_LOG_FOLDER": self.home / "logs",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": 5,
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.1,
            "WORKERS__MIN_HEARTBEAT_INTERVAL": 1,  # else the end of a task is often noticed 5 s late
            "USAGE_DATA_COLLECTION__ENABLED": False,
        }
        return {"AIRFLOW_HOME": str(home)} | {f"AIRFLOW__{key}": str(value) for key, value in settings.items()}


def _inherited() -> dict[str, str]:
    """Return this process's environment without what would change a server's behaviour behind our back."""
    dropped = ("AIRFLOW_", "MLFLOW_", "_MLFLOW_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # without .pyc files every task starts two seconds later
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])
    local = ["127.0.0.1", "localhost", *filter(None, [env.get("no_proxy") or env.get("NO_PROXY")])]
    return env | {"PYTHONUNBUFFERED": "1", "NO_PROXY": ",".join(local), "no_proxy": ",".join(local)}


def _kept_secrets(path: Path, lengths: Mapping[str, int]) -> dict[str, str]:
    """Return the secrets in `path`, readable by its owner only; made up at first, `lengths` bytes each."""
    if not path.exists():
        made = {name: secrets.token_urlsafe(length) for name, length in lengths.items()}
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(made, file)
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def _answers(url: str) -> str | None:
    """Return the body of a 200 answer, else None."""
    try:
        answer = requests.get(url, timeout=5)
    except requests.RequestException:
        return None
    return answer.text if answer.ok else None


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let signals end this process by an exception, so that its children are stopped on the way out.

    SIGTERM and SIGHUP raise SystemExit. SIGINT raises KeyboardInterrupt as ever, also where it is ignored, as it is in
    what a script started in the background.
    """

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    try:
        before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    except ValueError:  # not the main thread, which alone gets signals
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
