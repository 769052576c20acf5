"""What the variables of a network are: their states, how raw values become states, and a hash of it all.

>>> wind = Variable("wind", bin_labels((5.0, 10.0)) + ("missing",), edges=(5.0, 10.0), missing="missing")
>>> wind.states
('<5', '5..10', '>=10', 'missing')
>>> wind.encode(pd.Series([3.0, 5.0, None]))[0].tolist()
[0, 1, 3]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import numbers
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnpipe.errors import SchemaError, shorten

MISSING: Final[int] = 255
"""Code of a cell without a state; so a variable has at most 255 states."""


def state_name(value: object) -> str:
    """Give the canonical text of a value, the same for a spec, a Parquet file and a JSON request.

    Examples
    --------
    >>> [state_name(value) for value in (True, 3.0, 3, 0.5, "x")]
    ['true', '3', '3', '0.5', 'x']
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, numbers.Integral):
        return str(int(value))
    if isinstance(value, float | np.floating | Decimal):
        return str(int(value)) if math.isfinite(value) and value == int(value) else str(value)
    return str(value)


def bin_labels(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Name the bins that interior cut points make.

    Examples
    --------
    >>> bin_labels((10.0, 20.0))
    ('<10', '10..20', '>=20')
    """
    if not edges:
        return ("any",)
    texts = [state_name(float(edge)) for edge in edges]
    between = [f"{low}..{high}" for low, high in itertools.pairwise(texts)]
    return (f"<{texts[0]}", *between, f">={texts[-1]}")


def quantile_edges(values: NDArray[Any], bins: int) -> tuple[float, ...]:
    """Choose at most `bins` - 1 distinct interior cut points that share the values out evenly.

    Cut points are rounded to as few significant digits as keep them apart (at least 3), so that the
    labels made from them can be read. Where one value holds more than its share, such as the zeros of
    rainfall, it gets a bin to itself and there are fewer bins; a constant gives no cut point at all.

    Parameters
    ----------
    values : array of float (rows,)
        Values that are not finite are ignored.
    bins : int
        How many bins to aim at.

    Raises
    ------
    SchemaError
        There is no finite value, or fewer than two bins are asked for.
    """
    if bins < 2:
        raise SchemaError(f"at least 2 bins are needed, got {bins}")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    ordered = ordered[np.isfinite(ordered)]
    if not ordered.size:
        raise SchemaError("no finite values to take quantiles of")
    smallest = ordered[0]
    cuts = ordered[(np.arange(1, bins) * ordered.size) // bins]
    above = ordered[np.searchsorted(ordered, smallest, side="right") :]
    cuts = np.unique(np.where(cuts > smallest, cuts, above[0])) if above.size else above
    for digits in (3, 4, 5, 6, 8, 10, 12, 15):
        edges = {edge for edge in (float(f"{cut:.{digits}g}") for cut in cuts) if edge > smallest}
        if len(edges) == len(cuts):
            return tuple(sorted(edges))
    return tuple(cuts.tolist())


@dataclass(frozen=True)
class Variable:
    """A discrete variable and how raw values become its states.

    Parameters
    ----------
    name : str
        As in the data.
    states : tuple of str
        1 to 255 distinct names; their order is the order of the codes.
    edges : tuple of float, optional
        Interior cut points, strictly increasing. Value x falls in bin i where
        ``edges[i - 1] <= x < edges[i]``; the bins are the first ``len(edges) + 1`` states.
    other : str, optional
        The state that takes values which are no state. Without it they stay `MISSING`.
    missing : str, optional
        The state that takes nulls. Without it they stay `MISSING`.

    Raises
    ------
    SchemaError
        Names, states and edges do not fit together.
    """

    name: str
    states: tuple[str, ...]
    edges: tuple[float, ...] | None = None
    other: str | None = None
    missing: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SchemaError(f"a variable's name is text that is not empty, got {self.name!r}")
        if isinstance(self.states, str):
            raise SchemaError(f"{self.name}: states are a list of names, got the text {shorten([self.states])!r}")
        object.__setattr__(self, "states", tuple(self.states))
        self._check_states()
        if self.edges is not None:
            object.__setattr__(self, "edges", tuple(float(edge) for edge in self.edges))
            self._check_edges(self.edges)

    def _check_states(self) -> None:
        if not 1 <= len(self.states) <= MISSING:
            advice = "; bin them, or give the frequent ones and an `other`" if self.states else ""
            raise SchemaError(f"{self.name}: 1 to {MISSING} states are allowed, got {len(self.states)}{advice}")
        if strangers := [state for state in self.states if not isinstance(state, str)]:
            raise SchemaError(f"{self.name}: states are text, got {shorten(map(repr, strangers))}")
        if repeated := sorted({state for state in self.states if self.states.count(state) > 1}):
            raise SchemaError(f"{self.name}: states given twice: {shorten(repeated)}")
        for role, state in (("other", self.other), ("missing", self.missing)):
            if state is not None and state not in self.states:
                raise SchemaError(f"{self.name}: {role} is {state!r}, which is not among its states")

    def _check_edges(self, edges: tuple[float, ...]) -> None:
        if not all(math.isfinite(edge) for edge in edges):
            raise SchemaError(f"{self.name}: edges must be finite, got {shorten(edges)}")
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise SchemaError(f"{self.name}: edges must increase strictly, got {shorten(edges)}")
        if len(self.states) < len(edges) + 1:
            raise SchemaError(
                f"{self.name}: {len(edges)} edges make {len(edges) + 1} bins, got {len(self.states)} states"
            )

    @property
    def cardinality(self) -> int:
        """Number of states."""
        return len(self.states)

    @cached_property
    def _code_of(self) -> dict[str, int]:
        return {state: code for code, state in enumerate(self.states)}

    def encode(self, values: pd.Series[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Turn raw values into codes.

        Text that names a state is that state, also of a binned variable; so what `Dataset.to_pandas`
        gave can be read back.

        Parameters
        ----------
        values : Series (rows,)

        Returns
        -------
        codes : uint8 (rows,)
            `MISSING` where there is no state.
        unseen : bool (rows,)
            Where a value that is not null is no state, also if `other` took it.

        Raises
        ------
        SchemaError
            The column holds dates where numbers are binned, or values such as lists.
        """
        if self.edges is not None:
            if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
                raise SchemaError(f"{self.name}: expected numbers to put into bins, got {values.dtype}")
            if pd.api.types.is_numeric_dtype(values.dtype):
                return self._encode_numbers(values.to_numpy(dtype=np.float64, na_value=np.nan)), np.zeros(
                    len(values), dtype=np.bool_
                )
        try:
            places, uniques = pd.factorize(values)
        except TypeError as error:
            raise SchemaError(f"{self.name}: can't compare its values: {shorten([error])}") from error
        table = np.full(len(uniques) + 1, MISSING, dtype=np.uint8)
        strange = np.zeros(len(uniques) + 1, dtype=np.bool_)
        for place, value in enumerate(uniques):
            code = self.code_of(value)
            strange[place] = code is None
            table[place] = self._fallback(self.other) if code is None else code
        table[-1] = self._fallback(self.missing)  # pandas gives nulls the place -1
        return table[places], strange[places]

    def _encode_numbers(self, values: NDArray[np.float64]) -> NDArray[np.uint8]:
        codes = np.searchsorted(np.asarray(self.edges), values, side="right").astype(np.uint8)
        codes[np.isnan(values)] = self._fallback(self.missing)
        return codes

    def code_of(self, value: object) -> int | None:
        """Give the code of one value that is not null; None if it is no state, also where `other` would take it."""
        code = self._code_of.get(state_name(value)) if self.edges is None or isinstance(value, str) else None
        if code is not None or self.edges is None:
            return code
        try:
            number = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        except OverflowError:  # an integer of more than 308 digits
            number = math.inf if value > 0 else -math.inf  # type: ignore[operator]
        return None if math.isnan(number) else bisect_right(self.edges, number)

    def _fallback(self, state: str | None) -> int:
        return MISSING if state is None else self._code_of[state]

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields; what is not set is left out."""
        fields: dict[str, Any] = {"name": self.name, "states": list(self.states)}
        if self.edges is not None:
            fields["edges"] = list(self.edges)
        for role in ("other", "missing"):
            if getattr(self, role) is not None:
                fields[role] = getattr(self, role)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Variable:
        """Read what :meth:`to_dict` wrote."""
        try:
            edges = fields.get("edges")
            return cls(
                name=fields["name"],
                states=tuple(fields["states"]),
                edges=None if edges is None else tuple(float(edge) for edge in edges),
                other=fields.get("other"),
                missing=fields.get("missing"),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SchemaError(f"not a variable: {shorten([repr(error)])}") from error


@dataclass(frozen=True)
class Schema:
    """The variables of a network, in order.

    Raises
    ------
    SchemaError
        No variable, or two with the same name.
    """

    variables: tuple[Variable, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "variables", tuple(self.variables))
        if not self.variables:
            raise SchemaError("a schema needs at least one variable")
        if len(self._place_of) < len(self.variables):
            names = self.names
            raise SchemaError(f"variables given twice: {shorten(sorted({n for n in names if names.count(n) > 1}))}")

    @cached_property
    def _place_of(self) -> dict[str, int]:
        return {variable.name: place for place, variable in enumerate(self.variables)}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the variables, in order."""
        return tuple(variable.name for variable in self.variables)

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """Numbers of states, in the order of `names`."""
        return tuple(variable.cardinality for variable in self.variables)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def index(self, name: str) -> int:
        """Tell the place of a variable.

        Raises
        ------
        SchemaError
            There is no such variable.
        """
        try:
            return self._place_of[name]
        except KeyError:
            raise SchemaError(f"no variable {shorten([repr(name)])}; there are {shorten(self.names)}") from None

    def __getitem__(self, name: str) -> Variable:
        """Give the variable of that name."""
        return self.variables[self.index(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._place_of

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def project(self, names: tuple[str, ...]) -> Schema:
        """Keep the named variables, in the order given."""
        return Schema(tuple(self[name] for name in names))

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        return {"variables": [variable.to_dict() for variable in self.variables]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Schema:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        SchemaError
            The fields are not a schema's.
        """
        try:
            return cls(tuple(Variable.from_dict(variable) for variable in fields["variables"]))
        except (KeyError, TypeError) as error:
            raise SchemaError(f"not a schema: {shorten([repr(error)])}") from error

    @classmethod
    def infer(cls, frame: pd.DataFrame) -> Schema:
        """Take the states from the data: the categories of categoricals, else the sorted values.

        Whole numbers with gaps, which pandas holds as floats, count as integers.

        Raises
        ------
        SchemaError
            A column holds fractions or dates (give edges or states), no value at all, or more than 255.
        """
        return cls(tuple(_infer_variable(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)))


def _infer_variable(name: str, values: pd.Series[Any]) -> Variable:
    if isinstance(values.dtype, pd.CategoricalDtype):
        return Variable(name, tuple(state_name(value) for value in values.cat.categories))
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        raise SchemaError(f"{name}: {values.dtype} has no states; make a variable of it, such as hour or month")
    uniques = values.dropna().unique().tolist()
    if not uniques:
        raise SchemaError(f"{name}: no value to take states from; give its states")
    if any(isinstance(value, float) and not value.is_integer() for value in uniques):
        raise SchemaError(f"{name}: fractions have no states; give edges to put them into bins")
    if len(uniques) > MISSING:
        raise SchemaError(
            f"{name}: {len(uniques)} different values, at most {MISSING} states are allowed; give edges or states"
        )
    try:
        ordered = sorted(uniques)
    except TypeError:
        ordered = sorted(uniques, key=state_name)
    return Variable(name, tuple(dict.fromkeys(state_name(value) for value in ordered)))
