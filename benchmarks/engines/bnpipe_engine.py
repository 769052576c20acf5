"""bnpipe through its public names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

import bnpipe
from benchmarks.engines.base import Answerer, Fitter, Learner, Parents, Tables, evidence
from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.structure import LearnedStructure, learn_structure

ANY_DENSITY: Final = "any density"


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
    """`bnpipe.compile`; the variant `ANY_DENSITY` refuses no network for the size of its cliques."""

    def __init__(self, network: Network, variant: str = "") -> None:
        self._schema = network.schema
        limit = {"max_clique_cells": 2**62} if variant == ANY_DENSITY else {}
        self._engine = bnpipe.compile(network, **limit)

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
        return self._engine.most_probable_explanation(prepared)

    def codes(self, explanations: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Read the codes."""
        return np.asarray(explanations.codes)

    def questions(self, data: Dataset, *, by_name: bool) -> list[Any]:
        """Give dicts of state names, or rows of codes."""
        return list(evidence(data)) if by_name else [*np.ascontiguousarray(data.codes.T)]

    def query(self, question: Any, target: str) -> Any:
        """Ask once."""
        if isinstance(question, dict):
            return self._engine.query(question, [target])[target]
        return self._engine.posterior_codes(question, [target])[target]


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
