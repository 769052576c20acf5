"""``python -m benchmarks.coverage``: how often intervals of posteriors cover the truth, as docs/intervals.md's table.

The truth of a query is its posterior under the generating network. With day effects each day draws its own CPDs, whose
mean over days is the generating CPD; effects of different nodes are independent, so the posterior under the generating
CPDs is also the posterior of a row of a random day. For the flights the population is the year's 364 days, with all
that storms do to several nodes at once; data sets are days drawn from it with replacement, and the truth is the
posterior under the network fitted to all of them.
"""

from __future__ import annotations

import argparse
import functools
import re
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import bnpipe
from benchmarks.days import DAY_EFFECTS, disturbed, draw_rows, walk
from benchmarks.networks import published
from bnpipe.cpd import Prior
from bnpipe.data import Dataset
from bnpipe.intervals import student_quantile
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "intervals.md"
LEVEL: Final = 0.95
PATTERNS: Final = ("none", "some", "30 %")
_MARKS: Final = ("<!-- coverage: begin -->", "<!-- coverage: end -->")

Floats = NDArray[np.float64]
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Situation:
    """Where rows come from.

    Parameters
    ----------
    network : str
        Published network, ``small`` or ``flights``.
    days : int
        0: independent rows, no clusters.
    rows : int
        In all; of flights what the days have.
    correlations : tuple of float
        Of rows of one day; each node draws one of these.
    persistence : float
        Correlation of one day's effects with the next day's; flights: 1 takes days in a row.
    datasets : int
    """

    network: str
    days: int
    rows: int
    correlations: tuple[float, ...] = (0.0,)
    persistence: float = 0.0
    datasets: int = 60


PLAN: Final = (
    Situation("small", 0, 500, datasets=400),
    Situation("small", 30, 3000, DAY_EFFECTS, datasets=400),
    Situation("alarm", 0, 500, datasets=240),
    Situation("alarm", 0, 5000, datasets=120),
    Situation("alarm", 0, 50000),
    Situation("insurance", 0, 500, datasets=240),
    Situation("insurance", 0, 5000, datasets=120),
    Situation("insurance", 0, 50000),
    Situation("alarm", 30, 3000, datasets=120),
    Situation("alarm", 10, 1000, DAY_EFFECTS, datasets=240),
    Situation("alarm", 30, 3000, DAY_EFFECTS, datasets=120),
    Situation("alarm", 90, 9000, DAY_EFFECTS, datasets=120),
    Situation("alarm", 90, 50000, DAY_EFFECTS),
    Situation("insurance", 10, 5000, DAY_EFFECTS, datasets=120),
    Situation("insurance", 30, 5000, DAY_EFFECTS, datasets=120),
    Situation("insurance", 90, 50000, DAY_EFFECTS),
    Situation("flights", 10, 9200, datasets=120),
    Situation("flights", 30, 27600, datasets=120),
    Situation("flights", 90, 82800, datasets=120),
    Situation("alarm", 90, 9000, DAY_EFFECTS, persistence=0.3),
    Situation("alarm", 90, 9000, DAY_EFFECTS, persistence=0.7),
    Situation("flights", 90, 82800, persistence=1.0, datasets=40),
)


@dataclass(frozen=True, eq=False)
class Answers:
    """Truth and interval of each query, arrays (queries,)."""

    dataset: NDArray[np.int64]
    pattern: NDArray[np.int64]
    bayes: NDArray[np.bool_]
    truth: Floats
    lower: Floats
    upper: Floats
    plain_lower: Floats
    plain_upper: Floats

    @property
    def covered(self) -> NDArray[np.bool_]:
        """Whether the truth lies inside, give or take rounding."""
        found: NDArray[np.bool_] = (self.lower - 1e-9 <= self.truth) & (self.truth <= self.upper + 1e-9)
        return found

    @property
    def plainly_covered(self) -> float:
        """Share of the truths inside the intervals of rows taken as independent, where that was asked for."""
        known = ~np.isnan(self.plain_lower)
        inside = (self.plain_lower - 1e-9 <= self.truth) & (self.truth <= self.plain_upper + 1e-9)
        return float(inside[known].mean())

    @property
    def effective_rows(self) -> Floats:
        """Rows of a plain binomial whose interval would be as wide."""
        middle = np.clip(self.truth, 1e-4, 1 - 1e-4)
        found: Floats = middle * (1 - middle) * (2 * 1.96 / np.maximum(self.upper - self.lower, 1e-9)) ** 2
        return found


