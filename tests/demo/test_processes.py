"""Children are watched while they live and never left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bnpipe.demo.processes import Processes, free_port
from bnpipe.errors import PlatformError

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
PARENT = """
import subprocess, time
subprocess.Popen(["sleep", "60"], process_group=0)
print("up", flush=True)
time.sleep(60)
"""
WITH_CHILD = [sys.executable, "-c", PARENT]


@pytest.fixture
def processes(tmp_path: Path):
    """A set of children in a folder of its own, stopped at the end."""
    found = Processes(tmp_path / "run")
    found.claim()
    yield found
    found.stop(patience=1)


def start(processes: Processes, command: list[str], name: str = "child"):
    """Start a command and wait until it has said that it is up."""
    child = processes.start(name, command, env=os.environ, cwd=processes.folder)
    processes.wait_until(lambda: [] if "up" in child.log.read_text() else [name], timeout=10, interval=0.05)
    return child


def test_stop_ends_a_child_and_what_it_started(processes: Processes):
    """A grandchild in a process group of its own goes too, and no record stays."""
    child = start(processes, WITH_CHILD)
    members = [psutil.Process(child.process.pid), *psutil.Process(child.process.pid).children()]
    assert len(members) == 2
    processes.stop()
    assert not any(member.is_running() for member in members)
    assert list(processes.folder.glob("*.json")) == []


def test_a_dead_child_is_reported_with_the_end_of_its_log(processes: Processes):
    """The error names the child, its exit code and what it said last."""
    processes.start(
        "scheduler", [sys.executable, "-c", "raise SystemExit('no disk left')"], env=os.environ, cwd=Path.cwd()
    )
    with pytest.raises(PlatformError, match=r"scheduler died with exit code 1(.|\n)*no disk left"):
        processes.wait_until(lambda: ["scheduler"], timeout=10)


def test_a_child_that_is_never_ready_is_named(processes: Processes):
    """The wait ends with the name of the late one only."""
    start(processes, SLEEP, "mlflow")
    start(processes, SLEEP, "scheduler")
    with pytest.raises(PlatformError, match="not ready after 0 s: mlflow") as caught:
        processes.wait_until(lambda: ["mlflow"], timeout=0.1)
    assert "scheduler" not in str(caught.value)


def test_a_command_that_fails_is_reported(processes: Processes):
    """What should end by itself raises when it ends badly or not at all."""
    bad = processes.start("migrate", [sys.executable, "-c", "raise SystemExit(3)"], env=os.environ, cwd=Path.cwd())
    with pytest.raises(PlatformError, match="migrate ended with exit code 3"):
        processes.finish(bad, timeout=10)
    with pytest.raises(PlatformError, match="child was not done after 0 s"):
        processes.finish(start(processes, SLEEP), timeout=0.05)


def test_leftovers_of_a_killed_run_are_ended(tmp_path: Path):
    """A run whose supervisor was killed leaves children; the next one in that folder ends them, grandchildren too."""
    code = (
        "import os, pathlib, sys; from bnpipe.demo.processes import Processes;"
        "p = Processes(pathlib.Path(sys.argv[1])); p.claim();"
        "c = p.start('child', sys.argv[2:], env=os.environ, cwd=pathlib.Path.cwd());"
        "p.wait_until(lambda: [] if 'up' in c.log.read_text() else ['child'], timeout=10);"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *WITH_CHILD], check=False)
    leader = psutil.Process(json.loads((tmp_path / "child.json").read_text())["pid"])
    members = [leader, *leader.children()]
    assert len(members) == 2
    leader.kill()  # even when only the grandchild is left
    later = Processes(tmp_path)
    later.claim()
    psutil.wait_procs(members, timeout=5)
    assert not any(member.is_running() and member.status() != psutil.STATUS_ZOMBIE for member in members)
    later.stop()


def test_a_stranger_with_a_recorded_pid_is_left_alone(tmp_path: Path):
    """A pid alone proves nothing: the start time must fit as well."""
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "child.json").write_text(json.dumps({"pid": stranger.pid, "started": 1_000_000_000.0}))
        (tmp_path / "torn.json").write_text('{"pid": 1')
        processes = Processes(tmp_path)
        processes.claim()
        processes.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_folder_in_use_is_refused(tmp_path: Path):
    """Two runs in one folder would end each other."""
    other = subprocess.Popen(["sleep", "60"])
    try:
        record = {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
        (tmp_path / "owner.json").write_text(json.dumps(record))
        with pytest.raises(PlatformError, match=f"in use by process {other.pid}"):
            Processes(tmp_path).claim()
    finally:
        other.kill()
        other.wait()


def test_a_port_in_use_is_passed_over():
    """The preferred port is taken when free, another one when not."""
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        found = free_port(port)
        assert found != port
    assert free_port(found) == found
    assert free_port(found, taken=[found]) != found
