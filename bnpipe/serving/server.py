"""The supervisor of ``bnpipe serve``: starts the follower and the workers, restarts who dies, stops all."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

from bnpipe.config.serving import ServingSpec
from bnpipe.errors import SettingsError
from bnpipe.serving.process import METRICS_FOLDER, Order, forget_process, set_up_logging, write_order

_BACKLOG: Final = 2048
_LOOK: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
"""Seconds before a child that keeps dying is started again."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Child:
    """A process that should be there."""

    name: str
    module: str
    socket: int = -1
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = field(default=0.0)


class Supervisor:
    """Keeps the processes of one service.

    Parameters
    ----------
    spec : ServingSpec
    """

    def __init__(self, spec: ServingSpec) -> None:
        self.spec = spec
        self._stopping = False
        self._folder = Path(tempfile.mkdtemp(prefix="bnpipe-serve-"))
        self._metrics = self._folder / "metrics"
        self._metrics.mkdir()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second one does not wait for what is under way."""
        with self._listening() as listening:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            children = [_Child("follower", "bnpipe.serving.follower")] + [
                _Child(f"worker-{place}", "bnpipe.serving.worker", listening.fileno())
                for place in range(1, self.spec.workers + 1)
            ]
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, self._stop)
            workers = f"{self.spec.workers} worker{'s' if self.spec.workers > 1 else ''}"
            sys.stdout.write(f"bnpipe serves on http://{shown}:{port} with {workers} (pid {os.getpid()})\n")
            sys.stdout.flush()
            try:
                while not self._stopping:
                    for child in children:
                        self._keep(child)
                    time.sleep(_LOOK)
            finally:
                self._end(children)
                shutil.rmtree(self._folder, ignore_errors=True)
        return 0

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in self.spec.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.spec.host, self.spec.port))
        except OSError as error:
            listening.close()
            raise SettingsError(
                f"can't listen on {self.spec.host}:{self.spec.port}: {error.strerror}; "
                "choose another `port` in the serving file, or --port"
            ) from error
        listening.listen(_BACKLOG)
        listening.set_inheritable(True)
        with listening:
            yield listening

    def _stop(self, _: int, __: FrameType | None) -> None:
        self._stopping = True

    def _keep(self, child: _Child) -> None:
        """Start a child that is not there; one that dies at once is given longer and longer pauses."""
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            lived = now - child.started
            child.pause = 0.0 if lived > _LONGEST_PAUSE else min(max(2 * child.pause, 0.2), _LONGEST_PAUSE)
            _log.error("%s (pid %d) ended with %d after %.0f s", child.name, child.process.pid, code, lived)
            forget_process(child.name, self._metrics)
            child.process, child.due = None, now + child.pause
        if now < child.due:
            return
        order = Order(child.name, os.getpid(), self.spec.model_dump_json(), child.socket)
        path = write_order(self._folder / f"{child.name}.json", order)
        child.started = now
        child.process = subprocess.Popen(
            [sys.executable, "-m", child.module, str(path)],
            pass_fds=(child.socket,) if child.socket >= 0 else (),
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "NUMBA_NUM_THREADS": "1",
                METRICS_FOLDER: str(self._metrics),
            },
            start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's business
        )

    def _end(self, children: list[_Child]) -> None:
        """Ask all to stop, wait as long as they may take to finish, and end who has not."""
        living = [child.process for child in children if child.process is not None and child.process.poll() is None]
        for process in living:
            process.terminate()
        end = time.monotonic() + self.spec.drain + 2.0
        for process in living:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("pid %d does not stop and is killed", process.pid)
                process.kill()
                process.wait()


def run(spec: ServingSpec) -> int:
    """Run the service in this process and its children; returns the exit code."""
    set_up_logging("supervisor")
    return Supervisor(spec).run()
