"""Counting families for a search: bitmaps of states, and histograms of codes.

A bitmap holds one bit a row for each state of a variable. The rows that share some states are the AND of their
bitmaps, 64 rows a machine word, and their number is a population count. Small tables are counted so, large ones by a
histogram of the rows' codes.

References
----------
Moore, A. & Lee, M. S. (1998). Cached sufficient statistics for efficient machine learning. JAIR 8, 67-91.
Mula, W., Kurz, N. & Lemire, D. (2018). Faster population counts using AVX2 instructions. Computer Journal 61, 111-120.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from bnpipe.kernels import array, kernel, popcount
from bnpipe.kernels.scoring import local_score

_BLOCK = 512


@kernel(types.void, array("uint8"), array("uint64", 2, writable=True))
def pack_states(column: Any, bitmaps: Any) -> None:
    """Set bit i of bitmap s, uint64 (states, words), where row i has state s; a code that is no state sets none."""
    states = np.uint8(bitmaps.shape[0] - 1)
    for word in range(bitmaps.shape[1]):
        first = word * 64
        for row in range(first, min(first + 64, column.size)):
            if column[row] <= states:
                bitmaps[column[row], word] |= np.uint64(1) << np.uint64(row - first)


@kernel(types.void, array("int64"), array("uint64", 2, writable=True))
def pack_weights(weights: Any, planes: Any) -> None:
    """Write bit b of row i's weight into plane b, uint64 (planes, words)."""
    for row in range(weights.size):
        word, bit = row // 64, np.uint64(row % 64)
        rest, plane = weights[row], 0
        while rest > 0 and plane < planes.shape[0]:
            planes[plane, word] |= np.uint64(rest & 1) << bit
            rest >>= 1
            plane += 1


@kernel(types.void, array("int32"), types.int64, array("uint8"), array("int32", writable=True))
def append_digit(codes: Any, states: Any, column: Any, longer: Any) -> None:
    """Write ``codes * states + column``; `longer` may be `codes`."""
    for row in range(column.size):
        longer[row] = codes[row] * states + column[row]


@kernel(types.int64, array("int32", writable=True), array("int32", writable=True), array("int32", writable=True))
def renumber(codes: Any, numbers: Any, found: Any) -> int:
    """Give the codes that occur the numbers 0, 1, … in their order, in place; return how many there are.

    `numbers`, int32 (span,), comes as zeros and is used up. The code that became number i is written to ``found[i]``,
    which must be as long as the span or the codes, whichever is shorter.
    """
    for row in range(codes.size):
        numbers[codes[row]] = 1
    count = 0
    for code in range(numbers.size):
        if numbers[code]:
            found[count] = code
            numbers[code] = count
            count += 1
    for row in range(codes.size):
        codes[row] = numbers[codes[row]]
    return count


@kernel(types.void, array("int32"), array("int64"), array("int64", writable=True))
def count_codes(codes: Any, weights: Any, table: Any) -> None:
    """Add each row's weight (1 if there are no weights) to its code's cell."""
    if weights.size:
        for row in range(codes.size):
            table[codes[row]] += weights[row]
    else:
        for row in range(codes.size):
            table[codes[row]] += 1


@kernel(types.void, array("int32"), array("uint8"), types.int64, array("int64"), array("int64", writable=True))
def count_pairs(codes: Any, column: Any, states: Any, weights: Any, table: Any) -> None:
    """Count (code, state of the column), int64 (codes * states,), states fastest."""
    if weights.size:
        for row in range(codes.size):
            table[codes[row] * states + column[row]] += weights[row]
    else:
        for row in range(codes.size):
            table[codes[row] * states + column[row]] += 1


@kernel(types.int64, array("uint64"), array("uint64"), array("uint64", 2), array("uint64"), types.int64, types.int64)
def _shared(one: Any, other: Any, planes: Any, times: Any, first: Any, words: Any) -> int:
    """Count the rows in both bitmaps, whose words begin at `first` of the planes; each by its weight."""
    total = np.uint64(0)
    if times.size:
        for word in range(words):
            total += popcount(one[word] & other[word]) * times[first + word]
    elif planes.shape[0] == 0:
        for word in range(words):
            total += popcount(one[word] & other[word])
    else:
        for plane in range(planes.shape[0]):
            count = np.uint64(0)
            for word in range(words):
                count += popcount(one[word] & other[word] & planes[plane, first + word])
            total += count << np.uint64(plane)
    return int(total)


