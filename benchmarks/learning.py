"""One timed search in a process of its own: what `search`, `scaling` and `order` are made of."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.child import Outcome, limited, peak_gigabytes, run_child
from benchmarks.engines import learner
from benchmarks.networks import kept_rows, published, rows_file, sample

WARM_UP = ("asia", 500)


def learn_timed(
    *, engine: str, options: dict[str, Any], network: str, rows: int, seed: int, limit: float
) -> dict[str, Any]:
    """Load and learn once, after a small search that loads the libraries and compiled code; the task of a child."""
    chosen = learner(engine)
    small = sample(published(WARM_UP[0]), WARM_UP[1], seed)
    chosen.learn(chosen.load(small, options), options)
    data = kept_rows(network, rows, seed)
    started = time.perf_counter()
    loaded = chosen.load(data, options)
    if engine != "bnpipe":
        del data
    ready = time.perf_counter()
    with limited(limit):
        learned = chosen.learn(loaded, options)
        seconds = time.perf_counter() - ready
    return {
        "seconds": seconds,
        "loading": ready - started,
        "parents": chosen.parents(loaded, learned),
        "peak_gigabytes": peak_gigabytes(),
    }


def learned(engine: str, options: dict[str, Any], network: str, rows: int, seed: int, *, limit: float) -> Outcome:
    """Run :func:`learn_timed` in a child, given `limit` seconds for the search and as many and a minute besides."""
    draw_rows(network, rows, seed)
    arguments = {"engine": engine, "options": options, "network": network, "rows": rows, "seed": seed, "limit": limit}
    return run_child("benchmarks.learning:learn_timed", arguments, wall_seconds=2 * limit + 60)


def draw_rows(network: str, rows: int, seed: int) -> None:
    """Have the rows ready on disk before anything is timed."""
    rows_file(network, rows, seed)
