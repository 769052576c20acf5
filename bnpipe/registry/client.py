"""The wire to MLflow: settings before its import, one error tree after it, patience where writes collide.

``MLFLOW_HTTP_REQUEST_TIMEOUT`` bounds every single wait on the socket: connecting, each blocked send, and the wait for
the answer once the whole body is sent. For questions 5 seconds are plenty. An upload through MLflow's artifact proxy is
answered only when the server has passed the file on to its own object store, so uploads wait longer
(:meth:`Connection.patient`), unless the user has set a timeout himself.
"""

from __future__ import annotations

import os
import random
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn

from bnpipe.errors import RegistryError, RegistryUnavailable, SettingsError, VersionNotFound, hide_secrets

DEFAULTS: Final[Mapping[str, str]] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # with MLflow's own 7 a dead server blocks for 246 s
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else a uv.lock in the working directory replaces our requirements
}
UPLOAD_TIMEOUT: Final = "300"  # seconds
ATTEMPTS: Final = 6  # of a write that met another write; some 3 s in all
MESSAGE_LENGTH: Final = 400

NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"
EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
INVALID: Final = "INVALID_PARAMETER_VALUE"
BUSY: Final = "TEMPORARILY_UNAVAILABLE"


class Connection:
    """MLflow's client, made when first used.

    Parameters
    ----------
    tracking_uri : str or None
        Where MLflow is; None: ``MLFLOW_TRACKING_URI``.

    Raises
    ------
    SettingsError
        Neither is given. MLflow's own default, a folder of wherever the process happens to run, is no registry.
    """

    def __init__(self, tracking_uri: str | None = None) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            raise SettingsError("no MLflow to talk to: set MLFLOW_TRACKING_URI, for example to http://127.0.0.1:5000")
        self.uri: Final = uri
        self.shown: Final = hide_secrets(uri, mark="")
        self.registry_uri: Final = os.environ.get("MLFLOW_REGISTRY_URI") or uri

    @property
    def remote(self) -> bool:
        """Whether an MLflow server answers, rather than this process writing MLflow's database itself."""
        return self.uri.startswith(("http://", "https://"))

    @cached_property
    def client(self) -> Any:
        """The ``MlflowClient``."""
        from mlflow import MlflowClient

        return MlflowClient(self.uri, registry_uri=self.registry_uri)

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call one method of the client; a write that met another write is repeated.

        Only for calls which may be repeated: MLflow's HTTP layer repeats them anyway, POST or not.

        Raises
        ------
        RegistryUnavailable
            MLflow did not answer, or its database stayed locked.
        VersionNotFound
            MLflow knows no such thing.
        RegistryError
            MLflow refused.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with self.translated():
                    return getattr(self.client, method)(*arguments, **options)
            except RegistryError as error:
                met_another = code(error) == BUSY or (method.startswith("set_") and _collided(error))
                if not met_another or attempt == ATTEMPTS:
                    raise
                time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def pages(self, method: str, **options: Any) -> Iterator[Any]:
        """Give the items of all pages of a search."""
        token = None
        while True:
            page = self.call(method, page_token=token, **options)
            yield from page
            token = page.token
            if not token:
                return

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn whatever MLflow raises into an error of :mod:`bnpipe.errors`."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException, *_database_errors("SQLAlchemyError")) as error:
            self._raise(error)
        except OSError as error:
            raise RegistryError(f"artifacts of MLflow at {self.shown}: {brief(error)}") from error

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Wait longer for answers: for uploads. A timeout that the user set stays."""
        _PATIENCE.enter()
        try:
            yield
        finally:
            _PATIENCE.leave()

    def _raise(self, error: Exception) -> NoReturn:
        if _is_silence(error):
            raise RegistryUnavailable(
                f"MLflow at {self.shown} did not answer; is it running? ({brief(error)})"
            ) from error
        if getattr(error, "error_code", "") == NOT_FOUND:
            raise VersionNotFound(f"MLflow at {self.shown}: {brief(error)}") from error
        raise RegistryError(f"MLflow at {self.shown} refused: {brief(error)}") from error

    def ensure_experiment(self, name: str, **tags: str) -> str:
        """Give the id of an experiment, made if there is none, brought back if someone deleted it.

        Experiment names are unique in MLflow's database, so of two processes which create it one is told that it
        exists. A local SQLite store would put artifacts under the *working directory*; here they lie beside it.
        """
        found = self.call("get_experiment_by_name", name)
        if found is None:
            try:
                return str(
                    self.call("create_experiment", name, artifact_location=self._artifacts(name), tags=tags or None)
                )
            except RegistryError as error:
                if code(error) != EXISTS:
                    raise
                found = self.call("get_experiment_by_name", name)
        if found.lifecycle_stage == "deleted":
            self.call("restore_experiment", found.experiment_id)
        return str(found.experiment_id)

    def _artifacts(self, experiment: str) -> str | None:
        database = self.uri.removeprefix("sqlite:///")
        if database == self.uri or not database:
            return None
        folder = re.sub(r"[^\w.-]+", "-", experiment)
        return (Path(database).absolute().parent / "mlartifacts" / folder).as_uri()


class _Patience:
    """The longer timeout, from the first upload of this process that begins to the last that ends."""

    name: Final = "MLFLOW_HTTP_REQUEST_TIMEOUT"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._uploads = 0

    def enter(self) -> None:
        with self._lock:
            if self._uploads == 0 and os.environ.get(self.name) != DEFAULTS[self.name]:
                return
            self._uploads += 1
            os.environ[self.name] = UPLOAD_TIMEOUT

    def leave(self) -> None:
        with self._lock:
            self._uploads = max(self._uploads - 1, 0)
            if self._uploads == 0 and os.environ.get(self.name) == UPLOAD_TIMEOUT:
                os.environ[self.name] = DEFAULTS[self.name]


_PATIENCE: Final = _Patience()


def code(error: BaseException) -> str:
    """MLflow's error code behind an error of ours, or ''."""
    return str(getattr(error.__cause__, "error_code", ""))


