"""bnpipe through its public names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.engines.base import Learner, Parents
from bnpipe.data import Dataset
from bnpipe.structure import LearnedStructure, learn_structure


class BnpipeLearner(Learner):
    """`learn_structure` on a Dataset; options are its keyword arguments."""

    def load(self, data: Dataset, options: Mapping[str, Any]) -> Dataset:
        """Turn rows into the input."""
        return data

    def learn(self, loaded: Dataset, options: Mapping[str, Any]) -> LearnedStructure:
        """Learn a graph."""
        return learn_structure(loaded, **options)

    def parents(self, loaded: Dataset, learned: LearnedStructure) -> Parents:
        """Read the graph."""
        return learned.parents
