"""The supervisor: workers that do not come up, files that can't be served by, and stops; with real processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from pretending import COMES_UP
from watched import garden, lay_out, serving

GOOD, BAD = f"drain: {COMES_UP}\nport: 0\nworkers: 2\n", "drain: 1\nport: 0\nworkers: 2\n"


@dataclass
class Pretended:
    """A supervisor of workers that pretend."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    def pids(self) -> dict[str, int]:
        """Give its children by name."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error, IndexError):
                found[Path(child.cmdline()[3]).stem] = child.pid
        return found

    def wait_for(self, truth: Callable[[], object]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + 60
        while not truth():
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.05)


@contextlib.contextmanager
def supervisor(folder: Path, config: str) -> Iterator[Pretended]:
    """Run one until the block ends."""
    file, log = folder / "serving.yaml", folder / "log"
    file.write_text(config)
    here = Path(__file__).parent
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, str(here / "pretending.py"), str(file)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parents[1])])},
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r":(\d+) with", line)
        assert found, log.read_text()
        yield Pretended(process, int(found[1]), log)
    finally:
        process.stdout.close()
        process.terminate()
        process.wait(30)


def refused(port: int) -> bool:
    """Tell whether nobody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_it_ends_if_no_worker_comes_up(tmp_path: Path) -> None:
    """Callers would wait for ever on its socket, and whoever started it would think that all is well."""
    with supervisor(tmp_path, BAD) as it:
        assert it.process.wait(60) == 1
        assert refused(it.port)
    assert "no worker comes up: each ended 5 times" in it.log.read_text()


def test_one_that_comes_up_is_reason_to_go_on(tmp_path: Path) -> None:
    """A new file by which the first worker dies is taken back: the healthy one is not touched, the dead one returns."""
    with supervisor(tmp_path, GOOD) as it:
        it.wait_for(lambda: len(it.pids()) == 3)
        former = it.pids()
        (tmp_path / "serving.yaml").write_text(BAD)
        it.process.send_signal(signal.SIGHUP)
        it.wait_for(lambda: "goes back to the former" in it.log.read_text())
        it.wait_for(lambda: len(it.pids()) == 3)
        now = it.pids()
        assert now["worker-2"] == former["worker-2"]
        assert now["worker-1"] != former["worker-1"]
        (tmp_path / "serving.yaml").write_text(GOOD.replace("workers: 2", "workers: 1"))
        it.process.send_signal(signal.SIGHUP)
        it.wait_for(lambda: "all processes have been replaced" in it.log.read_text())
        assert sorted(it.pids()) == ["follower", "worker-1"]
        assert it.pids()["worker-1"] != now["worker-1"]
        it.process.terminate()
        assert it.process.wait(30) == 0


def test_a_log_that_can_not_be_written_hangs_nobody(tmp_path: Path) -> None:
    """A new file that names such a folder is not taken; a worker that comes up meanwhile refuses with the reason; and
    when it is mended, all goes on by itself.
    """
    lay_out(tmp_path / "cache", {1: garden()})
    answers = tmp_path / "answers"
    with serving(tmp_path, tmp_path / "cache", workers=1) as service:
        former = service.workers()["worker-1"]
        answers.rename(tmp_path / "away")
        answers.write_text("")
        os.kill(service.process.pid, signal.SIGHUP)
        service.wait_for(lambda: "everything stays as it is: answers.folder" in service.log.read_text())
        assert service.workers()["worker-1"] == former
        os.kill(former, signal.SIGKILL)
        service.wait_for(lambda: service.workers()["worker-1"] != former and service.ready())
        found = service.ask("posterior", {"rain": "yes"})
        assert (found.status_code, "not be logged" in found.json()["title"]) == (503, True)
        assert "nothing can be logged" in service.log.read_text()
        answers.unlink()
        assert service.ask("posterior", {"rain": "no"}).status_code == 200
        assert list(answers.glob("journal/*.log"))
