"""Rows as the numeric code wants them: one contiguous row of uint8 codes per variable, with cluster labels.

>>> data = Dataset.from_pandas(pd.DataFrame({"rain": ["no", "yes"], "day": ["d1", "d2"]}), clusters="day")
>>> data.column("rain").tolist(), data.cluster_labels
([0, 1], ('d1', 'd2'))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bnpipe.errors import DataError, SchemaError, shorten
from bnpipe.schema import MISSING, Schema, state_name


def order_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort distinct cluster labels: whole numbers by value, everything else (ISO dates too) as text."""
    distinct = set(labels)
    if all(label.isascii() and label.removeprefix("-").isdigit() for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Encoded rows.

    Parameters
    ----------
    schema : Schema
    codes : uint8 (variables, rows)
        State of each cell, `MISSING` (255) where there is none. Held C-contiguous and read-only.
    clusters : int32 (rows,), optional
        Index of each row's cluster in `cluster_labels`. None: rows are taken as independent.
    cluster_labels : tuple of str
        Sorted; empty without clusters. A label may have no rows.
    unseen : bool (variables, rows), optional
        Cells whose raw value was no state. None: there are none.

    Raises
    ------
    DataError
        Shapes do not fit, or a code is no state of its variable.
    """

    schema: Schema
    codes: NDArray[np.uint8]
    clusters: NDArray[np.int32] | None = None
    cluster_labels: tuple[str, ...] = ()
    unseen: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        codes = np.asarray(self.codes)
        if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[0] != len(self.schema):
            raise DataError(
                f"codes must be uint8 of shape ({len(self.schema)}, rows), got {codes.dtype} of shape {codes.shape}"
            )
        for variable, row in zip(self.schema, codes, strict=True):
            if _largest_code(row) >= variable.cardinality:
                raise DataError(f"{variable.name}: a code is no state; it has {variable.cardinality} states")
        self._check_clusters(codes.shape[1])
        if self.unseen is not None and np.shape(self.unseen) != codes.shape:
            raise DataError(f"unseen must have the shape of codes {codes.shape}, got {np.shape(self.unseen)}")
        self._freeze()

    def _check_clusters(self, rows: int) -> None:
        if self.clusters is None:
            if self.cluster_labels:
                raise DataError("cluster labels without the clusters of the rows")
            return
        clusters = np.asarray(self.clusters)
        if clusters.shape != (rows,):
            raise DataError(f"clusters must have shape ({rows},), got {clusters.shape}")
        if rows and not (clusters.min() >= 0 and clusters.max() < len(self.cluster_labels)):
            raise DataError(f"a cluster index lies outside the {len(self.cluster_labels)} labels")

    def _freeze(self) -> None:
        dtypes = {"codes": np.uint8, "clusters": np.int32, "unseen": np.bool_}
        for field, dtype in dtypes.items():
            if (array := getattr(self, field)) is not None:
                held: NDArray[Any] = np.ascontiguousarray(array, dtype=dtype).view()
                held.flags.writeable = False
                object.__setattr__(self, field, held)
        object.__setattr__(self, "cluster_labels", tuple(self.cluster_labels))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()

    def __repr__(self) -> str:
        return f"Dataset(rows={self.rows}, variables={len(self.schema)}, clusters={self.cluster_count})"

    def __len__(self) -> int:
        return self.rows

    @classmethod
    def from_pandas(
        cls,
        frame: pd.DataFrame,
        schema: Schema | None = None,
        clusters: str | ArrayLike | pd.Series[Any] | None = None,
    ) -> Dataset:
        """Encode the rows of a frame.

        Parameters
        ----------
        frame : DataFrame
            Columns the schema does not name are ignored; those it names that are absent are all missing.
        schema : Schema, optional
            None: inferred from all columns but the cluster column, see `Schema.infer`.
        clusters : str or array-like of labels (rows,), optional
            Name of a column, or the label of each row.

        Raises
        ------
        SchemaError
            A column does not fit, or a column name occurs twice.
        DataError
            Cluster labels are absent, null, or too few or many.
        """
        columns = [str(name) for name in frame.columns]
        if repeated := sorted({name for name in columns if columns.count(name) > 1}):
            raise SchemaError(f"columns given twice: {shorten(repeated)}")
        labels = _cluster_values(frame, columns, clusters)
        if schema is None:
            kept = [place for place, name in enumerate(columns) if not (isinstance(clusters, str) and name == clusters)]
            schema = Schema.infer(frame.iloc[:, kept])
        codes = np.full((len(schema), len(frame)), MISSING, dtype=np.uint8)
        unseen = None
        place_of = {name: place for place, name in enumerate(columns)}
        for row, variable in enumerate(schema):
            if variable.name in place_of:
                codes[row], strange = variable.encode(frame.iloc[:, place_of[variable.name]])
                if strange.any():
                    unseen = _no_cells(codes) if unseen is None else unseen
                    unseen[row] = strange
        members, cluster_labels = (None, ()) if labels is None else _index_clusters(labels)
        return cls(schema, codes, members, cluster_labels, unseen)

    @classmethod
    def from_chunks(cls, chunks: Iterable[pd.DataFrame], schema: Schema, clusters: str | None = None) -> Dataset:
        """Encode frames one by one, so that all rows are never held but as codes.

        Parameters
        ----------
        chunks : iterable of DataFrame
            As of :meth:`from_pandas`; none at all gives a dataset without rows.
        schema : Schema
        clusters : str, optional
            Name of a column. Rows of the same label become one cluster, whatever their chunks.

        Raises
        ------
        SchemaError, DataError
            As :meth:`from_pandas`.

        Examples
        --------
        >>> whole = pd.DataFrame({"rain": ["no", "yes", "no"], "day": ["d2", "d1", "d2"]})
        >>> schema = Schema.infer(whole[["rain"]])
        >>> data = Dataset.from_chunks((whole[i : i + 2] for i in (0, 2)), schema, clusters="day")
        >>> data.column("rain").tolist(), data.clusters.tolist()
        ([0, 1, 0], [1, 0, 1])
        """
        parts = [cls.from_pandas(chunk, schema, clusters) for chunk in chunks]
        if not parts:
            columns = list(schema.names) if clusters is None else [*schema.names, clusters]
            parts = [cls.from_pandas(pd.DataFrame(columns=columns), schema, clusters)]
        return _join(parts)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.codes.shape[1])

    @property
    def cluster_count(self) -> int:
        """Number of cluster labels; 0 if rows are taken as independent."""
        return len(self.cluster_labels)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Rows without a missing cell, bool (rows,)."""
        complete: NDArray[np.bool_] = np.ones(self.rows, dtype=np.bool_)
        for row in self.codes:
            if row.max(initial=0) == MISSING:
                complete &= row != MISSING
        complete.flags.writeable = False
        return complete

    @property
    def unseen_counts(self) -> dict[str, int]:
        """Rows whose value is no state, for every variable."""
        counts = np.zeros(len(self.schema), dtype=np.int64) if self.unseen is None else self.unseen.sum(axis=1)
        return {name: int(count) for name, count in zip(self.schema.names, counts, strict=True)}

    def column(self, name: str) -> NDArray[np.uint8]:
        """Give the codes of one variable, a read-only view (rows,)."""
        codes: NDArray[np.uint8] = self.codes[self.schema.index(name)]
        return codes

    def select(self, rows: NDArray[Any]) -> Dataset:
        """Keep rows by mask or index; all cluster labels stay."""
        rows = np.asarray(rows)
        if rows.dtype == np.bool_ and rows.shape == (self.rows,) and rows.all():
            return self
        return Dataset(
            self.schema,
            _take(self.codes, rows),
            None if self.clusters is None else self.clusters[rows],
            self.cluster_labels,
            None if self.unseen is None else _take(self.unseen, rows),
        )

    def project(self, names: Sequence[str]) -> Dataset:
        """Keep variables, in the order given; neighbours are not copied."""
        places = [self.schema.index(name) for name in names]
        kept: Any = places
        if places and places == list(range(places[0], places[-1] + 1)):
            kept = slice(places[0], places[-1] + 1)
        unseen = None if self.unseen is None else self.unseen[kept]
        return Dataset(self.schema.project(tuple(names)), self.codes[kept], self.clusters, self.cluster_labels, unseen)

    def to_pandas(self) -> pd.DataFrame:
        """Give a frame of categoricals, NaN where a cell is missing; without the clusters."""
        columns = {}
        for variable, row in zip(self.schema, self.codes, strict=True):
            places = np.where(row == MISSING, -1, row.astype(np.int16))
            columns[variable.name] = pd.Categorical.from_codes(places.tolist(), categories=pd.Index(variable.states))
        return pd.DataFrame(columns)

    @classmethod
    def concat(cls, parts: Iterable[Dataset]) -> Dataset:
        """Put rows of the same schema one below the other; clusters of the same label become one.

        Raises
        ------
        DataError
            No parts, different schemas, or clusters in some parts only.
        """
        parts = list(parts)
        if not parts:
            raise DataError("nothing to concatenate")
        if any(part.schema != parts[0].schema for part in parts):
            raise DataError("datasets of different schemas can't be concatenated")
        if len({part.clusters is None for part in parts}) > 1:
            raise DataError("some datasets have clusters and some have none")
        return _join(parts)


def _join(parts: list[Dataset]) -> Dataset:
    """Put rows one below the other, and empty the list on the way: a part is let go as soon as it is copied."""
    if len(parts) == 1:
        return parts.pop()
    schema, rows = parts[0].schema, sum(part.rows for part in parts)
    labels = order_labels(label for part in parts for label in part.cluster_labels)
    clusters = _join_clusters(parts, labels)
    codes = np.empty((len(schema), rows), dtype=np.uint8)
    unseen = _no_cells(codes) if any(part.unseen is not None for part in parts) else None
    last = rows
    while parts:
        part = parts.pop()
        place = slice(last - part.rows, last)
        codes[:, place] = part.codes
        if unseen is not None and part.unseen is not None:
            for row in np.flatnonzero(part.unseen.any(axis=1)):
                unseen[row, place] = part.unseen[row]
        last -= part.rows
    return Dataset(schema, codes, clusters, labels, unseen)


def _largest_code(row: NDArray[np.uint8], block: int = 1 << 16) -> int:
    """Largest code that is not `MISSING`, -1 if there is none; no temporary is larger than a block."""
    blocks = (row[first : first + block] + np.uint8(1) for first in range(0, row.size, block))  # 255 + 1 is 0
    return max((int(raised.max()) for raised in blocks), default=0) - 1


def _no_cells(codes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """All False; the system gives memory to those rows only that something is written to."""
    return np.zeros(codes.shape, dtype=np.bool_)


def _take(cells: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
    """Keep columns of an array, row by row: C-contiguous at once."""
    kept = np.zeros((cells.shape[0], int(rows.sum()) if rows.dtype == np.bool_ else rows.size), dtype=cells.dtype)
    for place, row in enumerate(cells):
        if cells.dtype != np.bool_ or row.any():
            kept[place] = row[rows]
    return kept


def _join_clusters(parts: Sequence[Dataset], labels: tuple[str, ...]) -> NDArray[np.int32] | None:
    place_of = {label: place for place, label in enumerate(labels)}
    members: list[NDArray[np.int32]] = []
    for part in parts:
        if part.clusters is None:
            return None
        members.append(np.array([place_of[label] for label in part.cluster_labels], dtype=np.int32)[part.clusters])
    return np.concatenate(members)


def _cluster_values(frame: pd.DataFrame, columns: Sequence[str], clusters: Any) -> pd.Series[Any] | None:
    if clusters is None:
        return None
    if isinstance(clusters, str):
        if clusters not in columns:
            raise DataError(f"no cluster column {clusters!r}; there are {shorten(columns)}")
        return frame.iloc[:, columns.index(clusters)]
    values = clusters if isinstance(clusters, pd.Series) else pd.Series(clusters)
    if len(values) != len(frame):
        raise DataError(f"{len(frame)} rows need as many cluster labels, got {len(values)}")
    return values


def _index_clusters(values: pd.Series[Any]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    places, uniques = pd.factorize(values)
    if nulls := int((places < 0).sum()):
        raise DataError(f"{nulls} of {len(values)} rows have no cluster label")
    texts = [_label(value) for value in uniques]
    labels = order_labels(texts)
    place_of = {label: place for place, label in enumerate(labels)}
    return np.array([place_of[text] for text in texts], dtype=np.int32)[places], labels


def _label(value: object) -> str:
    """Name a cluster; a date and its midnight are the same cluster."""
    return state_name(value).removesuffix(" 00:00:00")
