"""bnpipe through its public names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import bnpipe
from benchmarks.engines.base import Answerer, Fitter, Learner, Parents, Tables
from bnpipe.data import Dataset
from bnpipe.network import Network
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


class BnpipeAnswerer(Answerer):
    """`bnpipe.compile`; one question is a Dataset of one row."""

    def __init__(self, network: Network, variant: str = "") -> None:
        self._schema = network.schema
        self._engine = bnpipe.compile(network)

    def prepare(self, data: Dataset) -> Dataset:
        """Give the rows as they are."""
        return data

    def posteriors(self, prepared: Dataset, targets: Sequence[str]) -> Tables:
        """Answer all rows in one call."""
        return dict(self._engine.posterior(prepared, targets=targets))

    def log_likelihood(self, prepared: Dataset) -> Any:
        """Answer all rows in one call."""
        return self._engine.log_likelihood(prepared)

    def explanations(self, prepared: Dataset) -> Any:
        """Answer all rows in one call."""
        return self._engine.most_probable(prepared)

    def codes(self, explanations: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Read the codes."""
        return np.asarray(explanations.codes)

    def query(self, prepared: Dataset, row: int, target: str) -> Any:
        """Ask for one row of codes."""
        return self._engine.posterior(prepared.select(np.array([row])), targets=[target])[target]


class BnpipeFitter(Fitter):
    """`bnpipe.fit` on a Dataset."""

    def load(self, data: Dataset, parents: Mapping[str, Sequence[str]]) -> Any:
        """Give both as they are."""
        return data, parents

    def fit(self, loaded: Any) -> Network:
        """Count all families."""
        data, parents = loaded
        network = bnpipe.fit(data, parents)
        for node in network.nodes:
            network.cpd(node)
        return network

    def table(self, fitted: Network, node: str, parents: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read one table."""
        return fitted.cpd(node).table
