"""What a training is made of, and who it is: the same recipe never makes a second version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import bnpipe
from bnpipe.config import ModelSpec
from bnpipe.errors import FormatError
from bnpipe.source import Window
from bnpipe.store import Snapshot

FORMAT = 1
REFIT_OF_TAG = "bnpipe.refit_of"  # of a version: the one it keeps all but some families of


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a training depends on; frozen by the snapshot step, read by all later ones.

    Parameters
    ----------
    spec : ModelSpec
        The spec with the overrides of this run applied.
    window : Window
        Local midnights; half-open.
    snapshot : Snapshot
        The rows, content-addressed.
    base : int or None
        Version whose learned bins are reused: the newest champion whose window ended before this one.
        A date that is run again has the same base, also when its first run was promoted meanwhile. Of a refit: the
        version it keeps all but some families of.
    parents : mapping or None
        The experts' graph, read from the spec or its BIF file; None when the graph is learned.
    code_version : str
        Version and source hash of bnpipe.
    refit : tuple of str or None
        Families to count anew on the window's training days; schema, graph and every other family are those of `base`.
    """

    spec: ModelSpec
    window: Window
    snapshot: Snapshot
    base: int | None
    parents: Mapping[str, tuple[str, ...]] | None
    code_version: str
    refit: tuple[str, ...] | None = None

    @property
    def training_key(self) -> str:
        """SHA-256 over everything above; the snapshot counts by its fingerprint, not by where it lies."""
        identity = {**self._fields(), "snapshot": self.snapshot.fingerprint}
        return key_of(identity)

    def _fields(self) -> dict[str, Any]:
        fields = {
            "format": FORMAT,
            "spec": json.loads(self.spec.resolved_json()),
            "window": self.window.to_dict(),
            "base": self.base,
            "parents": None if self.parents is None else {node: list(pa) for node, pa in self.parents.items()},
            "code_version": self.code_version,
        }
        return fields if self.refit is None else fields | {"refit": list(self.refit)}

    def to_json(self) -> str:
        """Write all of it, to be read and argued with."""
        return json.dumps({**self._fields(), "snapshot": self.snapshot.to_dict()}, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        FormatError
            Written by a newer bnpipe, or not by bnpipe.
        """
        fields = read_fields(text, "training.json", FORMAT)
        parents = fields["parents"]
        return cls(
            spec=ModelSpec.from_resolved(json.dumps(fields["spec"])),
            window=Window.from_dict(fields["window"]),
            snapshot=Snapshot.from_dict(fields["snapshot"]),
            base=fields["base"],
            parents=None if parents is None else {node: tuple(pa) for node, pa in parents.items()},
            code_version=fields["code_version"],
            refit=tuple(fields["refit"]) if "refit" in fields else None,
        )


def key_of(identity: Mapping[str, Any]) -> str:
    """Hash JSON-ready fields by SHA-256, whatever their order."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_fields(text: str, name: str, newest: int) -> dict[str, Any]:
    """Read a file that says its format.

    Raises
    ------
    FormatError
        Written by a newer bnpipe, or not by bnpipe.
    """
    fields: dict[str, Any] = json.loads(text)
    if fields.get("format", newest + 1) > newest:
        raise FormatError(f"{name} has format {fields.get('format')}, this bnpipe reads up to {newest}; upgrade bnpipe")
    return fields


@cache
def code_version() -> str:
    """Give bnpipe's version and a hash of its source, e.g. ``0.1.0+3f2a9c1d``: an edited checkout is another code."""
    digest = hashlib.sha256()
    root = Path(bnpipe.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return f"{installed_version('bnpipe')}+{digest.hexdigest()[:8]}"
