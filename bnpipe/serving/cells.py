"""From the cells of a JSON request to codes, without pandas: the same codes as `bnpipe.schema.Variable.encode`.

A cell that is left out is unobserved. A null says that the value is missing, which some variables have a state for.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.answers import records
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.serving.table import MANY, Table, table_of

Cell: TypeAlias = records.Cell
Row: TypeAlias = Mapping[str, Cell]
Codes: TypeAlias = NDArray[np.uint8]

_ABSENT: Final[Any] = object()
_REMEMBERED: Final = 4096
"""Values of one variable whose codes are kept; a variable of states has few, a number may have many."""
_LONG: Final = 200
"""Characters of a text that is not kept beyond the rows it came with."""
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

    def encode(self, rows: Sequence[Row] | Table) -> Encoded:
        """Encode rows."""
        codes = np.empty((self._variables, len(rows)), dtype=np.uint8)
        unseen: list[tuple[int, str, Cell]] = []
        table, given = (rows, ()) if isinstance(rows, Table) else (table_of(rows), rows)
        plain = table is not None and table.plain
        for place, column in enumerate(self._columns):
            if column.full:
                column.forget()
            name, known, code_of = column.name, column.known, column.code
            if table is None:
                values: Sequence[Any] = [row.get(name, _ABSENT) for row in given]
            elif name in table.columns:
                values = table.columns[name]
            else:
                codes[place] = MISSING
                continue
            if len(values) >= MANY and (at_once := column.at_once(values, plain=plain)) is not None:
                codes[place] = at_once
                continue
            try:
                # True == 1, so booleans must not meet numbers in a dict: they are left to `code_of`.
                codes[place] = [known[v] if v.__class__ is not bool else code_of(v) for v in values]
            except KeyError:
                codes[place] = [code_of(value) for value in values]
            if column.odd and not column.odd.isdisjoint(values):
                unseen += [(row, name, value) for row, value in enumerate(values) if column.strange(value)]
        return Encoded(codes, tuple(unseen), self._unknown(given, table))

    def _unknown(self, rows: Sequence[Row], table: Table | None) -> tuple[tuple[int, str], ...]:
        names = self.names
        if table is not None:
            strangers = [name for name in table.columns if name not in names]
            return tuple((place, name) for place in range(len(table)) for name in strangers) if strangers else ()
        if names.issuperset(set().union(*rows)):
            return ()
        return tuple((place, name) for place, row in enumerate(rows) for name in row if name not in names)


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

    def at_once(self, values: Sequence[Any], *, plain: bool) -> Codes | None:
        """Give the codes of numbers that fall into bins, or of values that are known; None if there are others.

        Parameters
        ----------
        values
        plain : bool
            Whether none of them is a boolean, or absent.
        """
        if plain and self.edges is not None:
            try:
                return self._in_bins(self.edges, np.frombuffer(array("d", values)))
            except (OverflowError, TypeError):  # a huge integer; a null or a text
                pass
        try:
            if self.edges is not None and (kinds := set(map(type, values))) <= _NUMBERS:
                return self._in_bins_or_missing(self.edges, values, gaps=object in kinds)
            if not self.odd and (plain or bool not in set(map(type, values))):
                return np.frombuffer(bytes(map(self.known.__getitem__, values)), dtype=np.uint8)
        except (KeyError, OverflowError):
            return None
        return None

    @staticmethod
    def _in_bins(edges: NDArray[np.float64], numbers: NDArray[np.float64]) -> Codes:
        return edges.searchsorted(numbers, side="right").astype(np.uint8)

    def _in_bins_or_missing(self, edges: NDArray[np.float64], values: Sequence[Any], *, gaps: bool) -> Codes:
        there = [None if value is _ABSENT else value for value in values] if gaps else values
        numbers = np.array(there, dtype=np.float64)  # a null becomes NaN, which JSON does not have
        codes = self._in_bins(edges, numbers)
        codes[np.isnan(numbers)] = self._kept[None]
        if gaps and self._kept[None] != MISSING:
            codes[[value is _ABSENT for value in values]] = MISSING
        return codes

    def strange(self, value: Cell) -> bool:
        """Tell whether a value, not null, is no state."""
        return value in self.odd and self.variable.code_of(value) is None
