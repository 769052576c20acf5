"""The scores and graphs that hill climbing reaches, over networks, sample sizes and seeds."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from benchmarks.cells import (
    CONTENDERS,
    GENERATING,
    NETWORKS,
    ROWS,
    SEEDS,
    Cell,
    Contender,
    Problem,
    problems,
    read_cell,
    sweep,
)
from benchmarks.graphs import shd, skeleton_f1
from benchmarks.networks import published
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import count

TITLE: Final = "Scores and graphs reached"
_METHOD: Final = """\
Rows are drawn from the published networks with the seeds {seeds}, which nothing was tuned on. All
learn by BIC without a limit on parents; *bnpipe tabu* is `learn_structure(data, tabu={tabu}, restarts={restarts})`,
*pyagrum tabu* its local search with a tabu list. One scorer for all, `bnpipe.structure.score_structure`, counts the
states that occur. Each peer's cell has {limit:g} s of processor time. A cell whose key is the same (engine, version or
source, network, rows, seed, options) is kept and not learned again, the peers' in `benchmarks/peers`. A run spends at
most {seconds:g} s on cells of the peers that are not there yet; `python -m benchmarks.sweep pyagrum pgmpy` learns
all of them, in hours. Cells without a peer that ended are not compared."""
_PEERS: Final = ("pyagrum", "pgmpy")
_STRONGER: Final = ("pyagrum tabu", *_PEERS)
_NEAR: Final = 0.001
_MOST_SHOWN: Final = 20

Cells = Mapping[str, Cell | None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is run.

    Parameters
    ----------
    networks, rows, seeds : tuple
    cpu_limit : float
        Seconds of processor time of one cell of a peer.
    peer_seconds : float
        Seconds spent on cells of the peers that are not kept yet.
    """

    networks: tuple[str, ...] = NETWORKS
    rows: tuple[int, ...] = ROWS
    seeds: tuple[int, ...] = SEEDS
    cpu_limit: float = 900.0
    peer_seconds: float = 300.0