def simulate(situation: Situation, *, seed: int, queries: int = 6, targets: int = 3, plain: bool = False) -> Answers:
    """Draw data sets, fit each (maximum likelihood and BDeu 10 in turn), and ask each evidence pattern.

    Parameters
    ----------
    queries : int
        Rows of evidence a pattern and target; the state asked about is random.
    plain : bool
        Whether to ask for intervals without clusters, too, of every fourth data set.
    """
    truth = generating(situation.network)
    asked = bnpipe.compile(truth)
    found = []
    for number in range(situation.datasets):
        rng = np.random.default_rng([seed, number])
        data, rows = draw(situation, truth, rng, queries)
        prior = Prior() if number % 2 == 0 else Prior("bdeu", 10.0)
        fitted = bnpipe.fit(data, truth.parents).with_prior(prior)
        engine = bnpipe.compile(fitted)
        independent = None
        if plain and number % 4 == 0:
            independent = bnpipe.compile(bnpipe.fit(Dataset(data.schema, data.codes), truth.parents).with_prior(prior))
        several = [place for place, variable in enumerate(truth.schema) if variable.cardinality > 1]
        for target in rng.choice(several, min(targets, len(several)), replace=False):
            evidence, pattern = patterns(rows, int(target), rng)
            name = truth.nodes[target]
            answer = engine.posterior(Dataset(truth.schema, evidence), [name], interval=LEVEL)
            right = asked.posterior(Dataset(truth.schema, evidence), [name])[name]
            state = rng.integers(0, right.shape[1], right.shape[0])
            place = (np.arange(right.shape[0]), state)
            assert answer.interval is not None
            ends = answer.interval[name][place]
            plain_ends = np.full_like(ends, np.nan)
            if independent is not None:
                other = independent.posterior(Dataset(truth.schema, evidence), [name], interval=LEVEL)
                assert other.interval is not None
                plain_ends = other.interval[name][place]
            known = ~np.isnan(ends[:, 0])
            columns = (right[place], ends[:, 0], ends[:, 1], plain_ends[:, 0], plain_ends[:, 1], pattern)
            found.append(np.column_stack([np.full(known.sum(), number), *(column[known] for column in columns)]))
    table = np.concatenate(found)
    dataset = table[:, 0].astype(np.int64)
    return Answers(dataset, table[:, 6].astype(np.int64), dataset % 2 == 1, *table[:, 1:6].T)


def generating(name: str) -> Network:
    """Give the network the truth is asked of."""
    if name == "small":
        return small()
    if name == "flights":
        data, parents = flights()
        year = bnpipe.fit(data, parents)
        return Network(year.schema, year.parents, tables={node: year.cpd(node).table for node in year.nodes})
    return published(name)


def small() -> Network:
    """Five variables of two or three states, arcs a to c, b to c, c to d, c to e."""
    rng = np.random.default_rng(7)
    cards = {"a": 2, "b": 3, "c": 3, "d": 2, "e": 3}
    parents = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",), "e": ("c",)}
    schema = Schema(tuple(Variable(name, tuple(f"s{k}" for k in range(card))) for name, card in cards.items()))
    tables = {
        name: rng.dirichlet([1.0] * card, size=[cards[parent] for parent in parents[name]])
        for name, card in cards.items()
    }
    return Network(schema, parents, tables=tables)


