"""The rows of a sample as bits, one bitmap a state: what small tables are counted from.

References
----------
Moore, A. & Lee, M. S. (1998). Cached sufficient statistics for efficient machine learning. JAIR 8, 67-91.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np

from bnpipe.schema import MISSING

ByteArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
WordArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]

MOST_BITMAPS: Final = 16
"""States of a variable that get a bitmap each; a variable with more has none."""
NO_WEIGHTS: Final[IntArray] = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Bitmaps:
    """One bit a row for each state of the variables that have few.

    Parameters
    ----------
    words : uint64 (states of all variables, words)
    firsts : tuple of int
        The first bitmap of each variable; -1: it has none.
    planes : uint64 (bits of the largest weight, words)
        The rows' weights in binary; none: each row counts once.
    times : uint64 (words,)
        Where the rows of a word share one weight, that weight, instead of planes; else empty.
    """

    words: WordArray
    firsts: tuple[int, ...]
    planes: WordArray
    times: WordArray = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))

    @classmethod
    def of(cls, columns: Sequence[ByteArray], cardinalities: Sequence[int], weights: IntArray) -> Bitmaps:
        """Write the bitmaps of these columns."""
        from bnpipe.kernels.counting import pack_states

        width = -(-columns[0].size // 64)
        firsts, total = [], 0
        for states in cardinalities:
            firsts.append(total if states <= MOST_BITMAPS else -1)
            total += states if states <= MOST_BITMAPS else 0
        words = np.zeros((total, width), dtype=np.uint64)
        for column, states, first in zip(columns, cardinalities, firsts, strict=True):
            if first >= 0:
                pack_states(column, words[first : first + states])
        return cls(words, tuple(firsts), _planes(weights, width))

    @property
    def cost(self) -> int:
        """Words to be read to count one cell."""
        return int(self.words.shape[1]) * max(1, len(self.planes))

    @classmethod
    def apart(
        cls, columns: Sequence[ByteArray], cardinalities: Sequence[int], groups: IntArray
    ) -> tuple[Bitmaps, IntArray]:
        """Write them so that no word holds rows of two groups, int64 (rows,); give also the group of each word."""
        order = np.argsort(groups, kind="stable")
        numbers, sizes = np.unique(groups, return_counts=True)
        words = -(-sizes // 64)
        ahead = 64 * (np.cumsum(words) - words) - (np.cumsum(sizes) - sizes)
        places = np.arange(order.size) + np.repeat(ahead, sizes)
        padded = []
        for column in columns:
            wide = np.full(64 * int(words.sum()), MISSING, dtype=np.uint8)  # is no state and sets no bit
            wide[places] = column[order]
            padded.append(wide)
        return cls.of(padded, cardinalities, NO_WEIGHTS), np.repeat(numbers, words)

    def reweighted(self, weights: IntArray) -> Bitmaps:
        """Count each row by another weight, int64 (rows,)."""
        return replace(self, planes=_planes(weights, self.words.shape[1]))

    def repeated(self, times: IntArray) -> Bitmaps:
        """Count the rows of each word so many times, int64 (words,)."""
        return replace(self, planes=np.zeros((0, 0), dtype=np.uint64), times=times.astype(np.uint64))

    @property
    def arrays(self) -> tuple[WordArray, WordArray, WordArray]:
        """What the kernels take: words, planes, times."""
        return self.words, self.planes, self.times


def _planes(weights: IntArray, width: int) -> WordArray:
    from bnpipe.kernels.counting import pack_weights

    planes = np.zeros((int(weights.max(initial=0)).bit_length(), width), dtype=np.uint64)
    pack_weights(weights, planes)
    return planes
