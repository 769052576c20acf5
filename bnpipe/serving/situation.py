"""What the follower tells the workers: which versions are there, and who reigns. One file, replaced whole."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from bnpipe.serving.routing import Canary

FILE: Final = "situation.json"
MODELS: Final = "models"
ABOUT: Final = "version.json"
"""In a version's folder: its :class:`VersionOnDisk`."""


class VersionOnDisk(msgspec.Struct, frozen=True):
    """A downloaded version.

    Parameters
    ----------
    content_hash : str
    targets : tuple of str
    created, trained_until : str
        ISO 8601; '' if unknown.
    run_id, training_key, verdict : str
    likelihoods : str, optional
        Hash of those of its training rows; '' if it has none, None if nobody looked: an older bnpipe brought it.
    """

    content_hash: str
    targets: tuple[str, ...]
    created: str = ""
    trained_until: str = ""
    run_id: str = ""
    training_key: str = ""
    verdict: str = ""
    likelihoods: str | None = None


class ModelSituation(msgspec.Struct, frozen=True):
    """One model.

    Parameters
    ----------
    champion, previous, challenger : int, optional
        Versions that are on disk; `previous` is the last good champion before this one.
    canary : Canary, optional
    versions : mapping of str to VersionOnDisk
        By number.
    faults : mapping of str to str
        Version that was asked for -> why it is not here.
    """

    champion: int | None = None
    previous: int | None = None
    challenger: int | None = None
    canary: Canary | None = None
    versions: dict[str, VersionOnDisk] = {}
    faults: dict[str, str] = {}


class Situation(msgspec.Struct, frozen=True):
    """All models, at one time.

    Parameters
    ----------
    at : datetime
        When the registry last answered; UTC.
    models : mapping of str to ModelSituation
    registry : str
        '' while it answers, else what is wrong.
    """

    at: datetime
    models: dict[str, ModelSituation] = {}
    registry: str = ""


_DECODER: Final = msgspec.json.Decoder(Situation)
_ABOUT_DECODER: Final = msgspec.json.Decoder(VersionOnDisk)


def read_situation(cache: Path) -> Situation | None:
    """Read the file; None where there is none yet, or it is not ours."""
    try:
        return _DECODER.decode((cache / FILE).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None


def write_situation(cache: Path, situation: Situation) -> None:
    """Replace the file, whole or not at all."""
    cache.mkdir(parents=True, exist_ok=True)
    part = cache / f".{FILE}.{os.getpid()}"
    part.write_bytes(msgspec.json.format(msgspec.json.encode(situation)))
    part.replace(cache / FILE)


def version_folder(cache: Path, model: str, version: int) -> Path:
    """Where a version's files lie."""
    return cache / MODELS / model / str(version)


def read_about(folder: Path) -> VersionOnDisk | None:
    """Read what is known of a version in its folder; None where it is none."""
    try:
        return _ABOUT_DECODER.decode((folder / ABOUT).read_bytes())
    except (OSError, msgspec.MsgspecError):
        return None
