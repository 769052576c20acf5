"""``python -m benchmarks.oracle``: what of a change can be found at all, as a table of docs/drift.md.

The oracle is told which node's CPD, or which row of it, changed, into what, how rows of one day hang together and the
CPDs before; it tests that one change by the likelihood ratio of the seven live days, which no test can beat (Neyman &
Pearson), its critical value found from days drawn without the change under the same traffic. A second one is told all
that and tests each node (or each row of some traffic) of the network at its share of the level. A third one, for single
rows, does not see the node's other rows, which tell of the day's luck.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.characteristics import (
    PAGE,
    WINDOW,
    YEARLY,
    Share,
    Tables,
    changed,
    draw_world,
    rows_of_some_traffic,
    tables_of,
    whole_cpds,
)
from benchmarks.days import DAY_EFFECTS, Days, disturbed, draw_rows
from benchmarks.networks import published
from bnpipe.counts import family_counts
from bnpipe.data import Dataset
from bnpipe.drift import compare_cpds
from bnpipe.network import Network

_MARKS: Final = ("<!-- oracle: begin -->", "<!-- oracle: end -->")
_CALM_DAYS: Final = 3000
"""Drawn without the change; their likelihood ratios convolved seven times give the critical value."""
_LUCKS: Final = {2: 2048}
_MORE_LUCKS: Final = 8192
"""Lucks of a day over which the likelihood is averaged; more where there are more states."""
_BINS: Final = 2**16

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Oracle:
    """The likelihood ratio of one day, for a change that is known.

    Parameters
    ----------
    before, after : float64 (configurations * states, lucks)
        Logarithms of the CPD under each luck of a day.
    """

    before: Floats
    after: Floats

    @classmethod
    def of(cls, table: Floats, other: Floats, correlation: float, rng: np.random.Generator) -> Oracle:
        """Average over what days may do to the CPD `table`, and to the changed `other`."""
        states = table.shape[-1]
        lucks = rng.standard_normal((_LUCKS.get(states, _MORE_LUCKS) if correlation else 1, states))
        sides = (np.stack([disturbed(each, correlation, luck).ravel() for luck in lucks]) for each in (table, other))
        before, after = (np.log(np.maximum(side, 1e-12)).T for side in sides)
        return cls(before, after)

    def ratio(self, counts: Floats) -> Floats:
        """Give each day's log likelihood ratio, counts float64 (days, configurations * states)."""
        return _log_mean(counts @ self.after) - _log_mean(counts @ self.before)


def _log_mean(logs: Floats) -> Floats:
    top = logs.max(axis=1, keepdims=True)
    found: Floats = np.log(np.exp(logs - top).mean(axis=1)) + top[:, 0]
    return found


def calm_days(table: Floats, correlation: float, traffic: Floats, rng: np.random.Generator) -> Floats:
    """Draw days without a change, float64 (days, configurations * states), under the parents' traffic of real days."""
    states = table.shape[-1]
    found = np.empty((_CALM_DAYS, table.size))
    lucks, days = rng.standard_normal((_CALM_DAYS, states)), rng.integers(0, len(traffic), _CALM_DAYS)
    for number, (luck, day) in enumerate(zip(lucks, days, strict=True)):
        shares = disturbed(table, correlation, luck).reshape(-1, states)
        found[number] = rng.multinomial(traffic[day].astype(np.int64), shares).ravel()
    return found


def upper_tail(each: Floats, total: float, days: int) -> float:
    """Probability that the sum of `days` draws from `each` is at least `total`: its histogram, convolved."""
    low, high = float(each.min()) - 1e-9, float(each.max()) + 1e-9
    width = (high - low) * days / (_BINS - days - 1)
    place = np.rint((each - low) / width).astype(np.int64)
    shape = np.fft.rfft(np.bincount(place, minlength=_BINS) / each.size)
    summed = np.maximum(np.fft.irfft(shape**days, _BINS), 0.0)
    first = int(np.rint((total - days * low) / width))
    return float(summed[max(first, 0) :].sum()) if first < _BINS else 0.0


@dataclass(frozen=True, slots=True)
class Powers:
    """How often a change is found: by the oracles, and by the test."""

    told: Share
    told_without_others: Share
    must_search: Share
    ours: Share


