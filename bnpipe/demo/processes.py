"""Child processes that are started, watched and stopped together, and never left behind.

Each leads a session of its own. Its pid and start time lie in the run folder while it lives, so that a later start
finds what a killed one left, and can tell it from a stranger that was given the same pid since.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bnpipe.errors import PlatformError

_SAME_START = 2.0  # seconds by which a clock correction may move a recorded start time


@dataclass(frozen=True)
class Child:
    """A started process, leader of its own session."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    record: Path


class Processes:
    """A set of children with a common folder for records and logs.

    Parameters
    ----------
    folder : Path
        Holds `NAME.log` and, while NAME lives, `NAME.json`. One set at a time may use it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._children: list[Child] = []

    def claim(self) -> None:
        """Take the folder over, ending what an interrupted run left; refused while the other run lives.

        Raises
        ------
        PlatformError
            Another living process uses this folder.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        owner = self.folder / "owner.json"
        other = _recorded(owner)
        if other is not None and other.pid != os.getpid():
            raise PlatformError(
                f"{self.folder} is in use by process {other.pid}: stop that one first, or use another folder"
            )
        records = [record for record in self.folder.glob("*.json") if record != owner]
        members = [member for record in records for member in _members_of_record(record)]
        _end(members, members, patience=10)
        for record in records:
            record.unlink()
        _write_record(owner, os.getpid())

    def start(self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> Child:
        """Start `command` in a session of its own, its output in `NAME.log`."""
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        child = Child(name, process, log, self.folder / f"{name}.json")
        self._children.append(child)
        _write_record(child.record, process.pid)
        return child

    def finish(self, child: Child, *, timeout: float) -> None:
        """Wait until `child`, a command that ends by itself, has ended well."""
        try:
            code = child.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise PlatformError(f"{child.name} was not done after {timeout:.0f} s{_tail(child)}") from None
        self._forget(child)
        if code:
            raise PlatformError(f"{child.name} ended with exit code {code}{_tail(child)}")

    def wait_until(self, ready: Callable[[], Iterable[str]], *, timeout: float, interval: float = 0.2) -> None:
        """Poll `ready`, which names the children that are not ready yet, until it names none.

        Raises
        ------
        PlatformError
            A child died, or some were not ready after `timeout` seconds; with the end of their logs.
        """
        deadline = time.monotonic() + timeout
        while missing := set(ready()):
            self.check()
            if time.monotonic() > deadline:
                late = [child for child in self._children if child.name in missing]
                raise PlatformError(
                    f"not ready after {timeout:.0f} s: " + "".join(child.name + _tail(child) for child in late)
                )
            time.sleep(interval)

    def check(self) -> None:
        """Raise if a child has died."""
        for child in self._children:
            code = child.process.poll()
            if code is not None:
                raise PlatformError(f"{child.name} died with exit code {code}{_tail(child)}")

    def stop(self, *, patience: float = 20) -> None:
        """Ask every child to end, then kill what is left of it and of what it started.

        A Ctrl-C while waiting kills at once.
        """
        leaders = {child.process.pid for child in self._children}
        for _ in range(2):  # again for what was started while the first list was gone through
            members = [member for leader in leaders for member in _members(leader)]
            _end([member for member in members if member.pid in leaders], members, patience=patience)
        for child in list(self._children):
            child.process.wait()
            self._forget(child)
        (self.folder / "owner.json").unlink(missing_ok=True)

    def _forget(self, child: Child) -> None:
        self._children.remove(child)
        child.record.unlink(missing_ok=True)


def free_port(preferred: int, *, taken: Iterable[int] = ()) -> int:
    """Return `preferred` if nothing listens there on 127.0.0.1, else a port the system picks."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found: int = probe.getsockname()[1]
                if found not in set(taken):
                    return found
    raise PlatformError("no free port on 127.0.0.1")


def _write_record(path: Path, pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # it has died already: check() will say so
        path.write_text(json.dumps({"pid": pid, "started": psutil.Process(pid).create_time()}))


def _read_record(path: Path) -> tuple[int, float] | None:
    try:
        record = json.loads(path.read_text())
        return int(record["pid"]), float(record["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # cut off while it was written


def _recorded(path: Path) -> psutil.Process | None:
    """Return the living process that the record means, not another with its pid."""
    record = _read_record(path)
    if record is None:
        return None
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(record[0])
        if _same_start(process, record[1]) and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _members_of_record(path: Path) -> list[psutil.Process]:
    """Return what lives of a recorded session, also when its leader is gone."""
    record = _read_record(path)
    if record is None:
        return []
    pid, started = record
    with contextlib.suppress(psutil.NoSuchProcess):
        if not _same_start(psutil.Process(pid), started):
            return []  # a stranger got the pid, which the system gives away only after the whole session has ended
    return [process for process in _members(pid) if _start_time(process) > started - _SAME_START]


def _same_start(process: psutil.Process, started: float) -> bool:
    return abs(_start_time(process) - started) < _SAME_START


def _start_time(process: psutil.Process) -> float:
    try:
        return process.create_time()
    except psutil.Error:
        return 0.0  # it has ended


def _members(leader: int) -> list[psutil.Process]:
    """Return the processes of the leader's session and its descendants in other sessions."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == leader:
                found[process.pid] = process
    with contextlib.suppress(psutil.Error):
        found |= {process.pid: process for process in psutil.Process(leader).children(recursive=True)}
    return list(found.values())


def _end(leaders: Sequence[psutil.Process], members: Sequence[psutil.Process], *, patience: float) -> None:
    """Ask the leaders to end, which end their own children in order; then the members left, then kill."""
    try:
        for asked, wait in ((leaders, patience), (members, 2)):
            for process in asked:
                with contextlib.suppress(psutil.Error):
                    process.terminate()
            psutil.wait_procs(asked, timeout=wait)
    except KeyboardInterrupt:
        pass  # once more: no patience
    for process in members:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(members, timeout=5)


def _tail(child: Child, *, lines: int = 15) -> str:
    """Return the end of the child's log, and where the rest is."""
    text = child.log.read_text(errors="replace").rstrip().splitlines()
    shown = "\n".join("    " + line[:200] for line in text[-lines:])
    return f"; the end of {child.log}:\n{shown}\n" if shown else f"; {child.log} is empty\n"
