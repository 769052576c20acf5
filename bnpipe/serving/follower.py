"""The process that follows the registry: downloads versions that should be served and writes down who reigns.

Alone of the service's processes it imports MLflow. While MLflow is away the last situation stays, also across restarts.
Each version is tried here first, as a worker will load it; one that is damaged, too costly, or answers its own example
otherwise than recorded is told of and displaces nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from bnpipe.alerts import Alert, send
from bnpipe.config import Settings
from bnpipe.config.serving import ServingSpec, answers_folder, cache_folder
from bnpipe.errors import BnpipeError, NetworkError, NotServed, RegistryError, VersionNotFound
from bnpipe.serving.archiving import Archivist
from bnpipe.serving.process import read_order, set_up_logging, when_parent_is_gone
from bnpipe.serving.routing import Canary
from bnpipe.serving.situation import (
    ABOUT,
    MODELS,
    ModelSituation,
    Situation,
    VersionOnDisk,
    read_about,
    read_situation,
    version_folder,
    write_situation,
)
from bnpipe.serving.versions import EXAMPLE, LIKELIHOODS, NETWORK, load_version

if TYPE_CHECKING:
    from bnpipe.registry import Registry, Standing, Version

_AGAIN: Final = 60.0
"""Seconds after which a version that was unfit is tried again."""
_KEPT: Final = 7200.0
"""Seconds for which a version stays on the disk after it was needed last."""
_ARCHIVE: Final = 10.0
"""Seconds between looks for closed journals."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Follower:
    """Keeps a cache folder in step with the registry.

    Parameters
    ----------
    registry : Registry
    cache : Path
    spec : ServingSpec
    now : callable
        The time, UTC.
    clock : callable
        Seconds that only grow.
    alert : callable
        Told of versions that should be served and are not.
    """

    registry: Registry
    cache: Path
    spec: ServingSpec
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    alert: Callable[[Alert], object] = send
    _before: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    _checked: dict[tuple[str, int], VersionOnDisk] = field(default_factory=dict)
    _unfit: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)
    _needless: dict[Path, float] = field(default_factory=dict)
    _last: Situation | None = None

    def poll(self) -> Situation:
        """Look at the registry once; write the situation, and return it.

        A registry that does not answer is part of the situation, not an error.
        """
        held = self._last or read_situation(self.cache)  # a folder that can't be written to tells nothing new
        try:
            standings = self.registry.standings()
        except BnpipeError as error:
            return self._without_registry(held, str(error))
        models = {}
        for name, standing in standings.items():
            if self.spec.models and name not in self.spec.models:
                continue
            before = held.models.get(name, ModelSituation()) if held is not None else ModelSituation()
            try:
                models[name] = self._model(name, standing, before)
                self._told.pop(name, None)
            except (BnpipeError, OSError) as error:  # the disk is full, the registry went away in the middle
                models[name] = before
                self._tell_once(name, f"{name} stays as it is: {error}")
        for name in (held.models.keys() if held is not None else set()) - models.keys():
            if not self.spec.models or name in self.spec.models:
                self._tell_once(name, f"{name} is no longer in the registry and no longer served")
        situation = self._last = Situation(self.now(), models)
        self._write(situation)
        self._tidy(situation)
        return situation

    def _without_registry(self, held: Situation | None, error: str) -> Situation:
        if held is None:
            situation = Situation(datetime.fromtimestamp(0, UTC), {}, error)
        else:
            situation = Situation(held.at, held.models, error)
        if held is None or not held.registry:
            _log.warning("what is served stays as it is: %s", error)
            self._write(situation)
        self._last = situation
        return situation

    def _write(self, situation: Situation) -> None:
        try:
            write_situation(self.cache, situation)
            self._told.pop("", None)
        except OSError as error:
            self._tell_once(
                "", f"{self.cache}: workers learn of nothing new, as it can't be written to: {error.strerror or error}"
            )

    def _tell_once(self, name: str, text: str) -> None:
        if self._told.get(name) != text:
            self._told[name] = text
            _log.error("%s", text)

    def _model(self, name: str, standing: Standing, before: ModelSituation) -> ModelSituation:
        previous = self._previous(name, standing, before)
        pins = {client.pins[name] for client in self.spec.clients if name in client.pins}
        canary = Canary.of(standing.canary)
        tried = None if canary is None else canary.version
        wanted = {standing.champion, previous, standing.challenger, tried, *pins}
        versions: dict[str, VersionOnDisk] = {}
        faults: dict[str, str] = {}
        for number in sorted(number for number in wanted if number is not None):
            try:
                versions[str(number)] = self._version(name, number)
            except VersionNotFound:
                faults[str(number)] = "there is no such version in the registry"
            except (BnpipeError, OSError) as error:
                faults[str(number)] = str(error)
        champion = standing.champion
        if str(champion) not in versions and str(before.champion) in before.versions:
            kept = str(before.champion)  # an unfit or deleted champion has not displaced it
            versions[kept], champion = before.versions[kept], before.champion
            if standing.champion is None:
                faults[kept] = "it is no longer champion in the registry, where nothing is; it goes on"
        self._announce(name, before, faults, champion if str(champion) in versions else None)
        return ModelSituation(champion, previous, standing.challenger, canary, versions, faults)

    def _announce(self, name: str, before: ModelSituation, faults: dict[str, str], answering: int | None) -> None:
        """Alert of each fault once."""
        for number, fault in faults.items():
            if before.faults.get(number) == fault:
                continue
            _log.error("%s version %s: %s", name, number, fault)
            goes_on = f"Version {answering} goes on." if answering is not None else "Nothing answers in its place."
            self.alert(
                Alert(name, "message", f"{name}: version {number} is not served as it should be", f"{fault}. {goes_on}")
            )

    def _previous(self, name: str, standing: Standing, before: ModelSituation) -> int | None:
        """Ask for the last good champion before this one, but only when the champion changed: it costs seconds."""
        known = self._before.get(name)
        if known is not None and known[0] == standing.champion:
            return known[1]
        if known is None and before.champion == standing.champion and before.champion is not None:
            found = before.previous
        else:
            try:
                version = self.registry.predecessor(name)
            except BnpipeError as error:
                _log.warning("%s: its last champion is not known: %s", name, error)
                return before.previous
            found = None if version is None else version.number
        self._before[name] = (standing.champion, found)
        return found

    def _version(self, name: str, number: int) -> VersionOnDisk:
        """Bring a version to the disk, if it is not there, and try it; what failed is tried again after a while.

        Raises
        ------
        BnpipeError, OSError
        """
        key, folder = (name, number), version_folder(self.cache, name, number)
        if key in self._checked and (folder / ABOUT).exists():
            return self._checked[key]
        until, fault = self._unfit.get(key, (0.0, ""))
        if self.clock() < until:
            raise NetworkError(fault)
        try:
            found = self._tried(name, number, folder)
        except (NotServed, NetworkError, RegistryError) as error:
            if not error.retryable and not isinstance(error, VersionNotFound):
                self._unfit[key] = (self.clock() + _AGAIN, str(error))
            raise
        self._unfit.pop(key, None)
        self._checked[key] = found
        return found

    def _tried(self, name: str, number: int, folder: Path) -> VersionOnDisk:
        """Give a version that loads, and answers its example; what was on the disk is brought again if it does not."""
        cells = self.spec.limits.clique_cells
        about = read_about(folder)
        if about is not None and about.likelihoods is not None:
            with contextlib.suppress(NotServed):
                load_version(folder, name, number, about, clique_cells=cells)
                return about
        about = self._download(self.registry.version(name, number), folder)
        load_version(folder, name, number, about, clique_cells=cells)
        return about

    def _download(self, version: Version, folder: Path) -> VersionOnDisk:
        """Bring a version's files; the folder has its name only when they are complete."""
        import msgspec

        network = self.registry.load_network(version)
        expected = version.tags.get("bnpipe.content_hash", network.content_hash)
        if network.content_hash != expected:
            raise NetworkError(f"its files hold network {network.content_hash[:12]}, its tag says {expected[:12]}")
        example, likelihoods = self.registry.load_example(version), self.registry.load_likelihoods(version)
        about = VersionOnDisk(
            content_hash=network.content_hash,
            targets=self.registry.targets(version),
            created=version.created.isoformat(),
            trained_until=version.tags.get("bnpipe.train_end", ""),
            run_id=version.run_id,
            training_key=version.training_key,
            verdict=version.tags.get("bnpipe.verdict", ""),
            likelihoods="" if likelihoods is None else likelihoods.hash,
        )
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        network.save(part / NETWORK)
        if example is not None:
            (part / EXAMPLE).write_text(json.dumps(example))
        if likelihoods is not None:
            (part / LIKELIHOODS).write_text(likelihoods.to_json())
        (part / ABOUT).write_bytes(msgspec.json.encode(about))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
        return about

    def _tidy(self, situation: Situation) -> None:
        """Remove versions that nobody has needed for hours; until then the log of answers may ask for their states."""
        needless, now = set(), self.clock()
        for name, model in situation.models.items():
            folder = self.cache / MODELS / name
            kept = {*model.versions, *model.faults}  # what is unfit need not be brought again to be tried again
            if folder.is_dir():
                needless |= {path for path in folder.iterdir() if path.name not in kept and path.name[0] != "."}
        self._needless = {path: self._needless.get(path, now) for path in needless}
        for path, since in self._needless.items():
            if now - since >= _KEPT:
                shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Follow until told to stop, or until the supervisor is gone."""
    order = read_order(sys.argv[1])
    set_up_logging("follower")
    stop = threading.Event()

    def end(_: int, __: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = Settings.from_environ()
    import pyarrow.parquet  # noqa: F401  its 100 MB from the start, or they look like a leak later

    from bnpipe.registry import Registry

    follower = Follower(Registry(settings.tracking_uri), cache_folder(order.spec, settings), order.spec)
    archivist = Archivist(answers_folder(order.spec, settings), follower.cache)
    archiving = threading.Thread(target=archivist.run, args=(stop, _ARCHIVE), daemon=True, name="archive")
    archiving.start()
    when_parent_is_gone(order, lambda: os._exit(1))  # even in a call to MLflow; what it writes is whole or not there
    while not stop.is_set():
        try:
            follower.poll()
        except Exception:  # noqa: BLE001  it must go on, whatever MLflow throws
            _log.exception("a look at the registry failed; what is served stays")
        stop.wait(order.spec.poll)
    stop.set()
    archiving.join(order.spec.drain)
    return 0


if __name__ == "__main__":
    sys.exit(main())
