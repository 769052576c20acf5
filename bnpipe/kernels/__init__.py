"""Compiled inner loops: what runs once a row, a cell or a state, and nothing else.

Every kernel has one explicit signature, so importing its module compiles it, or loads it from the cache that
``python -m bnpipe.kernels`` filled at install. Kernels release the GIL; threads are Python's (:func:`in_threads`) and
share out whole results, never a sum, so that their number changes no bit of any answer. Under
``NUMBA_DISABLE_JIT=1`` the same functions run as plain Python.

numba takes half a second to import and each Airflow task is a process of its own: import kernel modules inside the
function that needs them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, Final, TypeVar

import numba
from numba import types
from numba.extending import intrinsic

Result = TypeVar("Result")
Function = TypeVar("Function", bound=Callable[..., Any])

MOST_THREADS: Final = 64

log = logging.getLogger("bnpipe.kernels")


def array(dtype: str, axes: int = 1, *, writable: bool = False) -> types.Array:
    """Type of a C-contiguous argument; one that is only read takes read-only arrays too."""
    return types.Array(getattr(types, dtype), axes, "C", readonly=not writable)


def kernel(result: Any, *arguments: Any) -> Callable[[Function], Function]:
    """Compile a function for these types: ``@kernel(types.void, array("uint8", 2), types.int64)``."""
    compile_for = partial(numba.njit, result(*arguments), nogil=True, error_model="numpy")

    def compile_function(function: Function) -> Function:
        compiled: Function
        try:
            compiled = compile_for(cache=True)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            _warn_of_no_cache()
            compiled = compile_for()(function)
        return compiled

    return compile_function


@cache
def _warn_of_no_cache() -> None:
    log.warning(
        "compiled loops can't be kept, so every process compiles them anew, a minute of work; "
        "set NUMBA_CACHE_DIR to a folder that this process may write to"
    )


def usable_cores() -> int:
    """Cores this process may run on (a container's CPU quota is not looked at)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(work: Callable[[Any], Result], parts: Iterable[Any], threads: int | None) -> list[Result]:
    """Do independent pieces of work, in up to `threads` threads (None: one a core); results in the order given."""
    listed = list(parts)
    workers = min(threads or usable_cores(), len(listed), MOST_THREADS)
    if workers <= 1:
        return [work(part) for part in listed]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, listed))


if numba.config.DISABLE_JIT:

    def popcount(word: Any) -> int:
        """Bits set in a uint64."""
        return int(word).bit_count()

else:

    @intrinsic
    def popcount(context: Any, word: Any) -> Any:
        """Bits set in a uint64."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.ctpop(arguments[0])

        return types.uint64(types.uint64), generate
