"""The families as tables to look up in: complete rows, and targets whose Markov blanket is observed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bnpipe.schema import MISSING

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Blanket:
    """Arrays of `bnpipe.kernels.lookup.look_up_target`."""

    needed: tuple[int, ...]
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

    def log_likelihood(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Give the log probability of complete rows, nats, 0 elsewhere; and the rows that are not complete."""
        from bnpipe.kernels.lookup import look_up_rows

        complete, total = _observed(codes, range(len(self.families))), np.zeros(codes.shape[1])
        look_up_rows(codes, np.flatnonzero(complete), *self._all, self.offsets, self.log_tables, total)
        return np.flatnonzero(~complete), total

    def covered(self, target: int, codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell in which rows the Markov blanket is observed, bool (rows,).

        Elsewhere than in the blanket evidence can only be impossible through a family with zeros: all of those must
        be observed too.
        """
        if target not in self._blankets:
            self._blankets[target] = self._blanket(target)
        return _observed(codes, self._blankets[target].needed)

    def posterior(
        self, target: int, codes: NDArray[np.uint8], rows: NDArray[np.int64], table: NDArray[np.float64]
    ) -> None:
        """Fill in `rows` of `table`, (rows of all, states); `target` must be covered there."""
        from bnpipe.kernels.lookup import look_up_target

        its = self._blankets[target]
        look_up_target(
            codes, rows, its.starts, its.members, its.strides, its.offsets, its.steps, self.log_tables, table
        )

    def _blanket(self, target: int) -> _Blanket:
        own = [place for place, family in enumerate(self.families) if target in family]
        others = [place for place, family in enumerate(self.families) if target not in family and self.has_zero[place]]
        needed = {member for place in (*own, *others) for member in self.families[place]} - {target}
        steps = [self._strides(place)[self.families[place].index(target)] for place in own] + [0] * len(others)
        chosen = [*own, *others]
        return _Blanket(
            tuple(sorted(needed)),
            *self._flat(chosen, target),
            self.offsets[chosen],
            np.array(steps, dtype=np.int64),
        )


def _observed(codes: NDArray[np.uint8], variables: Iterable[int]) -> NDArray[np.bool_]:
    """Tell which rows have a cell of each of the variables."""
    observed = np.ones(codes.shape[1], dtype=np.bool_)
    for variable in variables:
        observed &= codes[variable] != MISSING
        if not observed.any():
            break
    return observed
