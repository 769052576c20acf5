"""Places and connections, from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bnpipe.errors import SettingsError, hide_secrets

if TYPE_CHECKING:
    from bnpipe.source import Connection

_MLFLOW_SCHEMES: Final = frozenset(
    {"http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "uc"}
)
_SHORTEST_KEY: Final = 20


@dataclass(frozen=True)
class Settings:
    """Where everything lies. Relative paths of the environment are taken from the working directory.

    Parameters
    ----------
    models : Path
        BNPIPE_MODELS: folder of the specs; ``config/models``.
    data : Path
        BNPIPE_DATA: root of the connection ``local``; ``data``.
    store : str
        BNPIPE_STORE: path or fsspec URI that all workers share; ``.bnpipe/store``.
    tracking_uri : str
        MLFLOW_TRACKING_URI; an SQLite file under ``.bnpipe``.
    answers : Path
        BNPIPE_ANSWERS: folder of the log of answers; ``answers`` in the store, or in ``.bnpipe`` if that is no folder.
    connections : Mapping
        BNPIPE_CONN_* as they are; never shown.
    metrics_key : str
        BNPIPE_METRICS_KEY: a key that reads the service's metrics and may do nothing else; '' is none. Never shown.
    """

    models: Path
    data: Path
    store: str
    tracking_uri: str
    answers: Path
    connections: Mapping[str, str] = field(default_factory=dict, repr=False)
    metrics_key: str = field(default="", repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, *, base: Path | None = None) -> Settings:
        """Read the environment; an empty variable counts as unset.

        Raises
        ------
        SettingsError
            A value that can't be meant; names the variable.
        """
        base = (base or Path.cwd()).absolute()
        given = {key: value.strip() for key, value in environ.items() if value.strip()}
        store = _store(given.get("BNPIPE_STORE", ".bnpipe/store"), base)
        return cls(
            models=_folder(given, "BNPIPE_MODELS", base / "config" / "models", base),
            data=_folder(given, "BNPIPE_DATA", base / "data", base),
            store=store,
            tracking_uri=_tracking_uri(given.get("MLFLOW_TRACKING_URI", "sqlite:///.bnpipe/mlflow.db"), base),
            answers=_folder(given, "BNPIPE_ANSWERS", _own_folder(store, base) / "answers", base),
            connections={key: value for key, value in given.items() if key.startswith("BNPIPE_CONN_")},
            metrics_key=_key(given, "BNPIPE_METRICS_KEY"),
        )

    def own_folder(self, name: str) -> Path:
        """Give a folder of this machine for what need not be shared: in the store if that is a folder."""
        return _own_folder(self.store, Path.cwd()) / name

    def connection(self, name: str) -> Connection:
        """Find a connection by the name that specs use.

        Raises
        ------
        SettingsError
            Its variable BNPIPE_CONN_<NAME> is not set, or is no URL bnpipe reads.
        """
        from bnpipe.source import resolve_connection

        return resolve_connection(name, {"BNPIPE_DATA": str(self.data), **self.connections})

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.connections)) or "none"
        return (
            f"Settings(models={str(self.models)!r}, data={str(self.data)!r}, store={hide_secrets(self.store)!r}, "
            f"tracking_uri={hide_secrets(self.tracking_uri)!r}, connections: {names})"
        )


def _folder(given: Mapping[str, str], variable: str, default: Path, base: Path) -> Path:
    value = given.get(variable)
    if value is None:
        return default
    if "://" in value:
        raise SettingsError(f"{variable} must be a folder of this machine, got {hide_secrets(value)!r}")
    folder = base / Path(value).expanduser()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{variable}: {folder} is a file; give a folder")
    return folder


def _key(given: Mapping[str, str], variable: str) -> str:
    value = given.get(variable, "")
    if value and len(value) < _SHORTEST_KEY:
        raise SettingsError(f"{variable} has {len(value)} characters, at least {_SHORTEST_KEY} are needed")
    return value


def _own_folder(store: str, base: Path) -> Path:
    return base / ".bnpipe" if "://" in store else Path(store)


def _store(value: str, base: Path) -> str:
    if "://" in value:
        return value.rstrip("/")
    folder = base / Path(value).expanduser()
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"BNPIPE_STORE: {folder} is a file; give a folder or a URI such as s3://bucket/bnpipe")
    return str(folder)


def _tracking_uri(value: str, base: Path) -> str:
    if value.startswith("databricks"):
        return value
    scheme, separator, rest = value.partition("://")
    if not separator:
        return str(base / Path(value).expanduser())
    if scheme.partition("+")[0] not in _MLFLOW_SCHEMES:
        raise SettingsError(
            f"MLFLOW_TRACKING_URI: {hide_secrets(value)!r} is no address MLflow knows; "
            "give http://host:5000 or sqlite:///file.db"
        )
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1 and rest[1] != ":":
        return f"sqlite:///{base / rest[1:]}"
    return value
