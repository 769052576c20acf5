"""Plans run over rows, in threads over chunks of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.inference.evidence import SoftEvidence
from bnpipe.inference.logs import propagate_in_logs
from bnpipe.inference.program import Plan
from bnpipe.schema import MISSING

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Given = tuple[NDArray[np.int64], Floats]

_CHUNK: Final = 2048
"""Rows a thread takes at a time; a multiple of every number of lanes."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Of one plan: a table (rows, states) for each target, and the log probability of the evidence, nats."""

    tables: list[Floats]
    log_mass: Floats


def given_evidence(plan: Plan, soft: SoftEvidence | None, rows: int) -> Given:
    """Give soft evidence as slots, int64 (n,), and what they are multiplied by, float64 (n, rows)."""
    held = [] if soft is None else [pair for pair in soft.values.items() if pair[0] in plan.leaf_slots]
    if not held:
        return np.empty(0, dtype=np.int64), np.empty((0, rows))
    slots = [plan.leaf_slots[variable] + np.arange(len(values), dtype=np.int64) for variable, values in held]
    return np.concatenate(slots), np.concatenate([values for _, values in held])


def propagate(plan: Plan, codes: Codes, given: Given, *, scaled: bool, threads: int | None) -> Answers:
    """Sum products: posteriors of the plan's targets.

    Parameters
    ----------
    plan : Plan
    codes : uint8 (variables, rows), C-contiguous
    given : tuple
        See :func:`given_evidence`.
    scaled : bool
        Whether products may fall below the smallest float. Then messages are scaled, and rows in which even that may
        not have been enough are done again in logarithms.
    threads : int, optional
        None: one a core.
    """
    from bnpipe.kernels import propagation

    rows = codes.shape[1]
    flat, log_mass = np.empty(plan.states * rows), np.zeros(rows)
    faint = np.zeros(rows, dtype=np.bool_)

    def work(first: int) -> None:
        propagation.propagate(
            codes, first, min(first + _CHUNK, rows), plan.slots, min(plan.lanes, rows), plan.leaves, plan.initial,
            *given, plan.steps, plan.left, plan.right, plan.constants, plan.targets, plan.root, scaled,
            flat, log_mass, faint,
        )  # fmt: skip

    _over_chunks(work, rows, threads)
    tables = [flat[rows * before : rows * (before + n)].reshape(rows, n) for _, _, n, before in plan.targets.tolist()]
    if scaled and faint.any():
        again = np.flatnonzero(faint)
        posteriors, logs = propagate_in_logs(plan, codes[:, again], given[0], given[1][:, again])
        for table, posterior in zip(tables, posteriors, strict=True):
            table[again] = posterior
        log_mass[again] = logs
    return Answers(tables, log_mass)


def explain(plan: Plan, codes: Codes, given: Given, *, threads: int | None) -> tuple[Codes, Floats]:
    """Find the most probable assignments, uint8 (variables, rows), and their log probabilities, nats.

    All cells are missing where a row is impossible.
    """
    from bnpipe.kernels import propagation

    rows = codes.shape[1]
    best, log_mass = np.full(codes.shape, MISSING, dtype=np.uint8), np.empty(rows)
    with np.errstate(divide="ignore"):
        log_constants = np.log(plan.constants)

    def work(first: int) -> None:
        propagation.explain(
            codes, first, min(first + _CHUNK, rows), plan.slots, min(plan.lanes, rows), plan.leaves, plan.initial,
            *given, plan.steps, plan.left, plan.right, log_constants, plan.owner, best, log_mass,
        )  # fmt: skip

    _over_chunks(work, rows, threads)
    return best, log_mass


def _over_chunks(work: Callable[[int], None], rows: int, threads: int | None) -> None:
    if 0 < rows <= _CHUNK:
        work(0)
    elif rows:
        from bnpipe.kernels import in_threads

        in_threads(work, range(0, rows, _CHUNK), threads)
