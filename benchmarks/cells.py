"""The cells of the comparison of search quality: engine × network × rows × seed, each kept as a small file.

A cell is learned again only where its key differs: engine, version, network, rows, seed or options. For bnpipe the
version holds a hash of the sources that decide the graph. Only graphs and scores are reused; timings never are.
The peers' cells, which cost hours, are part of the repository; those of bnpipe lie in the cache.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.child import Outcome, run_child
from benchmarks.engines import learner
from benchmarks.networks import CACHE, published, sample

_ROOT = Path(__file__).resolve().parent.parent
OURS: Final = CACHE / "quality"
PEERS: Final = Path(__file__).resolve().parent / "peers"
NETWORKS: Final = ("alarm", "insurance", "hailfinder", "hepar2", "win95pts", "andes")
ROWS: Final = (1_000, 10_000, 100_000)
SEEDS: Final = (101, 102, 103, 104, 105)
_DECIDES: Final = ("structure.py", "search.py", "scores.py", "bitmaps.py", "graph.py", "kernels/*.py")


@dataclass(frozen=True)
class Contender:
    """A learner as it takes part: an engine with its options."""

    name: str
    engine: str
    options: Mapping[str, Any] = field(default_factory=dict)


GENERATING: Final = Contender("generating graph", "generating")
CONTENDERS: Final = (
    Contender("bnpipe", "bnpipe"),
    Contender("bnpipe tabu", "bnpipe", {"tabu": 100, "restarts": 10}),
    Contender("pyagrum", "pyagrum"),
    Contender("pyagrum tabu", "pyagrum", {"tabu": 100}),
    Contender("pgmpy", "pgmpy"),
)


@dataclass(frozen=True)
class Problem:
    """Rows to learn from: drawn from a published network with a seed."""

    network: str
    rows: int
    seed: int


@dataclass(frozen=True)
class Cell:
    """What one contender made of one problem.

    Parameters
    ----------
    parents : dict of str to list of str, or None
        None if it failed.
    bic : float
        By bnpipe's scorer, nats; NaN if it failed.
    failure : str
        As in `Outcome`.
    cpu_limit : float
        Seconds it was given.
    """

    problem: Problem
    parents: dict[str, list[str]] | None
    bic: float
    failure: str
    cpu_limit: float


def problems(
    networks: Iterable[str] = NETWORKS, rows: Iterable[int] = ROWS, seeds: Iterable[int] = SEEDS
) -> Iterator[Problem]:
    """Small networks first, and of each the small samples."""
    seeds, rows = tuple(seeds), tuple(rows)
    return (Problem(network, size, seed) for network in networks for size in rows for seed in seeds)


@functools.cache
def version(engine: str) -> str:
    """Give the version that decides what graph is found."""
    if engine == GENERATING.engine:
        return ""
    if engine != "bnpipe":
        return importlib.metadata.version(engine)
    digest = hashlib.sha256()
    for pattern in _DECIDES:
        for source in sorted((_ROOT / "bnpipe").glob(pattern)):
            digest.update(source.read_bytes())
    return f"{importlib.metadata.version(engine)}+{digest.hexdigest()[:10]}"


def cell_file(contender: Contender, problem: Problem) -> Path:
    """Where the cell of this key is kept."""
    key = {"version": version(contender.engine), "options": dict(contender.options), **asdict(problem)}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    folder = OURS if contender.engine in {"bnpipe", GENERATING.engine} else PEERS
    return folder / contender.engine / f"{problem.network}-{problem.rows}-{problem.seed}-{digest}.json"


def read_cell(contender: Contender, problem: Problem) -> Cell | None:
    """Give a kept cell, None where it was not learned."""
    path = cell_file(contender, problem)
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    bic = math.nan if kept["bic"] is None else kept["bic"]
    return Cell(problem, kept["parents"], bic, kept["failure"], kept["cpu_limit"])


def learn_cell(engine: str, options: dict[str, Any], network: str, rows: int, seed: int) -> dict[str, Any]:
    """Learn one graph and score it; also the task of a child."""
    from bnpipe.structure import score_structure

    data = sample(published(network), rows, seed)
    if engine == GENERATING.engine:
        parents: Mapping[str, tuple[str, ...]] = published(network).parents
        return {"parents": dict(parents), "bic": score_structure(data, parents)}
    chosen = learner(engine)
    loaded = chosen.load(data, options)
    started = time.perf_counter()
    learned = chosen.learn(loaded, options)
    seconds = time.perf_counter() - started
    parents = chosen.parents(loaded, learned)
    return {"parents": parents, "bic": score_structure(data, parents), "seconds": seconds}


def fill_cell(contender: Contender, problem: Problem, cpu_limit: float) -> Cell:
    """Learn a cell and keep it; peers in a child with a limit, the others here."""
    path = cell_file(contender, problem)
    arguments = {"engine": contender.engine, "options": dict(contender.options), **asdict(problem)}
    if contender.engine in {"bnpipe", GENERATING.engine}:
        outcome = Outcome(learn_cell(**arguments))
    else:
        outcome = run_child("benchmarks.cells:learn_cell", arguments, cpu_seconds=cpu_limit)
    value = outcome.value or {"parents": None, "bic": None}
    kept = {"contender": contender.name, "version": version(contender.engine), "options": dict(contender.options)}
    kept |= asdict(problem) | value | {"failure": outcome.failure, "cpu_limit": cpu_limit}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(kept) + "\n", encoding="utf-8")
    part.replace(path)
    cell = read_cell(contender, problem)
    assert cell is not None
    return cell


def wanting(contender: Contender, problem: Problem, cpu_limit: float) -> bool:
    """Whether a cell was never learned, or ran out of a smaller limit than it would get now."""
    cell = read_cell(contender, problem)
    return cell is None or (cell.failure.startswith(">") and cell.cpu_limit < cpu_limit)


def sweep(
    contenders: Iterable[Contender], wanted: Iterable[Problem], cpu_limit: float, seconds: float
) -> Iterator[str]:
    """Fill the cells that are wanting, quick engines first, until `seconds` are over; tell of each."""
    wanted = tuple(wanted)
    until = time.monotonic() + seconds
    for contender in contenders:
        for problem in wanted:
            if time.monotonic() > until:
                return
            if wanting(contender, problem, cpu_limit):
                started = time.monotonic()
                cell = fill_cell(contender, problem, cpu_limit)
                took = time.monotonic() - started
                said = cell.failure or f"BIC {cell.bic:.1f}"
                yield f"{contender.name} {problem.network} {problem.rows} {problem.seed}: {said} ({took:.0f} s)"
