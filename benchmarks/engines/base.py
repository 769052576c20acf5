"""What every engine can be asked, so that a benchmark is written once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from bnpipe.data import Dataset

Parents: TypeAlias = dict[str, tuple[str, ...]]


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
