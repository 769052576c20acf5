"""Versions of a network: exactly one for each training, complete in the call that creates it.

Two processes may register one training at once, and one may die on the way, so the right to create the version is
claimed first, under a write-once param of the model's ledger: ``register.TRAINING_KEY.NNN``. Who lost the claim waits
for the winner's version; after the grace, or at once if the claim is its own run's, it claims the next ``NNN``. The
files are uploaded before, so between claim and creation lies one short call. Should a creator sleep longer than the
grace, or MLflow's HTTP layer repeat a call whose answer was lost, the version with the lowest number stays and each
creator deletes the others, unless an alias points to them: whoever lists last sees all.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bnpipe.errors import NetworkError, RegistryError, VersionNotFound, shorten
from bnpipe.registry.client import Connection, quoted
from bnpipe.registry.entries import NO_REASON
from bnpipe.registry.ledger import BARRED_TAG, CHAMPION, Ledger

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.inference import TrainingLikelihoods
    from bnpipe.network import Network

TRAINING_KEY_TAG: Final = "bnpipe.training_key"
TRAIN_END_TAG: Final = "bnpipe.train_end"
WINDOW_END_TAG: Final = "bnpipe.end"
VERDICT_TAG: Final = "bnpipe.verdict"
CHALLENGER: Final = "challenger"
POLL: Final = 0.2  # seconds between looks for another process's version

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Version:
    """A registered version.

    Parameters
    ----------
    model : str
    number : int
    run_id : str
        The MLflow run that made it; '' if made by hand.
    tags : mapping of str to str
    training_key : str
        '' if not made by bnpipe.
    uri : str
        What ``mlflow.pyfunc.load_model`` takes.
    created : datetime
        UTC.
    """

    model: str
    number: int
    run_id: str
    tags: Mapping[str, str]
    training_key: str
    uri: str
    created: datetime

    @property
    def train_end(self) -> datetime | None:
        """Where its training days end; None if not made by bnpipe, or if the tag holds no time with an offset."""
        return self._time(TRAIN_END_TAG)

    @property
    def window_end(self) -> datetime | None:
        """Where its whole window ends, held-out days included; None as for `train_end`."""
        return self._time(WINDOW_END_TAG)

    @property
    def passed_gates(self) -> bool:
        """Whether its absolute gates let it pass."""
        return self.tags.get(VERDICT_TAG) == "pass"

    @property
    def barred(self) -> str | None:
        """Why it must not become champion, '' if nobody said why; None if it is not barred."""
        return self.tags.get(BARRED_TAG)

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against making it champion, each as a clause."""
        ungated = () if self.passed_gates else ("it never passed its gates",)
        barred = () if self.barred is None else (f"it is barred: {self.barred or NO_REASON}",)
        return ungated + barred

    def _time(self, tag: str) -> datetime | None:
        try:
            time = datetime.fromisoformat(self.tags.get(tag, ""))
        except ValueError:
            return None
        return time if self.training_key and time.tzinfo is not None else None


