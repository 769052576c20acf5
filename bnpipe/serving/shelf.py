"""The versions a worker holds, kept in step with the situation that the follower writes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bnpipe.config.scalars import did_you_mean
from bnpipe.config.serving import ServingSpec
from bnpipe.errors import NotServed, ServiceBusy, shorten
from bnpipe.serving.routing import Canary
from bnpipe.serving.situation import FILE, ModelSituation, Situation, read_situation, version_folder
from bnpipe.serving.versions import NETWORK, ServedVersion, load_version

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model's versions in memory.

    Parameters
    ----------
    name : str
    champion, previous : ServedVersion, optional
    challenger : int, optional
        What has the alias in the registry.
    canary : Canary, optional
        Only while its version is in memory.
    versions : mapping of int to ServedVersion
    faults : mapping of str to str
        Version -> why it is not served.
    """

    name: str
    champion: ServedVersion | None = None
    previous: ServedVersion | None = None
    challenger: int | None = None
    canary: Canary | None = None
    versions: Mapping[int, ServedVersion] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def why_idle(self) -> str:
        """Why it has no champion."""
        return next(iter(self.faults.values()), "no version is champion in the registry")

    def version(self, number: int) -> ServedVersion:
        """Give one version.

        Raises
        ------
        NotServed
            It is not in memory.
        """
        try:
            return self.versions[number]
        except KeyError:
            why = self.faults.get(
                str(number),
                "only the champion, its predecessor, the challenger and those that a client is pinned to are; "
                "a pin in the serving file keeps it here",
            )
            there = shorten(sorted(self.versions)) or "none"
            raise NotServed(f"{self.name}: version {number} is not served: {why}; there are {there}") from None


class Shelf:
    """Versions in memory, swapped whole: a request that has taken one keeps it.

    Parameters
    ----------
    cache : Path
    spec : ServingSpec
    """

    def __init__(self, cache: Path, spec: ServingSpec) -> None:
        self.cache, self.spec = cache, spec
        self.models: Mapping[str, ServedModel] = {}
        self.situation: Situation | None = None
        self._seen: tuple[int, int] | None = None
        self._stop = threading.Event()
        self._unfit: dict[tuple[str, int, int], str] = {}
        self._complete = False
        self._warned: frozenset[str] = frozenset()

    def model(self, name: str) -> ServedModel:
        """Give a model.

        Raises
        ------
        NotServed
            It is not served.
        ServiceBusy
            The registry has not said yet what is.
        """
        try:
            return self.models[name]
        except KeyError:
            if self.situation is None or (self.situation.registry and not self.models):
                raise ServiceBusy("the registry has not said yet what is served", retry_after=2.0) from None
            there = shorten(sorted(self.models)) or "none yet"
            raise NotServed(f"no model {name[:100]!r} is served; there are {there}") from None

    @property
    def ready(self) -> bool:
        """Whether requests may come: each champion of the registry was in memory once, and some champion is now.

        Neither a model without a champion nor a new one whose first champion is unfit takes the others out.
        """
        return self._complete and self._answers

    @property
    def _answers(self) -> bool:
        return any(model.champion is not None for model in self.models.values())

    def idle(self) -> dict[str, str]:
        """List models that nobody answers for, and why."""
        idle = {name: model.why_idle for name, model in self.models.items() if model.champion is None}
        return {**idle, **self.absent()}

    def absent(self) -> dict[str, str]:
        """List models that the serving file names and the registry does not have."""
        if self.situation is None or self.situation.registry:
            return {}
        there = sorted(self.models)
        names = sorted(set(self.spec.models) - set(there))
        return {name: f"the registry has no such model{did_you_mean(name, there)}" for name in names}

    def warnings(self) -> dict[str, tuple[str, ...]]:
        """Tell what of the serving file comes to nothing, by the model that it names."""
        if self.situation is None or self.situation.registry:
            return {}
        found = {name: [f"models: {name}: {why}"] for name, why in self.absent().items()}
        for client in self.spec.clients:
            for name in client.pins:
                if name not in self.models:
                    hint = did_you_mean(name, sorted(self.models))
                    found.setdefault(name, []).append(f"clients: {client.name}: pins: {name} is not served{hint}")
        return {name: tuple(texts) for name, texts in found.items()}

    def refresh(self) -> bool:
        """Look at the file; load what is new, then swap. Tell whether anything changed."""
        try:
            stat = os.stat(self.cache / FILE)  # noqa: PTH116  a hot little loop
        except OSError:
            return False
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen == self._seen or (situation := read_situation(self.cache)) is None:
            return False
        wanted = set(self.spec.models) or set(situation.models)
        self.models = {name: self._model(name, its) for name, its in sorted(situation.models.items()) if name in wanted}
        self.situation, self._seen = situation, seen
        lacking = [
            name for name, model in self.models.items() if situation.models[name].champion and not model.champion
        ]
        self._complete = self._complete or (not lacking and self._answers)
        self._warn()
        return True

    def _warn(self) -> None:
        """Log each warning once, until it is gone."""
        warnings = frozenset(text for texts in self.warnings().values() for text in texts)
        for text in sorted(warnings - self._warned):
            _log.warning("the serving file: %s", text)
        self._warned = warnings

    def follow(self, every: float) -> None:
        """Refresh until :meth:`stop`; for a thread of its own."""
        while not self._stop.wait(every):
            try:
                self.refresh()
            except Exception:  # noqa: BLE001  what is served must not hang on it
                _log.exception("the situation could not be taken over; what was served stays")

    def stop(self) -> None:
        """End :meth:`follow`."""
        self._stop.set()

    def _model(self, name: str, situation: ModelSituation) -> ServedModel:
        held = self.models.get(name, ServedModel(name))
        versions, faults = {}, dict(situation.faults)
        for text in situation.versions:
            number = int(text)
            try:
                versions[number] = self._version(name, number, situation, held)
            except NotServed as error:
                faults[text] = str(error)
        champion = versions.get(situation.champion or 0)
        if champion is None and situation.champion is not None:  # it is unfit: the old one goes on
            champion = held.champion or versions.get(situation.previous or 0)
            if champion is not None:
                versions.setdefault(champion.number, champion)
        canary = situation.canary if situation.canary and situation.canary.version in versions else None
        if champion is not held.champion and champion is not None:
            _log.warning("%s: version %d answers now", name, champion.number)
        previous = versions.get(situation.previous or 0)
        return ServedModel(name, champion, previous, situation.challenger, canary, versions, faults)

    def _version(self, name: str, number: int, situation: ModelSituation, held: ServedModel) -> ServedVersion:
        about = situation.versions[str(number)]
        there = held.versions.get(number)
        if there is not None and there.about == about:
            return there
        folder = version_folder(self.cache, name, number)
        key = (name, number, _state_of(folder))
        if key in self._unfit:
            raise NotServed(self._unfit[key])
        try:
            return load_version(folder, name, number, about, clique_cells=self.spec.limits.clique_cells)
        except NotServed as error:
            self._unfit[key] = str(error)
            _log.error("%s", error)
            raise


def _state_of(folder: Path) -> int:
    """Tell one download of a version from another."""
    try:
        return (folder / NETWORK).stat().st_mtime_ns
    except OSError:
        return 0
