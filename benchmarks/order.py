"""How much the result hangs on the order of the columns, and on the names of the variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.child import limited, run_child
from benchmarks.engines import learner
from benchmarks.graphs import arcs
from benchmarks.networks import kept_rows, rows_file
from benchmarks.results import PartResult, Table, Target
from benchmarks.timing import count
from bnpipe.data import Dataset
from bnpipe.graph import cpdag
from bnpipe.schema import Schema, Variable

TITLE: Final = "Order of columns"
_METHOD: Final = """\
The same rows are learned {times} times with the columns shuffled, and {times} times with the variables renamed at
random as well, which also changes every order by name. Counted are the different graphs and equivalence classes
(CPDAGs) that come out; the spread is that of BIC, largest less smallest, in nats. pgmpy runs with one fixed hash seed;
without it, it differs from run to run."""


@dataclass(frozen=True)
class Plan:
    """What is run; `limit` in seconds for one engine's searches on one network."""

    works: tuple[tuple[str, int], ...] = (("insurance", 10_000),)
    times: int = 8
    limit: float = 80.0
    seed: int = 7


PLAN: Final = Plan()
TINY: Final = Plan((("asia", 200),), 2, limit=20.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Learn from shuffled columns and renamed variables."""
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    for network, size in plan.works:
        rows_file(network, size, plan.seed)
        work = f"{network} {count(size)}"
        for engine in engines:
            for renamed in (False, True):
                arguments = {
                    "engine": engine,
                    "network": network,
                    "rows": size,
                    "times": plan.times,
                    "renamed": renamed,
                    "seed": plan.seed,
                    "limit": plan.limit,
                }
                outcome = run_child("benchmarks.order:shuffled", arguments, wall_seconds=plan.limit + 60)
                how = "renamed" if renamed else "shuffled"
                rows.append((work, engine, how, *_cells(outcome.value, plan.times, outcome.failure)))
                if engine == "bnpipe" and not renamed and outcome.value is not None:
                    found = float(outcome.value["graphs"])
                    targets.append(Target(f"{work}, columns shuffled: different graphs", 1, found, "", at_least=False))
    columns = ("rows", "engine", "columns", "graphs", "equivalence classes", "BIC, spread", "BIC, best")
    text = _METHOD.format(times=plan.times)
    return PartResult("order", TITLE, text, (Table("Different results", columns, tuple(rows)),), tuple(targets))


def _cells(value: dict[str, Any] | None, times: int, failure: str) -> tuple[str, ...]:
    if value is None:
        return (failure, "–", "–", "–")
    spread = max(value["bics"]) - min(value["bics"])
    counts = (f"{value[kind]} of {times}" for kind in ("graphs", "classes"))
    return (*counts, f"{spread:.2f}", f"{max(value['bics']):.1f}")


def shuffled(
    *, engine: str, network: str, rows: int, times: int, renamed: bool, seed: int, limit: float
) -> dict[str, Any]:
    """Learn from the same rows again and again; the task of a child."""
    from bnpipe.structure import score_structure

    data = kept_rows(network, rows, seed)
    chosen = learner(engine)
    rng = np.random.default_rng(seed)
    graphs, classes, bics = set(), set(), []
    for _ in range(times):
        changed, originals = _shuffle(data, rng, renamed=renamed)
        loaded = chosen.load(changed, {})
        with limited(limit / times):
            learned = chosen.learn(loaded, {})
        named = chosen.parents(loaded, learned)
        parents = {originals[child]: tuple(sorted(originals[p] for p in named[child])) for child in sorted(named)}
        same_order = {name: parents[name] for name in data.schema.names}
        graphs.add(arcs(same_order))
        classes.add(cpdag(same_order))
        bics.append(score_structure(data, same_order))
    return {"graphs": len(graphs), "classes": len(classes), "bics": bics}


def _shuffle(data: Dataset, rng: np.random.Generator, *, renamed: bool) -> tuple[Dataset, dict[str, str]]:
    """Give the columns in another order, and the original name of each."""
    names = [data.schema.names[place] for place in rng.permutation(len(data.schema)).tolist()]
    mixed = data.project(names)
    if not renamed:
        return mixed, {name: name for name in names}
    fresh = [f"v{place:04}" for place in rng.permutation(len(names)).tolist()]
    variables = tuple(Variable(new, old.states) for new, old in zip(fresh, mixed.schema, strict=True))
    return Dataset(Schema(variables), mixed.codes), dict(zip(fresh, names, strict=True))