def brief(error: BaseException) -> str:
    """Give the first line of an error's text, short and without passwords."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = hide_secrets(lines[0], mark="")
    return text if len(text) <= MESSAGE_LENGTH else text[: MESSAGE_LENGTH - 3] + "..."


def quoted(text: str) -> str:
    """Quote a text for MLflow's filter strings, which have no escapes.

    Raises
    ------
    RegistryError
        The text holds both kinds of quotes.
    """
    for quote in ("'", '"'):
        if quote not in text:
            return f"{quote}{text}{quote}"
    raise RegistryError(f"MLflow can't search for a name with both kinds of quotes: {text[:60]}")


def _collided(error: RegistryError) -> bool:
    """Whether two wrote a tag at once that was not there: MLflow looks, then inserts; said again it is an update."""
    text = str(error.__cause__)
    return "UNIQUE constraint failed" in text or "duplicate key value" in text or "Duplicate entry" in text


def _is_silence(error: Exception) -> bool:
    """Whether MLflow, or the database behind it, did not answer; else it answered no."""
    from requests.exceptions import HTTPError, InvalidSchema, InvalidURL, MissingSchema, RequestException

    silent: tuple[type[Exception], ...] = (
        RequestException,
        *_database_errors("OperationalError", "InterfaceError", "TimeoutError"),
    )
    if getattr(error, "error_code", "") == BUSY:
        return True
    for cause in (error, error.__cause__, error.__context__):
        if isinstance(cause, InvalidSchema | InvalidURL | MissingSchema):
            return False
        if isinstance(cause, HTTPError) and cause.response is not None:
            return int(cause.response.status_code) >= 500
        if isinstance(cause, silent):
            return True
    return False


def _database_errors(*names: str) -> tuple[type[Exception], ...]:
    """Give SQLAlchemy's errors, if MLflow has loaded it: with a server behind HTTP it need not be installed."""
    errors = sys.modules.get("sqlalchemy.exc")
    return tuple(getattr(errors, name) for name in names) if errors is not None else ()
