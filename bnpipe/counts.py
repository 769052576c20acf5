"""Contingency counts over encoded columns: the one hot loop under scores, CPDs and drift.

A family is a node with its parents. Its counts are kept per cluster (usually a day), because rows of one
day are not independent and whole clusters are what gets resampled. Most cells of such a table are empty,
so it is held sparse.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.errors import FormatError, NetworkError, shorten
from bnpipe.schema import MISSING

MAX_CELLS: Final[int] = 2**27
"""Cells a family's dense table may have: 1 GiB of 8-byte numbers."""

MAX_FLAT: Final[int] = 2**62
"""Cells the table over all clusters may have, so that flat indices never overflow int64."""


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
    codes: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    cardinalities: Sequence[int],
    clusters: NDArray[np.integer[Any]] | None = None,
    cluster_count: int = 0,
) -> FamilyCounts:
    """Count a family's configurations by cluster; rows with a missing cell in the family are left out.

    Parameters
    ----------
    codes : uint8 (family, rows), or a sequence of uint8 (rows,)
        The parents' rows, then the child's.
    cardinalities : sequence of int (family,)
    clusters : int (rows,), optional
        None: all rows are one cluster.
    cluster_count : int
        Length of the cluster axis; ignored without clusters.

    Raises
    ------
    NetworkError
        The table would not fit into memory.
    """
    *parents, states = cardinalities
    groups = 1 if clusters is None else max(1, cluster_count)
    size = table_cells(cardinalities)
    if groups * size > MAX_FLAT:
        raise NetworkError(f"{groups} clusters of {size} cells are too many to be numbered; use coarser clusters")
    flat, kept = _flat_codes(codes, cardinalities)
    if clusters is not None:
        flat = flat + clusters[kept].astype(np.int64) * size
    return _count((groups, math.prod(parents), states), flat)


def contingency(
    codes: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], cardinalities: Sequence[int]
) -> NDArray[np.int64]:
    """Count all combinations of states.

    Parameters
    ----------
    codes : uint8 (variables, rows), or a sequence of uint8 (rows,)
        Rows with a missing cell are left out.
    cardinalities : sequence of int (variables,)

    Returns
    -------
    int64, of shape `cardinalities`

    Raises
    ------
    NetworkError
        The table would not fit into memory.
    """
    size = table_cells(cardinalities)
    flat, _ = _flat_codes(codes, cardinalities)
    return np.bincount(flat, minlength=size).astype(np.int64, copy=False).reshape(tuple(cardinalities))


def _flat_codes(
    codes: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], cardinalities: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_] | slice]:
    """Give the mixed-radix code of every row without a missing cell, and which rows those are."""
    if len(codes) != len(cardinalities):
        raise NetworkError(f"{len(codes)} rows of codes for {len(cardinalities)} cardinalities")
    flat = codes[0].astype(np.int64)
    missing = codes[0] == MISSING
    for row, cardinality in zip(codes[1:], cardinalities[1:], strict=True):
        flat *= cardinality
        flat += row
        missing |= row == MISSING
    # 255 is also the last code of a variable with 256 states, which a schema does not allow.
    if not missing.any():
        return flat, slice(None)
    return flat[~missing], ~missing


def _count(shape: tuple[int, int, int], flat: NDArray[np.int64]) -> FamilyCounts:
    size = math.prod(shape)
    if size <= 16 * flat.size + 2**16:  # a dense table costs less than sorting the rows
        table = np.bincount(flat, minlength=size)
        cells = np.flatnonzero(table)
        return FamilyCounts(shape, cells, table[cells])
    cells, counts = np.unique(flat, return_counts=True)
    return FamilyCounts(shape, cells, counts)


def _gather(shape: tuple[int, int, int], flat: NDArray[np.int64], counts: NDArray[np.int64]) -> FamilyCounts:
    """Add up counts that may name a cell more than once."""
    cells, places = np.unique(flat, return_inverse=True)
    return FamilyCounts(shape, cells, _sums(places, counts, cells.size))


def _sums(places: NDArray[np.int64], counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    sums: NDArray[np.int64] = np.zeros(size, dtype=np.int64)
    np.add.at(sums, places, counts)  # exact, where bincount with weights would go through floats
    return sums


def _pack(array: NDArray[np.int64]) -> str:
    """Write integers as base64 of zlib of little-endian 8-byte numbers."""
    return base64.b64encode(zlib.compress(array.astype("<i8").tobytes(), 6)).decode("ascii")


def _unpack(text: str) -> NDArray[np.int64]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype="<i8").astype(np.int64)
