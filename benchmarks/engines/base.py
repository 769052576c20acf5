"""What every engine can be asked, so that a benchmark is written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from bnpipe.schema import MISSING

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.network import Network

Parents: TypeAlias = dict[str, tuple[str, ...]]
Tables: TypeAlias = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


class Learner(ABC):
    """Hill climbing by BIC, without a limit on parents.

    Loading and learning are two steps, so that the time of learning is measured from the engine's own natural input.
    """

    @abstractmethod
    def load(self, data: Dataset, options: Mapping[str, Any]) -> Any:
        """Turn rows into the engine's own input."""

    @abstractmethod
    def learn(self, loaded: Any, options: Mapping[str, Any]) -> Any:
        """Learn a graph from what :meth:`load` gave."""

    @abstractmethod
    def parents(self, loaded: Any, learned: Any) -> Parents:
        """Read the graph."""


class Answerer(ABC):
    """A network compiled for questions.

    Parameters
    ----------
    network : Network
    variant : str
        One of `variants`, where the engine has several algorithms.

    Attributes
    ----------
    refused : int
        Rows it could not answer so far; their codes are missing.
    """

    variants: tuple[str, ...] = ("",)
    refused: int = 0

    @abstractmethod
    def __init__(self, network: Network, variant: str = "") -> None: ...

    @abstractmethod
    def prepare(self, data: Dataset) -> Any:
        """Turn rows with missing cells into the engine's own evidence."""

    @abstractmethod
    def posteriors(self, prepared: Any, targets: Sequence[str]) -> Tables:
        """Give each target's distribution in each row, float64 (rows, states)."""

    @abstractmethod
    def log_likelihood(self, prepared: Any) -> Any:
        """Give the log probability of each row's observed cells, nats."""

    @abstractmethod
    def explanations(self, prepared: Any) -> Any:
        """Give the most probable states of all variables given each row's observed cells, in the engine's own form."""

    @abstractmethod
    def codes(self, explanations: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Turn what :meth:`explanations` gave into codes, uint8 (variables, rows)."""

    @abstractmethod
    def questions(self, data: Dataset, *, by_name: bool) -> list[Any]:
        """Turn each row into a question of its own: state names, or what is quickest."""

    @abstractmethod
    def query(self, question: Any, target: str) -> Any:
        """Answer one question: the target's distribution."""


class Fitter(ABC):
    """Maximum likelihood tables of a given graph."""

    @abstractmethod
    def load(self, data: Dataset, parents: Mapping[str, Sequence[str]]) -> Any:
        """Turn rows and graph into the engine's own input."""

    @abstractmethod
    def fit(self, loaded: Any) -> Any:
        """Estimate all tables."""

    @abstractmethod
    def table(self, fitted: Any, node: str, parents: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read one table, axes (parents, node); states in the order of the schema."""


def evidence(data: Dataset) -> list[dict[str, str]]:
    """Give each row's observed cells by name."""
    states = [variable.states for variable in data.schema]
    names = data.schema.names
    return [
        {names[place]: states[place][row[place]] for place in np.flatnonzero(row != MISSING).tolist()}
        for row in data.codes.T
    ]
