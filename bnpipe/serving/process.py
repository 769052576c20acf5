"""What the service's processes share: their orders, their logs, and that none outlives the supervisor."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from traceback import format_tb
from typing import Final

import msgspec
from pydantic import TypeAdapter

from bnpipe.config.serving import ServingSpec
from bnpipe.errors import SettingsError

METRICS_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable that names the folder of the workers' counters; prometheus_client reads it, too."""

_LOOK: Final = 0.5
_SPECS: Final = TypeAdapter(ServingSpec)


class Order(msgspec.Struct, frozen=True):
    """What the supervisor tells a child.

    Parameters
    ----------
    name : str
        Such as ``worker-1``.
    supervisor : int
        Its pid.
    spec_json : str
    socket : int
        File descriptor of the listening socket; -1 for the follower.
    """

    name: str
    supervisor: int
    spec_json: str
    socket: int = -1

    @property
    def spec(self) -> ServingSpec:
        """The file's contents."""
        return _SPECS.validate_json(self.spec_json)


def write_order(path: Path, order: Order) -> Path:
    """Write an order; readable by its owner only."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(order))
    return path


def read_order(path: str) -> Order:
    """Read an order."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Order)


def parent_is_gone(order: Order) -> bool:
    """Whether the supervisor died without a word: then nobody would ever stop us."""
    return os.getppid() != order.supervisor


def when_parent_is_gone(order: Order, stop: Callable[[], None]) -> None:
    """Watch from a thread, and stop when the supervisor has died: at once enough that a new one finds the port free."""

    def watch() -> None:
        while not parent_is_gone(order):
            time.sleep(_LOOK)
        logging.getLogger(__name__).error("the supervisor is gone; stopping")
        stop()

    threading.Thread(target=watch, daemon=True, name="parent").start()


def tell_ready(order_file: str) -> None:
    """Tell the supervisor that this process does its work now."""
    ready_file(Path(order_file)).touch()


def ready_file(order_file: Path) -> Path:
    """Where :func:`tell_ready` tells it."""
    return order_file.with_suffix(".ready")


class _JsonLines(logging.Formatter):
    """One JSON object a line, so that fields can be searched for."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self.process = process
        self._quotes = not process.startswith("worker")  # what fails in a worker may name values of rows

    def format(self, record: logging.LogRecord) -> str:
        """Write one record."""
        fields = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            kind, _, trace = record.exc_info
            fields["error"] = "" if kind is None else kind.__name__
            quoted = self.formatException(record.exc_info) if self._quotes else "".join(format_tb(trace))
            fields["exception"] = quoted
        return msgspec.json.encode(fields).decode()


def set_up_logging(process: str) -> None:
    """Log JSON lines to standard error, in UTC.

    Raises
    ------
    SettingsError
        BNPIPE_LOG_LEVEL is no level.
    """
    levels, given = logging.getLevelNamesMapping(), os.environ.get("BNPIPE_LOG_LEVEL", "").strip()
    level = levels.get(given.upper() or "INFO")
    if level is None:
        raise SettingsError(f"BNPIPE_LOG_LEVEL: got {given[:40]!r}; one of DEBUG, INFO, WARNING, ERROR")
    handler = logging.StreamHandler(sys.stderr)
    formatter = _JsonLines(process)
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def share_counters(process: str) -> None:
    """Keep this process's counters in files of its name, so that whoever takes its place goes on counting there.

    To be called before the first metric is made; without `METRICS_FOLDER` they stay in memory.
    """
    from prometheus_client import values

    if os.environ.get(METRICS_FOLDER):
        values.ValueClass = values.MultiProcessValue(lambda: process)  # type: ignore[no-untyped-call]


def forget_process(process: str, folder: Path) -> None:
    """Take back what a dead process said of itself (gauges); what it had counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]
