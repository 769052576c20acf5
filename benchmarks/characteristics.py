"""``make sim``: what the drift test does where the truth is known, as docs/drift.md's table.

Each situation draws worlds: reference days from a published network (or the flights' own days split at random), a
network fitted to them, and live days from the same network or a changed one. Shares are told with their 95 % interval
(Wilson's where worlds are independent).
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
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
        return f"{100 * value:.1f} % [{100 * max(low, 0.0):.1f}, {100 * high:.1f}] of {self.of}"


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
    told: Mapping[int, float] = MappingProxyType({}),
) -> World:
    """Draw reference and live days in a row; `live_tables` gives the CPDs of live day number d from those before.

    `told` are the correlations of nodes, by place, that are not left to chance.
    """
    truth = published(name)
    base = tables_of(truth)

    def tables(day: int) -> Tables:
        return base if live_tables is None or day < REFERENCE else live_tables(base, day - REFERENCE)

    drawn = draw_days(truth, days, REFERENCE + live_days, tables, rng, told=told)
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


def unchanged(worlds: Iterator[World], *, level: float = 0.05, replays: int = 199) -> tuple[Share, Share]:
    """Give the share of nodes whose own p, and of looks whose least adjusted p, is at most the level.

    The test is exact for any number of replays, so a few do.
    """
    alone = total = looks = alarms = 0
    for number, world in enumerate(worlds):
        report = compare_cpds(world.network, world.live, level=level, min_effect=0.0, seed=number, replays=replays)
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


def exchanged_worlds(name: str, days: Days, seed: int, count: int, orders: int) -> Iterator[World]:
    """Draw worlds without a change whose days are independent, and put the days of each in several orders."""
    truth = published(name)
    base = tables_of(truth)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        drawn = draw_days(truth, days, REFERENCE + WINDOW, lambda _: base, rng)
        assert drawn.clusters is not None
        for _ in range(orders):
            order = rng.permutation(drawn.cluster_count).astype(np.int32)
            mixed = Dataset(drawn.schema, drawn.codes, order[drawn.clusters], drawn.cluster_labels)
            network = bnpipe.fit(part(mixed, 0, REFERENCE), truth.parents)
            yield World(network, part(mixed, REFERENCE, REFERENCE + WINDOW))


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
    candidates = rows_of_some_traffic(truth, traffic) if single_row else whole_cpds(truth)
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


def whole_cpds(network: Network) -> list[tuple[int, tuple[int, ...] | None]]:
    """List the nodes whose CPD can change as a whole."""
    return [(place, None) for place, node in enumerate(network.nodes) if network.schema[node].cardinality > 1]


def rows_of_some_traffic(network: Network, traffic: NDArray[np.uint8]) -> list[tuple[int, tuple[int, ...] | None]]:
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
    candidates = whole_cpds(truth)
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


def years(name: str, days: Days, seed: int, count: int, *, looks: int = 365, every: int = 1) -> tuple[int, int, int]:
    """Look every day of a year without change, or every so many; give years, looks that alarm, and spells of them."""
    alarms = spells = 0
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        world = draw_world(name, days, rng, live_days=looks + WINDOW - 1)
        last = -WINDOW
        for day in range(0, looks, every):
            live = part(world.live, day, day + WINDOW)
            report: DriftReport = compare_cpds(world.network, live, level=YEARLY, min_effect=0.0, seed=day)
            if any(node.p <= YEARLY for node in report.nodes.values()):
                alarms += 1
                spells += day - last >= WINDOW
                last = day
    return count, alarms, spells


def evidently_columns(name: str, days: Days, seed: int, count: int, *, shifted: bool) -> tuple[Share, Share]:
    """Ask Evidently's default tests about the same worlds: columns whose CPD is unchanged, and changed, called drifted.

    With `shifted`, 12 roots as in :func:`roots_shifted`.
    """
    from evidently import Report
    from evidently.presets import DataDriftPreset

    truth = published(name)
    roots = [place for place, node in enumerate(truth.nodes) if not truth.parents[node]][:12]

    def tables(base: Tables, _: int) -> Tables:
        return [changed(table, 0.3) if shifted and place in roots else table for place, table in enumerate(base)]

    wrong = others = right = both = 0
    for number in range(count):
        drawn = draw_days(truth, days, REFERENCE + WINDOW, _from(REFERENCE, tables_of(truth), tables),
                          np.random.default_rng([seed, number]))  # fmt: skip
        then, now = (
            part(drawn, *span).to_pandas().astype(str) for span in ((0, REFERENCE), (REFERENCE, REFERENCE + WINDOW))
        )
        found = Report([DataDriftPreset()], include_tests=True).run(now, then).dict()
        drifted = {
            test["metric_config"]["params"]["column"]: test["status"] == "FAIL"
            for test in found["tests"]
            if "column" in test["metric_config"]["params"]
        }
        for place, node in enumerate(truth.nodes):
            if shifted and place in roots:
                right, both = right + drifted[node], both + 1
            else:
                wrong, others = wrong + drifted[node], others + 1
    return Share(wrong, others), Share(right, both)


def _from(first: int, before: Tables, after: Callable[[Tables, int], Tables]) -> Callable[[int], Tables]:
    return lambda day: before if day < first else after(before, day - first)


INDEPENDENT: Final = Days(300)
DIFFERENT: Final = Days(300, DAY_EFFECTS)
_KINDS: Final = (
    ("independent rows", INDEPENDENT),
    ("day effects", DIFFERENT),
    ("day effects, neighbours correlated 0.3", Days(300, DAY_EFFECTS, 0.3)),
    ("day effects, neighbours correlated 0.7", Days(300, DAY_EFFECTS, 0.7)),
)
Line = tuple[str, str, str, str]
"""Situation, what is measured, what is asked, what came out."""


def _unchanged(title: str, worlds: Callable[[], Iterator[World]]) -> list[Line]:
    alone, together = unchanged(worlds())
    return [
        (title, "unchanged nodes alarming, each for itself at 5 %", "≤ 5 %", str(alone)),
        (title, "looks with any alarm, level 5 %", "≤ 5 %", str(together)),
    ]


def _roots(name: str, title: str, days: Days, count: int) -> list[Line]:
    wrong, together, right = roots_shifted(name, days, 1505, count)
    title = f"{name}, 12 roots shifted by 0.3, {title}"
    return [
        (title, "unchanged other nodes alarming, each for itself at 5 %", "≤ 5 %", str(wrong)),
        (title, "looks with any alarm among them, level 5 %", "≤ 5 %", str(together)),
        (title, "shifted roots found", "", str(right)),
    ]


def _change(name: str, title: str, days: Days, count: int, *, single_row: bool) -> list[Line]:
    found = one_change(name, days, 1507 if single_row else 1506, count, single_row=single_row)
    what = "one row with 4 to 7 % of the traffic" if single_row else "one CPD"
    title, asked = f"{name}, {what} changed by 0.3, {title}", "" if days.correlations != (0.0,) else "≥ 90 %"
    lines = [(title, "found within 7 days, a year's level", asked, str(found.node))]
    if single_row:
        lines.append((title, "right row named first", asked, str(found.row)))
    return [*lines, (title, "another node flagged", "", str(found.others))]


def _trifle(name: str, count: int) -> list[Line]:
    return [
        (
            f"{name}, one CPD changed by 0.005, 400 000 rows",
            "flagged, level 5 %",
            "0 %",
            str(trifles(name, 1509, count)),
        )
    ]


def _slow(name: str, title: str, days: Days, count: int) -> list[Line]:
    found, dated, error = slow_changes(name, days, 1508, count)
    title = f"{name}, one CPD changed by 0.3 over 30 days, {title}"
    return [
        (title, "found at the end, a year's level", "found" if days is INDEPENDENT else "", str(found)),
        (title, "dated within 7 days of the middle", "", str(dated)),
        (title, "median error of the date, days", "", f"{error:+.1f}"),
    ]


def _years(name: str, title: str, days: Days, count: int, every: int) -> list[Line]:
    of, alarms, spells = years(name, days, 1510, count, every=every)
    title = f"{name}, {of} years without change, a look every {every} days, {title}"
    found = f"{every * alarms / of:.2f} ({alarms} looks alarmed, in {spells} spells)"
    return [(title, "alarms a year, were there a look a day", "≤ 0.5", found)]


def _evidently(title: str, days: Days, count: int) -> list[Line]:
    calm, _ = evidently_columns("alarm", days, 1511, count, shifted=False)
    wrong, right = evidently_columns("alarm", days, 1512, count, shifted=True)
    return [
        (f"alarm, no change, {title}", "Evidently's default tests: columns called drifted", "", str(calm)),
        (f"alarm, 12 roots shifted by 0.3, {title}", "… unchanged CPDs called drifted", "", str(wrong)),
        (f"alarm, 12 roots shifted by 0.3, {title}", "… shifted roots called drifted", "", str(right)),
    ]


def plan(count: int, model_years: int, every: int) -> list[Callable[[], list[Line]]]:
    """List everything that is simulated, `count` worlds each; where days can change places, ten orders of each."""
    works: list[Callable[[], list[Line]]] = []
    works += [partial(_years, "alarm", title, days, model_years, every) for title, days in _KINDS[::-1]]
    for single in (False, True):
        for title, days in _KINDS[:2]:
            works += [partial(_change, name, title, days, count, single_row=single) for name in ("alarm", "insurance")]
    for name in ("alarm", "insurance"):
        for title, days in _KINDS:
            worlds = (
                partial(null_worlds, name, days, 1501, 2 * count)
                if days.persistence
                else partial(exchanged_worlds, name, days, 1501, count, 10)
            )
            works.append(partial(_unchanged, f"{name}, no change, {title}", worlds))
    works.append(partial(_unchanged, "flights' days split at random", partial(flights_worlds, 1502, 2 * count)))
    for title, days in _KINDS[:2]:
        works += [
            partial(_roots, "alarm", title, days, count),
            partial(_slow, "alarm", title, days, count),
            partial(_evidently, title, days, max(2, count // 20)),
        ]
    works.append(partial(_trifle, "alarm", max(2, count // 4)))
    return works


def _timed(work: Callable[[], list[Line]]) -> tuple[list[Line], float]:
    started = time.monotonic()
    return work(), time.monotonic() - started


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.characteristics", description=__doc__)
    parser.add_argument("--worlds", type=int, default=200, help="of each situation")
    parser.add_argument("--years", type=int, default=10, help="of looks, each kind of days")
    parser.add_argument("--every", type=int, default=1, help="days between those looks")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args(arguments)
    lines: list[Line] = []
    with ProcessPoolExecutor(chosen.processes) as pool:
        for found, seconds in pool.map(_timed, plan(chosen.worlds, chosen.years, chosen.every)):
            lines += found
            write(chosen.page, lines)
            for line in found:
                print(" | ".join(line), f"({seconds:.0f} s)", flush=True)  # noqa: T201


def write(page: Path, lines: Sequence[Line]) -> None:
    """Put the table between the page's marks."""
    head = ["| situation | measured | asked | found |", "|---|---|---|---|"]
    body = "\n".join([*head, *(f"| {' | '.join(line)} |" for line in lines)])
    text = page.read_text(encoding="utf-8") if page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    table = f"{_MARKS[0]}\n\n{body}\n\n{_MARKS[1]}"
    page.write_text(re.sub(f"{begin}.*{end}", lambda _: table, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
