"""The supervisor of ``bnpipe serve``: starts the follower and the workers, restarts who dies, stops all.

SIGTERM and SIGINT let what is under way finish; a second one does not. SIGHUP reads the serving file anew and replaces
one process after the other; address and port stay, and all that is replaced is put back if a new one does not come up.
Where no worker ever comes up the supervisor ends, too: callers would wait on its socket for nobody.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from bnpipe.config.serving import ServingSpec
from bnpipe.errors import BnpipeError, SettingsError
from bnpipe.serving.process import METRICS_FOLDER, Order, forget_process, ready_file, set_up_logging, write_order

_BACKLOG: Final = 2048
_LOOK: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
"""Seconds before a child that keeps dying is started again."""
_START: Final = 60.0
"""Seconds that a rolling restart waits for a worker."""
_TRIES: Final = 5
"""Deaths of every worker, none of which ever was ready, after which nobody need hope."""

_MEMORY: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "16000000",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""For glibc: what loading a version needed goes back to the system, where it would grow a worker by 10 MB a version.
Arrow's own allocator would keep what the archive needed, beside what glibc keeps."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Child:
    """A process that should be there.

    Parameters
    ----------
    name, module, socket
        See :class:`Order`.
    process : Popen or None
    started, pause, due : float
        When it was started; how long it is waited with after its next death; until when now.
    stillborn : int
        Deaths in a row, before any of which it was ready.
    """

    name: str
    module: str
    socket: int = -1
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = 0.0
    due: float = 0.0
    stillborn: int = 0


class Supervisor:
    """Keeps the processes of one service.

    Parameters
    ----------
    spec : ServingSpec
    reload : callable
        Reads the serving file anew.
    """

    def __init__(self, spec: ServingSpec, reload: Callable[[], ServingSpec]) -> None:
        self.spec, self.reload = spec, reload
        self._stopping = self._renewing = False
        self._children: list[_Child] = []

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; a second one does not wait for what is under way.

        Returns
        -------
        int
            The exit code; 1 if no worker came up.
        """
        with (
            self._listening() as listening,
            tempfile.TemporaryDirectory(prefix="bnpipe-serve-", ignore_cleanup_errors=True) as folder,
        ):
            self._folder, self._metrics = Path(folder), Path(folder, "metrics")
            self._metrics.mkdir()
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            self._children = [_Child("follower", "bnpipe.serving.follower"), *self._workers(listening, 1)]
            for sign in (signal.SIGTERM, signal.SIGINT):
                signal.signal(sign, self._stop)
            signal.signal(signal.SIGHUP, self._renew)
            workers = f"{self.spec.workers} worker{'s' if self.spec.workers > 1 else ''}"
            sys.stdout.write(f"bnpipe serves on http://{shown}:{port} with {workers} (pid {os.getpid()})\n")
            sys.stdout.flush()
            try:
                while not self._stopping and not self._hopeless():
                    self._look()
                    if self._renewing:
                        self._renewing = False
                        self._replace_all(listening)
            finally:
                hopeless = self._hopeless()
                told = self._tell(self._children[1:])
                listening.close()  # as the workers do: who comes now is refused at once
                self._await(told)
                self._end(self._children[:1])  # the follower last: it archives what the workers' journals hold
        if hopeless:
            _log.error("no worker comes up: each ended %d times before it was ready; see the lines above", _TRIES)
        return 1 if hopeless else 0

    def _hopeless(self) -> bool:
        return all(child.stillborn >= _TRIES for child in self._children[1:])

    def _workers(self, listening: socket.socket, first: int) -> list[_Child]:
        places = range(first, self.spec.workers + 1)
        return [_Child(f"worker-{place}", "bnpipe.serving.worker", listening.fileno()) for place in places]

    def _look(self) -> None:
        for child in self._children:
            self._keep(child)
        time.sleep(_LOOK)

    def _replace_all(self, listening: socket.socket) -> None:
        """Replace every process, one after the other, by one that has read the file as it is now."""
        former = self.spec
        try:
            self.spec = self.reload()
        except BnpipeError as error:
            _log.error("everything stays as it is: %s", error)
            return
        children = self._children[: 1 + self.spec.workers]
        for place, child in enumerate(children, start=1):
            if not self._replace(child):
                _log.error("%s does not come up by the new file: all goes back to the former one", child.name)
                self.spec = former
                for replaced in children[:place]:
                    self._replace(replaced)
                return
        surplus = self._children[1 + self.spec.workers :]
        del self._children[1 + self.spec.workers :]
        self._end(surplus)
        for child in surplus:
            forget_process(child.name, self._metrics)
        self._children += self._workers(listening, len(self._children))
        _log.warning("all processes have been replaced")

    def _replace(self, child: _Child) -> bool:
        """Replace one process; tell whether the new one is ready (of the follower: whether it was started)."""
        self._end([child])
        forget_process(child.name, self._metrics)
        child.process, child.due, child.stillborn = None, 0.0, 0
        end = time.monotonic() + _START
        while not self._stopping and not child.stillborn and time.monotonic() < end:
            self._look()
            if child.socket < 0 or ready_file(self._order_file(child)).exists():
                return True
        return self._stopping

    def _order_file(self, child: _Child) -> Path:
        return self._folder / f"{child.name}.json"

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        family = socket.AF_INET6 if ":" in self.spec.host else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((self.spec.host, self.spec.port))
        except OSError as error:
            listening.close()
            key = "port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "host"
            raise SettingsError(
                f"can't listen on {self.spec.host}:{self.spec.port}: {error.strerror}; "
                f"choose another `{key}` in the serving file, or --{key}"
            ) from error
        listening.listen(_BACKLOG)
        listening.set_inheritable(True)
        with listening:
            yield listening

    def _stop(self, _: int, __: FrameType | None) -> None:
        if self._stopping:
            for child in self._children:
                if child.process is not None:
                    child.process.kill()
        self._stopping = True

    def _renew(self, _: int, __: FrameType | None) -> None:
        self._renewing = True

    def _keep(self, child: _Child) -> None:
        """Start a child that is not there; one that dies at once is given longer and longer pauses."""
        now = time.monotonic()
        if child.process is not None:
            code, ready = child.process.poll(), ready_file(self._order_file(child)).exists()
            if ready:
                child.stillborn = 0
            if code is None:
                return
            lived = now - child.started
            child.stillborn += not ready
            child.pause = 0.0 if lived > _LONGEST_PAUSE else min(max(2 * child.pause, 0.2), _LONGEST_PAUSE)
            _log.error("%s (pid %d) ended with %d after %.0f s", child.name, child.process.pid, code, lived)
            forget_process(child.name, self._metrics)
            child.process, child.due = None, now + child.pause
        if now < child.due:
            return
        order = Order(child.name, os.getpid(), self.spec.model_dump_json(), child.socket)
        path = self._order_file(child)
        ready_file(path).unlink(missing_ok=True)
        write_order(path, order)
        child.started = now
        child.process = subprocess.Popen(
            [sys.executable, "-m", child.module, str(path)],
            pass_fds=(child.socket,) if child.socket >= 0 else (),
            env={
                **_MEMORY,
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "NUMBA_NUM_THREADS": "1",
                METRICS_FOLDER: str(self._metrics),
            },
            start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's business
        )

    def _tell(self, children: list[_Child]) -> list[subprocess.Popen[bytes]]:
        """Ask all to stop, and give who lives."""
        living = [child.process for child in children if child.process is not None and child.process.poll() is None]
        for process in living:
            process.terminate()
        return living

    def _end(self, children: list[_Child]) -> None:
        self._await(self._tell(children))

    def _await(self, living: list[subprocess.Popen[bytes]]) -> None:
        """Wait as long as they may take to finish, and end who has not."""
        end = time.monotonic() + self.spec.drain + 2.0
        for process in living:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _log.error("pid %d does not stop and is killed", process.pid)
                process.kill()
                process.wait()


def run(spec: ServingSpec, reload: Callable[[], ServingSpec] | None = None) -> int:
    """Run the service in this process and its children; returns the exit code."""
    set_up_logging("supervisor")
    return Supervisor(spec, reload or (lambda: spec)).run()