@kernel(types.void, array("uint64", 2), array("int64"), types.int64, types.int64, array("uint64", writable=True))
def _rows_of_cell(bitmaps: Any, members: Any, first: Any, words: Any, found: Any) -> None:
    """AND the bitmaps of `members`, `words` words from `first` on."""
    for word in range(words):
        found[word] = bitmaps[members[0], first + word]
    for member in members[1:]:
        for word in range(words):
            found[word] &= bitmaps[member, first + word]


@kernel(
    types.void,
    array("uint64", 2),
    array("uint64", 2),
    array("uint64"),
    array("int64", 2),
    array("int64", writable=True),
)
def count_cells(bitmaps: Any, planes: Any, times: Any, cells: Any, totals: Any) -> None:
    """Count the rows of each cell, given as the bitmaps to AND, int64 (cells, members).

    Rows count by their weight, whose bits are in the planes; or as often as `times` says of their word.
    """
    buffer = np.empty(_BLOCK, dtype=np.uint64)
    for first in range(0, bitmaps.shape[1], _BLOCK):
        words = min(_BLOCK, bitmaps.shape[1] - first)
        for cell in range(cells.shape[0]):
            _rows_of_cell(bitmaps, cells[cell, : max(1, cells.shape[1] - 1)], first, words, buffer)  # x & x is x
            totals[cell] += _shared(buffer, bitmaps[cells[cell, -1], first:], planes, times, first, words)


@kernel(
    types.void,
    array("uint64", 2),
    array("uint64", 2),
    array("uint64"),
    array("int64", 2),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64", writable=True),
)
def count_extended(
    bitmaps: Any, planes: Any, times: Any, cells: Any, totals: Any, firsts: Any, states: Any, places: Any, tables: Any
) -> None:
    """Count every cell by the states of each candidate.

    Candidate i has ``states[i]`` bitmaps from ``firsts[i]`` on, and its table (cells, states) stands in `tables` from
    ``places[i]`` on. The last state is what the others leave of the cell's total.
    """
    buffer = np.empty((cells.shape[0], _BLOCK), dtype=np.uint64)
    for first in range(0, bitmaps.shape[1], _BLOCK):
        words = min(_BLOCK, bitmaps.shape[1] - first)
        for cell in range(cells.shape[0]):
            _rows_of_cell(bitmaps, cells[cell], first, words, buffer[cell])
        for i in range(firsts.size):
            for state in range(states[i] - 1):
                column = bitmaps[firsts[i] + state, first:]
                for cell in range(cells.shape[0]):
                    count = _shared(buffer[cell], column, planes, times, first, words)
                    tables[places[i] + cell * states[i] + state] += count
    for i in range(firsts.size):
        for cell in range(cells.shape[0]):
            place = places[i] + cell * states[i]
            rest = totals[cell]
            for state in range(states[i] - 1):
                rest -= tables[place + state]
            tables[place + states[i] - 1] = rest


@kernel(
    types.void,
    types.int64,
    types.float64,
    array("int64"),
    array("int64"),
    array("int64"),
    array("int64"),
    types.float64,
    types.int64,
    array("float64"),
    array("float64", writable=True),
)
def score_tables(
    kind: Any,
    amount: Any,
    tables: Any,
    places: Any,
    starts: Any,
    columns: Any,
    size: Any,
    states: Any,
    known: Any,
    scores: Any,
) -> None:
    """Score the tables that :func:`count_extended` filled; see :func:`bnpipe.kernels.scoring.local_score`."""
    cells = starts[-1]
    for i in range(columns.size):
        table = tables[places[i] : places[i] + cells * columns[i]]
        scores[i] = local_score(kind, amount, table, starts, columns[i], size * columns[i], states, known)
