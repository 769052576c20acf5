"""One node's conditional probability distribution, and how it follows from counts and a prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray

from bnpipe.errors import NetworkError, shorten


@dataclass(frozen=True)
class Prior:
    """Dirichlet pseudo-counts added to every cell of a CPD.

    Parameters
    ----------
    kind : {"none", "bdeu", "jeffreys"}
        ``none``: maximum likelihood. ``bdeu``: `equivalent_sample_size` rows spread evenly over each family's table
        (Heckerman, Geiger & Chickering 1995, Machine Learning 20, p. 216). ``jeffreys``: 1/2 a cell.
    equivalent_sample_size : float
        In rows; positive for ``bdeu``, 0 otherwise.

    Raises
    ------
    NetworkError
        The two do not fit together.
    """

    kind: Literal["none", "bdeu", "jeffreys"] = "none"
    equivalent_sample_size: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("none", "bdeu", "jeffreys"):
            raise NetworkError(f"a prior is one of none, bdeu, jeffreys, got {shorten([repr(self.kind)])}")
        size = self.equivalent_sample_size
        if not (math.isfinite(size) and size > 0 if self.kind == "bdeu" else size == 0):
            raise NetworkError(f"prior {self.kind!r} can't have an equivalent sample size of {size}")

    def alpha(self, configurations: int, states: int) -> float:
        """Give the pseudo-count of one cell of a table of that shape."""
        if self.kind == "bdeu":
            return self.equivalent_sample_size / (configurations * states)
        return 0.5 if self.kind == "jeffreys" else 0.0


@dataclass(frozen=True, eq=False)
class CPD:
    """One node's conditional probabilities.

    Parameters
    ----------
    node : str
    parents : tuple of str
    states : tuple of str
    parent_states : tuple of tuple of str
    table : float64 (*parent cardinalities, states)
        The last axis sums to 1.
    unseen : bool (*parent cardinalities)
        Configurations without any row: what stands there is the prior's, uniform.
    """

    node: str
    parents: tuple[str, ...]
    states: tuple[str, ...]
    parent_states: tuple[tuple[str, ...], ...]
    table: NDArray[np.float64]
    unseen: NDArray[np.bool_]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.table, dtype=dtype, copy=copy)

    def to_frame(self) -> pd.DataFrame:
        """Give one line a parent configuration and one column a state."""
        lines = self.table.reshape(-1, len(self.states))
        columns = pd.Index(self.states, name=self.node)
        if not self.parents:
            return pd.DataFrame(lines, columns=columns)
        index = pd.MultiIndex.from_product(self.parent_states, names=list(self.parents))
        return pd.DataFrame(lines, index=index, columns=columns)


def estimate(total: NDArray[np.int64], prior: Prior) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Turn counts into conditional probabilities.

    Parameters
    ----------
    total : int64 (configurations, states)
    prior : Prior

    Returns
    -------
    table : float64 (configurations, states)
        Uniform where there is nothing to go by.
    seen : bool (configurations,)
        Configurations with rows.
    """
    configurations, states = total.shape
    alpha = prior.alpha(configurations, states)
    rows = total.sum(axis=1, keepdims=True)
    weight = rows + alpha * states
    table = np.full(total.shape, 1.0 / states)
    np.divide(total + alpha, weight, out=table, where=(rows > 0))
    return table, rows[:, 0] > 0
