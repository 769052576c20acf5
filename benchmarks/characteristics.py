"""``python -m benchmarks.characteristics``: what the drift test does where the truth is known, as docs/drift.md's table.

Each situation draws worlds: reference days from a published network (or the flights' own days split at random), a
network fitted to them, and live days from the same network or a changed one. Shares are told with their 95 % interval
(Wilson's where worlds are independent).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import bnpipe
from benchmarks.days import DAY_EFFECTS, Days, draw_days, draw_rows, part
from benchmarks.networks import published
from bnpipe.data import Dataset
from bnpipe.drift import DriftReport, compare_cpds, look_level
from bnpipe.network import Network

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "drift.md"
_MARKS: Final = ("<!-- characteristics: begin -->", "<!-- characteristics: end -->")
REFERENCE: Final = 90
WINDOW: Final = 7
YEARLY: Final = look_level(0.5, 365)

Floats = NDArray[np.float64]
Tables = list[Floats]


@dataclass(frozen=True)
class Share:
    """How often something happened."""

    count: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        if not self.of:
            return 0.0, 1.0
        z, n, p = 1.96, self.of, self.count / self.of
        middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return float((middle - half) / (1 + z * z / n)), float((middle + half) / (1 + z * z / n))

    def __str__(self) -> str:
        low, high = self.interval
        value = self.count / self.of if self.of else float("nan")
        return f"{100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


@dataclass(frozen=True)
class World:
    """A reference network, live rows, and what changed between them."""

    network: Network
    live: Dataset


def tables_of(network: Network) -> Tables:
    """Read the CPDs, float64 (*parents, states) each, in the order of the nodes."""
    return [network.cpd(node).table for node in network.nodes]


def moved(row: Floats, shift: float) -> Floats:
    """Move probability towards the row's rarest state until the total variation is `shift`."""
    rarest = int(np.argmin(row))
    share = min(shift / (1.0 - row[rarest]), 1.0)
    found = (1.0 - share) * row
    found[rarest] += share
    return found


def changed(table: Floats, shift: float, rows: Sequence[tuple[int, ...]] | None = None) -> Floats:
    """Change some rows of a CPD, or all."""
    found = table.copy()
    places = list(np.ndindex(table.shape[:-1])) if rows is None else rows
    for place in places:
        found[place] = moved(table[place], shift)
    return found


def draw_world(
    name: str,
    days: Days,
    rng: np.random.Generator,
    *,
    live_days: int = WINDOW,
    live_tables: Callable[[Tables, int], Tables] | None = None,
) -> World:
    """Draw reference and live days in a row; `live_tables` gives the CPDs of live day number d from those before."""
    truth = published(name)
    base = tables_of(truth)

    def tables(day: int) -> Tables:
        return base if live_tables is None or day < REFERENCE else live_tables(base, day - REFERENCE)

    drawn = draw_days(truth, days, REFERENCE + live_days, tables, rng)
    network = bnpipe.fit(part(drawn, 0, REFERENCE), truth.parents)
    return World(network, part(drawn, REFERENCE, REFERENCE + live_days))


def flights_worlds(seed: int, count: int) -> Iterator[World]:
    """Split the flights' own days at random: 90 to learn from, 7 live, exchangeable by construction."""
    from benchmarks.coverage import flights

    data, parents = flights()
    assert data.clusters is not None
    rows_of = [np.flatnonzero(data.clusters == day) for day in range(data.cluster_count)]
    for number in range(count):
        days = np.random.default_rng([seed, number]).permutation(data.cluster_count)[: REFERENCE + WINDOW]
        rows = [rows_of[day] for day in days]
        clusters = np.repeat(np.arange(days.size, dtype=np.int32), [each.size for each in rows])
        labels = tuple(f"{day:04d}" for day in range(days.size))
        whole = Dataset(data.schema, data.codes[:, np.concatenate(rows)], clusters, labels)
        yield World(bnpipe.fit(part(whole, 0, REFERENCE), parents), part(whole, REFERENCE, REFERENCE + WINDOW))


def unchanged(worlds: Iterator[World], *, level: float = 0.05) -> tuple[Share, Share]:
    """Give the share of nodes whose own p, and of looks whose least adjusted p, is at most the level."""
    alone = total = looks = alarms = 0
    for number, world in enumerate(worlds):
        report = compare_cpds(world.network, world.live, level=level, min_effect=0.0, seed=number)
        known = [node for node in report.nodes.values() if node.known]
        alone += sum(node.own_p <= level for node in known)
        total += len(known)
        alarms += any(node.p <= level for node in known)
        looks += 1
    return Share(alone, total), Share(alarms, looks)


def null_worlds(name: str, days: Days, seed: int, count: int) -> Iterator[World]:
    """Draw worlds without a change."""
    for number in range(count):
        yield draw_world(name, days, np.random.default_rng([seed, number]))


def roots_shifted(name: str, days: Days, seed: int, count: int, *, level: float = 0.05) -> tuple[Share, Share, Share]:
    """Shift 12 roots; give how often unchanged nodes, any of them, and the shifted roots are called changed."""
    truth = published(name)
    roots = [place for place, node in enumerate(truth.nodes) if not truth.parents[node]][:12]
    names = {truth.nodes[place] for place in roots}

    def tables(base: Tables, _: int) -> Tables:
        return [changed(table, 0.3) if place in roots else table for place, table in enumerate(base)]

    wrong = others = looks = alarms = right = 0
    for number in range(count):
        world = draw_world(name, days, np.random.default_rng([seed, number]), live_tables=tables)
        report = compare_cpds(world.network, world.live, level=level, min_effect=0.0, seed=number)
        kept = [node for node in report.nodes.values() if node.known and node.name not in names]
        wrong += sum(node.own_p <= level for node in kept)
        others += len(kept)
        alarms += any(node.p <= level for node in kept)
        right += sum(report.nodes[root].p <= level for root in names)
        looks += 1
    return Share(wrong, others), Share(alarms, looks), Share(right, looks * len(names))