PLAN: Final = Plan()
TINY: Final = Plan(("asia",), (200,), (101, 102), cpu_limit=20.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Learn the cells of `engines` that are wanting, and compare all that are there."""
    wanted = tuple(problems(plan.networks, plan.rows, plan.seeds))
    ours = [GENERATING, *(contender for contender in CONTENDERS if contender.engine == "bnpipe" in engines)]
    peers = [contender for contender in CONTENDERS if contender.engine != "bnpipe" and contender.engine in engines]
    for contenders, seconds in ((ours, math.inf), (peers, plan.peer_seconds)):
        for line in sweep(contenders, wanted, cpu_limit=plan.cpu_limit, seconds=seconds):
            _log.info(line)
    found = {problem: _cells((GENERATING, *CONTENDERS), problem) for problem in wanted}
    return PartResult("quality", TITLE, _text(plan), _tables(found), _targets(found, max(plan.rows)))


def _cells(contenders: Iterable[Contender], problem: Problem) -> Cells:
    return {contender.name: read_cell(contender, problem) for contender in contenders}


def _text(plan: Plan) -> str:
    tabu = next(contender.options for contender in CONTENDERS if contender.name == "bnpipe tabu")
    seeds = ", ".join(map(str, plan.seeds))
    return _METHOD.format(seeds=seeds, limit=plan.cpu_limit, seconds=plan.peer_seconds, **tabu)


def _bic(cells: Cells, name: str) -> float | None:
    cell = cells[name]
    return None if cell is None or cell.failure else cell.bic


def _best(cells: Cells, names: Iterable[str]) -> float | None:
    return max((bic for name in names if (bic := _bic(cells, name)) is not None), default=None)


def _no_worse(ours: float, theirs: float) -> bool:
    return ours >= theirs - 1e-9 * abs(theirs)


def _compared(found: Mapping[Problem, Cells], name: str, peers: Iterable[str]) -> list[tuple[Problem, float, float]]:
    """Give (problem, BIC of `name`, the peers' best BIC) wherever both are known."""
    pairs = [(problem, _bic(cells, name), _best(cells, peers)) for problem, cells in found.items()]
    return [(problem, ours, best) for problem, ours, best in pairs if ours is not None and best is not None]


def _targets(found: Mapping[Problem, Cells], most_rows: int) -> tuple[Target, ...]:
    pairs = _compared(found, "bnpipe", _PEERS)
    share = 100 * sum(_no_worse(ours, best) for _, ours, best in pairs) / len(pairs) if pairs else None
    near = [ours for ours, theirs in _near_generating(found, most_rows) if not theirs]
    large = count(most_rows)
    return (
        Target(f"cells where BIC is at least that of the better peer ({len(pairs)} of {len(found)})", 95, share, "%"),
        Target(
            f"tabu and restarts, {large} rows: within 0.1 % of the generating graph's BIC or better, "
            f"of the cells where no peer is ({len(near)})",
            100,
            100 * sum(near) / len(near) if near else None,
            "%",
        ),
    )


def _near_generating(found: Mapping[Problem, Cells], rows: int) -> list[tuple[bool, bool]]:
    """Tell of each problem of so many rows whether bnpipe comes near the generating graph, and the better peer."""
    near = []
    for problem, ours, best in _compared(found, "bnpipe tabu", _PEERS):
        reference = _bic(found[problem], GENERATING.name)
        if problem.rows == rows and reference is not None:
            least = reference - _NEAR * abs(reference)
            near.append((ours >= least, best >= least))
    return near


def _tables(found: Mapping[Problem, Cells]) -> tuple[Table, ...]:
    groups: dict[tuple[str, int], list[Problem]] = {}
    for problem in found:
        groups.setdefault((problem.network, problem.rows), []).append(problem)
    names = [contender.name for contender in CONTENDERS]
    gains, graphs = [], []
    for (network, rows), members in groups.items():
        head = (network, count(rows))
        gains.append((*head, *(_gain([found[problem] for problem in members], name, rows) for name in names)))
        graphs.append((*head, *(_distance(network, [found[problem] for problem in members], name) for name in names)))
    return (
        _standing(found),
        _losses(found),
        _short(found),
        Table(
            "BIC above the generating graph's",
            ("network", "rows", *names),
            tuple(gains),
            "Nats a row, median over the seeds; more is better. In brackets: cells that ended, where not all did.",
        ),
        Table(
            "Distance to the generating graph",
            ("network", "rows", *names),
            tuple(graphs),
            "Structural Hamming distance of the CPDAGs (less is better) / F1 of the skeleton (more is better).",
        ),
    )


def _standing(found: Mapping[Problem, Cells]) -> Table:
    rows = []
    for contender in CONTENDERS:
        cells = [cells[contender.name] for cells in found.values()]
        kept = [cell for cell in cells if cell is not None]
        failed = sum(bool(cell.failure) for cell in kept)
        row = [contender.name, str(len(kept) - failed), str(failed), str(len(cells) - len(kept))]
        for peers in (_PEERS, _STRONGER):
            pairs = _compared(found, contender.name, peers) if contender.engine == "bnpipe" else []
            better = sum(ours > best and not _no_worse(best, ours) for _, ours, best in pairs)
            level = sum(_no_worse(ours, best) for _, ours, best in pairs)
            row.append(f"{level} of {len(pairs)}, {better} better" if pairs else "–")
        rows.append(tuple(row))
    columns = ("engine", "learned", "failed", "not run", "no worse than the better peer", "… its tabu search included")
    return Table("Cells", columns, tuple(rows), _failures(found))


def _failures(found: Mapping[Problem, Cells]) -> str:
    reasons: dict[str, int] = {}
    for cells in found.values():
        for name, cell in cells.items():
            if cell is not None and cell.failure:
                reason = f"{name} on {cell.problem.network}, {count(cell.problem.rows)} rows: {cell.failure}"
                reasons[reason] = reasons.get(reason, 0) + 1
    return "; ".join(f"{reason} ({times} ×)" for reason, times in reasons.items())


def _losses(found: Mapping[Problem, Cells]) -> Table:
    lost = [
        (best - ours, problem)
        for problem, ours, best in _compared(found, "bnpipe", _PEERS)
        if not _no_worse(ours, best)
    ]
    lost.sort(key=lambda pair: -pair[0])
    rows = tuple(
        (problem.network, count(problem.rows), str(problem.seed), f"{gap:.2f}") for gap, problem in lost[:_MOST_SHOWN]
    )
    note = "" if len(lost) <= _MOST_SHOWN else f"And {len(lost) - _MOST_SHOWN} more."
    return Table("Cells where a peer reached more", ("network", "rows", "seed", "BIC short of it, nats"), rows, note)


def _short(found: Mapping[Problem, Cells]) -> Table:
    """List the largest samples whose graph is short of the generating one's BIC, tabu and restarts used."""
    rows = []
    for problem, ours, best in _compared(found, "bnpipe tabu", _PEERS):
        reference = _bic(found[problem], GENERATING.name)
        if problem.rows == max(other.rows for other in found) and reference is not None:
            gaps = [100 * (reference - bic) / abs(reference) for bic in (ours, best)]
            if gaps[0] > 100 * _NEAR:
                rows.append((problem.network, str(problem.seed), *(f"{gap:.3f} %" for gap in gaps)))
    return Table(
        "Largest samples where tabu and restarts stay more than 0.1 % short of the generating graph's BIC",
        ("network", "seed", "bnpipe tabu, short by", "better peer, short by"),
        tuple(rows),
    )


def _gain(group: list[Cells], name: str, rows: int) -> str:
    pairs = [(_bic(cells, name), _bic(cells, GENERATING.name)) for cells in group]
    gains = [(ours - reference) / rows for ours, reference in pairs if ours is not None and reference is not None]
    if not gains:
        return _why(group, name)
    return f"{statistics.median(gains):+.4f}" + ("" if len(gains) == len(group) else f" ({len(gains)})")


def _distance(network: str, group: list[Cells], name: str) -> str:
    generating = published(network).parents
    kept = [cell.parents for cells in group if (cell := cells[name]) is not None and cell.parents is not None]
    if not kept:
        return _why(group, name)
    distance = statistics.median(shd(generating, parents) for parents in kept)
    return f"{distance:g} / {statistics.median(skeleton_f1(generating, parents) for parents in kept):.3f}"


def _why(group: list[Cells], name: str) -> str:
    failures = [cell.failure for cells in group if (cell := cells[name]) is not None]
    return failures[0] if failures else "not run"
