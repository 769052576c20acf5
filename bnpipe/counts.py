"""Contingency counts over encoded columns: the one hot loop under scores, CPDs and drift.

A family is a node with its parents. Its counts are kept per cluster (usually a day), because rows of one
day are not independent and whole clusters are what gets resampled. Most cells of such a table are empty,
so it is held sparse.
"""

from __future__ import annotations

import base64
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.errors import DataError, FormatError, NetworkError, shorten
from bnpipe.schema import MISSING

MAX_CELLS: Final[int] = 2**27
"""Cells a family's dense table may have: 1 GiB of 8-byte numbers."""

MAX_FLAT: Final[int] = 2**62
"""Cells the table over all clusters, and rows all cells together, may have, so that no int64 overflows."""

COMPILED_FROM: Final[int] = 2**27
"""Rows times families from which numba counts sooner than numpy, though it takes half a second to import."""

Codes: TypeAlias = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]


def table_cells(cardinalities: Sequence[int]) -> int:
    """Count the cells of a table.

    Raises
    ------
    NetworkError
        It would not fit into memory.
    """
    cells = math.prod(cardinalities)
    if cells > MAX_CELLS:
        raise NetworkError(
            f"a table of {len(cardinalities)} variables would have {cells:.3g} cells, at most {MAX_CELLS:.3g} are "
            "allowed; use fewer parents or fewer states"
        )
    return cells


