"""Messages over a block of rows, rows innermost: what a `Plan` (`bnpipe.inference.program`) says, done."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel

FAINT: Final = 1e-290
_MISSING: Final = 255


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    array("int64", 2),
    array("float64"),
    array("int64"),
    array("float64", 2),
    array("float64", 2, writable=True),
)
def _enter(codes: Any, first: Any, leaves: Any, initial: Any, given_slots: Any, given: Any, work: Any) -> None:
    """Write the leaves of the rows from `first` on: initial values, evidence as zeros and ones, given factors."""
    lanes = min(work.shape[1], codes.shape[1] - first)
    for leaf in range(leaves.shape[0]):
        variable, slot, states = leaves[leaf]
        for state in range(states):
            values, value = work[slot + state], initial[slot + state]
            values[:] = value
            if variable >= 0:
                column = codes[variable]
                for row in range(lanes):
                    code = column[first + row]
                    values[row] = value if code in (state, _MISSING) else 0.0
    for place in range(given_slots.size):
        values = work[given_slots[place]]
        for row in range(lanes):
            values[row] *= given[place, first + row]


@kernel(
    types.void,
    types.int64,
    types.int64,
    array("float64", 2, writable=True),
    array("float64", writable=True),
    array("float64", writable=True),
    types.boolean,
)
def _scale(slot: Any, size: Any, work: Any, log_scale: Any, least: Any, counts: Any) -> None:
    """Divide a message by its largest entry, row by row."""
    for row in range(work.shape[1]):
        peak = 0.0
        for cell in range(slot, slot + size):
            peak = max(peak, work[cell, row])
        least[row] = min(least[row], peak)
        if peak > 0.0:
            for cell in range(slot, slot + size):
                work[cell, row] /= peak
            if counts:
                log_scale[row] += math.log(peak)


@kernel(
    types.float64,
    types.int64,
    types.int64,
    array("int32"),
    array("int32"),
    array("float64"),
    array("float64", 2),
)
def _sum_alone(first: Any, group: Any, left: Any, right: Any, constants: Any, work: Any) -> float:
    """Add the terms of one cell for a single row."""
    total = 0.0
    for cell in range(first, first + group):
        total += constants[cell] * work[left[cell], 0] * work[right[cell], 0]
    return total


@kernel(
    types.void,
    array("int64", 2),
    array("int32"),
    array("int32"),
    array("float64"),
    types.boolean,
    array("float64", 2, writable=True),
    array("float64", writable=True),
    array("float64", writable=True),
)
def _pass_messages(
    steps: Any, left: Any, right: Any, constants: Any, scaled: Any, work: Any, log_scale: Any, least: Any
) -> None:
    """Take the steps: each cell of a message is a sum over `group` cells of constant times left times right."""
    alone = work.shape[1] == 1
    for step in range(steps.shape[0]):
        slot, size, group, cell, counts = steps[step]
        for place in range(slot, slot + size):
            if alone:  # the same sums, without the cost of starting a loop for each term
                work[place, 0] = _sum_alone(cell, group, left, right, constants, work)
                cell += group
                continue
            total = work[place]
            total[:] = 0.0
            for _ in range(group):
                factor, one, other = constants[cell], work[left[cell]], work[right[cell]]
                for row in range(total.size):
                    total[row] += factor * one[row] * other[row]
                cell += 1
        if scaled:
            _scale(slot, size, work, log_scale, least, counts != 0)


@kernel(
    types.void,
    array("int64", 2),
    types.int64,
    types.int64,
    types.int64,
    array("float64", 2),
    array("float64", writable=True),
    array("float64", writable=True),
)
def _read(targets: Any, first: Any, lanes: Any, rows: Any, work: Any, least: Any, result: Any) -> None:
    """Write the targets' distributions; NaN where the mass is zero."""
    for target in range(targets.shape[0]):
        slot, weight, states, offset = targets[target]
        for row in range(lanes):
            place = offset * rows + (first + row) * states
            mass = 0.0
            for state in range(states):
                value = work[slot + state, row] * work[weight + state, row] if weight >= 0 else work[slot + state, row]
                result[place + state] = value
                mass += value
            least[row] = min(least[row], mass)
            for state in range(states):
                result[place + state] = result[place + state] / mass if mass > 0.0 else math.nan


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    types.int64,
    types.int64,
    types.int64,
    array("int64", 2),
    array("float64"),
    array("int64"),
    array("float64", 2),
    array("int64", 2),
    array("int32"),
    array("int32"),
    array("float64"),
    array("int64", 2),
    types.int64,
    types.boolean,
    array("float64", writable=True),
    array("float64", writable=True),
    array("boolean", writable=True),
)
def propagate(
    codes: Any,
    first: Any,
    last: Any,
    slots: Any,
    lanes: Any,
    leaves: Any,
    initial: Any,
    given_slots: Any,
    given: Any,
    steps: Any,
    left: Any,
    right: Any,
    constants: Any,
    targets: Any,
    root: Any,
    scaled: Any,
    result: Any,
    log_mass: Any,
    faint: Any,
) -> None:
    """Answer the rows from `first` until `last`, `lanes` at a time.

    Parameters
    ----------
    codes : uint8 (variables, rows)
    slots : int
        Of the workspace; slot 0 is 1 throughout.
    leaves : int64 (leaves, 3)
        Variable (-1: none), first slot, states.
    initial : float64 (slots,)
        Of leaves.
    given_slots : int64 (given,)
    given : float64 (given, rows)
        What those leaves' slots are multiplied by.
    steps : int64 (steps, 5)
        First slot, cells, terms a cell, first term, whether its scale counts for the mass.
    left, right : int32 (terms,)
        Slots multiplied.
    constants : float64 (terms,)
        And by what.
    targets : int64 (targets, 4)
        First slot, first slot of a weight (-1: none), states, states of the targets before.
    root : int
        Slot of the probability of the evidence, -1 if it is not wanted.
    scaled : bool
        Whether to scale messages.
    result : float64 (states of all targets * rows,)
        One target after the other, each (rows, states).
    log_mass : float64 (rows,)
        Log probability of the evidence, nats; untouched if `root` is -1.
    faint : bool (rows,)
        Rows in which something came near the smallest float, or was zero.
    """
    work = np.ones((slots, lanes))
    log_scale, least = np.empty(lanes), np.empty(lanes)
    for start in range(first, last, lanes):
        here = min(lanes, last - start)
        log_scale[:] = 0.0
        least[:] = 1.0
        _enter(codes, start, leaves, initial, given_slots, given, work)
        _pass_messages(steps, left, right, constants, scaled, work, log_scale, least)
        _read(targets, start, here, codes.shape[1], work, least, result)
        if root >= 0:
            for row in range(here):
                mass = work[root, row]
                least[row] = min(least[row], mass)
                log_mass[start + row] = math.log(mass) + log_scale[row] if mass > 0.0 else -math.inf
        for row in range(here):
            faint[start + row] = least[row] < FAINT


