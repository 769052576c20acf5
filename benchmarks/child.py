"""Work in a process of its own, with a limit: a peer that hangs, crashes or eats memory costs one cell only.

``python -m benchmarks.child MODULE:FUNCTION JSON RESULT CPU_SECONDS`` calls the function and writes what it returns.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_SHOWN: Final = 60
_NO_LIMIT: Final = 10**6


@dataclass(frozen=True)
class Outcome:
    """What a child gave.

    Parameters
    ----------
    value : dict or None
        None if it failed.
    failure : str
        Such as ``"> 600 s"`` or ``"failed: …"``; empty if it did not fail.
    bound : float or None
        Seconds it is known to have taken at least, where it ran out of its limit.
    """

    value: dict[str, Any] | None
    failure: str = ""
    bound: float | None = None


def run_child(
    task: str, arguments: dict[str, Any], *, cpu_seconds: float = _NO_LIMIT, wall_seconds: float | None = None
) -> Outcome:
    """Call ``MODULE:FUNCTION`` in a new process.

    Parameters
    ----------
    task : str
    arguments : dict
        JSON-ready keyword arguments. ``limit`` is what the function gives to :func:`limited`, seconds.
    cpu_seconds : float
        Processor time of the process, all threads together; fair on a machine that others use.
    wall_seconds : float or None
        Time on the clock, whatever the process does. None: no limit.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result, errors = Path(folder, "result.json"), Path(folder, "errors")
        command = [sys.executable, "-m", "benchmarks.child", task, json.dumps(arguments), str(result), str(cpu_seconds)]
        with errors.open("wb") as stderr:
            # pgmpy's sets of names follow the hash seed, and its graphs follow its sets.
            environment = os.environ | {"PYTHONHASHSEED": "0"}
            child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, cwd=_ROOT, env=environment)
            try:
                status = child.wait(wall_seconds)
            except subprocess.TimeoutExpired:
                return Outcome(None, f"> {wall_seconds:g} s in all")
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        if status == -signal.SIGXCPU:
            return Outcome(None, f"> {cpu_seconds:g} s")
        if status == -signal.SIGALRM:
            return Outcome(None, f"> {arguments['limit']:g} s", float(arguments["limit"]))
        if status:
            return Outcome(None, _failure(status, errors.read_text(errors="replace")))
        return Outcome(json.loads(result.read_text()))


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End this process where the block takes longer on the clock, even inside compiled code."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


def peak_gigabytes() -> float:
    """Most memory this process held so far, in 10⁹ bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def _failure(status: int, errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    said = lines[-1] if lines and status > 0 else f"exit status {status}"
    return "failed: " + (said if len(said) <= _SHOWN else said[: _SHOWN - 1] + "…")


def _main(task: str, arguments: str, result: str, cpu_seconds: str) -> None:
    limit = max(1, round(float(cpu_seconds)))
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, function = task.partition(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    value["cpu_seconds"] = time.process_time()
    Path(result).write_text(json.dumps(value), encoding="utf-8")


if __name__ == "__main__":
    _main(*sys.argv[1:])
