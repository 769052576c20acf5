"""The audit counts what it says it counts."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from reference_networks import published, sample

import bnpipe
from bnpipe.data import Dataset
from bnpipe.errors import DataError
from bnpipe.knowledge import Knowledge
from bnpipe.schema import MISSING
from bnpipe.structure import arc_strength, audit


@pytest.fixture
def data() -> Dataset:
    """Two parents of three and two states; one configuration without rows, one with three."""
    a = ["x"] * 40 + ["y"] * 43
    b = ["u"] * 20 + ["v"] * 20 + ["u"] * 40 + ["v"] * 3
    frame = pd.DataFrame({"a": pd.Categorical(a, categories=["x", "y", "z"]), "b": b, "c": ["l", "r"] * 41 + ["l"]})
    return Dataset.from_pandas(frame)


def test_each_node_tells_the_rows_its_family_was_counted_on(data: Dataset):
    """A missing cell takes its row from the families it is in, as fitting does; the audit says how many are left."""
    codes = data.codes.copy()
    codes[data.schema.index("a"), :10] = MISSING
    codes[data.schema.index("c"), 5:20] = MISSING
    gaps = Dataset(data.schema, codes)
    parents = {"c": ("a", "b")}
    found = audit(parents, gaps)
    assert {node.node: node.rows for node in found.nodes} == {"a": 73, "b": 83, "c": 63}
    network = bnpipe.fit(gaps, parents)
    assert all(network.family_counts(node.node).rows == node.rows for node in found.nodes)


def test_configurations_and_parameters_are_counted(data: Dataset):
    """Six configurations: two of the state never seen, one of three rows; parameters 2 + 1 + 6."""
    found = audit({"c": ("a", "b")}, data)
    node = found.nodes[2]
    assert (node.node, node.configurations, node.unseen, node.thin, node.rows) == ("c", 6, 2, 1, 83)
    assert (found.free_parameters, found.rows, found.unseen, found.thin) == (9, 83, 2, 1)
    assert found.rows_per_parameter == pytest.approx(83 / 9)
    assert (found.largest_clique, found.clique_cells) == (("a", "b", "c"), 12)
    assert found.problems == ()
    assert found.difference is None


def test_a_network_is_audited_like_its_graph(data: Dataset):
    """Before and after the fit the audit says the same."""
    network = bnpipe.fit(data, {"c": ("a", "b")})
    assert audit(network, data) == audit(network.parents, data)
    assert audit(network, data).free_parameters == network.parameters


def test_broken_constraints_are_problems(data: Dataset):
    """A forbidden arc, a missing one, too many parents and a hopeless clique each are a sentence."""
    knowledge = Knowledge(required=(("a", "b"),), forbidden=(("a", "c"),))
    found = audit({"c": ("a", "b")}, data, knowledge=knowledge, max_parents=1, max_clique_cells=11)
    assert len(found.problems) == 4
    assert any("12 cells over a, b, c" in problem for problem in found.problems)
    assert audit({"a": ("c",), "c": ("a",)}, data).problems[0].startswith("the graph has a cycle: ")


def test_the_champion_is_compared_up_to_equivalence(data: Dataset):
    """An arc turned without saying anything else is no difference."""
    assert audit({"b": ("a",)}, data, champion={"a": ("b",)}).difference.distance == 0
    change = audit({"c": ("a",)}, data, champion=bnpipe.fit(data, {"c": ("a", "b")})).difference
    assert change.removed == (("b", "c"),)


def test_strength_is_listed_weakest_first():
    """Each arc of the graph stands there, one never met with zero."""
    rows = sample(published("asia"), 1000, seed=0)
    graph = {"bronc": ("smoke",), "dysp": ("bronc",), "xray": ("bronc",)}
    found = audit(graph, rows, strength=arc_strength(rows, bootstraps=5))
    assert found.strength[0] == (("bronc", "xray"), 0.0)
    assert found.strength[-1][1] > 0.5
    assert len(found.strength) == 3


def test_an_audit_is_written_as_json_sentences_and_metrics(data: Dataset):
    """Everything can be stored; metrics are finite numbers."""
    found = audit({"c": ("a",)}, data, champion={"c": ("b",)}, strength={("a", "c"): 0.4})
    assert json.loads(json.dumps(found.to_dict()))["free_parameters"] == found.free_parameters
    assert any("a -> c 40%" in line for line in found.lines())
    assert any("1 arcs added, 1 removed" in line for line in found.lines())
    assert found.metrics()["audit.distance_to_champion"] == 2.0
    one = Dataset.from_pandas(pd.DataFrame({"a": ["x"]}))
    assert audit({}, one).rows_per_parameter == math.inf
    assert all(np.isfinite(value) for value in audit({}, one).metrics().values())


def test_nodes_that_are_no_variables_are_named(data: Dataset):
    """A graph of other rows is refused."""
    with pytest.raises(DataError, match="colour"):
        audit({"c": ("colour",)}, data)
