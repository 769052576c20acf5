"""The process that follows the registry: downloads versions that should be served and writes down who reigns.

Alone of the service's processes it imports MLflow. While MLflow is away the last situation stays, also across restarts;
so does a version that can't be downloaded whole: workers only ever see complete, checked files.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from bnpipe.config import Settings
from bnpipe.config.serving import ServingSpec, answers_folder, cache_folder
from bnpipe.errors import BnpipeError, NetworkError, VersionNotFound
from bnpipe.serving.archiving import Archivist
from bnpipe.serving.process import parent_is_gone, read_order, set_up_logging
from bnpipe.serving.routing import Canary
from bnpipe.serving.situation import (
    MODELS,
    ModelSituation,
    Situation,
    VersionOnDisk,
    read_situation,
    version_folder,
    write_situation,
)
from bnpipe.serving.versions import EXAMPLE, NETWORK

if TYPE_CHECKING:
    from bnpipe.registry import Registry, Standing, Version

_ABOUT: Final = "version.json"
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
    """

    registry: Registry
    cache: Path
    spec: ServingSpec
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _before: dict[str, tuple[Standing, int | None]] = field(default_factory=dict)

    def poll(self) -> Situation:
        """Look at the registry once; write the situation, and return it.

        A registry that does not answer is part of the situation, not an error.
        """
        held = read_situation(self.cache)
        try:
            standings = self.registry.standings()
        except BnpipeError as error:
            if held is None:
                situation = Situation(datetime.fromtimestamp(0, UTC), {}, str(error))
            else:
                situation = Situation(held.at, held.models, str(error))
            if held is None or not held.registry:
                _log.warning("what is served stays as it is: %s", error)
                write_situation(self.cache, situation)
            return situation
        models = {}
        for name, standing in standings.items():
            if self.spec.models and name not in self.spec.models:
                continue
            before = held.models.get(name, ModelSituation()) if held is not None else ModelSituation()
            try:
                models[name] = self._model(name, standing, before)
            except BnpipeError as error:  # the registry went away in the middle
                _log.warning("%s stays as it is: %s", name, error)
                models[name] = before
        situation = Situation(self.now(), models)
        write_situation(self.cache, situation)
        self._tidy(situation)
        return situation

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
            except NetworkError as error:
                faults[str(number)] = str(error)
                if before.faults.get(str(number)) != str(error):
                    _log.error("%s version %d can't be served: %s", name, number, error)
        champion = standing.champion
        if champion is not None and str(champion) not in versions and str(before.champion) in before.versions:
            kept = str(before.champion)
            versions[kept], champion = before.versions[kept], before.champion
        return ModelSituation(champion, previous, standing.challenger, canary, versions, faults)

    def _previous(self, name: str, standing: Standing, before: ModelSituation) -> int | None:
        """Ask for the last good champion before this one, but only when the champion changed: it costs seconds."""
        known = self._before.get(name)
        if known is not None and known[0].champion == standing.champion:
            return known[1]
        if known is None and before.champion == standing.champion and before.champion is not None:
            found = before.previous
        else:
            version = self.registry.predecessor(name)
            found = None if version is None else version.number
        self._before[name] = (standing, found)
        return found

    def _version(self, name: str, number: int) -> VersionOnDisk:
        folder = version_folder(self.cache, name, number)
        try:
            import msgspec

            return msgspec.json.decode((folder / _ABOUT).read_bytes(), type=VersionOnDisk)
        except (OSError, msgspec.MsgspecError):
            return self._download(self.registry.version(name, number), folder)

    def _download(self, version: Version, folder: Path) -> VersionOnDisk:
        """Bring a version's files; the folder has its name only when they are complete."""
        import msgspec

        network = self.registry.load_network(version)
        expected = version.tags.get("bnpipe.content_hash", network.content_hash)
        if network.content_hash != expected:
            raise NetworkError(f"its files hold network {network.content_hash[:12]}, its tag says {expected[:12]}")
        example = self.registry.load_example(version)
        about = VersionOnDisk(
            content_hash=network.content_hash,
            targets=self.registry.targets(version),
            created=version.created.isoformat(),
            trained_until=version.tags.get("bnpipe.train_end", ""),
            run_id=version.run_id,
            training_key=version.training_key,
            verdict=version.tags.get("bnpipe.verdict", ""),
        )
        part = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        network.save(part / NETWORK)
        if example is not None:
            (part / EXAMPLE).write_text(json.dumps(example))
        (part / _ABOUT).write_bytes(msgspec.json.encode(about))
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
        return about

    def _tidy(self, situation: Situation) -> None:
        """Remove versions nobody needs; a worker that is loading one reads files it has open."""
        for name, model in situation.models.items():
            folder = self.cache / MODELS / name
            kept = set(model.versions)
            if not folder.is_dir():
                continue
            for each in folder.iterdir():
                if each.name not in kept and not each.name.startswith("."):
                    shutil.rmtree(each, ignore_errors=True)


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
    from bnpipe.registry import Registry

    follower = Follower(Registry(settings.tracking_uri), cache_folder(order.spec, settings), order.spec)
    archivist = Archivist(answers_folder(order.spec, settings), follower.cache)
    archiving = threading.Thread(target=archivist.run, args=(stop, _ARCHIVE), daemon=True, name="archive")
    archiving.start()
    while not stop.is_set() and not parent_is_gone(order):
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
