"""Answers on published networks equal pyAgrum's and pgmpy's to 1e-9."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from inference_cases import PLAIN_PYTHON, holes
from reference_networks import published, sample

from bnpipe.data import Dataset
from bnpipe.inference import compile  # noqa: A004
from bnpipe.network import Network
from bnpipe.schema import MISSING

# A selection: barley, diabetes, link, mildew and munin take 5 to 10 seconds each only to be read.
NAMES = ("asia", "cancer", "earthquake", "survey", "sachs", "child", "alarm", "insurance", "win95pts", "hepar2")
ROWS = 1 if PLAIN_PYTHON else 5


def pyagrum_network(network: Network) -> Any:
    """The same float64 tables in pyAgrum, by its API: its files hold fewer digits."""
    import pyagrum

    made = pyagrum.BayesNet()
    for variable in network.schema:
        made.add(pyagrum.LabelizedVariable(variable.name, variable.name, list(variable.states)))
    for parent, node in network.arcs:
        made.addArc(parent, node)
    for node in network.nodes:
        family = (*network.parents[node], node)
        table = made.cpt(node)
        axes = [family.index(name) for name in list(table.names)[::-1]]
        table[:] = np.ascontiguousarray(network.cpd(node).table.transpose(axes))
    return made


def observed(data: Dataset, row: int) -> dict[str, int]:
    """Codes of a row's cells."""
    cells = zip(data.schema.names, data.codes[:, row].tolist(), strict=True)
    return {name: code for name, code in cells if code != MISSING}


@pytest.mark.parametrize("name", NAMES)
def test_answers_equal_pyagrums(name: str):
    """Posteriors of all free variables and the probability of the evidence agree with pyAgrum's."""
    import pyagrum

    network = published(name)
    made, engine = pyagrum_network(network), compile(network)
    data = holes(sample(network, ROWS, seed=1), 0.7, seed=2)
    found, log_likelihood = engine.posterior(data), engine.log_likelihood(data)
    for row in range(ROWS):
        peer = pyagrum.LazyPropagation(made)
        peer.setEvidence(observed(data, row))
        for node in network.nodes:
            if data.column(node)[row] == MISSING:
                np.testing.assert_allclose(found[node][row], peer.posterior(node).toarray(), atol=1e-9)
        np.testing.assert_allclose(np.exp(log_likelihood[row]), peer.evidenceProbability(), rtol=1e-9)


@pytest.mark.parametrize("name", ["cancer", "earthquake", "survey", "sachs"])
def test_explanations_are_as_probable_as_pyagrums(name: str):
    """The most probable explanations are equally probable; on larger networks pyAgrum 3.3.1 fails ("Empty tensor")."""
    import pyagrum

    network = published(name)
    made = pyagrum_network(network)
    data = holes(sample(network, 5, seed=1), 0.7, seed=2)
    best = compile(network).most_probable_explanation(data)
    for row in range(data.rows):
        peer = pyagrum.LazyPropagation(made)
        peer.setEvidence(observed(data, row))
        assignment = peer.mpe()
        logs = [
            np.log(network.cpd(node).table[tuple(assignment[member] for member in (*network.parents[node], node))])
            for node in network.nodes
        ]
        assert best.log_probability[row] == pytest.approx(sum(logs), rel=1e-9)


@pytest.mark.parametrize("name", ["asia", "sachs", "child", "alarm", "insurance"])
def test_soft_evidence_equals_pyagrums(name: str):
    """Likelihoods of free variables give pyAgrum's posteriors."""
    import pyagrum

    network = published(name)
    made, rng = pyagrum_network(network), np.random.default_rng(3)
    data = holes(sample(network, 2, seed=1), 0.7, seed=2)
    for row in range(2):
        cells = observed(data, row)
        likelihood = {
            node: rng.random(network.schema[node].cardinality) for node in network.nodes[::3] if node not in cells
        }
        peer = pyagrum.LazyPropagation(made)
        peer.setEvidence(cells | {node: table.tolist() for node, table in likelihood.items()})
        found = compile(network).posterior(data.select(np.array([row])), likelihood=likelihood)
        for node in network.nodes:
            if node not in cells:
                np.testing.assert_allclose(found[node][0], peer.posterior(node).toarray(), atol=1e-9)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "hepar2"])
def test_answers_equal_pgmpys(name: str):
    """A few queries agree with variable elimination."""
    from pgmpy.inference import VariableElimination

    logging.getLogger("pgmpy").setLevel(logging.ERROR)
    network = published(name)
    peer = VariableElimination(network.to_pgmpy())
    data = holes(sample(network, 2, seed=4), 0.5, seed=5)
    found = compile(network).posterior(data)
    frame = data.to_pandas()
    for row in range(2):
        seen = {name: cell for name, cell in frame.iloc[row].items() if isinstance(cell, str)}
        free = [node for node in network.nodes if node not in seen]
        for target in free[:: max(len(free) // 2, 1)]:
            answer = peer.query([target], evidence=seen, show_progress=False)
            expected = [answer.get_value(**{target: state}) for state in network.schema[target].states]
            np.testing.assert_allclose(found[target][row], expected, atol=1e-9)
