"""The models that Dags are made for: one per YAML file, the broken ones included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnpipe.config import ModelSpec
    from bnpipe.errors import SpecError


@dataclass(frozen=True, slots=True)
class Model:
    """One file of the models folder.

    Parameters
    ----------
    name : str
        The spec's name; the file's stem where the spec is broken.
    path : Path
        The file.
    spec : ModelSpec or None
        None if the file is broken.
    error : SpecError or None
        What is wrong with it.
    """

    name: str
    path: Path
    spec: ModelSpec | None = None
    error: SpecError | None = None


def models() -> tuple[Model, ...]:
    """Read every spec of the folder `BNPIPE_MODELS`; a broken one goes by the name of its file.

    Raises
    ------
    SettingsError
        There is no such folder; Airflow shows it as an import error.
    """
    from bnpipe.config import Settings, load_all
    from bnpipe.errors import SpecError

    read = load_all(Settings.from_environ().models)
    found = {spec.name: Model(spec.name, path, spec=spec) for path, spec in read if not isinstance(spec, SpecError)}
    for path, error in read:
        if isinstance(error, SpecError):
            name = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:200]
            while name in found:
                name += ".broken"
            found[name] = Model(name, path, error=error)
    return tuple(found.values())
