"""What a follower asks of the registry, again and again: who reigns, and a version's files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bnpipe.errors import BnpipeError, NetworkError
from bnpipe.registry.canary import CANARY_TAG, Canaries
from bnpipe.registry.ledger import CHAMPION, LEDGER_TAG
from bnpipe.registry.versions import CHALLENGER, Version

if TYPE_CHECKING:
    from bnpipe.inference import TrainingLikelihoods
    from bnpipe.release.canary import CanaryState

_EXAMPLE: Final = "artifacts/example.json"
_LIKELIHOODS: Final = "artifacts/likelihoods.json"


@dataclass(frozen=True, slots=True)
class Standing:
    """One model, as it stands.

    Parameters
    ----------
    champion, challenger : int, optional
        Versions the aliases point to.
    canary : CanaryState, optional
        The one that is running.
    """

    champion: int | None = None
    challenger: int | None = None
    canary: CanaryState | None = None


class Standings(Canaries):
    """What :class:`bnpipe.registry.Registry` tells those who follow it."""

    def standings(self) -> Mapping[str, Standing]:
        """Give the standing of each model bnpipe has registered, in one search and one call for each canary."""
        managed = f"tags.`{LEDGER_TAG}` != ''"
        found = self.connection.pages("search_registered_models", filter_string=managed, max_results=1000)
        return {
            model.name: Standing(
                _number(model.aliases.get(CHAMPION)),
                _number(model.aliases.get(CHALLENGER)),
                self.canary(model.name) if CANARY_TAG in model.tags else None,
            )
            for model in sorted(found, key=lambda model: str(model.name))
        }

    def load_example(self, version: Version) -> dict[str, Any] | None:
        """Give a version's input example and its answer as recorded when it was made; None if none was.

        Raises
        ------
        NetworkError
            The file is not what it should be.
        """
        text = self._file(version, _EXAMPLE)
        if text is None:
            return None
        try:
            example = json.loads(text)
            return {"rows": list(example["rows"]), "posterior": dict(example["posterior"])}
        except (ValueError, KeyError, TypeError) as error:
            raise NetworkError(f"{_EXAMPLE} of version {version.number} is no example: {error}") from None

    def load_likelihoods(self, version: Version) -> TrainingLikelihoods | None:
        """Give the likelihoods of a version's training rows; None if they were not kept when it was made.

        Raises
        ------
        NetworkError
            The file is not what it should be.
        """
        from bnpipe.inference import TrainingLikelihoods

        text = self._file(version, _LIKELIHOODS)
        if text is None:
            return None
        try:
            return TrainingLikelihoods.from_json(text)
        except NetworkError as error:
            raise NetworkError(f"{_LIKELIHOODS} of version {version.number} can't be read: {error}") from None

    def targets(self, version: Version) -> tuple[str, ...]:
        """Give the variables a version was made to predict; none if it does not say."""
        from mlflow.models import Model

        with tempfile.TemporaryDirectory() as folder:
            if self._download(version, "MLmodel", folder) is None:
                return ()
            flavors = Model.load(folder).flavors
        return tuple(flavors.get("python_function", {}).get("config", {}).get("targets", ()))

    def _file(self, version: Version, path: str) -> str | None:
        with tempfile.TemporaryDirectory() as folder:
            local = self._download(version, path, folder)
            return None if local is None else local.read_text()

    def _download(self, version: Version, path: str, folder: str) -> Path | None:
        """Bring one file of a version; None if it has no such file."""
        where = self._place(version)
        try:
            return self._bring(where, path, folder)
        except BnpipeError as error:
            if error.retryable:
                raise
            return None


def _number(text: Any) -> int | None:
    return None if text is None else int(text)
