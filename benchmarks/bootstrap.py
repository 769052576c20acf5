"""Arc strength by the bootstrap: 200 graphs from resampled rows."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.child import Outcome, limited, run_child
from benchmarks.engines import learner
from benchmarks.learning import WARM_UP
from benchmarks.networks import kept_rows, published, rows_file, sample
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import Ratio, alternate, count

TITLE: Final = "Bootstrap"
_METHOD: Final = """\
{replicates} graphs learned from resampled rows of {network}, {rows} rows, BIC. bnpipe: `arc_strength`, all of
them, {repeats} runs. The peers have no such function: their time is that of {few} searches on resampled rows, without
the resampling and the loading, **extrapolated** to {replicates}."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Parameters
    ----------
    network : str
    rows : int
    replicates : int
        Bootstraps in all.
    few : int
        Those the peers really do.
    seconds : float
        Target of bnpipe.
    limit : float
        Seconds of one process.
    """

    network: str = "alarm"
    rows: int = 10_000
    replicates: int = 200
    few: int = 3
    seconds: float = 10.0
    repeats: int = 3
    limit: float = 120.0
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan("asia", 200, 4, 2, repeats=1, limit=20.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time the bootstraps of every engine."""
    rows_file(plan.network, plan.rows, plan.seed)
    jobs = {engine: functools.partial(_bootstraps, engine, plan) for engine in engines}
    timings = alternate(jobs, repeats=plan.repeats, enough=plan.limit)
    rows = []
    for engine, timing in timings.items():
        ours = engine == "bnpipe"
        done = count(plan.replicates) if ours else f"{plan.few}, extrapolated"
        ratio = "" if ours or "bnpipe" not in timings else str(Ratio.of(timing, timings["bnpipe"]))
        rows.append((engine, done, str(timing), ratio))
    work = f"{count(plan.replicates)} bootstraps of {plan.network}, {count(plan.rows)} rows"
    table = Table(work, ("engine", "bootstraps run", f"seconds of {plan.replicates}", "bnpipe is quicker"), tuple(rows))
    median = timings["bnpipe"].median if "bnpipe" in timings else None
    target = Target(work, plan.seconds, median, "s", at_least=False)
    text = _METHOD.format(
        replicates=plan.replicates, network=plan.network, rows=count(plan.rows), repeats=plan.repeats, few=plan.few
    )
    return PartResult("bootstrap", TITLE, text, (table,), (target,))


def _bootstraps(engine: str, plan: Plan) -> Outcome:
    arguments = {
        "engine": engine,
        "network": plan.network,
        "rows": plan.rows,
        "replicates": plan.replicates,
        "few": plan.few,
        "seed": plan.seed,
        "limit": plan.limit,
    }
    return run_child("benchmarks.bootstrap:bootstrap_timed", arguments, wall_seconds=2 * plan.limit + 60)


def bootstrap_timed(
    *, engine: str, network: str, rows: int, replicates: int, few: int, seed: int, limit: float
) -> dict[str, Any]:
    """Learn the replicates of one engine; the task of a child."""
    small = sample(published(WARM_UP[0]), WARM_UP[1], seed)
    data = kept_rows(network, rows, seed)
    if engine == "bnpipe":
        from bnpipe.structure import arc_strength

        arc_strength(small, bootstraps=2)
        with limited(limit):
            started = time.perf_counter()
            arc_strength(data, bootstraps=replicates, seed=seed)
            return {"seconds": time.perf_counter() - started}
    chosen = learner(engine)
    chosen.learn(chosen.load(small, {}), {})
    rng = np.random.default_rng(seed)
    seconds = []
    for _ in range(few):
        loaded = chosen.load(data.select(rng.integers(rows, size=rows)), {})
        with limited(limit):
            started = time.perf_counter()
            chosen.learn(loaded, {})
            seconds.append(time.perf_counter() - started)
    return {"seconds": replicates * sum(seconds) / few}