class Versions:
    """What :class:`bnpipe.registry.Registry` does with versions."""

    connection: Connection
    ledger: Ledger

    def register(
        self,
        *,
        model: str,
        network: Network,
        targets: Sequence[str],
        run_id: str,
        training_key: str,
        tags: Mapping[str, str] | None = None,
        input_example: pd.DataFrame | None = None,
        likelihoods: TrainingLikelihoods | None = None,
    ) -> Version:
        """Register a network as the version of a training; the same training gives the same version.

        Parameters
        ----------
        model : str
        network : Network
        targets : sequence of str
            What the version predicts.
        run_id : str
            The MLflow run of this training.
        training_key : str
            Identity of the training.
        tags : mapping
            Of the version.
        input_example : DataFrame, optional
            A few rows, shown in MLflow.
        likelihoods : TrainingLikelihoods, optional
            What rows are held against that services are asked about.

        Raises
        ------
        NetworkError
            A target is no variable of the network.
        RegistryUnavailable
            MLflow did not answer; the same call may succeed later.
        """
        if not re.fullmatch(r"[\w.-]{1,200}", training_key, flags=re.ASCII):
            raise RegistryError(f"a training key is made of letters, digits, '_', '-' and '.': {training_key[:60]!r}")
        if strangers := [target for target in targets if target not in network.nodes]:
            raise NetworkError(f"targets that are no variables of {model!r}: {shorten(strangers)}")
        if (version := self.find(model, training_key)) is not None:
            return version
        extras = {"input_example": input_example, "likelihoods": likelihoods}
        logged = self._log_model(
            model, network, tuple(targets), run_id=run_id, training_key=training_key, extras=extras
        )
        version = self._create(model, run_id, training_key, dict(tags or {}), logged)
        if version.tags.get("bnpipe.model_id", logged.model_id) != logged.model_id:
            self._discard(logged.model_id)
        return version

    def find(self, model: str, training_key: str) -> Version | None:
        """Give the version of a training, None if it has not been registered."""
        same = self._search(f"name = {quoted(model)} AND tags.`{TRAINING_KEY_TAG}` = {quoted(training_key)}")
        return same[0] if same else None

    def versions(self, model: str) -> tuple[Version, ...]:
        """Give all versions, oldest first; none if there is no such model."""
        return self._search(f"name = {quoted(model)}")

    def all_versions(self) -> tuple[Version, ...]:
        """Give every version that bnpipe made, of whatever model, whether or not that still has its ledger tag."""
        made = self._search(f"tags.`{TRAINING_KEY_TAG}` != ''")
        return tuple(sorted(made, key=lambda version: (version.model, version.number)))

    def version(self, model: str, number: int) -> Version:
        """Give one version.

        Raises
        ------
        VersionNotFound
            It does not exist, or was deleted.
        """
        try:
            return _version(self.connection.call("get_model_version", model, str(number)))
        except VersionNotFound as error:
            known = shorten(version.number for version in reversed(self.versions(model)))
            there = f"; there are {known}" if known else "; the model has none"
            raise VersionNotFound(f"{model!r} has no version {number}{there}") from error

    def champion(self, model: str) -> Version | None:
        """Give the champion, None if there is none."""
        return self._aliased(model, CHAMPION)

    def challenger(self, model: str) -> Version | None:
        """Give the challenger, None if there is none."""
        return self._aliased(model, CHALLENGER)

    def set_challenger(self, model: str, version: int) -> None:
        """Make a version the challenger."""
        self.version(model, version)
        self.connection.call("set_registered_model_alias", model, CHALLENGER, str(version))

    def describe(self, version: Version, *, model: str, version_text: str) -> None:
        """Write the descriptions that MLflow shows of a model and of a version."""
        self.connection.call("update_registered_model", version.model, description=model)
        self.connection.call("update_model_version", version.model, str(version.number), description=version_text)

    def load_network(self, version: Version) -> Network:
        """Load a version's network.

        Raises
        ------
        FormatError
            It was written by a newer bnpipe, or not by bnpipe.
        """
        from bnpipe.network import Network

        where = self._place(version)
        with tempfile.TemporaryDirectory() as folder:
            with self.connection.patient():
                local = self._bring(where, "artifacts/network.json", folder)
            return Network.load(local)

    def _place(self, version: Version) -> str:
        where: str = self.connection.call("get_model_version_download_uri", version.model, str(version.number))
        return where.rstrip("/")

    def _bring(self, where: str, path: str, folder: str) -> Path:
        """Download one file of a version's."""
        from mlflow.artifacts import download_artifacts

        with self.connection.translated():
            local = download_artifacts(
                artifact_uri=f"{where}/{path}",
                dst_path=folder,
                tracking_uri=self.connection.uri,
                registry_uri=self.connection.registry_uri,
            )
        return Path(local)

    def _aliased(self, model: str, alias: str) -> Version | None:
        try:
            number = self.connection.call("get_registered_model", model).aliases.get(alias)
        except VersionNotFound:
            return None
        return None if number is None else self.version(model, int(number))

    def _search(self, condition: str) -> tuple[Version, ...]:
        found = self.connection.pages("search_model_versions", filter_string=condition, max_results=1000)
        return tuple(sorted((_version(entity) for entity in found), key=lambda version: version.number))

    def _log_model(
        self,
        model: str,
        network: Network,
        targets: tuple[str, ...],
        *,
        run_id: str,
        training_key: str,
        extras: Mapping[str, Any],
    ) -> Any:
        """Upload the model's files as a logged model of the run; nothing is registered yet."""
        from mlflow.entities import LoggedModelOutput

        from bnpipe.registry.packaging import save_model

        call = self.connection.call
        experiment = call("get_run", run_id).info.experiment_id
        logged = call(
            "create_logged_model", experiment, name=model, source_run_id=run_id, tags={TRAINING_KEY_TAG: training_key}
        )
        try:
            with tempfile.TemporaryDirectory() as folder, self.connection.patient():
                path = Path(folder) / "model"
                save_model(path, network, targets, logged=logged, run_id=run_id, **extras)
                call("log_model_artifacts", logged.model_id, str(path))
            call("log_outputs", run_id, models=[LoggedModelOutput(logged.model_id, step=0)])
            return call("finalize_logged_model", logged.model_id, "READY")
        except BaseException:
            self._discard(logged.model_id)
            raise

    def _discard(self, model_id: str) -> None:
        """Remove a logged model that no version uses; what stays behind is harmless."""
        with suppress(RegistryError):
            self.connection.call("delete_logged_model", model_id)

    def _create(self, model: str, run_id: str, training_key: str, tags: dict[str, str], logged: Any) -> Version:
        ledger_run = self.ledger.ensure(model)
        self.ledger.checkpoint("uploaded")
        if (version := self._claim_or_wait(model, ledger_run, training_key, run_id)) is not None:
            return version
        self.ledger.checkpoint("claimed version")
        tags |= {TRAINING_KEY_TAG: training_key, "bnpipe.model_id": logged.model_id}
        self.connection.call(
            "create_model_version",
            model,
            f"models:/{logged.model_id}" if self.connection.remote else logged.artifact_location,
            run_id=run_id,
            tags={name: str(value) for name, value in tags.items()},
            model_id=logged.model_id,
        )
        return self._keep_one(model, training_key)

    def _claim_or_wait(self, model: str, ledger_run: str, training_key: str, run_id: str) -> Version | None:
        """Win the right to create the version (None), or give the one that somebody else has created."""
        for attempt in count(1):
            name = f"register.{training_key}.{attempt:03d}"
            mine = json.dumps({"nonce": uuid.uuid4().hex, "run": run_id, "time": self.ledger.clock()})
            standing = self.ledger.params(ledger_run).get(name) or self.ledger.claim(ledger_run, name, mine)
            if standing != mine:
                version = self._await(model, training_key, json.loads(standing), run_id)
            else:
                version = self.find(model, training_key)
            if version is not None or standing == mine:
                return version
        raise AssertionError("unreachable")

    def _await(self, model: str, training_key: str, claim: Mapping[str, Any], run_id: str) -> Version | None:
        """Give the claimant's version; None once the claimant must be dead."""
        while True:
            if (version := self.find(model, training_key)) is not None:
                return version
            if claim["run"] == run_id or self.ledger.clock() - float(claim["time"]) >= self.ledger.grace:
                return None
            time.sleep(POLL)

    def _keep_one(self, model: str, training_key: str) -> Version:
        same = self._search(f"name = {quoted(model)} AND tags.`{TRAINING_KEY_TAG}` = {quoted(training_key)}")
        if not same:
            raise RegistryError(f"the version of {model!r} just created can't be found; was it deleted?")
        aliased = {int(number) for number in self.connection.call("get_registered_model", model).aliases.values()}
        for spare in same[1:]:
            if spare.number not in aliased:
                _log.warning(
                    "deleting version %d of %s: %d is of the same training", spare.number, model, same[0].number
                )
                with suppress(VersionNotFound):
                    self.connection.call("delete_model_version", model, str(spare.number))
        return same[0]


def _version(entity: Any) -> Version:
    number = int(entity.version)
    return Version(
        model=entity.name,
        number=number,
        run_id=entity.run_id or "",
        tags=dict(entity.tags),
        training_key=entity.tags.get(TRAINING_KEY_TAG, ""),
        uri=f"models:/{entity.name}/{number}",
        created=datetime.fromtimestamp(entity.creation_timestamp / 1000, UTC),
    )
