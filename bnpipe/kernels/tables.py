"""Families counted row by row, and rows told apart.

The codes of a family are the digits of one number, its cell. Cells are numbered a block of rows at a time, column by
column, which vectorises and stays in the cache; then the block's rows are counted, or written out to be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numba import types
from numpy.typing import NDArray

from bnpipe.kernels import array, kernel

_BLOCK: Final = 1024
_MISSING: Final = np.uint8(255)
_HALF: Final = np.uint64(2**32 - 1)
_LEFT: Final = np.uint64(0x9E3779B1)
_RIGHT: Final = np.uint64(0x85EBCA77)


_FAMILY: Final = (array("uint8", 2), array("int64"), array("int64"), array("int32"), types.int64)


@kernel(types.boolean, *_FAMILY, types.int64, array("uint8", writable=True))
def _mark_missing(
    codes: Any, variables: Any, cardinalities: Any, clusters: Any, groups: Any, first: Any, gone: Any
) -> bool:
    """Say in `gone` which rows from `first` on miss a code; False if one has no cell."""
    wrong, end, last = np.uint8(0), np.uint32(groups), first + gone.size
    for i in range(gone.size):
        gone[i] = 0
    block = clusters[first:last]  # of a slice numba knows that no index is negative, and vectorises
    for i in range(block.size):
        wrong |= np.uint8(np.uint32(block[i]) >= end)  # a negative number has become a huge one
    for place in range(variables.size):
        column, states = codes[variables[place], first:last], np.uint8(min(cardinalities[place], 255))
        for i in range(gone.size):
            missing = np.uint8(column[i] == _MISSING)
            gone[i] |= missing
            wrong |= np.uint8(column[i] >= states) ^ missing
    return bool(wrong == 0)


@kernel(types.void, array("uint32"), array("uint8"), array("int64"), array("int64", writable=True))
def _add_rows(flat: Any, gone: Any, weights: Any, table: Any) -> None:
    if weights.size:
        for i in range(flat.size):
            if not gone[i]:
                table[flat[i]] += weights[i]
    else:
        for i in range(flat.size):
            if not gone[i]:
                table[flat[i]] += 1


@kernel(types.int64, *_FAMILY, array("int64"), array("int64", writable=True))
def count_rows(
    codes: Any, variables: Any, cardinalities: Any, clusters: Any, groups: Any, weights: Any, table: Any
) -> int:
    """Add each row without a missing code to its cell.

    Parameters
    ----------
    codes : uint8 (variables, rows)
    variables, cardinalities : int64 (family,)
        Rows of `codes`, the most significant first, and their numbers of states.
    clusters : int32 (rows,) or (0,)
        More significant than all variables; of no length: there are none.
    groups : int
        Number of clusters.
    weights : int64 (rows,) or (0,)
        What a row adds; of no length: one.
    table : int64 (groups * product of cardinalities,)
        Fewer than 2**32 cells.

    Returns
    -------
    int
        0, or -1 as soon as a row has no cell: a code that is no state, a cluster that is none.
    """
    cells, missing = np.empty(_BLOCK, dtype=np.uint32), np.empty(_BLOCK, dtype=np.uint8)
    for first in range(0, codes.shape[1], _BLOCK):
        size = min(_BLOCK, codes.shape[1] - first)
        flat, gone = cells[:size], missing[:size]
        if not _mark_missing(codes, variables, cardinalities, clusters, groups, first, gone):
            return -1
        flat[:] = np.uint32(0)
        block = clusters[first : first + size]
        for i in range(block.size):
            flat[i] = np.uint32(block[i])
        for place in range(variables.size):
            column, cardinality = codes[variables[place], first : first + size], np.uint32(cardinalities[place])
            for i in range(size):
                flat[i] = np.uint32(flat[i] * cardinality) + np.uint32(column[i])
        _add_rows(flat, gone, weights[first : first + size], table)
    return 0


@kernel(types.int64, *_FAMILY, array("int64"), array("int64", writable=True), array("int64", writable=True))
def number_rows(
    codes: Any, variables: Any, cardinalities: Any, clusters: Any, groups: Any, weights: Any, cells: Any, kept: Any
) -> int:
    """Write the cell of each row without a missing code, and its weight into `kept` if there are weights.

    As :func:`count_rows`, for tables of any size; returns how many rows were written, or -1.
    """
    missing = np.empty(_BLOCK, dtype=np.uint8)
    count = 0
    for first in range(0, codes.shape[1], _BLOCK):
        size = min(_BLOCK, codes.shape[1] - first)
        flat, gone = cells[first : first + size], missing[:size]
        if not _mark_missing(codes, variables, cardinalities, clusters, groups, first, gone):
            return -1
        flat[:] = 0
        block = clusters[first : first + size]
        for i in range(block.size):
            flat[i] = block[i]
        for place in range(variables.size):
            column, cardinality = codes[variables[place], first : first + size], cardinalities[place]
            for i in range(size):
                flat[i] = flat[i] * cardinality + column[i]
        for i in range(size):  # never overtakes what is still to be read: count <= first + i
            if not gone[i]:
                cells[count] = flat[i]
                if weights.size:
                    kept[count] = weights[first + i]
                count += 1
    return count


@kernel(types.void, array("uint8", 2), array("int64"), array("uint64"), array("uint64", 2, writable=True))
def _pack_rows(columns: Any, words: Any, shifts: Any, packed: Any) -> None:
    """Write row i's code of variable v at bit ``shifts[v]`` of ``packed[i, words[v]]``."""
    buffer = np.empty((packed.shape[1], _BLOCK), dtype=np.uint64)
    for first in range(0, packed.shape[0], _BLOCK):
        size = min(_BLOCK, packed.shape[0] - first)
        buffer[:] = np.uint64(0)
        for variable in range(columns.shape[0]):
            word, shift = buffer[words[variable]], shifts[variable]
            for i in range(size):
                word[i] |= np.uint64(columns[variable, first + i]) << shift
        for i in range(size):
            for place in range(packed.shape[1]):
                packed[first + i, place] = buffer[place, i]


