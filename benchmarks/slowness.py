"""``python -m benchmarks.slowness``: which challengers the guard on latency halts, as the table of docs/canary.md.

Calls of the engine in a world that is hard on it: customers who ask at their own hours, some much and most little, with
more or fewer cells known, which makes a call up to five times dearer, and by evidence that is dearer for some of them
than its cells tell. Hours differ, one call in fifty is interrupted, and some hours have minutes in which all calls take
five to fifty times as long. A customer stays on its arm. A look a day, by :func:`bnpipe.release.canary.advance`; beside
it the rule that was: the 99th percentiles of two days, from 100 answers on.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.canary import wilson
from bnpipe.release.canary import ArmOutcome, CanaryPolicy, CanaryState, ClusterOutcome, advance
from bnpipe.steps.outcomes import LIKE

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "canary.md"
POLICY: Final = CanaryPolicy()
CUSTOMERS: Final = 300
DAYS: Final = 28
_DEARER: Final = np.array([1.0, 2.0, 5.0])
_MARKS: Final = ("<!-- slowness: begin -->", "<!-- slowness: end -->")
_START: Final = datetime(2026, 3, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calls:
    """A day's calls of the engine: who made them, of which class, and how long they took."""

    challenger: NDArray[np.bool_]
    like: NDArray[np.int64]
    seconds: Floats

    @property
    def compared(self) -> tuple[int, int]:
        """Calls of the challenger's that have like ones, and the slow ones of them."""
        timed = slow = 0
        for like in np.unique(self.like[self.challenger]):
            mine, usual = (self.seconds[(self.like == like) & (self.challenger == arm)] for arm in (True, False))
            if len(usual) >= LIKE:
                timed += len(mine)
                slow += int((mine > POLICY.max_slowdown * np.median(usual)).sum())
        return timed, slow

    @property
    def tails(self) -> float:
        """The challenger's 99th percentile over the champion's; NaN with fewer than 100 calls."""
        if self.challenger.sum() < 100:
            return float("nan")
        new, old = (np.quantile(self.seconds[self.challenger == arm], 0.99) for arm in (True, False))
        return float(new / old)


class World:
    """Customers of one canary, and the days they make."""

    def __init__(self, seed: int, *, share: float, slower: float) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.slower, self.challenger = slower, rng.random(CUSTOMERS) < share
        weights = rng.permutation(1.0 / np.arange(1, CUSTOMERS + 1))
        self.weights = weights / weights.sum()
        self.peak = rng.uniform(0, 24, CUSTOMERS)
        self.known = rng.dirichlet(np.full(len(_DEARER), 0.3), CUSTOMERS).cumsum(axis=1)
        self.evidence = np.exp(rng.normal(0.0, 0.2, CUSTOMERS))

    def day(self, count: int) -> Calls:
        """Draw a day's calls."""
        rng = self.rng
        who = rng.choice(CUSTOMERS, count, p=self.weights)
        hours = (self.peak[who] + rng.normal(0.0, 3.0, count)) % 24
        hour = hours.astype(np.int64)
        cells = (rng.random(count)[:, None] > self.known[who]).sum(axis=1)
        seconds = 3e-4 * _DEARER[cells] * self.evidence[who] * np.exp(rng.normal(0.0, 0.4, count))
        seconds *= np.exp(rng.normal(0.0, 0.2, 24))[hour]
        interrupted = rng.random(count) < 0.02
        seconds[interrupted] += rng.exponential(0.01, int(interrupted.sum()))
        began, length = rng.uniform(0.0, 0.95, 24), rng.uniform(0.02, 0.15, 24)
        within = hours - hour - began[hour]
        burst = (rng.random(24) < 0.1)[hour] & (within >= 0) & (within < length[hour])
        seconds[burst] *= np.exp(rng.uniform(np.log(5.0), np.log(50.0), 24))[hour[burst]]
        challenger = self.challenger[who]
        seconds[challenger] *= self.slower
        return Calls(challenger, hour * len(_DEARER) + cells, seconds)


def run(seed: int, *, share: float, slower: float, calls: int) -> tuple[int, int]:
    """Give the day on which a canary is halted as slow, and on which it was by the rule that was; 0: never."""
    world = World(seed, share=share, slower=slower)
    state = CanaryState(2, 1, 0, share, _START, _START)
    outcomes: list[ClusterOutcome] = []
    halted = before = 0
    last = float("nan")
    for day in range(DAYS):
        drawn = world.day(calls)
        timed, slow = drawn.compared
        arm = ArmOutcome(rows=timed, timed=timed, slow=slow)
        outcomes.append(ClusterOutcome(_START + day * _DAY, _START + (day + 1) * _DAY, challenger=arm))
        decision = advance(state, outcomes, POLICY, _START + (day + 1) * _DAY)
        if not halted and any(one.gate == "latency" and one.outcome == "fail" for one in decision.verdicts):
            halted = day + 1
        tails = drawn.tails
        if not before and min(last, tails) > POLICY.max_slowdown:
            before = day + 1
        last = last if np.isnan(tails) else tails
        if halted and before:
            break
    return halted, before


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.slowness", description=__doc__)
    parser.add_argument("--canaries", type=int, default=100, help="of each line (default: 100)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/canary.md)")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    text = "\n".join(_table(chosen.canaries))
    print(f"{text}\n{time.monotonic() - started:.0f} s")  # noqa: T201
    page = chosen.page.read_text(encoding="utf-8") if chosen.page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = f"{_MARKS[0]}\n{text}\n{_MARKS[1]}"
    chosen.page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, page, flags=re.DOTALL), encoding="utf-8")


def _table(canaries: int) -> Iterator[str]:
    lines = [
        (slower, share, calls)
        for slower in (1.0, 1.5, 3.0)
        for share, calls in ((0.01, 20_000), (0.1, 5000), (0.5, 5000))
    ]
    yield f"{canaries} canaries a line (four times as many where versions are equal), {DAYS} days in one stage.\n"
    columns = ["times slower", "share", "calls a day", "halted", "day, median", "by the rule that was"]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for place, (slower, share, calls) in enumerate(lines):
        count = canaries * (4 if slower == 1 else 1)
        found = np.array([run(1000 * place + n, share=share, slower=slower, calls=calls) for n in range(count)])
        halted, before = ((found[:, rule] > 0).mean() for rule in (0, 1))
        day = f"{np.median(found[found[:, 0] > 0, 0]):.0f}" if halted else "–"
        cells = [
            f"{slower:g}",
            f"{share:g}",
            str(calls),
            wilson(float(halted), count),
            day,
            wilson(float(before), count),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


if __name__ == "__main__":
    main()
