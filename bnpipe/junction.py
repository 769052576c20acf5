"""From families to a junction tree: moralise, triangulate by the best of a few greedy rules, join maximal cliques.

Variables are numbers here, 0 … n-1; the names are the caller's.

References
----------
Kjaerulff, U. (1990). Triangulation of graphs: algorithms giving small total state space. Aalborg R-90-09.
Koller, D. & Friedman, N. (2009). Probabilistic Graphical Models, sections 9.4 and 10.4.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

MAX_CLIQUE_CELLS: Final = 2**22
"""Cells one clique's table may have: 32 MiB of probabilities, for every row of a batch."""


@dataclass(frozen=True)
class JunctionTree:
    """Maximal cliques joined so that a variable's cliques hang together.

    Parameters
    ----------
    cliques : tuple of tuple of int
        Variables of each clique, increasing. One empty clique when there are no variables.
    parent : tuple of int
        The clique that each hangs from; -1 for the one root. Unconnected parts hang together by empty separators.
    cardinalities : tuple of int
        Of the variables.
    order : tuple of int
        Variables as they were eliminated; those with a single state are not among them.
    """

    cliques: tuple[tuple[int, ...], ...]
    parent: tuple[int, ...]
    cardinalities: tuple[int, ...]
    order: tuple[int, ...] = ()

    @cached_property
    def neighbours(self) -> tuple[tuple[int, ...], ...]:
        """Cliques joined to each clique."""
        joined: list[list[int]] = [[] for _ in self.cliques]
        for clique, parent in enumerate(self.parent):
            if parent >= 0:
                joined[clique].append(parent)
                joined[parent].append(clique)
        return tuple(tuple(cliques) for cliques in joined)

    @cached_property
    def cells(self) -> tuple[int, ...]:
        """Cells of each clique's table."""
        return tuple(math.prod(self.cardinalities[variable] for variable in clique) for clique in self.cliques)

    @cached_property
    def largest(self) -> int:
        """The clique with the largest table."""
        return max(range(len(self.cells)), key=self.cells.__getitem__)

    @cached_property
    def holding(self) -> tuple[tuple[int, ...], ...]:
        """Cliques that hold each variable, smallest table first; none for a variable with a single state."""
        found: list[list[int]] = [[] for _ in self.cardinalities]
        for clique in sorted(range(len(self.cliques)), key=self.cells.__getitem__):
            for variable in self.cliques[clique]:
                found[variable].append(clique)
        return tuple(tuple(cliques) for cliques in found)

    def smallest_with(self, variables: Sequence[int]) -> int:
        """Give the clique with the smallest table that holds all `variables`; the first clique if there are none."""
        if not variables:
            return 0
        members = set(variables)
        return next(clique for clique in self.holding[variables[0]] if members.issubset(self.cliques[clique]))

    def outward(self, root: int) -> list[tuple[int, int]]:
        """List the edges (clique nearer to `root`, clique farther), nearer ones first."""
        edges: list[tuple[int, int]] = []
        ahead = [(-1, root)]
        for came_from, clique in ahead:
            onward = [(clique, other) for other in self.neighbours[clique] if other != came_from]
            edges += onward
            ahead += onward
        return edges


@dataclass(frozen=True, slots=True)
class InferenceCost:
    """What one row of exact inference costs.

    Parameters
    ----------
    cliques : int
    cells : int
        Cells of all cliques' tables.
    largest_clique : tuple of str
    largest_cells : int
    """

    cliques: int
    cells: int
    largest_clique: tuple[str, ...]
    largest_cells: int


def junction_tree(parents: Mapping[str, Sequence[str]], cardinalities: Mapping[str, int]) -> JunctionTree:
    """Build the junction tree in which every family lies within a clique.

    A variable with a single state needs no axis and is in no clique.

    Parameters
    ----------
    parents : mapping of str to sequence of str
        Of every variable; the variables' numbers are their places here.
    cardinalities : mapping of str to int
        States of each variable.
    """
    index = {name: place for place, name in enumerate(parents)}
    joined: dict[int, set[int]] = {index[name]: set() for name in parents if cardinalities[name] > 1}
    for node, its_parents in parents.items():
        family = {index[name] for name in (*its_parents, node) if cardinalities[name] > 1}
        for variable in family:
            joined[variable] |= family - {variable}
    numbered = tuple(cardinalities[name] for name in parents)
    trees = [_tree(_eliminate(joined, rule, numbered), numbered) for rule in _RULES]
    return min(trees, key=lambda tree: sum(tree.cells))