def powers(name: str, correlation: float, seed: int, count: int, *, single_row: bool, shift: float = 0.3) -> Powers:
    """Draw worlds with one change in a node whose rows of one day correlate so; ask the oracles and the test."""
    truth = published(name)
    traffic = draw_rows(truth, tables_of(truth), 20_000, np.random.default_rng(seed))
    rows_known = rows_of_some_traffic(truth, traffic)
    candidates = rows_known if single_row else whole_cpds(truth)
    rivals = _rows_above(truth, traffic, 0.01) if single_row else len(truth.nodes)
    found = np.zeros(4, dtype=np.int64)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        place, row = candidates[int(rng.integers(len(candidates)))]
        table = truth.cpd(truth.nodes[place]).table
        other = changed(table, shift, None if row is None else [row])

        def tables(base: Tables, _: int, place: int = place, other: Floats = other) -> Tables:
            return [other if k == place else each for k, each in enumerate(base)]

        world = draw_world(name, Days(300, DAY_EFFECTS), rng, live_tables=tables, told={place: correlation})
        counts = _by_day(truth, world.live, place)
        p = _told_p(table, other, correlation, counts, rng)
        alone = p
        if row is not None and counts.shape[1] > table.shape[-1]:
            only = counts.reshape(WINDOW, -1, table.shape[-1])[:, [int(np.ravel_multi_index(row, table.shape[:-1]))]]
            alone = _told_p(table[row][None], other[row][None], correlation, only.reshape(WINDOW, -1), rng)
        flagged = truth.nodes[place] in compare_cpds(world.network, world.live, level=YEARLY, seed=number).flagged
        found += np.array([p <= YEARLY, alone <= YEARLY, p <= YEARLY / rivals, flagged])
    return Powers(*(Share(int(each), count) for each in found))


def _told_p(table: Floats, other: Floats, correlation: float, counts: Floats, rng: np.random.Generator) -> float:
    states = table.shape[-1]
    traffic = counts.reshape(len(counts), -1, states).sum(axis=2)
    oracle = Oracle.of(table, other, correlation, rng)
    calm = np.concatenate([
        oracle.ratio(part) for part in np.array_split(calm_days(table, correlation, traffic, rng), 10)
    ])  # fmt: skip
    return upper_tail(calm, float(oracle.ratio(counts).sum()), len(counts))


def _by_day(network: Network, live: Dataset, place: int) -> Floats:
    """Give the live counts of one family, float64 (days, configurations * states)."""
    node = network.nodes[place]
    places = [network.nodes.index(name) for name in (*network.parents[node], node)]
    cardinalities = [network.schema.cardinalities[each] for each in places]
    counts = family_counts(live.codes, cardinalities, live.clusters, live.cluster_count, variables=places)
    return np.stack([each.ravel() for each in counts.per_cluster()]).astype(np.float64)


def _rows_above(network: Network, traffic: NDArray[np.uint8], share: float) -> int:
    """Count the rows of all CPDs that carry that share of the traffic."""
    found = 0
    for node in network.nodes:
        parents = [network.nodes.index(parent) for parent in network.parents[node]]
        if parents:
            _, counts = np.unique(traffic[parents].T, axis=0, return_counts=True)
            found += int((counts >= share * traffic.shape[1]).sum())
        else:
            found += 1
    return found


def table(results: Sequence[tuple[str, float, Powers]]) -> str:
    """Markdown."""
    names = ("change", "correlation", "told all", "told all, sees only the row", "told all, must try all", "the test")
    lines = [f"| {' | '.join(names)} |", "|---|---|---|---|---|---|"]
    for what, correlation, each in results:
        cells = (each.told, each.told_without_others, each.must_search, each.ours)
        lines.append(f"| {what} | {correlation:g} | {' | '.join(str(cell) for cell in cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.oracle", description=__doc__)
    parser.add_argument("--worlds", type=int, default=100, help="of each line")
    parser.add_argument("--seed", type=int, default=1451)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    results = []
    for single_row in (False, True):
        for correlation in DAY_EFFECTS:
            started = time.monotonic()
            found = powers("alarm", correlation, chosen.seed, chosen.worlds, single_row=single_row)
            what = "one row with 4 to 7 % of the traffic" if single_row else "whole CPD"
            results.append((what, correlation, found))
            print(table(results[-1:]).splitlines()[-1], f"({time.monotonic() - started:.0f} s)", flush=True)  # noqa: T201
    text = chosen.page.read_text(encoding="utf-8") if chosen.page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = f"{_MARKS[0]}\n\n{table(results)}\n\n{_MARKS[1]}"
    chosen.page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