@dataclass(frozen=True)
class Found:
    """How often a change was found, with nothing else flagged, and its row named."""

    node: Share
    row: Share
    others: Share


def one_change(
    name: str,
    days: Days,
    seed: int,
    count: int,
    *,
    shift: float = 0.3,
    single_row: bool,
    level: float = YEARLY,
) -> Found:
    """Change one CPD, or one row of one CPD that carries some 5 % of the traffic, by `shift` in total variation."""
    truth = published(name)
    traffic = draw_rows(truth, tables_of(truth), 20_000, np.random.default_rng(seed))
    candidates = _rows_of_some_traffic(truth, traffic) if single_row else _whole(truth)
    node_found = row_found = stray = 0
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        place, row = candidates[int(rng.integers(len(candidates)))]

        def tables(base: Tables, _: int, place: int = place, row: tuple[int, ...] | None = row) -> Tables:
            rows = None if row is None else [row]
            return [changed(table, shift, rows) if k == place else table for k, table in enumerate(base)]

        world = draw_world(name, days, rng, live_tables=tables)
        report = compare_cpds(world.network, world.live, level=level, seed=number)
        node = truth.nodes[place]
        node_found += node in report.flagged
        stray += bool(set(report.flagged) - {node})
        if row is not None and node in report.flagged:
            named = [each for each in report.nodes[node].changed_rows if each.changed]
            wanted = {
                parent: truth.schema[parent].states[code] for parent, code in zip(truth.parents[node], row, strict=True)
            }
            row_found += bool(named) and dict(named[0].configuration) == wanted
    return Found(Share(node_found, count), Share(row_found, count), Share(stray, count))


def _whole(network: Network) -> list[tuple[int, tuple[int, ...] | None]]:
    return [(place, None) for place, node in enumerate(network.nodes) if network.schema[node].cardinality > 1]


def _rows_of_some_traffic(network: Network, traffic: NDArray[np.uint8]) -> list[tuple[int, tuple[int, ...] | None]]:
    """List rows with 4 to 7 % of the traffic."""
    found: list[tuple[int, tuple[int, ...] | None]] = []
    for place, node in enumerate(network.nodes):
        parents = [network.nodes.index(parent) for parent in network.parents[node]]
        if not parents or network.schema[node].cardinality < 2:
            continue
        rows, counts = np.unique(traffic[parents].T, axis=0, return_counts=True)
        share = counts / traffic.shape[1]
        found += [(place, tuple(int(code) for code in row)) for row in rows[(share >= 0.04) & (share <= 0.07)]]
    return found


def trifles(name: str, seed: int, count: int, *, rows: int = 400_000, shift: float = 0.005) -> Share:
    """Change one CPD by a trifle and look at many rows."""
    truth = published(name)
    flagged = 0
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        place = int(rng.integers(len(truth.nodes)))

        def tables(base: Tables, _: int, place: int = place) -> Tables:
            return [changed(table, shift) if k == place else table for k, table in enumerate(base)]

        world = draw_world(name, Days(rows // WINDOW), rng, live_tables=tables)
        flagged += bool(compare_cpds(world.network, world.live, seed=number).flagged)
    return Share(flagged, count)


def slow_changes(name: str, days: Days, seed: int, count: int, *, length: int = 30) -> tuple[Share, Share, float]:
    """Change one CPD evenly over `length` days; give how often it is found at the end, and dated within 7 days."""
    truth = published(name)
    found = dated = 0
    errors = []
    candidates = _whole(truth)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        place, _ = candidates[int(rng.integers(len(candidates)))]

        def tables(base: Tables, day: int, place: int = place) -> Tables:
            shift = 0.3 * min((day + 1) / length, 1.0)
            return [changed(table, shift) if k == place else table for k, table in enumerate(base)]

        world = draw_world(name, days, rng, live_days=length, live_tables=tables)
        report = compare_cpds(world.network, world.live, level=YEARLY, seed=number, window=WINDOW)
        node = report.nodes[truth.nodes[place]]
        if node.flagged and node.change_point is not None:
            found += 1
            errors.append(int(node.change_point) - REFERENCE - length / 2)
            dated += abs(errors[-1]) <= 7
    return Share(found, count), Share(dated, count), float(np.median(errors)) if errors else float("nan")


def years(name: str, days: Days, seed: int, count: int, *, looks: int = 365) -> tuple[int, int, int]:
    """Look every day of a year without change; give years, looks that alarm, and spells of them."""
    alarms = spells = 0
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        world = draw_world(name, days, rng, live_days=looks + WINDOW - 1)
        last = -WINDOW
        for day in range(looks):
            live = part(world.live, day, day + WINDOW)
            report: DriftReport = compare_cpds(world.network, live, level=YEARLY, min_effect=0.0, seed=day)
            if any(node.p <= YEARLY for node in report.nodes.values()):
                alarms += 1
                spells += day - last >= WINDOW
                last = day
    return count, alarms, spells
