"""From the cells of a JSON request to codes, without pandas: the same codes as `bnpipe.schema.Variable.encode`.

A cell that is left out is unobserved. A null says that the value is missing, which some variables have a state for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.answers import records
from bnpipe.schema import MISSING, Schema, Variable

Cell: TypeAlias = records.Cell
Row: TypeAlias = Mapping[str, Cell]
Codes: TypeAlias = NDArray[np.uint8]

_ABSENT: Final[Any] = object()
_REMEMBERED: Final = 4096
"""Values of one variable whose codes are kept; a variable of states has few, a number may have many."""
_LONG: Final = 200
"""Characters of a text that is not kept beyond the rows it came with."""
_MANY: Final = 64
"""Rows from which numbers are put into bins all at once."""
_NUMBERS: Final = frozenset((float, int, type(None), type(_ABSENT)))


@dataclass(frozen=True, eq=False, slots=True)
class Encoded:
    """Rows as codes.

    Parameters
    ----------
    codes : uint8 (variables, rows)
        `MISSING` (255) where there is no state.
    unseen : tuple of (row, variable, value)
        Cells whose value is no state, also where `other` took it.
    unknown : tuple of (row, name)
        Cells of variables the network does not have.
    """

    codes: Codes
    unseen: tuple[tuple[int, str, Cell], ...]
    unknown: tuple[tuple[int, str], ...]


class CellEncoder:
    """Encodes rows for one schema. Not for several threads at once.

    Parameters
    ----------
    schema : Schema
    """

    def __init__(self, schema: Schema) -> None:
        self.names = frozenset(schema.names)
        self._columns = [_Column(variable) for variable in schema]
        self._variables = len(schema)

    def encode(self, rows: Sequence[Row]) -> Encoded:
        """Encode rows."""
        codes = np.empty((self._variables, len(rows)), dtype=np.uint8)
        unseen: list[tuple[int, str, Cell]] = []
        many, keys = len(rows) >= _MANY, set().union(*rows)
        columns = _columns(rows, keys) if many else None
        for place, column in enumerate(self._columns):
            if column.full:
                column.forget()
            name, known, code_of = column.name, column.known, column.code
            if columns is None:
                values: Sequence[Any] = [row.get(name, _ABSENT) for row in rows]
            elif name in columns:
                values = columns[name]
            else:
                codes[place] = MISSING
                continue
            if many and (at_once := column.at_once(values)) is not None:
                codes[place] = at_once
                continue
            try:
                # True == 1, so booleans must not meet numbers in a dict: they are left to `code_of`.
                codes[place] = [known[v] if v.__class__ is not bool else code_of(v) for v in values]
            except KeyError:
                codes[place] = [code_of(value) for value in values]
            if column.odd and not column.odd.isdisjoint(values):
                unseen += [(row, name, value) for row, value in enumerate(values) if column.strange(value)]
        names = self.names
        unknown: tuple[tuple[int, str], ...] = ()
        if not keys <= names:
            unknown = tuple((place, name) for place, row in enumerate(rows) for name in row if name not in names)
        return Encoded(codes, tuple(unseen), unknown)


def _columns(rows: Sequence[Row], keys: set[str]) -> Mapping[str, tuple[Any, ...]] | None:
    """Give the values of each key, row by row, which spares the processor's cache; None if a row lacks a key."""
    if len(keys) < 2 or set(map(len, rows)) != {len(keys)}:  # of one key, `itemgetter` gives no tuple
        return None
    names = tuple(keys)
    return dict(zip(names, zip(*map(itemgetter(*names), rows), strict=True), strict=True))


class _Column:
    """Codes of one variable's values, remembered.

    Values that are equal (3 and 3.0) have the same code, whatever the variable; booleans are kept apart.
    """

    def __init__(self, variable: Variable) -> None:
        self.name, self.variable = variable.name, variable
        self.edges = None if variable.edges is None else np.array(variable.edges, dtype=np.float64)
        self._states = {state: code for code, state in enumerate(variable.states)}
        self._kept: dict[Any, int] = {_ABSENT: MISSING, None: self._role(variable.missing)}
        self.known: dict[Any, int] = dict(self._kept)
        self.odd: set[Cell] = set()
        self.full = False

    def _role(self, state: str | None) -> int:
        return MISSING if state is None else self._states[state]

    def code(self, value: Cell) -> int:
        """Give a value's code."""
        boolean = value.__class__ is bool
        if not boolean and value in self.known:
            return self.known[value]
        found = self.variable.code_of(value)
        if found is None:
            self.odd.add(value)
        code = self._role(self.variable.other) if found is None else found
        if not boolean:
            self.known[value] = code
            self.full |= len(self.known) >= _REMEMBERED or (isinstance(value, str) and len(value) > _LONG)
        return code

    def forget(self) -> None:
        """Begin anew; only between rows, which may ask :meth:`strange` of what they brought."""
        self.known = dict(self._kept)
        self.odd.clear()
        self.full = False

    def at_once(self, values: Sequence[Any]) -> Codes | None:
        """Give the codes of numbers that fall into bins, or of values that are known; None if there are others."""
        kinds = set(map(type, values))
        try:
            if self.edges is not None and kinds <= _NUMBERS:
                return self._in_bins(self.edges, values, gaps=object in kinds)
            if bool not in kinds and not self.odd:
                return np.frombuffer(bytes(map(self.known.__getitem__, values)), dtype=np.uint8)
        except (KeyError, OverflowError):
            return None
        return None

    def _in_bins(self, edges: NDArray[np.float64], values: Sequence[Any], *, gaps: bool) -> Codes:
        there = [None if value is _ABSENT else value for value in values] if gaps else values
        numbers = np.array(there, dtype=np.float64)  # a null becomes NaN, which JSON does not have
        codes = edges.searchsorted(numbers, side="right").astype(np.uint8)
        codes[np.isnan(numbers)] = self._kept[None]
        if gaps and self._kept[None] != MISSING:
            codes[[value is _ABSENT for value in values]] = MISSING
        return codes

    def strange(self, value: Cell) -> bool:
        """Tell whether a value, not null, is no state."""
        return value in self.odd and self.variable.code_of(value) is None
