"""The versions a worker holds, kept in step with the situation that the follower writes."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
    canary : Canary, optional
        Only while its version is in memory.
    versions : mapping of int to ServedVersion
    faults : mapping of str to str
        Version -> why it is not served.
    """

    name: str
    champion: ServedVersion | None = None
    previous: ServedVersion | None = None
    canary: Canary | None = None
    versions: Mapping[int, ServedVersion] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

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
        """Whether there is a champion of each model that should be served."""
        wanted = self.spec.models or self.models
        return bool(wanted) and all(
            (model := self.models.get(name)) is not None and model.champion is not None for name in wanted
        )

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
        return True

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
        return ServedModel(name, champion, versions.get(situation.previous or 0), canary, versions, faults)

    def _version(self, name: str, number: int, situation: ModelSituation, held: ServedModel) -> ServedVersion:
        about = situation.versions[str(number)]
        there = held.versions.get(number)
        if there is not None and there.about.content_hash == about.content_hash:
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
