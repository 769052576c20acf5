"""Connections: named places to read from, found in the environment."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from bnpipe.errors import SettingsError, SourceError

ConnectionKind = Literal["files", "duckdb", "postgres"]


@dataclass(frozen=True)
class Connection:
    """A named place to read from. Its URL may hold a password and is in no ``repr``, log or error.

    Parameters
    ----------
    name : str
        As in the spec's ``source.connection``.
    kind : {"files", "duckdb", "postgres"}
        How it is read.
    url : str or None
        Root folder or fsspec URL; a DuckDB file; a Postgres URL. None is the working directory.
    """

    name: str
    kind: ConnectionKind
    url: str | None = field(default=None, repr=False)

    @property
    def root(self) -> str:
        """Folder or fsspec URL that paths are relative to."""
        return self.url if self.remote and self.url else str(Path(self.url or ".").absolute())

    @property
    def remote(self) -> bool:
        """Whether files lie behind a URL."""
        return self.kind == "files" and "://" in (self.url or "")


def connection_variable(name: str) -> str:
    """Name the environment variable that holds a connection's URL: ``claims feed`` is ``BNPIPE_CONN_CLAIMS_FEED``."""
    return "BNPIPE_CONN_" + "".join(letter if letter.isalnum() else "_" for letter in name.upper())


def resolve_connection(name: str, environ: Mapping[str, str] = os.environ) -> Connection:
    """Find a connection by name.

    ``BNPIPE_CONN_<NAME>`` holds its URL: a folder, ``s3://…`` or another fsspec URL, ``duckdb:///file``, or
    ``postgresql://user:password@host/database``. ``local`` needs none: files below ``BNPIPE_DATA``, else below the
    working directory.

    Raises
    ------
    SettingsError
        No such variable, or a URL that is none of these.
    """
    variable = connection_variable(name)
    url = environ.get(variable)
    if not url:
        if name == "local":
            return Connection(name, "files", environ.get("BNPIPE_DATA") or None)
        raise SettingsError(
            f"connection {name!r} is unknown: set {variable} to a folder, duckdb:///file or postgresql://…"
        )
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme.partition("+")[0] in ("postgres", "postgresql"):
        return Connection(name, "postgres", "postgresql://" + url.partition("://")[2])
    if scheme == "duckdb":
        return Connection(name, "duckdb", url.removeprefix("duckdb://"))
    return Connection(name, "files", url.removeprefix("file://"))


def package_file(package: str, *parts: str) -> Path:
    """Find a file inside an installed package, without importing the package.

    Raises
    ------
    SourceError
        No such package, or no such file in it.
    """
    found = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise SourceError(f"package {package!r} is not installed here: install it, or give a path")
    path = Path(folders[0], *parts)
    if not path.exists():
        raise SourceError(f"package {package!r} holds no file {'/'.join(parts)!r}")
    return path


PACKAGE_FILE: Final = re.compile(r"package://(\w+)/([^'\"\s)]+)")


def with_package_files(text: str) -> str:
    """Replace each ``package://PACKAGE/dir/file`` in a text by that file's path.

    Raises
    ------
    SourceError
        No such package or file.
    """
    return PACKAGE_FILE.sub(lambda found: str(package_file(found[1], *found[2].split("/"))), text)
