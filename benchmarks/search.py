"""Seconds of hill climbing by BIC, without a limit on parents, and what was reached."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.child import Outcome
from benchmarks.graphs import shd, skeleton_f1
from benchmarks.learning import learned
from benchmarks.networks import kept_rows, published
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import Ratio, Timing, alternate, count, duration

TITLE: Final = "Hill climbing"
_METHOD: Final = """\
BIC for all, no limit on the number of parents, no knowledge. The time is that of the learning call alone, from each
engine's own input: bnpipe's Dataset; for pyAgrum a BNLearner that has read a CSV file, with its quickest thread
setting; for pgmpy a DataFrame of integer codes, which it takes quicker than text or categories. Making that input is
*loading* (of bnpipe, the codes are the input). Each run is a process of its own that first learns a small graph, so
that imports and compiled code are loaded. The engines take turns, up to {repeats} rounds; one that has used
{enough:g} s is not run again, and a search is ended where it takes too long: {limits}. Medians, with
the smallest and largest. BIC is computed by `bnpipe.structure.score_structure` for all of them, and told as the
difference to the graph that made the rows, in nats a row: more is better."""


@dataclass(frozen=True)
class Work:
    """Rows to learn from and how many times as long the peers should take."""

    network: str
    rows: int
    pyagrum: float
    pgmpy: float


@dataclass(frozen=True)
class Plan:
    """What is run.

    Parameters
    ----------
    works : tuple of Work
    repeats : int
        Rounds.
    limits : dict of str to float
        Seconds one search of each engine may take.
    enough : float
        Seconds after which an engine is not run again.
    seed : int
        Of the rows.
    """

    works: tuple[Work, ...] = (
        Work("alarm", 100_000, 5, 50),
        Work("alarm", 1_000_000, 10, 50),
        Work("andes", 20_000, 10, 50),
        Work("hepar2", 50_000, 5, 50),
    )
    repeats: int = 5
    limits: Mapping[str, float] = field(default_factory=lambda: {"bnpipe": 150.0, "pyagrum": 80.0, "pgmpy": 150.0})
    enough: float = 20.0
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan((Work("asia", 200, 5, 50),), repeats=2)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time every engine on every work."""
    rows: list[tuple[str, ...]] = []
    settings: list[tuple[str, ...]] = []
    targets: list[Target] = []
    for work in plan.works:
        options: dict[str, Any] = {}
        begun: dict[str, Outcome] = {}
        if "pyagrum" in engines:
            options, begun["pyagrum"], tried = _best_threads(work, plan)
            settings.append(tried)
        jobs = {
            engine: functools.partial(_search, engine, options if engine == "pyagrum" else {}, work, plan)
            for engine in engines
        }
        timings = alternate(jobs, repeats=plan.repeats, enough=plan.enough, begun=begun)
        rows += _rows(work, timings, plan.seed)
        targets += _targets(work, timings)
    columns = (
        "rows", "engine", "seconds", "runs", "loading", "bnpipe is quicker", "BIC, nats a row",
        "CPDAG-SHD", "skeleton F1",
    )  # fmt: skip
    tables = [Table("Seconds of the search", columns, tuple(rows))]
    if settings:
        names = tuple(_thread_settings())
        tables.append(
            Table("pyAgrum by its thread settings, one run each", ("rows", *names, "taken above"), tuple(settings))
        )
    limits = ", ".join(f"{engine} after {seconds:g} s" for engine, seconds in plan.limits.items())
    text = _METHOD.format(repeats=plan.repeats, enough=plan.enough, limits=limits)
    return PartResult("search", TITLE, text, tuple(tables), tuple(targets))


def _search(engine: str, options: Mapping[str, Any], work: Work, plan: Plan) -> Outcome:
    return learned(engine, dict(options), work.network, work.rows, plan.seed, limit=plan.limits[engine])


def _best_threads(work: Work, plan: Plan) -> tuple[dict[str, Any], Outcome, tuple[str, ...]]:
    """Choose pyAgrum's quickest thread setting; give it as options, its run, and a row of the table."""
    settings = _thread_settings()
    tried = {name: _search("pyagrum", {"threads": number}, work, plan) for name, number in settings.items()}
    timings = {name: Timing.of([outcome]) for name, outcome in tried.items()}
    best = min(timings, key=lambda name: timings[name].median or float("inf"))
    shown = [str(timing) for timing in timings.values()]
    return {"threads": settings[best]}, tried[best], (_named(work), *shown, best)


def _thread_settings() -> dict[str, int]:
    """Give pyAgrum's thread settings: 1, 2, and its default where that is another."""
    import pyagrum

    default = pyagrum.getNumberOfThreads()
    named = {f"{number} threads" + (", its default" if number == default else ""): number for number in (1, 2)}
    return named if default in named.values() else named | {f"{default} threads, its default": 0}


def _named(work: Work) -> str:
    return f"{work.network} {count(work.rows)}"


def _rows(work: Work, timings: Mapping[str, Timing], seed: int) -> list[tuple[str, ...]]:
    from bnpipe.structure import score_structure

    generating = published(work.network).parents
    data = kept_rows(work.network, work.rows, seed)
    reference = score_structure(data, generating)
    rows = []
    for engine, timing in timings.items():
        versus = str(Ratio.of(timing, timings["bnpipe"])) if engine != "bnpipe" and "bnpipe" in timings else ""
        reached: tuple[str, ...] = ("–", "–", "–")
        loading = "–"
        if timing.value:
            parents = timing.value["parents"]
            gain = (score_structure(data, parents) - reference) / work.rows
            reached = (f"{gain:+.5f}", str(shd(generating, parents)), f"{skeleton_f1(generating, parents):.3f}")
            loading = duration(timing.value["loading"]) if engine != "bnpipe" else "–"
        rows.append((_named(work), engine, str(timing), str(len(timing.seconds)), loading, versus, *reached))
    return rows


def _targets(work: Work, timings: Mapping[str, Timing]) -> list[Target]:
    found = []
    for peer, needed in (("pyagrum", work.pyagrum), ("pgmpy", work.pgmpy)):
        if peer in timings and "bnpipe" in timings:
            ratio = Ratio.of(timings[peer], timings["bnpipe"])
            found.append(Target(f"{_named(work)}, against {peer}", needed, ratio.value, "×", bound=ratio.bound))
    return found