def inference_cost(parents: Mapping[str, Sequence[str]], cardinalities: Mapping[str, int]) -> InferenceCost:
    """Tell what exact inference on a graph would cost, also where it would cost too much."""
    return tree_cost(junction_tree(parents, cardinalities), list(parents))


def tree_cost(tree: JunctionTree, names: Sequence[str]) -> InferenceCost:
    """Tell what inference on a tree costs; `names` are the variables'."""
    clique = tuple(names[variable] for variable in tree.cliques[tree.largest])
    return InferenceCost(len(tree.cliques), sum(tree.cells), clique, tree.cells[tree.largest])


def _least_fill(
    variable: int, joined: Mapping[int, set[int]], cardinalities: Sequence[int]
) -> tuple[float, float, int]:
    """Prefer the fewest pairs to join, then the most states."""
    around = joined[variable]
    missing = len(around) * (len(around) - 1) - sum(len(around & joined[other]) for other in around)
    return missing, -cardinalities[variable], variable


def _least_fill_small_table(
    variable: int, joined: Mapping[int, set[int]], cardinalities: Sequence[int]
) -> tuple[float, float, int]:
    """Prefer the fewest pairs to join, then the smallest table."""
    missing, _, _ = _least_fill(variable, joined, cardinalities)
    return missing, _table_cells(variable, joined, cardinalities), variable


def _least_weighted_fill(
    variable: int, joined: Mapping[int, set[int]], cardinalities: Sequence[int]
) -> tuple[float, float, int]:
    """Prefer the least sum over pairs to join of the product of their states, then the smallest table."""
    around = joined[variable]
    missing = sum(
        cardinalities[one] * cardinalities[other]
        for one in around
        for other in around.difference(joined[one])
        if one < other
    )
    return missing, _table_cells(variable, joined, cardinalities), variable


def _table_cells(variable: int, joined: Mapping[int, set[int]], cardinalities: Sequence[int]) -> int:
    return math.prod(cardinalities[other] for other in joined[variable]) * cardinalities[variable]


_RULES: Final = (_least_fill_small_table, _least_fill, _least_weighted_fill)
"""None is best everywhere: on munin, barley and mildew they differ by factors of two."""


def _eliminate(
    graph: Mapping[int, set[int]],
    rule: Callable[[int, Mapping[int, set[int]], Sequence[int]], tuple[float, float, int]],
    cardinalities: Sequence[int],
) -> list[tuple[int, set[int]]]:
    """Eliminate all variables, cheapest by `rule` first; give each with its neighbours at that time."""
    joined = {variable: set(around) for variable, around in graph.items()}
    costs = {variable: rule(variable, joined, cardinalities) for variable in joined}
    queue = sorted(costs.values())
    eliminated = []
    while queue:
        cost = heapq.heappop(queue)
        variable = cost[-1]
        if costs.get(variable) != cost:  # gone, or its cost has changed since
            continue
        around = joined.pop(variable)
        del costs[variable]
        eliminated.append((variable, around))
        for other in around:
            joined[other] |= around
            joined[other] -= {other, variable}
        # Who has two of `around` as neighbours may have lost a missing pair.
        for other in around.union(*(joined[other] for other in around)):
            costs[other] = rule(other, joined, cardinalities)
            heapq.heappush(queue, costs[other])
    return eliminated


def _tree(eliminated: list[tuple[int, set[int]]], cardinalities: tuple[int, ...]) -> JunctionTree:
    cliques, parent = _join(eliminated)
    order = tuple(variable for variable, _ in eliminated)
    return JunctionTree(tuple(tuple(sorted(clique)) for clique in cliques), parent, cardinalities, order)


def _join(eliminated: list[tuple[int, set[int]]]) -> tuple[list[set[int]], tuple[int, ...]]:
    """Keep the maximal cliques; each hangs from the clique of the variable of its rest that went first."""
    position = {variable: place for place, (variable, _) in enumerate(eliminated)}
    hanging: list[list[int]] = [[] for _ in eliminated]
    cliques: list[set[int]] = []
    parent: list[int] = []
    roots: list[int] = []
    for place, (variable, around) in enumerate(eliminated):
        members = around | {variable}
        host = next((clique for clique in hanging[place] if members <= cliques[clique]), len(cliques))
        if host == len(cliques):
            cliques.append(members)
            parent.append(-1)
        for clique in hanging[place]:
            if clique != host:
                parent[clique] = host
        if around:
            hanging[min(position[other] for other in around)].append(host)
        else:
            roots.append(host)
    if not cliques:
        return [set()], (-1,)
    for root in roots[1:]:
        parent[root] = roots[0]
    return cliques, tuple(parent)
