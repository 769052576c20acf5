"""Rows a second of exact inference, and how far the engines' answers are apart."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.answering import answered
from benchmarks.child import Outcome
from benchmarks.networks import exact
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import Ratio, Timing, alternate, count
from bnpipe.data import Dataset
from bnpipe.parameters import log_likelihood_rows

TITLE: Final = "Inference"
_SINGLE: Final = ("codes", "names")
_AGREE: Final = 1e-9
_METHOD: Final = """\
Rows are drawn from the network and a share of their cells is hidden, other cells in each row. All engines answer the
same rows, in turn, {repeats} rounds; the peers the first ones only, as they take them one by one. Time a row, medians
with the smallest and largest; making the evidence (dicts for the peers, codes for bnpipe) is not counted. pyAgrum's
exact algorithms are tried on 20 rows and the quickest is taken; rows it refuses count as answered. Its network is
built through its API, since its BIF reader rounds to float32. The peers are asked for the variables that are not
observed only. A process is ended after {limit:g} s. *apart* is the largest absolute difference to bnpipe's answers on
the rows both answered: of probabilities, of log-likelihoods (nats), of the explanations' log-probabilities (nats)."""


@dataclass(frozen=True)
class Work:
    """Questions of one kind.

    Parameters
    ----------
    name : str
    kind : {"posterior", "likelihood", "explanation", "codes", "names"}
        The last two: one question at a time.
    network : str
    target : str
        Empty: all variables.
    share : float
        Of the cells that are hidden.
    rows : dict of str to int
        How many each engine answers.
    times : float or None
        How many times as long pyAgrum should take.
    seconds : float or None
        What bnpipe should take for all its rows.
    """

    name: str
    kind: str
    network: str
    target: str
    share: float
    rows: Mapping[str, int]
    times: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is run; `limit` in seconds of one process."""

    works: tuple[Work, ...]
    repeats: int = 3
    limit: float = 60.0
    seed: int = 7


def _rows(bnpipe: int, pyagrum: int, pgmpy: int) -> dict[str, int]:
    return {"bnpipe": bnpipe, "pyagrum": pyagrum, "pgmpy": pgmpy}


PLAN: Final = Plan(
    (
        Work("one target, 30 % observed, ALARM", "posterior", "alarm", "HR", 0.7, _rows(100_000, 2_000, 50), 50),
        Work("all marginals, 80 % missing, hepar2", "posterior", "hepar2", "", 0.8, _rows(20_000, 200, 3), 100),
        Work("all marginals, 80 % missing, ALARM", "posterior", "alarm", "", 0.8, _rows(150_000, 500, 5), None, 2.0),
        Work("log-likelihood, 30 % missing, ALARM", "likelihood", "alarm", "", 0.3, _rows(100_000, 1_000, 1)),
        Work("most probable explanation, 30 % missing, ALARM", "explanation", "alarm", "", 0.3, _rows(20_000, 500, 5)),
        Work("one question, codes, ALARM", "codes", "alarm", "HR", 0.7, _rows(2_000, 2_000, 50), None, 1e-4),
        Work("one question, dict of names, ALARM", "names", "alarm", "HR", 0.7, _rows(2_000, 2_000, 50), None, 2e-4),
    )
)
TINY: Final = Plan(
    (
        Work("one target, asia", "posterior", "asia", "lung", 0.7, _rows(50, 20, 4), 50),
        Work("all marginals, asia", "posterior", "asia", "", 0.8, _rows(50, 20, 4), None, 2.0),
        Work("log-likelihood, asia", "likelihood", "asia", "", 0.3, _rows(50, 20, 1)),
        Work("explanation, asia", "explanation", "asia", "", 0.3, _rows(50, 20, 4)),
        Work("one question, codes, asia", "codes", "asia", "lung", 0.7, _rows(50, 20, 4), None, 1e-4),
        Work("one question, dict of names, asia", "names", "asia", "lung", 0.7, _rows(50, 20, 4), None, 2e-4),
    ),
    repeats=1,
)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time every engine on every kind of question."""
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    for work in plan.works:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            jobs = {engine: functools.partial(_answer, engine, work, plan, Path(folder)) for engine in engines}
            timings = alternate(jobs, repeats=plan.repeats, enough=float("inf"))
            apart = {engine: _apart(engine, work, plan, Path(folder)) for engine in engines if engine != "bnpipe"}
        rows += [_row(work, engine, timings, apart.get(engine)) for engine in engines]
        targets += _targets(work, timings, apart)
    columns = ("questions", "engine", "rows", "time a row", "rows a second", "bnpipe is quicker", "apart", "algorithm")
    text = _METHOD.format(repeats=plan.repeats, limit=plan.limit)
    return PartResult("inference", TITLE, text, (Table("Time a row", columns, tuple(rows)),), tuple(targets))


