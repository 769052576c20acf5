"""pyAgrum: BNLearner on its own database, greedy hill climbing or its search with a tabu list."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.engines.base import Learner, Parents
from bnpipe.data import Dataset


class PyagrumLearner(Learner):
    """`BNLearner`; options: ``threads`` (0: its default), ``tabu`` (its list's length).

    No template network is given: the learner then knows the states that occur, as the common scorer counts them.
    """

    def __init__(self) -> None:
        import pyagrum

        self._pyagrum: Any = pyagrum

    def load(self, data: Dataset, options: Mapping[str, Any]) -> Any:
        """Write the rows as a CSV file, which is what it reads quickest, and read it."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder, "rows.csv")
            write_csv(data, path)
            return self._pyagrum.BNLearner(str(path))

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


def write_csv(data: Dataset, path: Path) -> None:
    """Write state names under a header."""
    import pyarrow as pa
    import pyarrow.csv

    columns = [
        pa.DictionaryArray.from_arrays(data.column(variable.name), list(variable.states)).cast(pa.string())
        for variable in data.schema
    ]
    table = pa.table(columns, names=list(data.schema.names))
    pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(quoting_style="none"))
