"""The families as tables to look up in: complete rows, and targets whose Markov blanket is observed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Blanket:
    """Arrays of `bnpipe.kernels.lookup.look_up_target`."""

    needed: Ints
    starts: Ints
    members: Ints
    strides: Ints
    offsets: Ints
    steps: Ints


class Families:
    """Log tables of all families, one after the other.

    Parameters
    ----------
    families : sequence of sequence of int
        Parents, then the variable itself.
    tables : sequence of float64 arrays
    """

    def __init__(self, families: Sequence[Sequence[int]], tables: Sequence[NDArray[np.float64]]) -> None:
        self.families, self.tables = families, tables
        with np.errstate(divide="ignore"):
            logs = [np.log(np.ravel(table)) for table in tables]
        self.log_tables = np.concatenate(logs)
        self.offsets = np.cumsum([0, *(log.size for log in logs)], dtype=np.int64)[:-1]
        self.has_zero = [bool(np.isneginf(log).any()) for log in logs]
        self.log_least = float(sum(log[np.isfinite(log)].min(initial=0.0) for log in logs))
        self._all = self._flat(range(len(families)))
        self._blankets: dict[int, _Blanket] = {}

    def _strides(self, family: int) -> tuple[int, ...]:
        table = np.ascontiguousarray(self.tables[family])
        return tuple(stride // table.itemsize for stride in table.strides)

    def _flat(self, chosen: Sequence[int], without: int = -1) -> tuple[Ints, Ints, Ints]:
        """Give starts, members and strides of some families, one variable left out."""
        pairs = [
            [(m, s) for m, s in zip(self.families[f], self._strides(f), strict=True) if m != without] for f in chosen
        ]
        starts = np.cumsum([0, *map(len, pairs)], dtype=np.int64)
        flat = np.array([pair for family in pairs for pair in family], dtype=np.int64).reshape(-1, 2)
        return starts, np.ascontiguousarray(flat[:, 0]), np.ascontiguousarray(flat[:, 1])

    def log_likelihood(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Give the complete rows, bool (rows,), and their log probability, nats (0 elsewhere)."""
        from bnpipe.kernels.lookup import look_up_rows

        rows = codes.shape[1]
        complete, total = np.zeros(rows, dtype=np.bool_), np.zeros(rows)
        look_up_rows(codes, 0, rows, *self._all, self.offsets, self.log_tables, complete, total)
        return complete, total

    def posterior(self, target: int, codes: NDArray[np.uint8], table: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Fill in the rows of `table`, (rows, states), whose Markov blanket is observed; tell which they are.

        Elsewhere than in the blanket evidence can only be impossible through a family with zeros: all of those must
        be observed too, or the row is left to the messages.
        """
        from bnpipe.kernels.lookup import look_up_target

        rows = codes.shape[1]
        if target not in self._blankets:
            self._blankets[target] = self._blanket(target)
        blanket = self._blankets[target]
        found = np.zeros(rows, dtype=np.bool_)
        look_up_target(
            codes, 0, rows, blanket.needed, blanket.starts, blanket.members, blanket.strides, blanket.offsets,
            blanket.steps, self.log_tables, found, table,
        )  # fmt: skip
        return found

    def _blanket(self, target: int) -> _Blanket:
        own = [place for place, family in enumerate(self.families) if target in family]
        others = [place for place, family in enumerate(self.families) if target not in family and self.has_zero[place]]
        needed = {member for place in (*own, *others) for member in self.families[place]} - {target}
        steps = [self._strides(place)[self.families[place].index(target)] for place in own] + [0] * len(others)
        chosen = [*own, *others]
        return _Blanket(
            np.array(sorted(needed), dtype=np.int64),
            *self._flat(chosen, target),
            self.offsets[chosen],
            np.array(steps, dtype=np.int64),
        )
