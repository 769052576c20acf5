"""Timed questions to a compiled network in a process of their own; the answers are kept to be compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.child import Outcome, limited, run_child
from benchmarks.engines import answerer
from benchmarks.engines.base import Answerer
from benchmarks.networks import exact, hidden, kept_rows
from bnpipe.data import Dataset

_TRIAL_ROWS: Final = 20
_COMPARED_ROWS: Final = 2_000


def answer_timed(
    *,
    engine: str,
    kind: str,
    network: str,
    target: str,
    share: float,
    rows: int,
    of_rows: int,
    seed: int,
    limit: float,
    answers: str,
) -> dict[str, Any]:
    """Answer the first `rows` of `of_rows` rows; the task of a child.

    An engine with several algorithms tries each on a few rows first and takes the quickest.
    """
    data = _evidence(network, target, share, of_rows, seed).select(np.arange(rows))
    targets = (target,) if target else data.schema.names
    variant, made = _quickest(engine, kind, network, targets, data)
    prepared = made.prepare(data)
    made.refused = 0
    with limited(limit):
        started = time.perf_counter()
        found = _ask(made, kind, prepared, targets)
        seconds = time.perf_counter() - started
    _keep(Path(answers), kind, made, found)
    return {"seconds": seconds / rows, "rows": rows, "variant": variant, "refused": made.refused}


def query_timed(
    *,
    engine: str,
    network: str,
    target: str,
    share: float,
    rows: int,
    of_rows: int,
    seed: int,
    limit: float,
    by_name: bool,
) -> dict[str, Any]:
    """Ask one question after the other; the median time of one. The task of a child."""
    data = _evidence(network, target, share, of_rows, seed).select(np.arange(rows))
    variant, made = _quickest(engine, "posterior", network, (target,), data)
    questions = made.questions(data, by_name=by_name)
    for question in questions[:_TRIAL_ROWS]:
        made.query(question, target)
    times = []
    with limited(limit):
        for question in questions:
            started = time.perf_counter()
            made.query(question, target)
            times.append(time.perf_counter() - started)
    return {"seconds": statistics.median(times), "rows": rows, "variant": variant}


def answered(task: str, **arguments: Any) -> Outcome:
    """Run one of the tasks above in a child."""
    kept_rows(arguments["network"], arguments["of_rows"], arguments["seed"])
    return run_child(f"benchmarks.answering:{task}", arguments, wall_seconds=2 * arguments["limit"] + 120)


def _evidence(network: str, target: str, share: float, rows: int, seed: int) -> Dataset:
    """Rows with a share of the cells missing, other cells in each row; the one target always."""
    data = hidden(kept_rows(network, rows, seed), share, seed)
    if not target:
        return data
    codes = data.codes.copy()
    codes[data.schema.index(target)] = 255
    return Dataset(data.schema, codes)


def _quickest(engine: str, kind: str, network: str, targets: tuple[str, ...], data: Dataset) -> tuple[str, Answerer]:
    few = data.select(np.arange(min(_TRIAL_ROWS, data.rows)))
    tried: list[tuple[float, str, Answerer]] = []
    kinds = answerer(engine)
    for variant in kinds.variants:
        made = kinds(exact(network), variant)
        prepared = made.prepare(few)
        started = time.perf_counter()
        try:
            _ask(made, kind, prepared, targets)
        except AttributeError:
            if variant == kinds.variants[-1] and not tried:
                raise
            continue
        tried.append((time.perf_counter() - started, variant, made))
    _, variant, made = min(tried, key=lambda trial: trial[0])
    return variant, made


def _ask(made: Answerer, kind: str, prepared: Any, targets: tuple[str, ...]) -> Any:
    asked: dict[str, Callable[[], Any]] = {
        "posterior": lambda: made.posteriors(prepared, targets),
        "likelihood": lambda: made.log_likelihood(prepared),
        "explanation": lambda: made.explanations(prepared),
    }
    return asked[kind]()


def _keep(path: Path, kind: str, made: Answerer, found: Any) -> None:
    if kind == "posterior":
        np.savez(path, **{f"of_{name}": table[:_COMPARED_ROWS] for name, table in found.items()})
    elif kind == "likelihood":
        np.savez(path, log_likelihood=found[:_COMPARED_ROWS])
    else:
        np.savez(path, codes=made.codes(found)[:, :_COMPARED_ROWS])
