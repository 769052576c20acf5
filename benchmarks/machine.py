"""The machine's shape and the versions measured; neither names nor addresses."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Final

import psutil

from benchmarks.results import Conditions

_PACKAGES: Final = ("bnpipe", "pgmpy", "pyagrum", "numba", "numpy", "pandas")
_FEATURES: Final = ("avx2", "avx512f")
BUSY: Final = 0.5


def conditions() -> Conditions:
    """Look at the machine as it is now."""
    versions = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return Conditions(today, _machine(), versions, round(_busy_cores(), 2))


def _busy_cores(seconds: float = 2.0) -> float:
    """How many cores others keep busy; a load average would still hold what was measured before."""
    return psutil.cpu_percent(interval=seconds) / 100 * (os.cpu_count() or 1)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    about = f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {platform.machine()}"
    described = Path("/proc/cpuinfo")
    if not described.exists():
        return about
    lines = dict(line.split(":", 1) for line in described.read_text(encoding="utf-8").splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    flags = [flag for flag in _FEATURES if flag in fields.get("flags", "").split()]
    return ", ".join([about, fields.get("model name", "unknown processor"), *flags])