@dataclass(frozen=True, eq=False)
class FamilyCounts:
    """Counts N_ijk of one node i by cluster, sparse and read-only.

    Parameters
    ----------
    shape : tuple of int
        (clusters, configurations, states). Configurations of the parents in C order, last parent fastest.
    cells : int64 (n,)
        Flat indices into `shape`, strictly increasing.
    counts : int64 (n,)
        Rows in each cell, all positive.

    Raises
    ------
    NetworkError
        Arrays and shape do not fit together.
    """

    shape: tuple[int, int, int]
    cells: NDArray[np.int64]
    counts: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise NetworkError(f"counts have shape (clusters, configurations, states), got {self.shape}")
        object.__setattr__(self, "shape", tuple(int(length) for length in self.shape))
        table_cells(self.shape[1:])
        if np.ndim(self.cells) != 1 or np.shape(self.cells) != np.shape(self.counts):
            raise NetworkError(f"{np.shape(self.cells)} cells do not fit {np.shape(self.counts)} counts")
        self._freeze()
        if self.cells.size:
            inside = self.cells[0] >= 0 and int(self.cells[-1]) < math.prod(self.shape)
            if not inside or not (np.diff(self.cells) > 0).all():
                raise NetworkError(f"cells must increase strictly and lie within shape {self.shape}")
            if self.counts.min() < 1:
                raise NetworkError("counts must be positive")
            _check_total(self.counts)

    def _freeze(self) -> None:
        for field in ("cells", "counts"):
            held: NDArray[np.int64] = np.ascontiguousarray(getattr(self, field), dtype=np.int64).view()
            held.flags.writeable = False
            object.__setattr__(self, field, held)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()

    def __repr__(self) -> str:
        return f"FamilyCounts(shape={self.shape}, cells={self.cells.size}, rows={self.rows})"

    @property
    def rows(self) -> int:
        """Rows counted."""
        return int(self.counts.sum())

    @property
    def table_size(self) -> int:
        """Cells of one cluster: configurations times states."""
        return self.shape[1] * self.shape[2]

    @property
    def cluster_rows(self) -> NDArray[np.int64]:
        """Rows of each cluster, int64 (clusters,)."""
        return _sums(self.cells // self.table_size, self.counts, self.shape[0])

    def total(self) -> NDArray[np.int64]:
        """Sum over clusters, dense int64 (configurations, states)."""
        return _sums(self.cells % self.table_size, self.counts, self.table_size).reshape(self.shape[1:])

    def per_cluster(self) -> Iterator[NDArray[np.int64]]:
        """Give one dense int64 (configurations, states) a cluster, in the order of the labels."""
        bounds = np.searchsorted(self.cells, np.arange(self.shape[0] + 1) * self.table_size)
        for cluster in range(self.shape[0]):
            table = np.zeros(self.table_size, dtype=np.int64)
            part = slice(bounds[cluster], bounds[cluster + 1])
            table[self.cells[part] - cluster * self.table_size] = self.counts[part]
            yield table.reshape(self.shape[1:])

    def select(self, clusters: NDArray[Any]) -> FamilyCounts:
        """Keep some clusters, by mask or by increasing index; the others leave the shape too."""
        kept = np.arange(self.shape[0])[np.asarray(clusters)]
        if not kept.size:
            raise NetworkError("no cluster selected")
        places = np.full(self.shape[0], -1, dtype=np.int64)
        places[kept] = np.arange(kept.size)
        return self.place(places, int(kept.size))

    def place(self, places: NDArray[np.int64], cluster_count: int) -> FamilyCounts:
        """Move cluster c to ``places[c]`` of `cluster_count`; clusters whose place is negative are dropped.

        Raises
        ------
        NetworkError
            The places do not fit the clusters.
        """
        if len(places) != self.shape[0] or (len(places) and int(np.max(places)) >= cluster_count):
            raise NetworkError(f"{len(places)} places do not fit {self.shape[0]} clusters")
        target = np.asarray(places, dtype=np.int64)[self.cells // self.table_size]
        kept = target >= 0
        flat = target[kept] * self.table_size + self.cells[kept] % self.table_size
        return _gather((cluster_count, *self.shape[1:]), flat, self.counts[kept])

    def thinned(self, kept: NDArray[np.int64]) -> FamilyCounts:
        """Keep ``kept[j, k]`` rows of each cell of the table, spread evenly over its clusters.

        Raises
        ------
        NetworkError
            More are to be kept than there are.
        """
        total = self.total()
        if kept.shape != total.shape or (kept > total).any():
            raise NetworkError("more rows are to be kept than there are")
        cell = self.cells % self.table_size
        order = np.argsort(cell, kind="stable")  # by cell of the table, then by cluster
        cell, rows = cell[order], self.counts[order]
        first = np.flatnonzero(np.diff(cell, prepend=-1))
        running = np.cumsum(rows)
        before = running - rows
        before -= np.repeat(before[first], np.diff(first, append=cell.size))
        wanted, held = kept.ravel()[cell], total.ravel()[cell]
        left = np.zeros_like(self.counts)
        left[order] = (before + rows) * wanted // held - before * wanted // held
        return FamilyCounts(self.shape, self.cells[left > 0], left[left > 0])

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields; cells are packed as steps from one to the next, which compress well."""
        steps = np.diff(self.cells, prepend=np.int64(0))
        return {"shape": list(self.shape), "steps": _pack(steps), "counts": _pack(self.counts)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> FamilyCounts:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            The fields are damaged.
        """
        try:
            clusters, configurations, states = fields["shape"]
            steps, counts = _unpack(fields["steps"]), _unpack(fields["counts"])
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise FormatError(f"damaged counts: {type(error).__name__}: {shorten([error])}") from error
        return cls((clusters, configurations, states), np.cumsum(steps, dtype=np.int64), counts)

    def __add__(self, other: FamilyCounts) -> FamilyCounts:
        """Add cell by cell; both must have the same shape."""
        if not isinstance(other, FamilyCounts):
            return NotImplemented
        if self.shape != other.shape:
            raise NetworkError(f"counts of shape {self.shape} and {other.shape} can't be added")
        cells = np.concatenate([self.cells, other.cells])
        return _gather(self.shape, cells, np.concatenate([self.counts, other.counts]))


def family_counts(
    codes: Codes,
    cardinalities: Sequence[int],
    clusters: NDArray[np.integer[Any]] | None = None,
    cluster_count: int = 0,
    *,
    weights: NDArray[np.integer[Any]] | None = None,
    variables: Sequence[int] | None = None,
    compiled: bool | None = None,
) -> FamilyCounts:
    """Count a family's configurations by cluster; rows with a missing cell in the family are left out.

    Parameters
    ----------
    codes : uint8 (variables, rows), or a sequence of uint8 (rows,)
        The parents' rows, then the child's.
    cardinalities : sequence of int (family,)
    clusters : int (rows,), optional
        None: all rows are one cluster.
    cluster_count : int
        Length of the cluster axis; ignored without clusters.
    weights : int (rows,), optional
        How many rows each stands for; None: one.
    variables : sequence of int (family,), optional
        Which rows of `codes` the family is; None: all, in their order.
    compiled : bool, optional
        Whether numba counts. The counts are the same; None: where it pays, see `COMPILED_FROM`.

    Raises
    ------
    NetworkError
        The table would not fit into memory.
    DataError
        A code is no state, a cluster's number lies outside its axis, or a weight is negative.
    """
    family = _Family.of(
        codes, cardinalities, variables=variables, weights=weights, clusters=clusters, cluster_count=cluster_count
    )
    shape = (family.groups, math.prod(cardinalities[:-1]), cardinalities[-1])
    compiled = compiled_pays(family.rows) if compiled is None else compiled
    if family.size <= 2 * family.rows + 2**16:  # a table with a cell for everything costs less than sorting the rows
        table = _count_compiled(family) if compiled else _count(family)
        cells = np.flatnonzero(table)
        return FamilyCounts(shape, cells, table[cells])
    return _gather(shape, *(_number_compiled(family) if compiled else _number(family)))


def contingency(
    codes: Codes,
    cardinalities: Sequence[int],
    *,
    weights: NDArray[np.integer[Any]] | None = None,
    variables: Sequence[int] | None = None,
    compiled: bool | None = None,
) -> NDArray[np.int64]:
    """Count all combinations of states; parameters and errors as of :func:`family_counts`.

    Returns
    -------
    int64, of shape `cardinalities`
    """
    family = _Family.of(codes, cardinalities, variables=variables, weights=weights)
    compiled = compiled_pays(family.rows) if compiled is None else compiled
    table = _count_compiled(family) if compiled else _count(family)
    return table.reshape(tuple(cardinalities))


def compiled_pays(rows: int, families: int = 1) -> bool:
    """Whether numba counts so many families sooner than numpy, its import included if that is still to come."""
    return "bnpipe.kernels.tables" in sys.modules or rows * families >= COMPILED_FROM


@dataclass(frozen=True, eq=False)
class _Family:
    """What is counted, its shapes checked: rows of codes, first the most significant; the cluster above them all."""

    codes: Codes
    places: tuple[int, ...]
    cardinalities: tuple[int, ...]
    clusters: NDArray[np.integer[Any]] | None
    groups: int
    weights: NDArray[np.int64] | None

    @classmethod
    def of(
        cls,
        codes: Codes,
        cardinalities: Sequence[int],
        *,
        variables: Sequence[int] | None,
        weights: NDArray[np.integer[Any]] | None,
        clusters: NDArray[np.integer[Any]] | None = None,
        cluster_count: int = 0,
    ) -> _Family:
        places = tuple(range(len(codes))) if variables is None else tuple(variables)
        if len(places) != len(cardinalities) or not places:
            raise NetworkError(f"{len(places)} rows of codes for {len(cardinalities)} cardinalities")
        groups = 1 if clusters is None else max(1, cluster_count)
        size = table_cells(cardinalities)
        if groups * size > MAX_FLAT or groups >= 2**31:
            raise NetworkError(f"{groups} clusters of {size} cells are too many to be numbered; use coarser clusters")
        rows = len(codes[places[0]])
        lengths = {"codes": {len(codes[place]) for place in places}}
        lengths |= {"clusters": {rows if clusters is None else len(clusters)}}
        lengths |= {"weights": {rows if weights is None else len(weights)}}
        if wrong := [name for name, found in lengths.items() if found != {rows}]:
            raise DataError(f"{wrong[0]} of {shorten(sorted(lengths[wrong[0]]))} rows where there are {rows}")
        held = None if weights is None else _check_weights(np.asarray(weights))
        return cls(codes, places, tuple(map(int, cardinalities)), clusters, groups, held)

    @property
    def rows(self) -> int:
        return len(self.codes[self.places[0]])

    @property
    def size(self) -> int:
        return self.groups * math.prod(self.cardinalities)

    def check(self) -> None:
        """Refuse codes that are no states, and clusters outside their axis."""
        for place, cardinality in zip(self.places, self.cardinalities, strict=True):
            if (self.codes[place] + np.uint8(1)).max(initial=0) > cardinality:  # MISSING + 1 is 0
                raise DataError(f"variable {place}: a code is no state; it has {cardinality} states")
        if self.clusters is not None and self.rows:
            low, high = int(self.clusters.min()), int(self.clusters.max())
            if low < 0 or high >= self.groups:
                raise DataError(f"clusters are numbered {low} to {high}, there are {self.groups}")


def _check_weights(weights: NDArray[Any]) -> NDArray[np.int64]:
    if weights.dtype.kind not in "iu":
        raise DataError(f"weights are whole numbers of rows, got {weights.dtype}")
    if weights.size and weights.min() < 0:
        raise DataError(f"weights are numbers of rows, got {weights.min()}")
    _check_total(weights)
    return np.ascontiguousarray(weights, dtype=np.int64)


def _check_total(counts: NDArray[Any]) -> None:
    if counts.sum(dtype=np.float64) >= MAX_FLAT:
        raise NetworkError(f"more than {MAX_FLAT:.2g} rows can't be counted")


def _count(family: _Family) -> NDArray[np.int64]:
    """Give the whole table, int64 (size,)."""
    flat, weights = _number(family)
    if weights is not None:
        return _sums(flat, weights, family.size)
    return np.bincount(flat, minlength=family.size).astype(np.int64, copy=False)


def _number(family: _Family) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Give the cell of every row without a missing one, and those rows' weights."""
    family.check()
    flat = np.zeros(family.rows, dtype=np.int64) if family.clusters is None else family.clusters.astype(np.int64)
    missing = np.zeros(family.rows, dtype=np.bool_)
    for place, cardinality in zip(family.places, family.cardinalities, strict=True):
        flat *= cardinality
        flat += family.codes[place]
        missing |= family.codes[place] == MISSING
    if not missing.any():
        return flat, family.weights
    return flat[~missing], None if family.weights is None else family.weights[~missing]


def _count_compiled(family: _Family) -> NDArray[np.int64]:
    from bnpipe.kernels.tables import count_rows

    table = np.zeros(family.size, dtype=np.int64)
    if count_rows(*_arguments(family, table)) < 0:
        family.check()
    return table


def _number_compiled(family: _Family) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    from bnpipe.kernels.tables import number_rows

    flat = np.empty(family.rows, dtype=np.int64)
    weights = None if family.weights is None else np.empty_like(flat)
    kept = number_rows(*_arguments(family, flat, flat[:0] if weights is None else weights))
    if kept < 0:
        family.check()
    return flat[:kept], None if weights is None else weights[:kept]


def _arguments(family: _Family, *outputs: NDArray[np.int64]) -> tuple[Any, ...]:
    """Give the family as the kernels take it; an array of no length stands for no clusters or weights."""
    codes, places = family.codes, family.places
    if not isinstance(codes, np.ndarray) or not codes.flags.c_contiguous:
        codes, places = np.stack([codes[place] for place in places]), tuple(range(len(places)))
    clusters = np.zeros(0, dtype=np.int32)
    if family.clusters is not None:
        if family.clusters.dtype != np.int32:
            family.check()  # before numbers beyond 32 bits are cut off
        clusters = np.ascontiguousarray(family.clusters, dtype=np.int32)
    weights = np.zeros(0, dtype=np.int64) if family.weights is None else family.weights
    return codes, np.array(places), np.array(family.cardinalities), clusters, family.groups, weights, *outputs


def _gather(
    shape: tuple[int, int, int], flat: NDArray[np.int64], counts: NDArray[np.int64] | None = None
) -> FamilyCounts:
    """Add up rows, or counts, of the same cell."""
    order = None if counts is None else np.argsort(flat, kind="stable")
    flat = np.sort(flat) if order is None else flat[order]
    starts = np.flatnonzero(np.diff(flat, prepend=np.int64(-1)))
    if counts is None:
        return FamilyCounts(shape, flat[starts], np.diff(starts, append=flat.size))
    sums = np.add.reduceat(counts[order], starts) if starts.size else counts[:0]
    return FamilyCounts(shape, flat[starts][sums > 0], sums[sums > 0])


def _sums(places: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    sums: NDArray[np.int64] = np.zeros(size, dtype=np.int64)
    np.add.at(sums, places, counts)  # exact, where bincount with weights would go through floats
    return sums


def _pack(array: NDArray[np.int64]) -> str:
    """Write integers as base64 of zlib of little-endian 8-byte numbers."""
    return base64.b64encode(zlib.compress(array.astype("<i8").tobytes(), 6)).decode("ascii")


def _unpack(text: str) -> NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i8").astype(np.int64)
