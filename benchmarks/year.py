"""``python -m benchmarks.year``: the flights of 2013 replayed day by day, as docs/year.md and its figure (6 minutes).

The example's own spec, rules and numeric functions; no Airflow, no MLflow. One champion, learned from January to March
and proved on the first fortnight of April, is kept in four ways at once: never touched, retrained each night, watched
by drift runs that act, and both. Each day is scored by the champion that stands when it begins, before the morning's
runs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.networks import CACHE
from benchmarks.year_page import FOLLOWING, WAYS, Day, Did, Event, Flag, Replay, Way, write
from bnpipe import evaluation, expectations, release
from bnpipe.config import ModelSpec, load_spec
from bnpipe.data import Dataset
from bnpipe.drift import DriftReport, compare_cpds, look_level
from bnpipe.evaluation.scores import Scorer, log_loss_rows
from bnpipe.examples.flights import prepare
from bnpipe.network import Network
from bnpipe.parameters import fit, refit
from bnpipe.schema import MISSING
from bnpipe.source import Connection, find_time_zone, read_window
from bnpipe.steps.learning import OLD_ROWS
from bnpipe.steps.situation import LEAST_REFIT_DAYS, proof_of
from bnpipe.store import load_dataset, load_frame
from bnpipe.structure import learn_structure
from bnpipe.verdict import Verdict

ROOT: Final = Path(__file__).resolve().parent.parent
SPEC: Final = ROOT / "config" / "models" / "flights.yaml"
RECORDS: Final = CACHE / "results" / "year.json"
YEAR: Final = 2013
_MARKS: Final = ("_time", "_cluster")


@dataclass(frozen=True, eq=False)
class Version:
    """A network, the days it learned from and was proved on (numbers in the year), and its absolute gates."""

    network: Network
    train_end: int
    end: int
    gates: tuple[Verdict, ...]


@dataclass
class Reign:
    """The champions of one way, the last one reigning, with the day each began; and the end of the look that acted."""

    champions: list[tuple[Version, int]]
    acted: int | None = None

    @property
    def champion(self) -> Version:
        """Who reigns."""
        return self.champions[-1][0]


@dataclass
class Year:
    """The rows of a year, encoded once, and the rules of a spec; days count from 0.

    `held` are the ends of the weeks that fail validation, with the verdicts.
    """

    spec: ModelSpec
    data: Dataset
    held: Mapping[int, tuple[Verdict, ...]] = field(default_factory=dict)
    _starts: NDArray[np.int64] = field(init=False)
    _trained: dict[int, Version] = field(default_factory=dict)
    _looked: dict[tuple[Version, int], DriftReport] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.data.clusters is not None
        assert (np.diff(self.data.clusters) >= 0).all(), "rows are in order of time"
        self._starts = np.searchsorted(self.data.clusters, np.arange(len(self.data.cluster_labels) + 1))

    def days(self, first: int, last: int) -> Dataset:
        """Give the rows of ``[first, last)``."""
        data, rows = self.data, slice(self._starts[first], self._starts[last])
        assert data.clusters is not None
        unseen = None if data.unseen is None else data.unseen[:, rows]
        clusters = data.clusters[rows] - np.int32(first)
        return Dataset(data.schema, data.codes[:, rows], clusters, data.cluster_labels[first:last], unseen)

    def replay(self, first: int, last: int) -> Iterator[dict[str, Day]]:
        """Score each of the days ``[first, last)`` and hold its morning's runs, in every way."""
        lag = self.spec.source.lag
        begin = self.trained(first - lag)
        reigns = {way: Reign([(begin, first - lag)]) for way in WAYS}
        for day in range(first, last):
            yield {way.name: self._day(way, reigns[way], day, day - lag) for way in WAYS}

    def trained(self, end: int) -> Version:
        """Learn graph and counts as ``bn_train`` does on the window that ends with day `end`."""
        if end not in self._trained:
            spec, train_end = self.spec, end - self.spec.window.held_out
            rows, structure = self.days(train_end - spec.window.train, train_end), spec.structure
            found = learn_structure(
                rows,
                score=structure.score,
                max_parents=structure.max_parents,
                knowledge=spec.knowledge(),
                tabu=structure.tabu,
                restarts=structure.restarts,
                seed=structure.seed,
            )
            network = fit(rows, found.parents, spec.equivalent_sample_size())
            self._trained[end] = self._version(network, rows, train_end, end)
        return self._trained[end]

    def look(self, champion: Version, end: int) -> DriftReport:
        """Compare the newest days before `end` with a champion, as ``bn_drift`` does."""
        key = (champion, end)
        if key not in self._looked:
            spec, rule = self.spec, self.spec.drift_rule()
            self._looked[key] = compare_cpds(
                champion.network,
                self.days(self._live(champion, end), end),
                level=look_level(rule.alarms_per_year, rule.looks_per_year),
                min_effect=rule.min_effect,
                seed=spec.structure.seed,
                window=min(rule.window, end - champion.train_end),
                min_row_share=rule.min_row_share,
                knowledge=spec.knowledge(),
                max_parents=spec.structure.max_parents,
            )
        return self._looked[key]

    def judged(self, challenger: Version, champion: Version) -> release.PromotionDecision:
        """Decide on a challenger by the rule, on rows that neither learned from."""
        since = min(max(challenger.train_end, champion.train_end), challenger.end)
        targets = tuple(self.spec.targets)
        compared = evaluation.compare(
            challenger.network,
            champion.network,
            self.days(since, challenger.end),
            targets=targets,
            evidence={target: self.spec.evidence(target) for target in targets},
        )
        verdicts = (*challenger.gates, *release.judge(compared, rule=self.spec.promotion_rule()))
        return release.decide_promotion(verdicts, policy="auto", first=False)

    def _day(self, way: Way, reign: Reign, day: int, end: int) -> Day:
        score = self._score(reign.champion.network, day)
        events = []
        if way.retrains:
            events.append(self._promoted("train", self.trained(end), reign, day))
        flags: tuple[Flag, ...] = ()
        if way.looks:
            champion = reign.champion
            report = self.look(champion, end) if end not in self.held else None
            if report is not None:
                flags = tuple(self._flag(champion, report, node, end) for node in report.flagged)
            if way.acts:
                events += self._reacted(reign, report, day, end)
        return Day(self.data.cluster_labels[day], *score, flags=flags, events=tuple(events))

    def _score(self, network: Network, day: int) -> tuple[int, float, float, dict[str, float]]:
        """Give rows, nats a row, the targets' mean log-loss and each node's nats of one day, by the CPDs that serve."""
        rows, scorer = self.days(day, day + 1), Scorer(network)
        losses = []
        for target in self.spec.targets:
            known = rows.select(rows.column(target) != MISSING)
            probabilities, _ = scorer.probabilities(known, target, self.spec.evidence(target))
            losses.append(float(log_loss_rows(probabilities, known.column(target)).mean()))
        nats = float(scorer.log_likelihood(rows).mean())
        return rows.rows, nats, float(np.mean(losses)), _parts(network, rows.select(rows.complete))

    def _flag(self, champion: Version, report: DriftReport, name: str, end: int) -> Flag:
        node = report.nodes[name]
        tested = self.days(max(champion.train_end, end - self.spec.drift_rule().window), end)
        fresh = refit(champion.network, tested, (name,), old_rows=OLD_ROWS)
        return Flag(name, node.p, node.effect, node.change_point, self._gain(fresh, champion.network, end))

    def _gain(self, new: Network, old: Network, end: int) -> float | None:
        """Give the nats a row that one network gains over another on the days that follow; None where none do."""
        rows = self.days(end, min(end + FOLLOWING, len(self.data.cluster_labels)))
        if not rows.rows:
            return None
        return float((Scorer(new).log_likelihood(rows) - Scorer(old).log_likelihood(rows)).mean())

    def _reacted(self, reign: Reign, report: DriftReport | None, day: int, end: int) -> list[Event]:
        rule = self.spec.reaction_rule()
        decision = release.react(self._situation(reign, report, end, rule), rule)
        if decision.action == "hold":
            return [Event("hold", "nothing", decision.reason)]
        if decision.action == "nothing":
            return [Event("wait", "nothing", decision.reason)] if decision.alert else []
        reign.acted = end
        if decision.action == "roll back":
            del reign.champions[-1]
            reign.champions[-1] = (reign.champion, day + 1)
            return [Event("roll back", "done", decision.reason)]
        if decision.action == "relearn":
            return [self._promoted("relearn", self.trained(end), reign, day)]
        challenger = self._refitted(reign.champion, decision.families, self._since(decision.since, end), end)
        return [self._promoted("refit", challenger, reign, day, decision.families)]

    def _since(self, label: str | None, end: int) -> int:
        """Give the first day of a refit's rows."""
        since = self.data.cluster_labels.index(label) if label else end - self.spec.drift_rule().window
        return min(since, end - LEAST_REFIT_DAYS)

    def _proof(self, report: DriftReport | None, end: int) -> release.Proof | None:
        """Say what a refit would be proved on; each day of the year has rows."""
        if report is None or not report.flagged:
            return None
        new_year = date(YEAR, 1, 1)
        since = new_year + timedelta(self._since(release.earliest_change(report), end))
        days = self.spec.refit_window_at(new_year + timedelta(end), since).held_out_days
        return proof_of(self.spec, since, new_year + timedelta(end), clusters=days)

    def _promoted(self, did: Did, challenger: Version, reign: Reign, day: int, families: tuple[str, ...] = ()) -> Event:
        """Put a challenger on the throne if the rule says so; it reigns from the next midnight on."""
        if challenger is reign.champion:
            return Event(did, "already champion", "this training's version is the champion")
        champion = reign.champion
        decision = self.judged(challenger, champion)
        if decision.outcome == "promote":
            reign.champions.append((challenger, day + 1))
        gain = self._gain(challenger.network, champion.network, challenger.end)
        return Event(did, decision.outcome, decision.reason, families, gain)

    def _refitted(self, base: Version, families: tuple[str, ...], since: int, end: int) -> Version:
        new_year = date(YEAR, 1, 1)
        window = self.spec.refit_window_at(new_year + timedelta(end), new_year + timedelta(since))
        train_end = end - window.held_out_days
        rows = self.days(since, train_end)
        return self._version(refit(base.network, rows, families, old_rows=OLD_ROWS), rows, train_end, end)

    def _version(self, network: Network, rows: Dataset, train_end: int, end: int) -> Version:
        spec, limits = self.spec, self.spec.gate_limits()
        least = limits.min_rows * (end - train_end) // spec.window.held_out
        scores = evaluation.evaluate(
            network,
            rows,
            self.days(train_end, end),
            targets=tuple(spec.targets),
            evidence={target: spec.evidence(target) for target in spec.targets},
            seed=spec.structure.seed,
            bootstraps=200,
            baselines=False,
        )
        gates = release.absolute_gates(scores, limits=replace(limits, min_rows=least))
        return Version(network, train_end, end, gates)

    def _live(self, champion: Version, end: int) -> int:
        rule = self.spec.drift_rule()
        return max(champion.train_end, end - rule.window - rule.history)

    def _situation(
        self, reign: Reign, report: DriftReport | None, end: int, rule: release.ReactionRule
    ) -> release.DriftSituation:
        champion, began = reign.champions[-1]
        began = began if began < end else champion.end
        comparison: evaluation.Comparison | None = None
        losses: tuple[float, ...] = ()
        predecessor = reign.champions[-2][0] if len(reign.champions) > 1 else None
        if predecessor is not None and end - began < rule.youth:
            clean = max(predecessor.train_end, champion.train_end, self._live(champion, end))
            before = self._backward(predecessor, champion, clean, began)
            losses = before.cluster_means if before is not None else ()
            comparison = self._backward(predecessor, champion, max(clean, began), end)
        return release.DriftSituation(
            validation=self.held.get(end, ()),
            report=report,
            champion=len(reign.champions),
            champion_age=max(0, end - began),
            predecessor=None if predecessor is None else len(reign.champions) - 1,
            against_predecessor=comparison,
            past_losses=losses,
            days_since_action=None if reign.acted is None else float(end - reign.acted),
            proof=self._proof(report, end),
        )

    def _backward(self, predecessor: Version, champion: Version, start: int, end: int) -> evaluation.Comparison | None:
        if start >= end:
            return None
        return evaluation.compare(predecessor.network, champion.network, self.days(start, end), targets=())


