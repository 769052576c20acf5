"""Maximum likelihood tables of a given graph."""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.child import Outcome, limited, run_child
from benchmarks.engines import fitter
from benchmarks.learning import WARM_UP
from benchmarks.networks import kept_rows, published, rows_file, sample
from benchmarks.results import PartResult, Table
from benchmarks.timing import Ratio, Timing, alternate, count, duration

TITLE: Final = "Tables of a given graph"
_METHOD: Final = """\
Counting every family of the generating graph and dividing: maximum likelihood, all states occurring or not.
bnpipe: `fit`, and the tables read once. pgmpy: `DiscreteBayesianNetwork.fit`. pyAgrum: `BNLearner.learnParameters`
after the rows were read (*loading*), with 1e-6 rows a cell as prior, since it refuses configurations that never
occur. Up to {repeats} runs in turn, each ended after {limit:g} s. *apart* is the largest
difference of a probability to bnpipe's, over parent configurations that occur."""


@dataclass(frozen=True)
class Plan:
    """What is run: networks with rows."""

    works: tuple[tuple[str, int], ...] = (("alarm", 1_000_000), ("andes", 100_000), ("munin", 20_000))
    repeats: int = 3
    limit: float = 30.0
    enough: float = 10.0
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan((("asia", 300),), repeats=1, limit=20.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time every engine on every graph."""
    rows: list[tuple[str, ...]] = []
    for network, size in plan.works:
        rows_file(network, size, plan.seed)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            jobs = {engine: functools.partial(_fit, engine, network, size, plan, folder) for engine in engines}
            timings = alternate(jobs, repeats=plan.repeats, enough=plan.enough)
            apart = {engine: _apart(Path(folder), engine) for engine in engines}
        rows += [_row(f"{network} {count(size)}", engine, timings, apart[engine]) for engine in engines]
    columns = ("rows", "engine", "seconds", "runs", "loading", "bnpipe is quicker", "apart")
    text = _METHOD.format(repeats=plan.repeats, limit=plan.limit)
    return PartResult("fit", TITLE, text, (Table("Seconds of fitting", columns, tuple(rows)),))


def _fit(engine: str, network: str, rows: int, plan: Plan, folder: str) -> Outcome:
    arguments = {
        "engine": engine,
        "network": network,
        "rows": rows,
        "seed": plan.seed,
        "limit": plan.limit,
        "tables": str(Path(folder, f"{engine}.npz")),
    }
    return run_child("benchmarks.fit:fit_timed", arguments, wall_seconds=2 * plan.limit + 120)


def fit_timed(*, engine: str, network: str, rows: int, seed: int, limit: float, tables: str) -> dict[str, Any]:
    """Fit once after a small warm-up, and keep the tables; the task of a child."""
    chosen = fitter(engine)
    chosen.fit(chosen.load(sample(published(WARM_UP[0]), WARM_UP[1], seed), published(WARM_UP[0]).parents))
    data, parents = kept_rows(network, rows, seed), published(network).parents
    started = time.perf_counter()
    loaded = chosen.load(data, parents)
    ready = time.perf_counter()
    with limited(limit):
        fitted = chosen.fit(loaded)
        seconds = time.perf_counter() - ready
    found: dict[str, Any] = {
        f"of_{node}": chosen.table(fitted, node, its_parents) for node, its_parents in parents.items()
    }
    if engine == "bnpipe":
        found |= {f"seen_{node}": _seen(data, node, its_parents) for node, its_parents in parents.items()}
    np.savez(tables, **found)
    return {"seconds": seconds, "loading": ready - started}


def _seen(data: Any, node: str, parents: tuple[str, ...]) -> np.ndarray:
    """Which parent configurations occur, shape of the parents."""
    shape = tuple(data.schema[parent].cardinality for parent in parents)
    seen = np.zeros(shape, dtype=bool)
    seen[tuple(data.column(parent) for parent in parents)] = True
    return seen


def _apart(folder: Path, engine: str) -> str:
    """Compare the tables kept by two engines, where both know the same states."""
    files = [folder / f"{name}.npz" for name in ("bnpipe", engine)]
    if engine == "bnpipe" or not all(path.exists() for path in files):
        return ""
    ours, theirs = (np.load(path) for path in files)
    largest, compared = 0.0, 0
    for key in theirs.files:
        if theirs[key].shape == ours[key].shape:
            seen = ours[key.replace("of_", "seen_", 1)]
            difference = np.abs(theirs[key] - ours[key])[seen]
            largest, compared = max(largest, float(difference.max(initial=0.0))), compared + 1
    return f"{largest:.1e} ({compared} of {len(theirs.files)} tables)"


def _row(work: str, engine: str, timings: Mapping[str, Timing], apart: str) -> tuple[str, ...]:
    timing = timings[engine]
    versus = str(Ratio.of(timing, timings["bnpipe"])) if engine != "bnpipe" and "bnpipe" in timings else ""
    loading = duration(timing.value["loading"]) if timing.value and engine != "bnpipe" else "–"
    return (work, engine, str(timing), str(len(timing.seconds)), loading, versus, apart)
