"""Beside following the registry: closed journals of answers become Parquet, in a thread of the follower's own."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

from bnpipe.answers.compaction import compact
from bnpipe.errors import BnpipeError
from bnpipe.network import Network
from bnpipe.schema import Schema
from bnpipe.serving.situation import MODELS, read_about
from bnpipe.serving.versions import NETWORK

_log = logging.getLogger(__name__)


class Archivist:
    """Compacts the log of answers.

    Parameters
    ----------
    answers : Path
        Folder of the log.
    cache : Path
        Folder of downloaded versions: their schemas tell numbers from states.
    """

    def __init__(self, answers: Path, cache: Path) -> None:
        self.answers, self.cache = answers, cache
        self._schemas: dict[tuple[str, str], Schema] = {}

    def run(self, stop: threading.Event, every: float) -> None:
        """Compact at once, again and again, and a last time when told to stop."""
        self.once()
        while not stop.wait(every):
            self.once()
        self.once()

    def once(self) -> None:
        """Compact what is closed; whatever goes wrong is logged, and tried again at the next time."""
        try:
            done = compact(self.answers, self.schema)
        except BnpipeError as error:
            _log.error("answers stay in their journals: %s", error)
            return
        except Exception:  # noqa: BLE001  what is logged must not hang on it
            _log.exception("answers stay in their journals")
            return
        if done.journals:
            _log.info("%d answers and labels of %d journals are Parquet now", done.records, done.journals)
        if done.torn:
            _log.warning("the last record of a journal was torn by a kill (%d bytes); it was never sent", done.torn)

    def schema(self, model: str, content_hash: str) -> Schema | None:
        """Give the schema of a version that is, or was, on disk."""
        key = (model, content_hash)
        if key not in self._schemas:
            folder = self.cache / MODELS / model
            for version in sorted(folder.iterdir()) if folder.is_dir() else ():
                about = read_about(version)
                if about is not None and about.content_hash == content_hash:
                    self._schemas[key] = Network.load(version / NETWORK).schema
        return self._schemas.get(key)
