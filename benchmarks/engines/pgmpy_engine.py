"""pgmpy: HillClimbSearch on a DataFrame of integer codes, its quickest input (text and categories are slower)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.engines.base import Answerer, Fitter, Learner, Parents, Tables, evidence
from bnpipe.data import Dataset
from bnpipe.network import Network


class PgmpyLearner(Learner):
    """`HillClimbSearch`; options: none."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")
        import pgmpy.causal_discovery  # noqa: F401

    def load(self, data: Dataset, options: Mapping[str, Any]) -> pd.DataFrame:
        """Turn rows into the input."""
        return pd.DataFrame(data.codes.T.astype("int64"), columns=list(data.schema.names))

    def learn(self, loaded: pd.DataFrame, options: Mapping[str, Any]) -> Any:
        """Learn a graph."""
        from pgmpy.causal_discovery import HillClimbSearch

        search = HillClimbSearch(scoring_method="bic-d", return_type="dag", show_progress=False)
        return search.fit(loaded).causal_graph_

    def parents(self, loaded: pd.DataFrame, learned: Any) -> Parents:
        """Read the graph."""
        return {str(node): tuple(learned.predecessors(node)) for node in loaded.columns}


class PgmpyAnswerer(Answerer):
    """`VariableElimination`, one row after the other."""

    def __init__(self, network: Network, variant: str = "") -> None:
        warnings.simplefilter("ignore")
        from pgmpy.inference import VariableElimination

        self._network = network
        self._engine = VariableElimination(network.to_pgmpy())

    def prepare(self, data: Dataset) -> list[dict[str, str]]:
        """Give each row's evidence as names of states."""
        return evidence(data)

    def posteriors(self, prepared: list[dict[str, str]], targets: Sequence[str]) -> Tables:
        """Ask target by target for those that are not observed; NaN for the others.

        All targets in one query would make their joint table first, which no memory holds.
        """
        states = {target: self._network.schema[target].states for target in targets}
        found = {target: np.full((len(prepared), len(states[target])), np.nan) for target in targets}
        for row, observed in enumerate(prepared):
            for target in targets:
                if target not in observed:
                    found[target][row] = self.query(observed, target)
        return found

    def log_likelihood(self, prepared: list[dict[str, str]]) -> Any:
        """Say that it has none for rows with missing cells."""
        raise NotImplementedError("pgmpy has no likelihood of rows with missing cells")

    def explanations(self, prepared: list[dict[str, str]]) -> list[dict[str, str]]:
        """Ask row by row."""
        names = self._network.nodes
        return [
            observed
            | self._engine.map_query([n for n in names if n not in observed], evidence=observed, show_progress=False)
            for observed in prepared
        ]

    def codes(self, explanations: list[dict[str, str]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Look the states up."""
        return state_codes(self._network, explanations)

    def questions(self, data: Dataset, *, by_name: bool) -> list[dict[str, str]]:
        """Give dicts of state names, the only way."""
        return evidence(data)

    def query(self, question: dict[str, str], target: str) -> Any:
        """Ask once."""
        factor = self._engine.query([target], evidence=question, show_progress=False)
        return [factor.get_value(**{target: state}) for state in self._network.schema[target].states]


class PgmpyFitter(Fitter):
    """`DiscreteBayesianNetwork.fit`, maximum likelihood."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")

    def load(self, data: Dataset, parents: Mapping[str, Sequence[str]]) -> Any:
        """Give a DataFrame of codes and a model without tables."""
        from pgmpy.models import DiscreteBayesianNetwork

        model = DiscreteBayesianNetwork()
        model.add_nodes_from(data.schema.names)
        model.add_edges_from((parent, node) for node, its_parents in parents.items() for parent in its_parents)
        return PgmpyLearner().load(data, {}), model

    def fit(self, loaded: Any) -> Any:
        """Estimate all tables."""
        frame, model = loaded
        return model.fit(frame)

    def table(self, fitted: Any, node: str, parents: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read one table; only if every state occurred does it have the schema's shape."""
        cpd = fitted.get_cpds(node)
        order = [cpd.variables.index(name) for name in (*parents, node)]
        return np.transpose(np.asarray(cpd.values), order)


def state_codes(network: Network, rows: Sequence[Mapping[str, str]]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Encode rows of state names, uint8 (variables, rows)."""
    places = [{state: code for code, state in enumerate(network.schema[name].states)} for name in network.nodes]
    coded = [[place[row[name]] for name, place in zip(network.nodes, places, strict=True)] for row in rows]
    return np.array(coded, dtype=np.uint8).T