@kernel(types.int64, array("uint64", 2), types.int64, types.int64)
def _slot(packed: Any, row: Any, slots: Any) -> int:
    """Place of a row in a hash table of `slots`, a power of two; products of 32-bit halves never overflow."""
    mixed = np.uint64(packed.shape[1])
    for place in range(packed.shape[1]):
        mixed ^= packed[row, place]
        mixed = ((mixed & _HALF) * _LEFT) ^ ((mixed >> np.uint64(32)) * _RIGHT)
        mixed ^= mixed >> np.uint64(29)
    return int(mixed & np.uint64(slots - 1))


@kernel(types.boolean, array("uint64", 2), types.int64, types.int64)
def _same(packed: Any, one: Any, other: Any) -> bool:
    for place in range(packed.shape[1]):  # noqa: SIM110 - numba knows no generators
        if packed[one, place] != packed[other, place]:
            return False
    return True


@kernel(types.int64, array("uint64", 2), array("int64", writable=True), array("int32", writable=True))
def _number_rows(packed: Any, firsts: Any, inverse: Any) -> int:
    """Give each distinct row a number, by first occurrence, and return how many there are.

    An open hash table of the distinct rows' first occurrences, at most half full.
    """
    slots = np.full(1024, -1, dtype=np.int32)
    distinct = 0
    for row in range(packed.shape[0]):
        if 2 * distinct >= slots.size:
            slots = np.full(4 * slots.size, -1, dtype=np.int32)
            for first in firsts[:distinct]:
                slot = _slot(packed, first, slots.size)
                while slots[slot] >= 0:
                    slot = (slot + 1) & (slots.size - 1)
                slots[slot] = first
        slot = _slot(packed, row, slots.size)
        while slots[slot] >= 0 and not _same(packed, row, slots[slot]):
            slot = (slot + 1) & (slots.size - 1)
        if slots[slot] >= 0:
            inverse[row] = inverse[slots[slot]]
        else:
            slots[slot] = row
            firsts[distinct] = row
            inverse[row] = distinct
            distinct += 1
    return distinct


def _pack(columns: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Put each row's codes side by side into machine words, as few bits each as its variable's largest code needs."""
    widths = [max(1, int(largest).bit_length()) for largest in columns.max(axis=1)]
    words, shifts, word, used = [], [], 0, 0
    for width in widths:
        if used + width > 64:
            word, used = word + 1, 0
        words.append(word)
        shifts.append(used)
        used += width
    packed = np.empty((columns.shape[1], word + 1), dtype=np.uint64)
    _pack_rows(columns, np.array(words, dtype=np.int64), np.array(shifts, dtype=np.uint64), packed)
    return packed


def distinct_rows(
    columns: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Find the distinct rows, exactly (rows of one hash are compared) and whatever the codes, missing ones too.

    Parameters
    ----------
    columns : uint8 (variables, rows), or a sequence of uint8 (rows,)
        As in `Dataset.codes`, which is not copied where it is C-contiguous; fewer than 2**31 rows.

    Returns
    -------
    firsts : int64 (n,)
        Where each distinct row occurs first, increasing.
    inverse : int32 (rows,)
        Which of them each row is: ``columns[:, firsts[inverse]]`` are the rows again, and
        ``np.bincount(inverse, minlength=n)`` how many there are of each.

    Raises
    ------
    ValueError
        Too many rows to be numbered.
    """
    codes: NDArray[np.uint8] = np.ascontiguousarray(columns, dtype=np.uint8)
    rows = codes.shape[1]
    if rows >= 2**31:
        raise ValueError(f"{rows} rows are too many to be numbered; learn from a part of them")
    if not codes.size:
        return np.zeros(min(rows, 1), dtype=np.int64), np.zeros(rows, dtype=np.int32)
    firsts, inverse = np.empty(rows, dtype=np.int64), np.empty(rows, dtype=np.int32)
    distinct = _number_rows(_pack(codes), firsts, inverse)
    return firsts[:distinct].copy(), inverse
