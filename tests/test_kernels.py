"""Compiling, keeping and sharing out inner loops."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bnpipe.kernels import in_threads

MODULE = """
from numba import types

from bnpipe.kernels import kernel


@kernel(types.int64, types.int64)
def twice(number):
    return 2 * number
"""


@pytest.mark.parametrize("writable", [True, False])
def test_a_kernel_runs_also_where_it_can_not_be_kept(tmp_path: Path, writable: bool) -> None:
    """A container that may write nowhere compiles in each process, and is told what that costs and what to set."""
    (tmp_path / "loops.py").write_text(MODULE)
    if not writable:
        (tmp_path / "__pycache__").write_text("a file where the folder should be, which stops root too")
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), "/dev/null/nowhere")
    environment = {**os.environ, **nowhere, "PYTHONPATH": str(tmp_path), "NUMBA_DISABLE_JIT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", "import loops; print(loops.twice(21))"],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.stdout == "42\n", done.stderr
    assert ("set NUMBA_CACHE_DIR" in done.stderr) is not writable
    assert bool(list(tmp_path.glob("__pycache__/loops.twice*.nbi"))) is writable


@pytest.mark.parametrize("threads", [1, 2, 9, None])
def test_results_come_in_the_order_of_the_parts(threads: int | None) -> None:
    """However many threads share the work out; an error in one part is the caller's."""
    assert in_threads(lambda part: part * part, range(20), threads) == [part * part for part in range(20)]
    assert in_threads(lambda part: part, [], threads) == []
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda part: 1 // part, [1, 0, 2], threads)
