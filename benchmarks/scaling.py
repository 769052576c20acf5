"""Cost of the search against rows, variables and threads, with the memory it takes."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.child import Outcome
from benchmarks.learning import learned
from benchmarks.networks import ALARM_40, published
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import Ratio, Timing, alternate, count

TITLE: Final = "Cost against rows, variables and threads"
_GIGABYTES: Final = 4.0
_METHOD: Final = """\
Hill climbing by BIC as above, one run each unless said otherwise. Rows: {network}, which is ALARM with three variables
more where it has 40. Variables: {few} rows of published networks. A search that takes more than {limit:g} s is ended,
and its engine is not asked for anything larger; bnpipe has {patience:g} s. Memory is the most the whole process held
(Python, libraries, rows and search). The figure shows the same numbers."""
_NOT_RUN: Final = Timing((), "not run", None, {})


@dataclass(frozen=True)
class Plan:
    """What is run.

    Parameters
    ----------
    network : str
        For the cost against rows.
    rows : tuple of int
        Rising.
    variables : tuple of str
        Networks, from few to many variables.
    few : int
        Rows for the cost against variables.
    threaded : tuple of (str, int)
        Networks and rows for the cost against threads.
    repeats : int
        Rounds for the cost against threads.
    limit, patience : float
        Seconds for a search of a peer, and of bnpipe.
    """

    network: str = ALARM_40
    rows: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    variables: tuple[str, ...] = ("asia", "alarm", "hepar2", "andes", "pigs", "link", "munin")
    few: int = 5_000
    threaded: tuple[tuple[str, int], ...] = ((ALARM_40, 1_000_000), ("andes", 20_000))
    repeats: int = 3
    limit: float = 30.0
    patience: float = 100.0
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan("asia", (100, 200), ("asia",), 100, (("asia", 200),), repeats=1, limit=20.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Time the search on growing rows and networks."""
    by_rows = _growing([(plan.network, rows) for rows in plan.rows], plan, engines)
    by_variables = _growing([(network, plan.few) for network in plan.variables], plan, engines)
    tables = (
        _table("Against rows", "rows", [count(rows) for rows in plan.rows], by_rows, engines),
        _table(
            "Against variables", "network (variables)", [_sized(name) for name in plan.variables], by_variables, engines
        ),
        _threads(plan),
    )
    text = _METHOD.format(network=plan.network, few=count(plan.few), limit=plan.limit, patience=plan.patience)
    return PartResult("scaling", TITLE, text, tables, _targets(plan, by_rows), _drawn(plan, by_rows, by_variables))


def _growing(works: Sequence[tuple[str, int]], plan: Plan, engines: Sequence[str]) -> list[dict[str, Timing]]:
    """Give the engines larger and larger work; one that failed gets no more."""
    found: list[dict[str, Timing]] = []
    for network, rows in works:
        going = [engine for engine in engines if not found or not found[-1][engine].failure]
        jobs = {engine: functools.partial(_search, engine, {}, network, rows, plan) for engine in going}
        timings = alternate(jobs, repeats=1, enough=0.0)
        found.append({engine: timings.get(engine, _NOT_RUN) for engine in engines})
    return found


def _search(engine: str, options: Mapping[str, Any], network: str, rows: int, plan: Plan) -> Outcome:
    limit = plan.patience if engine == "bnpipe" else plan.limit
    return learned(engine, dict(options), network, rows, plan.seed, limit=limit)


def _sized(network: str) -> str:
    return f"{network} ({len(published(network).nodes)})"


def _table(
    title: str, head: str, sizes: Sequence[str], found: Sequence[Mapping[str, Timing]], engines: Sequence[str]
) -> Table:
    peers = [engine for engine in engines if engine != "bnpipe"]
    rows = []
    for size, timings in zip(sizes, found, strict=True):
        cells = [cell for engine in engines for cell in (str(timings[engine]), _memory(timings[engine]))]
        ratios = [str(Ratio.of(timings[peer], timings["bnpipe"])) for peer in peers if "bnpipe" in timings]
        rows.append((size, *cells, *ratios))
    columns = [name for engine in engines for name in (engine, f"{engine}, memory")]
    ratios = [f"{peer} / bnpipe" for peer in peers if "bnpipe" in engines]
    return Table(title, (head, *columns, *ratios), tuple(rows))


def _memory(timing: Timing) -> str:
    return f"{timing.value['peak_gigabytes']:.2f} GB" if timing.value else "–"


def _threads(plan: Plan) -> Table:
    rows = []
    for network, size in plan.threaded:
        jobs = {
            str(threads): functools.partial(_search, "bnpipe", {"threads": threads}, network, size, plan)
            for threads in (1, 2)
        }
        timings = alternate(jobs, repeats=plan.repeats, enough=plan.limit)
        one, two = timings["1"], timings["2"]
        same = "yes" if one.value.get("parents") == two.value.get("parents") else "no"
        rows.append((f"{network} {count(size)}", str(one), str(two), str(Ratio.of(one, two)), same))
    columns = ("rows", "1 thread", "2 threads", "quicker", "same graph")
    return Table("bnpipe against threads", columns, tuple(rows), f"Medians of {plan.repeats} runs in turn.")


def _targets(plan: Plan, by_rows: Sequence[Mapping[str, Timing]]) -> tuple[Target, ...]:
    most = by_rows[-1].get("bnpipe", _NOT_RUN)
    memory = most.value["peak_gigabytes"] if most.value else None
    variables = len(published(plan.network).nodes)
    work = f"memory, {count(plan.rows[-1])} rows × {variables} variables"
    return (Target(work, _GIGABYTES, memory, "GB", at_least=False),)


def _drawn(plan: Plan, by_rows: Sequence[Mapping[str, Timing]], by_variables: Sequence[Mapping[str, Timing]]) -> str:
    """Draw both as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sizes = [len(published(network).nodes) for network in plan.variables]
    with rc_context({"svg.hashsalt": "bnpipe", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        _lines(left, plan.rows, by_rows)
        left.set(xlabel=f"rows of {plan.network}", ylabel="seconds of hill climbing")
        _lines(right, sizes, by_variables)
        right.set(xlabel=f"variables, {count(plan.few)} rows")
        left.legend(frameon=False)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _lines(axes: Any, sizes: Sequence[int], found: Sequence[Mapping[str, Timing]]) -> None:
    """Draw seconds against size; an arrow up where an engine was ended."""
    styles = {"bnpipe": ("#0b6e4f", "o"), "pyagrum": ("#c1666b", "s"), "pgmpy": ("#4a6fa5", "^")}
    for engine in found[0]:
        colour, marker = styles[engine]
        points = [(size, timings[engine].median) for size, timings in zip(sizes, found, strict=True)]
        known = [(size, seconds) for size, seconds in points if seconds is not None]
        axes.loglog([size for size, _ in known], [s for _, s in known], color=colour, marker=marker, label=engine)
        bounds = [(size, timings[engine].bound) for size, timings in zip(sizes, found, strict=True)]
        for size, bound in bounds:
            if bound is not None:
                axes.annotate(
                    "", (size, bound * 2), (size, bound), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.5}
                )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, which="major", alpha=0.3)