def _parts(network: Network, rows: Dataset) -> dict[str, float]:
    """Give ln P(state | parents' states) of each node, the mean over complete rows; empty without any."""
    if not rows.rows:
        return {}
    states = {node: tuple(rows.column(name) for name in (*network.parents[node], node)) for node in network.nodes}
    return {node: float(np.log(network.cpd(node).table[codes]).mean()) for node, codes in states.items()}


def encoded(spec: ModelSpec) -> Year:
    """Read and encode the whole year; bins are learned from the first champion's training days and kept."""
    zone = find_time_zone(spec.source.time_zone)
    begin, end = datetime(YEAR, 1, 1, tzinfo=zone), datetime(YEAR + 1, 1, 1, tzinfo=zone)
    learned = datetime.combine(begin.date() + timedelta(spec.window.train), datetime.min.time(), zone)
    with tempfile.TemporaryDirectory(prefix="bnpipe-") as folder:
        prepare(Path(folder) / "flights")
        rows = Path(folder) / "rows.parquet"
        read_window(Connection(spec.source.connection, "files", folder), spec.query(), begin, end, rows)
        schema = spec.learn_schema(load_frame(rows, spec.learned_columns(), start=begin, end=learned))
        return Year(spec, load_dataset(rows, schema), weeks_held(spec, load_frame(rows, (*spec.variables, *_MARKS))))


