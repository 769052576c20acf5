"""pyAgrum: BNLearner on its own database, greedy hill climbing or its search with a tabu list."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.base import Answerer, Fitter, Learner, Parents, Tables, evidence
from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema


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


class PyagrumAnswerer(Answerer):
    """Its exact algorithms, one row after the other; the network is built through its API, as files lose digits."""

    variants = ("LazyPropagation", "ShaferShenoyInference", "VariableElimination")

    def __init__(self, network: Network, variant: str = variants[0]) -> None:
        import pyagrum

        self._pyagrum: Any = pyagrum
        self._names = network.nodes
        self._network = pyagrum_network(pyagrum, network)
        self._engine = getattr(pyagrum, variant)(self._network)
        self._targets: set[str] = set()

    def prepare(self, data: Dataset) -> list[dict[str, int]]:
        """Give each row's evidence as codes of states."""
        names = data.schema.names
        return [
            {names[place]: int(row[place]) for place in np.flatnonzero(row != MISSING).tolist()} for row in data.codes.T
        ]

    def posteriors(self, prepared: list[dict[str, int]], targets: Sequence[str]) -> Tables:
        """Ask row by row for the targets that are not observed; NaN for the others, which would only cost time."""
        engine = self._engine
        self._aim(targets)
        sizes = {target: self._network.variable(target).domainSize() for target in targets}
        found = {target: np.full((len(prepared), size), np.nan) for target, size in sizes.items()}
        for row, observed in enumerate(prepared):
            engine.setEvidence(observed)
            for target in targets:
                if target not in observed:
                    found[target][row] = engine.posterior(target).toarray()
        return found

    def log_likelihood(self, prepared: list[dict[str, int]]) -> Any:
        """Ask row by row."""
        found = np.empty(len(prepared))
        for row, observed in enumerate(prepared):
            self._engine.setEvidence(observed)
            found[row] = np.log(self._engine.evidenceProbability())
        return found

    def explanations(self, prepared: list[dict[str, int]]) -> list[Any]:
        """Ask row by row."""
        found = []
        for observed in prepared:
            self._engine.setEvidence(observed)
            try:
                found.append(self._engine.mpe())
            except self._pyagrum.FatalError:  # "Empty tensor", on some rows of ALARM
                found.append(None)
                self.refused += 1
        return found

    def codes(self, explanations: list[Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Read the codes."""
        nothing = [MISSING] * len(self._names)
        rows = [nothing if state is None else [state[name] for name in self._names] for state in explanations]
        return np.array(rows, dtype=np.uint8).T

    def questions(self, data: Dataset, *, by_name: bool) -> list[Any]:
        """Give dicts of state names, or of codes."""
        return list(evidence(data)) if by_name else self.prepare(data)

    def query(self, question: Any, target: str) -> Any:
        """Ask once."""
        self._aim([target])
        self._engine.setEvidence(question)
        return self._engine.posterior(target).toarray()

    def _aim(self, targets: Sequence[str]) -> None:
        wanted = set(targets)
        if wanted != self._targets and hasattr(self._engine, "setTargets"):
            self._engine.setTargets(wanted)
            self._targets = wanted


class PyagrumFitter(Fitter):
    """`BNLearner.learnParameters` on rows that it has read; without a prior it refuses what never occurs."""

    def __init__(self) -> None:
        import pyagrum

        self._pyagrum: Any = pyagrum

    def load(self, data: Dataset, parents: Mapping[str, Sequence[str]]) -> Any:
        """Read the rows under a template network with the graph and all states."""
        template = _graph(self._pyagrum, data.schema, parents)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            path = Path(folder, "rows.csv")
            write_csv(data, path)
            return self._pyagrum.BNLearner(str(path), template), template

    def fit(self, loaded: Any) -> Any:
        """Estimate all tables."""
        learner, template = loaded
        learner.useSmoothingPrior(1e-6)
        return learner.learnParameters(template)

    def table(self, fitted: Any, node: str, parents: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Read one table."""
        table = fitted.cpt(node)
        axes = list(table.names)[::-1]
        return np.transpose(table.toarray(), [axes.index(name) for name in (*parents, node)])


def pyagrum_network(pyagrum: Any, network: Network) -> Any:
    """Build a network with the same float64 tables."""
    made = _graph(pyagrum, network.schema, network.parents)
    for node in network.nodes:
        family = (*network.parents[node], node)
        table = made.cpt(node)
        axes = [family.index(name) for name in list(table.names)[::-1]]
        table[:] = np.ascontiguousarray(network.cpd(node).table.transpose(axes))
    return made


def _graph(pyagrum: Any, schema: Schema, parents: Mapping[str, Sequence[str]]) -> Any:
    """Build a network without tables."""
    made = pyagrum.BayesNet()
    for variable in schema:
        made.add(pyagrum.LabelizedVariable(variable.name, variable.name, list(variable.states)))
    for node, its_parents in parents.items():
        for parent in its_parents:
            made.addArc(parent, node)
    return made


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
