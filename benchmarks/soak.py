"""``python -m benchmarks.soak``: the service under load for minutes, while versions change and MLflow comes and goes.

Three promotions go through a real MLflow server, which is ended and started again before the last. No request may fail,
no process may grow, and requests must not wait much longer while versions change than before.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from benchmarks.load import Load, closed_loop, run_load
from benchmarks.machine import conditions
from benchmarks.report import section
from benchmarks.results import PartResult, Table, Target
from benchmarks.service import (
    MODEL,
    Running,
    flights_network,
    free_port,
    json_rows,
    mlflow_server,
    new_store,
    questions,
    register,
    resident,
    serving,
)
from benchmarks.timing import count, duration
from bnpipe.network import Network

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "soak.md"
_CONFIG: Final = "answers_cached: 1000\n"
"""Fewer than there are different rows, so that answers are remembered and forgotten all the while."""
_ROWS: Final = 5000
_SWAP: Final = 5.0
"""Seconds in which a promotion may have reached every worker, and that are counted as its swap."""
_TIMES: Final = 3.0
_GROWTH: Final = 0.10
_GROWTH_BYTES: Final = 20.0


@dataclass(frozen=True)
class Plan:
    """How long, and how much.

    Parameters
    ----------
    seconds : float
    clients : int
    workers : int
    """

    seconds: float = 600.0
    clients: int = 4
    workers: int = 2


@dataclass(frozen=True)
class Swap:
    """One promotion: when it was called for and when it was seen to answer, on the clock of ``time.monotonic``."""

    version: int
    asked: float
    seen: float


@dataclass(frozen=True)
class Soaked:
    """What came of it.

    Parameters
    ----------
    load : Load
    swaps : tuple of Swap
    away : (float, float)
        When MLflow was ended and when it answered again.
    memory : mapping of str to list of (float, float)
        By process: when, and 10⁶ bytes.
    failure : str
        Of the promotions; '' if all went well.
    """

    load: Load
    swaps: tuple[Swap, ...]
    away: tuple[float, float]
    memory: Mapping[str, list[tuple[float, float]]]
    failure: str

    @property
    def failed(self) -> int:
        """Requests that were not answered with 200."""
        return int((~self.load.good).sum())

    @property
    def in_swaps(self) -> Load:
        """Requests that began while versions changed."""
        parts = [self.load.between(swap.asked, max(swap.seen, swap.asked + _SWAP)) for swap in self.swaps]
        return Load(
            np.concatenate([part.began for part in parts]),
            np.concatenate([part.seconds for part in parts]),
            np.concatenate([part.status for part in parts]),
            sum(part.elapsed for part in parts),
        )

    @property
    def before(self) -> Load:
        """Requests that began before the first promotion; the first tenth of them is left out."""
        first, swap = float(self.load.began.min()), self.swaps[0].asked
        return self.load.between(first + (swap - first) / 10, swap)

    def growth(self) -> dict[str, tuple[float, float]]:
        """Memory of each process early (before the first swap) and at the end, medians, 10⁶ bytes."""
        first = self.swaps[0].asked
        found = {}
        for name, samples in self.memory.items():
            early = [size for at, size in samples if at < first]
            late = [size for _, size in samples[-max(1, len(samples) // 5) :]]
            found[name] = (float(np.median(early or late)), float(np.median(late)))
        return found

    def grown(self) -> list[str]:
        """Name the processes that grew by more than a tenth and 20 MB."""
        return [
            name for name, (early, late) in self.growth().items() if late - early > max(_GROWTH * early, _GROWTH_BYTES)
        ]


def run(plan: Plan, folder: Path, networks: list[Network] | None = None) -> Soaked:
    """Soak in an empty folder."""
    networks = networks or [flights_network(seed) for seed in range(4)]
    requests = questions(json_rows(networks[0], _ROWS, seed=1))
    new_store(folder)
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        server.enter_context(mlflow_server(folder, port))
        for network in networks:
            register(uri, network, promote=network is networks[0])
        service = stack.enter_context(serving(folder, uri, workers=plan.workers, config=_CONFIG))
        run_load(closed_loop(service.address, requests, clients=plan.clients, count=2000))  # warm
        story = _Story(plan, folder, uri, service, server)
        threads = [threading.Thread(target=work, daemon=True) for work in (story.promote_and_restart, story.weigh)]
        for thread in threads:
            thread.start()
        load = run_load(
            closed_loop(service.address, requests, clients=plan.clients, seconds=plan.seconds, until=story.over)
        )
        story.end.set()
        for thread in threads:
            thread.join()
    return Soaked(load, tuple(story.swaps), story.away, story.memory, story.failure)


@dataclass(eq=False)
class _Story:
    """What happens beside the load, in threads of its own."""

    plan: Plan
    folder: Path
    uri: str
    service: Running
    server: ExitStack
    swaps: list[Swap] = field(default_factory=list)
    away: tuple[float, float] = (0.0, 0.0)
    memory: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    failure: str = ""
    end: threading.Event = field(default_factory=threading.Event)
    told: threading.Event = field(default_factory=threading.Event)

    def over(self) -> bool:
        """Whether all has happened that should happen under load."""
        return self.told.is_set()

    def promote_and_restart(self) -> None:
        """Promote at a fifth, two fifths and four fifths of the time; between, MLflow goes and comes."""
        began = time.monotonic()
        steps: list[tuple[float, Callable[[], None]]] = [
            (0.2, lambda: self._promote(2)),
            (0.4, lambda: self._promote(3)),
            (0.55, self._restart),
            (0.75, lambda: self._promote(4)),
        ]
        try:
            for share, step in steps:
                self.end.wait(max(0.0, began + share * self.plan.seconds - time.monotonic()))
                step()
            self.end.wait(_SWAP)
        except Exception as error:  # noqa: BLE001  told by the result
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self.told.set()

    def _promote(self, version: int) -> None:
        from bnpipe.registry import Registry

        asked = time.monotonic()
        Registry(self.uri).promote(MODEL, version, actor="soak", reason="to change under load")
        while time.monotonic() < asked + 60.0:
            (model,) = self.service.get("/v1/models")["models"]
            if model["champion"] == version:
                self.swaps.append(Swap(version, asked, time.monotonic()))
                return
            time.sleep(0.05)
        raise TimeoutError(f"version {version} does not answer 60 s after it was promoted")

    def _restart(self) -> None:
        gone = time.monotonic()
        self.server.close()
        self.server.enter_context(mlflow_server(self.folder, int(self.uri.rpartition(":")[2])))
        self.away = (gone, time.monotonic())

    def weigh(self) -> None:
        """Look at the memory of each process once a second."""
        while not self.end.wait(1.0):
            now = time.monotonic()
            for name, process in self.service.workers.items():
                with suppress(psutil.Error):
                    self.memory.setdefault(name, []).append((now, resident(process)))


def result(plan: Plan, soaked: Soaked) -> PartResult:
    """Put what came of it into tables."""
    before, swaps = soaked.before, soaked.in_swaps
    rows = []
    for what, load in (("before the first promotion", before), ("while versions change", swaps), ("all", soaked.load)):
        status = ", ".join(f"{number} of {status}" for status, number in load.by_status.items())
        quantiles = [duration(load.quantile(share)) for share in (0.5, 0.99, 0.999, 1.0)]
        rows.append((what, count(len(load.status)), status, count(load.per_second), *quantiles))
    memory = [
        (name, f"{early:.0f} MB", f"{late:.0f} MB", f"{max(size for _, size in soaked.memory[name]):.0f} MB")
        for name, (early, late) in soaked.growth().items()
    ]
    seen = [(f"version {swap.version}", duration(swap.seen - swap.asked)) for swap in soaked.swaps]
    away = soaked.away[1] - soaked.away[0]
    growth = max((late / early - 1.0) * 100 for early, late in soaked.growth().values())
    slower = swaps.quantile(0.99) / before.quantile(0.99)
    targets = (
        Target("requests that failed", 0, float(soaked.failed), "requests", at_least=False),
        Target("p99 while versions change, of that before", _TIMES, slower, "×", at_least=False),
        Target("growth of the process that grew most", _GROWTH * 100, growth, "%", at_least=False),
    )
    columns = ("when", "requests", "status", "a second", "p50", "p99", "p99.9", "longest")
    sizes = ("process", "before the first promotion", "at the end", "most")
    return PartResult(
        "soak",
        "The service under load while versions change",
        f"`make soak`: {plan.clients} clients ask {plan.workers} workers one row at a time, as quickly as they are "
        f"answered, for {plan.seconds:g} s; load generator, MLflow and service share the machine. Three versions are "
        f"promoted in MLflow; its server was away for {away:.0f} s between the second and the third. A swap is counted "
        f"from the call until {_SWAP:g} s later. Answers are logged, and a thousand of them remembered, fewer than "
        f"there are different rows.",
        (
            Table("Requests", columns, tuple(rows)),
            Table("From the promotion until it answers", ("promoted", "after"), tuple(seen)),
            Table("Memory of the processes", sizes, tuple(memory)),
        ),
        targets,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; 1 if a request failed, a promotion did not come through or a process grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=Plan.seconds)
    parser.add_argument("--clients", type=int, default=Plan.clients)
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/soak.md)")
    chosen = parser.parse_args(arguments)
    plan = Plan(chosen.seconds, chosen.clients)
    before = conditions()
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        soaked = run(plan, Path(folder))
    if soaked.failure:
        print(soaked.failure)  # noqa: T201
        return 1
    text = section(result(plan, soaked), before)
    chosen.page.write_text(text.partition("\n")[2].replace("## ", "# ", 1), encoding="utf-8")
    print(text)  # noqa: T201
    return int(bool(soaked.failed or soaked.grown()))


if __name__ == "__main__":
    raise SystemExit(main())
