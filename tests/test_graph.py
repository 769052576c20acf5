"""Order, cycles and Markov equivalence of plain graphs."""

from __future__ import annotations

import itertools

import pytest

from bnpipe.errors import NetworkError
from bnpipe.graph import arcs_of, cpdag, find_cycle, graph_difference, topological_order

NODES = "abcd"


def all_graphs(nodes: str) -> list[dict[str, tuple[str, ...]]]:
    """Every acyclic graph over the nodes."""
    pairs = list(itertools.combinations(nodes, 2))
    graphs = []
    for marks in itertools.product((None, 0, 1), repeat=len(pairs)):
        arcs = [pair if mark == 0 else pair[::-1] for pair, mark in zip(pairs, marks, strict=True) if mark is not None]
        if find_cycle(arcs) is None:
            graphs.append({node: tuple(sorted(p for p, c in arcs if c == node)) for node in nodes})
    return graphs


def essence(parents: dict[str, tuple[str, ...]]) -> tuple[frozenset, frozenset]:
    """Skeleton and colliders: what Markov equivalent graphs share (Verma & Pearl 1990)."""
    skeleton = frozenset(frozenset(arc) for arc in arcs_of(parents))
    colliders = frozenset(
        (frozenset((one, other)), node)
        for node, its in parents.items()
        for one, other in itertools.combinations(its, 2)
        if frozenset((one, other)) not in skeleton
    )
    return skeleton, colliders


def test_cpdag_holds_exactly_the_arcs_all_equivalent_graphs_share():
    """On all 543 graphs of four nodes, the CPDAG is the union of the equivalence class."""
    graphs = all_graphs(NODES)
    assert len(graphs) == 543
    classes: dict[object, list[dict[str, tuple[str, ...]]]] = {}
    for graph in graphs:
        classes.setdefault(essence(graph), []).append(graph)
    for members in classes.values():
        shared = frozenset.intersection(*(frozenset(arcs_of(graph)) for graph in members))
        for graph in members:
            found = cpdag(graph)
            assert found.directed == shared
            assert found.undirected == {tuple(sorted(arc)) for arc in arcs_of(graph) if arc not in shared}


def test_cpdag_with_knowledge_holds_what_the_rest_of_the_class_shares():
    """With each arc of each graph fixed beforehand, the directed arcs are those that all remaining graphs share."""
    graphs = all_graphs(NODES)
    by_class: dict[object, list[dict[str, tuple[str, ...]]]] = {}
    for graph in graphs:
        by_class.setdefault(essence(graph), []).append(graph)
    for graph in graphs:
        for fixed in itertools.combinations(arcs_of(graph), 2):
            agreeing = [set(arcs_of(other)) for other in by_class[essence(graph)] if {*fixed} <= {*arcs_of(other)}]
            assert cpdag(graph, fixed).directed == set.intersection(*agreeing)


def test_equivalent_graphs_have_no_difference():
    """A chain turned round says the same."""
    change = graph_difference({"a": (), "b": ("a",), "c": ("b",)}, {"c": (), "b": ("c",), "a": ("b",)})
    assert change.distance == 0


def test_difference_names_added_removed_and_turned_arcs():
    """Each arc that changed stands in one list, as the graph that has it draws it."""
    before = {"a": (), "b": (), "c": ("a", "b"), "d": ("c",), "e": ()}
    after = {"a": ("c",), "b": ("c",), "c": (), "d": (), "e": ("d",)}
    change = graph_difference(before, after)
    assert change.added == (("d", "e"),)
    assert change.removed == (("c", "d"),)
    assert change.reversed == (("c", "a"), ("c", "b"))
    assert change.distance == 4


def test_difference_is_symmetric_in_distance():
    """The distance does not depend on which graph comes first."""
    graphs = all_graphs("abc")
    for one, other in itertools.product(graphs, repeat=2):
        assert graph_difference(one, other).distance == graph_difference(other, one).distance
        assert (graph_difference(one, other).distance == 0) == (essence(one) == essence(other))


def test_parents_come_before_children():
    """A topological order respects every arc of every graph."""
    for graph in all_graphs(NODES):
        order = topological_order(graph)
        assert sorted(order) == list(NODES)
        assert all(order.index(parent) < order.index(child) for parent, child in arcs_of(graph))


def test_a_cycle_is_named_along_its_arcs():
    """The error follows the arcs round."""
    with pytest.raises(NetworkError, match=r"b -> c -> d -> b|c -> d -> b -> c|d -> b -> c -> d"):
        topological_order({"a": (), "b": ("a", "d"), "c": ("b",), "d": ("c",)})


def test_long_chains_need_no_recursion():
    """Ten thousand nodes in a row are ordered."""
    chain = {f"n{i}": (f"n{i + 1}",) if i < 9999 else () for i in range(10_000)}
    assert topological_order(chain)[0] == "n9999"
