"""What an engine answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.schema import Schema

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Posterior(Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]):
    """Posteriors of the targets, a mapping ``target -> float64 (rows, states)``.

    Parameters
    ----------
    tables : mapping of str to float64 (rows, states)
        Rows sum to 1; NaN where the evidence is impossible.
    states : mapping of str to tuple of str
        Names of the columns.
    impossible : bool (rows,)
        Rows whose evidence has probability zero for at least one target.
    interval : mapping of str to float64 (rows, states, 2), optional
        Lower and upper end for each target, if asked for; NaN where the evidence is impossible.
    """

    tables: Mapping[str, NDArray[np.float64]]
    states: Mapping[str, tuple[str, ...]]
    impossible: NDArray[np.bool_]
    interval: Mapping[str, NDArray[np.float64]] | None = field(default=None, kw_only=True)

    def __getitem__(self, target: str) -> NDArray[np.float64]:
        return self.tables[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


@dataclass(frozen=True, eq=False)
class FamilyPosterior:
    """Posteriors of whole families.

    Parameters
    ----------
    tables : mapping of str to float64 (configurations * states, rows)
        P(parents' configuration, state | evidence) of each node, cells in the order of its CPD's table (C order,
        the node's own state fastest); NaN where the evidence is impossible.
    log_probability : float64 (rows,)
        Of the evidence, nats.
    """

    tables: Mapping[str, NDArray[np.float64]]
    log_probability: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Explanation:
    """The most probable assignment of all variables in each row, whose observed cells are kept.

    Parameters
    ----------
    schema : Schema
    codes : uint8 (variables, rows)
        All cells missing (255) where the evidence is impossible.
    log_probability : float64 (rows,)
        Of the assignment together with the evidence, nats; -inf where that is impossible.
    impossible : bool (rows,)
    """

    schema: Schema
    codes: NDArray[np.uint8]
    log_probability: NDArray[np.float64]
    impossible: NDArray[np.bool_]

    def to_pandas(self) -> pd.DataFrame:
        """Give the assignments as a frame of categoricals; NaN where the evidence is impossible."""
        return Dataset(self.schema, self.codes).to_pandas()