def draw(situation: Situation, truth: Network, rng: np.random.Generator, queries: int) -> tuple[Dataset, Codes]:
    """Draw one data set, and whole rows of the population to take evidence from, uint8 (variables, queries)."""
    if situation.network == "flights":
        return draw_flights(situation, rng, queries)
    tables = [truth.cpd(node).table for node in truth.nodes]
    rows = draw_rows(truth, tables, queries, rng)
    if not situation.days:
        return Dataset(truth.schema, draw_rows(truth, tables, situation.rows, rng)), rows
    days = [
        draw_rows(truth, tables_of_day, situation.rows // situation.days, rng)
        for tables_of_day in day_tables(situation, tables, rng)
    ]
    clusters = np.repeat(np.arange(situation.days, dtype=np.int32), situation.rows // situation.days)
    labels = tuple(str(day) for day in range(situation.days))
    return Dataset(truth.schema, np.concatenate(days, axis=1), clusters, labels), rows


def day_tables(situation: Situation, tables: Sequence[Floats], rng: np.random.Generator) -> list[list[Floats]]:
    """Draw each day's CPDs: Dirichlet about the generating rows, all rows of a node by the same luck."""
    by_day: list[list[Floats]] = [[] for _ in range(situation.days)]
    for table in tables:
        correlation = rng.choice(situation.correlations)
        luck = walk(situation.days, table.shape[-1], situation.persistence, rng)
        for day in range(situation.days):
            by_day[day].append(disturbed(table, correlation, luck[day]))
    return by_day


def patterns(rows: Codes, target: int, rng: np.random.Generator) -> tuple[Codes, NDArray[np.int64]]:
    """Hide cells: all, all but two or three, all but 30 %; and tell which pattern each row has."""
    variables, queries = rows.shape
    nothing = np.full((variables, 1), MISSING, dtype=np.uint8)
    some = np.full_like(rows, MISSING)
    for row in range(queries):
        seen = rng.choice(variables, 3 if variables > 8 else 2, replace=False)
        some[seen, row] = rows[seen, row]
    third = np.where(rng.random(rows.shape) < 0.3, rows, np.uint8(MISSING))
    evidence = np.concatenate([nothing, some, third], axis=1)
    evidence[target] = MISSING
    return evidence, np.repeat(np.arange(3), [1, queries, queries])


@functools.cache
def flights() -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    """Give the year's flights with 14 variables, clusters by day, and the graph learned from them."""
    import duckdb

    from bnpipe.examples.flights import prepare

    query = """
        SELECT CAST(day AS VARCHAR) AS day, weekday, CAST(least(greatest(hour, 6), 21) // 3 AS VARCHAR) AS hour, origin,
            region, CASE WHEN carrier IN ('AS', 'F9', 'HA', 'OO', 'YV') THEN 'other' ELSE carrier END AS carrier,
            coalesce(CAST(plane_seats // 70 AS VARCHAR), 'unknown') AS size,
            CAST(departures_in_hour // 6 AS VARCHAR) AS congestion,
            CASE WHEN wind_speed < 7 THEN 'calm' WHEN wind_speed < 12 THEN 'light' WHEN wind_speed < 18 THEN 'fresh'
                 ELSE 'strong' END AS wind,
            CASE WHEN visibility < 3 THEN 'low' WHEN visibility < 9 THEN 'reduced' ELSE 'clear' END AS visibility,
            CASE WHEN precipitation < 0.005 THEN 'dry' WHEN precipitation < 0.05 THEN 'light' ELSE 'heavy' END AS rain,
            CAST(CAST(floor(humidity / 20) AS INTEGER) AS VARCHAR) AS humidity,
            coalesce(CAST(CAST(floor(least(greatest(pressure, 1000), 1031) / 8) AS INTEGER) AS VARCHAR), 'unknown')
                AS pressure,
            CASE WHEN departure_delay IS NULL THEN 'cancelled' WHEN departure_delay < 0 THEN 'early'
                 WHEN departure_delay < 15 THEN 'short' WHEN departure_delay < 60 THEN 'long' ELSE 'over 60'
                 END AS delay,
            late_arrival AS late
        FROM read_parquet($files, hive_partitioning = true)
        WHERE wind_speed IS NOT NULL AND visibility IS NOT NULL AND precipitation IS NOT NULL AND humidity IS NOT NULL
        ORDER BY scheduled_at, origin, carrier, flight
    """
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        frame = duckdb.sql(query, params={"files": f"{folder}/day=*/*.parquet"}).df()
    data = Dataset.from_pandas(frame, clusters="day")
    order = "weekday hour origin region carrier size congestion pressure humidity wind rain visibility delay late"
    knowledge = bnpipe.Knowledge(tiers=[(name,) for name in order.split()])
    learned = bnpipe.learn_structure(data, score="bic", max_parents=2, knowledge=knowledge)
    return data, dict(learned.parents)


def draw_flights(situation: Situation, rng: np.random.Generator, queries: int) -> tuple[Dataset, Codes]:
    """Draw days with replacement, or days in a row from a random one on."""
    data, _ = flights()
    assert data.clusters is not None
    year = data.cluster_count
    if situation.persistence == 1.0:
        days = (rng.integers(year) + np.arange(situation.days)) % year
    else:
        days = rng.integers(0, year, situation.days)
    rows = [np.flatnonzero(data.clusters == day) for day in days]
    clusters = np.repeat(np.arange(situation.days, dtype=np.int32), [part.size for part in rows])
    labels = tuple(str(day) for day in range(situation.days))
    drawn = Dataset(data.schema, data.codes[:, np.concatenate(rows)], clusters, labels)
    return drawn, data.codes[:, rng.integers(0, data.rows, queries)]


def share(covered: NDArray[np.bool_], dataset: NDArray[np.int64], *, level: float = 0.95) -> tuple[float, float]:
    """Coverage, and the half-width of its own interval: answers of one data set stand and fall together."""
    sets, place = np.unique(dataset, return_inverse=True)
    if sets.size < 2:
        return float(covered.mean()) if covered.size else float("nan"), float("nan")
    count = np.bincount(place)
    mean = covered.mean()
    residual = np.bincount(place, covered - mean)
    error = np.sqrt((residual**2).sum() * sets.size / (sets.size - 1)) / count.sum()
    return float(mean), float(student_quantile(level, sets.size - 1) * error)


def report(results: Sequence[tuple[Situation, Answers]]) -> str:
    """Markdown: one table of situations, one of kinds of queries."""
    names = (
        "network", "rows", "days", "correlation within a day", "persistence", "data sets", "coverage, %",
        "as independent rows, %", "nothing observed", "some", "30 %", "ML", "BDeu", "median width",
    )  # fmt: skip
    lines = [f"| {' | '.join(names)} |", f"| {' | '.join(['---'] * len(names))} |"]
    for situation, answers in results:
        covered, own = answers.covered, answers.dataset
        mean, half = share(covered, own)
        by_pattern = [share(covered[answers.pattern == k], own[answers.pattern == k])[0] for k in range(3)]
        by_prior = [covered[answers.bayes == flag].mean() for flag in (False, True)]
        real = situation.network == "flights"
        cells = [
            situation.network, f"{situation.rows}", f"{situation.days or '–'}",
            "real" if real else ", ".join(f"{c:g}" for c in situation.correlations) if situation.days else "–",
            ("consecutive days" if situation.persistence else "0") if real else f"{situation.persistence:g}",
            f"{situation.datasets}", f"**{100 * mean:.1f}** ± {100 * half:.1f}",
            f"{100 * answers.plainly_covered:.1f}" if situation.days else "–",
            *(f"{100 * value:.1f}" for value in (*by_pattern, *by_prior)),
            f"{np.median(answers.upper - answers.lower):.3f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_by_kind(results)])


def _by_kind(results: Sequence[tuple[Situation, Answers]]) -> list[str]:
    """Coverage by size of the true probability and by effective rows; the flights' and autocorrelated days apart."""
    groups = {
        "independent rows": [(s, a) for s, a in results if not s.days],
        "day effects": [(s, a) for s, a in results if s.days and s.persistence == 0],
        "days that depend on the day before": [(s, a) for s, a in results if s.persistence > 0],
    }
    sizes = (
        (-1.0, 0.0, "0 or 1"),
        (0.0, 0.001, "to 0.001"),
        (0.001, 0.01, "to 0.01"),
        (0.01, 0.1, "to 0.1"),
        (0.1, 0.5, "to 0.5"),
    )
    thickness = (
        (0.0, 30.0, "< 30 rows"),
        (30.0, 300.0, "30 to 300"),
        (300.0, 3000.0, "300 to 3 000"),
        (3000.0, np.inf, "more"),
    )
    names = [f"p or 1 − p {name}" for *_, name in sizes] + [name for *_, name in thickness]
    lines = [f"| | {' | '.join(names)} |", f"| {' | '.join(['---'] * (1 + len(names)))} |"]
    for title, members in groups.items():
        if not members:
            continue
        number = np.concatenate([10_000 * place + a.dataset for place, (_, a) in enumerate(members)])
        covered = np.concatenate([a.covered for _, a in members])
        truth = np.concatenate([a.truth for _, a in members])
        rare, rows = np.minimum(truth, 1 - truth), np.concatenate([a.effective_rows for _, a in members])
        chosen = [(rare > low) & (rare <= high) for low, high, _ in sizes] + [
            (rows >= low) & (rows < high) for low, high, _ in thickness
        ]
        cells = []
        for part in chosen:
            mean, half = share(covered[part], number[part])
            cells.append(f"{100 * mean:.1f} ± {100 * half:.1f} (n = {part.sum()})" if part.sum() else "–")
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the data sets, for a quicker look (default: 1)")
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/intervals.md)")
    chosen = parser.parse_args(arguments)
    results = []
    for situation in PLAN:
        if chosen.only not in situation.network:
            continue
        started = time.monotonic()
        fewer = replace(situation, datasets=max(4, round(situation.datasets * chosen.share)))
        answers = simulate(fewer, seed=1201, plain=situation.days > 0)
        results.append((fewer, answers))
        mean, half = share(answers.covered, answers.dataset)
        print(  # noqa: T201
            f"{100 * mean:5.1f} ± {100 * half:.1f} %  {time.monotonic() - started:4.0f} s  {fewer}", flush=True
        )
        if not chosen.only:
            write(chosen.page, report(results))


def write(page: Path, tables: str) -> None:
    """Put the tables between the page's marks."""
    text = page.read_text(encoding="utf-8") if page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = f"{_MARKS[0]}\n{tables}\n{_MARKS[1]}"
    page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
