"""`bnpipe serve` beside `mlflow models serve` of the same version, on the same machine, in turn."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.load import Address, Load, closed_loop, open_loop, run_load, trivial_server
from benchmarks.results import PartResult, Table, Target
from benchmarks.service import (
    flights_network,
    invocations,
    json_rows,
    mlflow_models_serve,
    new_store,
    questions,
    register,
    serving,
)
from benchmarks.timing import count, duration

OURS: Final = "bnpipe serve"
CACHED: Final = "bnpipe serve, answers remembered"
PEER: Final = "mlflow models serve"
FLOOR: Final = "a server that does nothing"
_TEXT: Final = """
The version is a network of the size of the example's (17 variables, 5 085 cells), registered in MLflow on SQLite.
`bnpipe serve` runs with two workers and logs every answer; `mlflow models serve` as MLflow sets it up. Both are asked
for the posterior of the target, other rows each time, over kept connections by a generator on the same machine, which
is timed against a server that does nothing; in turn, {rounds} rounds of {seconds:g} s, and the medians of the rounds
are shown. Rows have nulls where the network has a state for them, and all other cells but the target's; with 30 % of
the cells left out the belief needs messages instead of a look-up. The overload is an open loop: requests are due at a
rate, and latencies count from then.
"""


@dataclass(frozen=True)
class Plan:
    """How much is asked.

    Parameters
    ----------
    rounds : int
    seconds : float
        Of each load.
    rows : int
        Different rows.
    overload : float
        Seconds of each load of the overload.
    """

    rounds: int
    seconds: float
    rows: int
    overload: float


PLAN: Final = Plan(rounds=5, seconds=5.0, rows=20_000, overload=10.0)
TINY: Final = Plan(rounds=1, seconds=0.5, rows=2000, overload=0.5)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Measure."""
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    network = flights_network()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, ExitStack() as stack:
        folder = Path(name)
        uri = new_store(folder)
        register(uri, network)
        full, gaps = json_rows(network, plan.rows, 1), json_rows(network, plan.rows, 2, unobserved=0.3)
        ours = stack.enter_context(serving(folder / "ours", uri, config="answers_cached: 0\n")).address
        cached = stack.enter_context(serving(folder / "cached", uri)).address
        peer = stack.enter_context(mlflow_models_serve(folder, uri)).address
        floor = stack.enter_context(trivial_server())
        one = questions(full)
        small = {
            OURS: (ours, one),
            f"{OURS}, 30 % of the cells left out": (ours, questions(gaps)),
            CACHED: (cached, one[:1000]),
            PEER: (peer, invocations(full)),
            FLOOR: (floor, one),
        }
        large = {
            OURS: (ours, questions(full, each=1000)),
            f"{OURS}, 30 % of the cells left out": (ours, questions(gaps, each=1000)),
            PEER: (peer, invocations(full, each=1000)),
        }
        alone, eight = _rounds(plan, small, clients=1), _rounds(plan, small, clients=8)
        thousand = _rounds(plan, large, clients=1)
        strained = _overload(plan, ours, one)
    return _result(plan, alone, eight, thousand, strained)


def _rounds(plan: Plan, servers: Mapping[str, tuple[Address, list[bytes]]], *, clients: int) -> dict[str, list[Load]]:
    """Ask each server in turn, round by round, after some requests to warm up."""
    for address, requests in servers.values():
        run_load(closed_loop(address, requests, clients=8, count=min(len(requests), 64)))
    loads: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(plan.rounds):
        for name, (address, requests) in servers.items():
            loads[name].append(run_load(closed_loop(address, requests, clients=clients, seconds=plan.seconds)))
    return loads


@dataclass(frozen=True)
class _Strained:
    """Loads of the overload: what it can do, half and twice that."""

    able: Load
    half: Load
    twice: Load

    @property
    def slower(self) -> float:
        """How many times as long the accepted requests' p99 is at twice the capacity as at half of it."""
        return self.twice.quantile(0.99) / self.half.quantile(0.99)


def _overload(plan: Plan, address: Address, requests: list[bytes]) -> _Strained:
    able = run_load(closed_loop(address, requests, clients=16, seconds=plan.overload))
    half = run_load(open_loop(address, requests, rate=able.per_second / 2, seconds=plan.overload))
    twice = run_load(open_loop(address, requests, rate=able.per_second * 2, seconds=plan.overload))
    return _Strained(able, half, twice)


def _median(loads: list[Load], measure: Callable[[Load], float]) -> float:
    return statistics.median(map(measure, loads))


def _table(title: str, loads: Mapping[str, list[Load]], note: str = "") -> Table:
    rows = []
    for name, its in loads.items():
        failed = sum(int((~load.good).sum()) for load in its)
        quantiles = [duration(statistics.median(load.quantile(share) for load in its)) for share in (0.5, 0.99, 1.0)]
        rows.append((name, *quantiles, count(_median(its, lambda load: load.per_second)), str(failed)))
    return Table(title, ("server", "p50", "p99", "longest", "a second", "failed"), tuple(rows), note)


def _result(
    plan: Plan,
    alone: Mapping[str, list[Load]],
    eight: Mapping[str, list[Load]],
    thousand: Mapping[str, list[Load]],
    strained: _Strained,
) -> PartResult:
    rate = {name: _median(loads, lambda load: load.per_second) for name, loads in eight.items()}
    half, twice = strained.half, strained.twice
    refused = [duration(twice.quantile(share, status=503)) for share in (0.5, 0.99)]
    overload = Table(
        "Overload",
        ("load", "asked a second", "answered", "refused (503)", "p50", "p99", "p50 and p99 of refusals"),
        tuple(
            (
                name,
                count(load.status.size / load.elapsed),
                f"{100 * load.good.mean():.1f} %",
                f"{100 * (load.status == 503).mean():.1f} %",
                duration(load.quantile(0.5)),
                duration(load.quantile(0.99)),
                " and ".join(refused) if load is twice and (load.status == 503).any() else "–",
            )
            for name, load in (("half of what it can do", half), ("twice of it", twice))
        ),
        f"It can do {count(strained.able.per_second)} a second: 16 clients in a closed loop.",
    )
    targets = (
        Target("one row, p50", 1.5, 1e3 * _median(alone[OURS], lambda load: load.quantile(0.5)), "ms", at_least=False),
        Target("one row, p99", 5.0, 1e3 * _median(alone[OURS], lambda load: load.quantile(0.99)), "ms", at_least=False),
        Target("8 clients, requests a second of `mlflow models serve`", 10.0, rate[OURS] / rate[PEER], "×"),
        Target("1 000 rows", 4.0, 1e3 * _median(thousand[OURS], lambda load: load.quantile(0.5)), "ms", at_least=False),
        Target("p99 of those accepted at twice its capacity, of half", 3.0, strained.slower, "×", at_least=False),
    )
    return PartResult(
        "serving",
        "The service",
        _TEXT.format(rounds=plan.rounds, seconds=plan.seconds).strip(),
        (
            _table("One client, one row", alone),
            _table("Eight clients, one row each", eight),
            _table("One client, 1 000 rows", thousand),
            overload,
        ),
        targets,
    )