def _answer(engine: str, work: Work, plan: Plan, folder: Path) -> Outcome:
    arguments = {
        "engine": engine,
        "network": work.network,
        "target": work.target,
        "share": work.share,
        "rows": work.rows[engine],
        "of_rows": max(work.rows.values()),
        "seed": plan.seed,
        "limit": plan.limit,
    }
    if work.kind in _SINGLE:
        return answered("query_timed", by_name=work.kind == "names", **arguments)
    return answered("answer_timed", kind=work.kind, answers=str(folder / f"{engine}.npz"), **arguments)


def _row(work: Work, engine: str, timings: Mapping[str, Timing], apart: float | None) -> tuple[str, ...]:
    timing = timings[engine]
    median = timing.median
    ratio = str(Ratio.of(timing, timings["bnpipe"])) if engine != "bnpipe" and "bnpipe" in timings else ""
    return (
        work.name,
        engine,
        count(work.rows[engine]),
        str(timing),
        "–" if median is None else count(1 / median),
        ratio,
        "" if apart is None else f"{apart:.1e}",
        _how(timing),
    )


def _how(timing: Timing) -> str:
    refused = timing.value.get("refused", 0)
    return str(timing.value.get("variant", "")) + (f", {refused} rows refused" if refused else "")


def _targets(work: Work, timings: Mapping[str, Timing], apart: Mapping[str, float | None]) -> list[Target]:
    found = []
    ours = timings.get("bnpipe")
    if work.times is not None and ours is not None and "pyagrum" in timings:
        ratio = Ratio.of(timings["pyagrum"], ours)
        found.append(Target(f"{work.name}, against pyagrum", work.times, ratio.value, "×", bound=ratio.bound))
    if work.seconds is not None and ours is not None:
        rows = 1 if work.kind in _SINGLE else work.rows["bnpipe"]
        name = work.name if rows == 1 else f"{work.name}, {count(rows)} rows"
        scale, unit = (1e6, "µs") if work.seconds < 1e-3 else (1.0, "s")
        measured = None if ours.median is None else ours.median * rows * scale
        found.append(Target(name, work.seconds * scale, measured, unit, at_least=False))
    found += [
        Target(f"{work.name}, apart from {peer}", _AGREE, difference, "", at_least=False)
        for peer, difference in apart.items()
        if difference is not None
    ]
    return found


def _apart(engine: str, work: Work, plan: Plan, folder: Path) -> float | None:
    """Compare the answers that were kept, on the rows both gave; None if one gave none."""
    files = [folder / f"{name}.npz" for name in ("bnpipe", engine)]
    if not all(path.exists() for path in files):
        return None
    ours, theirs = (dict(np.load(path)) for path in files)
    if work.kind == "explanation":
        ours, theirs = ({"": _log_probability(work.network, answers["codes"])} for answers in (ours, theirs))
    largest = 0.0
    for name, table in theirs.items():
        rows = min(len(table), len(ours[name]))
        difference = np.abs(table[:rows] - ours[name][:rows])
        largest = max(largest, float(np.nanmax(difference, initial=0.0)))
    return largest


def _log_probability(network: str, codes: np.ndarray) -> np.ndarray:
    made = exact(network)
    return log_likelihood_rows(made, Dataset(made.schema, codes))
