"""Drift: live rows encoded and compared with a registered network, replays included."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.child import Outcome, run_child
from benchmarks.networks import ALARM_40, kept_rows, published
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import alternate, count, duration

TITLE: Final = "Drift"
_METHOD: Final = """\
{rows} live rows of {network}, text in a DataFrame, in {live} days, against a network of {reference} days of {before}
rows each: `Dataset.from_pandas` with the network's schema, then `compare_cpds` with {replays} replays; {repeats} runs,
a process each. The peers have no such function."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Parameters
    ----------
    rows : int
        Live rows.
    before : int
        Reference rows a day.
    seconds : float
        Target.
    """

    network: str = ALARM_40
    rows: int = 1_000_000
    before: int = 10_000
    reference: int = 90
    live: int = 7
    replays: int = 999
    seconds: float = 5.0
    repeats: int = 3
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan("asia", 700, 20, 30, repeats=1)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time encoding and comparison."""
    work = f"drift of {len(published(plan.network).nodes)} nodes, {count(plan.rows)} rows, {plan.replays} replays"
    rows: list[tuple[str, ...]] = []
    median = None
    if "bnpipe" in engines:
        timing = alternate({"bnpipe": functools.partial(_compared, plan)}, repeats=plan.repeats, enough=600.0)["bnpipe"]
        median = timing.median
        parts = timing.value or {}
        shown = (duration(parts[part]) if parts else "–" for part in ("encoding", "comparing"))
        rows.append(("bnpipe", str(timing), *shown))
    rows += [(engine, "–", "–", "has none") for engine in engines if engine != "bnpipe"]
    table = Table(work, ("engine", "seconds", "encoding, last run", "comparing, last run"), tuple(rows))
    text = _METHOD.format(
        rows=count(plan.rows), network=plan.network, live=plan.live, reference=plan.reference,
        before=count(plan.before), replays=plan.replays, repeats=plan.repeats,
    )  # fmt: skip
    return PartResult("drift", TITLE, text, (table,), (Target(work, plan.seconds, median, "s", at_least=False),))


def _compared(plan: Plan) -> Outcome:
    arguments = {
        "network": plan.network, "rows": plan.rows, "before": plan.before, "reference": plan.reference,
        "live": plan.live, "replays": plan.replays, "seed": plan.seed,
    }  # fmt: skip
    return run_child("benchmarks.drift:compare_timed", arguments, wall_seconds=600)


def compare_timed(
    *, network: str, rows: int, before: int, reference: int, live: int, replays: int, seed: int
) -> dict[str, Any]:
    """Encode and compare; the task of a child."""
    import bnpipe
    from bnpipe.data import Dataset

    truth = published(network)
    learned = _in_days(kept_rows(network, before * reference, seed), reference)
    fitted = bnpipe.fit(learned, truth.parents)
    arriving = _in_days(kept_rows(network, rows, seed + 1), live)
    assert arriving.clusters is not None
    frame = arriving.to_pandas().astype(str)
    days = np.array(arriving.cluster_labels)[arriving.clusters]
    started = time.perf_counter()
    encoded = Dataset.from_pandas(frame, fitted.schema, clusters=days)
    between = time.perf_counter()
    bnpipe.compare_cpds(fitted, encoded, replays=replays)
    ended = time.perf_counter()
    return {"seconds": ended - started, "encoding": between - started, "comparing": ended - between}


def _in_days(data: Any, days: int) -> Any:
    from bnpipe.data import Dataset

    clusters = (np.arange(data.rows) * days // data.rows).astype(np.int32)
    return Dataset(data.schema, data.codes, clusters, tuple(f"{day:03d}" for day in range(days)))