@kernel(types.void, array("int64", 2), array("float64", 2, writable=True))
def _take_logs(leaves: Any, work: Any) -> None:
    for leaf in range(leaves.shape[0]):
        _, slot, states = leaves[leaf]
        for place in range(slot, slot + states):
            for row in range(work.shape[1]):
                value = work[place, row]
                work[place, row] = math.log(value) if value > 0.0 else -math.inf
    work[0] = 0.0


@kernel(
    types.void,
    array("int64", 2),
    array("int32"),
    array("int32"),
    array("float64"),
    array("float64", 2, writable=True),
)
def _pass_maxima(steps: Any, left: Any, right: Any, log_constants: Any, work: Any) -> None:
    """Take the steps in logarithms, with the largest term in place of the sum."""
    for step in range(steps.shape[0]):
        slot, size, group, cell, _ = steps[step]
        for place in range(slot, slot + size):
            best = work[place]
            best[:] = -math.inf
            for _ in range(group):
                factor, one, other = log_constants[cell], work[left[cell]], work[right[cell]]
                for row in range(best.size):
                    best[row] = max(best[row], factor + one[row] + other[row])
                cell += 1


@kernel(
    types.void,
    array("int64", 2),
    array("int32"),
    array("int32"),
    array("float64"),
    array("int64"),
    array("float64", 2),
    types.int64,
    array("int64", writable=True),
)
def _trace_back(
    steps: Any, left: Any, right: Any, log_constants: Any, owner: Any, work: Any, lane: Any, chosen: Any
) -> None:
    """Choose, from the root to the leaves, the first term that attains each chosen cell's maximum."""
    last = steps.shape[0] - 1
    chosen[owner[steps[last, 0]]] = steps[last, 0]
    for step in range(last, -1, -1):
        slot, _, group, first, _ = steps[step]
        cell = first + (chosen[step] - slot) * group
        best, place = -math.inf, cell
        for term in range(cell, cell + group):
            value = log_constants[term] + work[left[term], lane] + work[right[term], lane]
            if value > best:
                best, place = value, term
        chosen[owner[left[place]]] = left[place]
        chosen[owner[right[place]]] = right[place]


@kernel(
    types.void,
    array("uint8", 2),
    types.int64,
    types.int64,
    types.int64,
    types.int64,
    array("int64", 2),
    array("float64"),
    array("int64"),
    array("float64", 2),
    array("int64", 2),
    array("int32"),
    array("int32"),
    array("float64"),
    array("int64"),
    array("uint8", 2, writable=True),
    array("float64", writable=True),
)
def explain(
    codes: Any,
    first: Any,
    last: Any,
    slots: Any,
    lanes: Any,
    leaves: Any,
    initial: Any,
    given_slots: Any,
    given: Any,
    steps: Any,
    left: Any,
    right: Any,
    log_constants: Any,
    owner: Any,
    best: Any,
    log_mass: Any,
) -> None:
    """Find the most probable assignment of the rows from `first` until `last`, `lanes` at a time.

    Parameters
    ----------
    codes, slots, leaves, initial, given_slots, given, steps, left, right
        As in `propagate`; all steps lead to the last.
    log_constants : float64 (terms,)
    owner : int64 (slots,)
        The step, or the number of steps plus the leaf, that a slot belongs to; steps + leaves for slot 0.
    best : uint8 (variables, rows)
        The assignment; untouched where the row is impossible.
    log_mass : float64 (rows,)
        Its log probability, nats; -inf where the row is impossible.
    """
    work = np.ones((slots, lanes))
    chosen = np.empty(steps.shape[0] + leaves.shape[0] + 1, dtype=np.int64)
    for start in range(first, last, lanes):
        _enter(codes, start, leaves, initial, given_slots, given, work)
        _take_logs(leaves, work)
        _pass_maxima(steps, left, right, log_constants, work)
        for lane in range(min(lanes, last - start)):
            log_mass[start + lane] = work[steps[steps.shape[0] - 1, 0], lane]
            if log_mass[start + lane] > -math.inf:
                _trace_back(steps, left, right, log_constants, owner, work, lane, chosen)
                for leaf in range(leaves.shape[0]):
                    best[leaves[leaf, 0], start + lane] = chosen[steps.shape[0] + leaf] - leaves[leaf, 1]
        work[0] = 1.0