def weeks_held(spec: ModelSpec, frame: pd.DataFrame) -> dict[int, tuple[Verdict, ...]]:
    """Find the weeks that a look would hold as bad data: the number of the day after each, and its verdicts.

    Great Expectations is asked of the weeks that have nulls or means beyond the spec's bounds; what it asks besides,
    such as ranges, a year either meets throughout or not at all.
    """
    days = frame["_cluster"].astype(str)
    rules = tuple(
        replace(rule, target=False, max_missing=1.0) if rule.target else rule for rule in spec.feature_rules()
    )
    limits = {rule.name: rule.max_missing for rule in rules}
    week = spec.drift_rule().window
    nulls = frame[list(limits)].isna().groupby(days).sum().rolling(week).sum()
    doubtful = nulls.div(days.groupby(days).size().rolling(week).sum(), axis=0).gt(limits).any(axis=1)
    further = spec.further_expectations(but=("_cluster",))
    for asked in (each["kwargs"] for each in further if each["type"] == "expect_column_mean_to_be_between"):
        sums = frame[asked["column"]].groupby(days).agg(["sum", "count"]).rolling(week).sum()
        doubtful |= ~(sums["sum"] / sums["count"]).between(asked["min_value"], asked["max_value"])
    doubtful[: spec.window.train + spec.window.held_out - 1] = False  # nothing is looked at before
    found = {}
    for end in (place + 1 for place in np.flatnonzero(doubtful)):
        verdicts = expectations.validate(
            frame[days.isin(doubtful.index[end - week : end])],
            variables=rules,
            min_rows=spec.drift_rule().min_rows or spec.fewest_rows(week),
            max_duplicate_share=spec.validation.max_duplicates,
            extra=further,
            name=spec.name,
            time_zone=spec.source.time_zone,
        ).verdicts
        if not all(verdict.passed for verdict in verdicts):
            found[int(end)] = verdicts
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.year", description=__doc__)
    parser.add_argument("--days", type=int, help="replay only so many, for a quicker look (default: until the end)")
    parser.add_argument("--again", action="store_true", help="only draw and write again what was replayed last")
    chosen = parser.parse_args(arguments)
    if not chosen.again:
        replay_year(chosen.days or 365).save(RECORDS)
    write(Replay.load(RECORDS))


def replay_year(most: int) -> Replay:
    """Replay at most so many days of the year, and tell of each."""
    started = time.monotonic()
    spec = load_spec(SPEC)
    year = encoded(spec)
    first = spec.window.train + spec.window.held_out + spec.source.lag
    ways: dict[str, list[Day]] = {way.name: [] for way in WAYS}
    for found in year.replay(first, min(first + most, len(year.data.cluster_labels))):
        for name, day in found.items():
            ways[name].append(day)
        _tell(found, started)
    return Replay((time.monotonic() - started) / 60, {name: tuple(days) for name, days in ways.items()})


def _tell(found: dict[str, Day], started: float) -> None:
    """Say what happened on a day, if anything did."""
    told = []
    for name, day in found.items():
        told += [
            f"{name}: {flag.node} p {flag.p:.4f} effect {flag.effect:.3f} since {flag.since}" for flag in day.flags
        ]
        told += [f"{name}: {event.did} {event.outcome}" for event in day.events if event.outcome != "held"]
    scores = " ".join(f"{day.nats:.3f}" for day in found.values())
    label = next(iter(found.values())).label
    print(f"{time.monotonic() - started:5.0f} s {label} {scores} {'; '.join(told)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
