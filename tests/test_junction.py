"""Junction trees of random and published graphs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_networks import published, random_network

from bnpipe.junction import inference_cost, junction_tree
from bnpipe.network import Network


def cardinalities(network: Network) -> dict[str, int]:
    """States of each node."""
    return {node: network.schema[node].cardinality for node in network.nodes}


@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 14), arcs=st.sampled_from([0.0, 0.1, 0.3, 0.8]))
@settings(max_examples=60)
def test_every_family_lies_in_a_clique_and_cliques_of_a_variable_hang_together(seed: int, nodes: int, arcs: float):
    """The tree is one, its cliques are maximal, families are covered, and the running intersection holds."""
    network = random_network(seed, nodes, arcs=arcs)
    tree = junction_tree(network.parents, cardinalities(network))
    cliques = [set(clique) for clique in tree.cliques]
    assert sorted(tree.parent).count(-1) == 1
    assert len(tree.outward(0)) == len(cliques) - 1
    assert not any(one <= other for i, one in enumerate(cliques) for j, other in enumerate(cliques) if i != j)
    index = {name: place for place, name in enumerate(network.parents)}
    for node, its in network.parents.items():
        family = {index[name] for name in (*its, node) if network.schema[name].cardinality > 1}
        assert any(family <= clique for clique in cliques)
    for variable in range(nodes):
        holding = [place for place, clique in enumerate(cliques) if variable in clique]
        joined = [place for place in holding if tree.parent[place] in holding]
        assert len(joined) == max(len(holding) - 1, 0) if tree.cardinalities[variable] > 1 else not holding


@pytest.mark.parametrize(("name", "most_cells"), [("asia", 8), ("alarm", 200), ("child", 250), ("hepar2", 400)])
def test_published_networks_stay_cheap(name: str, most_cells: int):
    """Min-fill finds small cliques where they are known to exist."""
    network = published(name)
    cost = inference_cost(network.parents, cardinalities(network))
    assert cost.largest_cells <= most_cells
    assert cost.cells >= cost.largest_cells
