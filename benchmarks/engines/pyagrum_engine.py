"""pyAgrum: BNLearner on its own database, greedy hill climbing or its search with a tabu list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmarks.engines.base import Learner, Parents
from bnpipe.data import Dataset


class PyagrumLearner(Learner):
    """`BNLearner`; options: ``threads`` (0: its default), ``tabu`` (its list's length).

    No template network is given: the learner then knows the states that occur, as the common scorer counts them.
    """

    def __init__(self) -> None:
        import pyagrum

        self._pyagrum = pyagrum

    def load(self, data: Dataset, options: Mapping[str, Any]) -> Any:
        """Turn rows into the input."""
        states = {variable.name: list(variable.states) for variable in data.schema}
        frame = pd.DataFrame(
            {name: pd.Series(states[name], dtype=object).to_numpy()[data.column(name)] for name in data.schema.names}
        )
        return self._pyagrum.BNLearner(frame)

    def learn(self, loaded: Any, options: Mapping[str, Any]) -> Any:
        """Learn a graph."""
        loaded.setNumberOfThreads(options.get("threads", 0))
        if "tabu" in options:
            loaded.useLocalSearchWithTabuList(options["tabu"])
        else:
            loaded.useGreedyHillClimbing()
        loaded.useScoreBIC()
        return loaded.learnDAG()

    def parents(self, loaded: Any, learned: Any) -> Parents:
        """Read the graph."""
        names = {node: loaded.nameFromId(node) for node in learned.nodes()}
        return {name: tuple(names[parent] for parent in learned.parents(node)) for node, name in names.items()}
