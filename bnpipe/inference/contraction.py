"""The order of multiplying and summing out: a binary tree over the network's factors.

The leaves are one likelihood vector a variable, which holds its evidence, and the CPDs. Each node multiplies at most
two factors that differ from row to row, and sums out what no factor outside it knows. So every message, towards the
root or away from it, is a product of two messages and a constant table; none needs a division, and the message to a
leaf is the derivative of the evidence's probability by that leaf's entries.

References
----------
Shenoy, P. P. (1997). Binary join trees for computing marginals in the Shenoy-Shafer architecture. International
Journal of Approximate Reasoning 17, 239-263.
Darwiche, A. (2003). A differential approach to inference in Bayesian networks. Journal of the ACM 50, 280-305.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_PAIRS: Final = 10
"""Among up to so many factors the cheapest pair is looked for; of more the smallest are multiplied first."""

NONE: Final = -1


@dataclass(frozen=True, slots=True)
class Node:
    """One product and sum.

    Parameters
    ----------
    scope : tuple of int
        Variables of the product, increasing.
    onto : tuple of int
        Those that are kept.
    children : tuple of int
        Nodes multiplied, none to two.
    constants : tuple of int
        Variables whose CPDs are multiplied too.
    """

    scope: tuple[int, ...]
    onto: tuple[int, ...]
    children: tuple[int, ...] = ()
    constants: tuple[int, ...] = ()


@dataclass(frozen=True)
class Contraction:
    """Nodes, children before parents; the last is the root, whose value is the probability of the evidence.

    Node v < n is the likelihood vector of variable v. Where the CPDs may differ from row to row, node n + v is the
    CPD of variable v; otherwise they are constants within the nodes.
    """

    nodes: tuple[Node, ...]
    variables: int

    @cached_property
    def parent(self) -> tuple[int, ...]:
        """The node that takes each node in; `NONE` for the root."""
        parent = [NONE] * len(self.nodes)
        for place, node in enumerate(self.nodes):
            for child in node.children:
                parent[child] = place
        return tuple(parent)

    def sibling(self, place: int) -> int:
        """Give the other child of the same parent, or `NONE`."""
        others = [child for child in self.nodes[self.parent[place]].children if child != place]
        return others[0] if others else NONE


@dataclass(frozen=True, slots=True)
class _Factor:
    """A node, or none, times CPDs that wait to be multiplied where something is summed out."""

    node: int
    constants: tuple[int, ...]
    scope: frozenset[int]


class _Contractor:
    """Factors not yet multiplied, and who holds each variable."""

    def __init__(self, cardinalities: Sequence[int], leaves: Iterable[Node]) -> None:
        self.cardinalities = cardinalities
        self.nodes = list(leaves)
        self.factors: dict[int, _Factor] = {}
        self.holders: list[set[int]] = [set() for _ in cardinalities]
        self._count = itertools.count()

    def add(self, factor: _Factor) -> int:
        key = next(self._count)
        self.factors[key] = factor
        for variable in factor.scope:
            self.holders[variable].add(key)
        return key

    def cells(self, scope: Iterable[int]) -> int:
        return math.prod(self.cardinalities[variable] for variable in scope)

    def reduce(self, keys: Iterable[int]) -> None:
        """Multiply factors, two at a time, until one is left."""
        heap = [(self.cells(self.factors[key].scope), key) for key in keys]
        heapq.heapify(heap)
        while len(heap) > 1:
            if len(heap) > _PAIRS:
                one, other = heapq.heappop(heap)[1], heapq.heappop(heap)[1]
            else:
                one, other = min(itertools.combinations(sorted(key for _, key in heap), 2), key=self._price)
                heap = [entry for entry in heap if entry[1] not in (one, other)]
                heapq.heapify(heap)
            key = self.multiply(one, other)
            heapq.heappush(heap, (self.cells(self.factors[key].scope), key))

    def _price(self, pair: tuple[int, int]) -> tuple[int, int]:
        one, other = (self.factors[key] for key in pair)
        union = one.scope | other.scope
        return self.cells(union), -self.cells(one.scope & other.scope)

    def multiply(self, one: int, other: int) -> int:
        """Replace two factors by their product, without the variables nobody else holds."""
        pair = {one, other}
        left, right = self.factors.pop(one), self.factors.pop(other)
        union = left.scope | right.scope
        summed = {variable for variable in union if self.holders[variable] <= pair}
        for variable in union:
            self.holders[variable] -= pair
        constants = (*left.constants, *right.constants)
        children = tuple(factor.node for factor in (left, right) if factor.node != NONE)
        if len(children) < 2 and not summed:
            return self.add(_Factor(children[0] if children else NONE, constants, union))
        return self.add(self.sum_out(union, summed, children, constants))

    def sum_out(
        self, union: Iterable[int], summed: Iterable[int], children: tuple[int, ...], constants: tuple[int, ...]
    ) -> _Factor:
        onto = frozenset(union) - frozenset(summed)
        self.nodes.append(Node(tuple(sorted(union)), tuple(sorted(onto)), children, constants))
        return _Factor(len(self.nodes) - 1, (), onto)


def contraction(
    families: Sequence[Sequence[int]], cardinalities: Sequence[int], order: Iterable[int], *, fixed: bool
) -> Contraction:
    """Plan the products and sums.

    Parameters
    ----------
    families : sequence of sequence of int
        Parents, then the variable itself, of each variable.
    cardinalities : sequence of int
        A variable with one state is in no scope.
    order : iterable of int
        In which to eliminate the variables with more than one state.
    fixed : bool
        Whether the CPDs are the same for all rows.
    """
    scopes = [frozenset(member for member in family if cardinalities[member] > 1) for family in families]
    own = [(variable,) if cardinalities[variable] > 1 else () for variable in range(len(families))]
    leaves = [Node(scope, scope) for scope in own]
    if not fixed:
        leaves += [Node(tuple(sorted(scope)), tuple(sorted(scope))) for scope in scopes]
    contractor = _Contractor(cardinalities, leaves)
    for variable, scope in enumerate(scopes):
        contractor.add(_Factor(variable, (), frozenset(own[variable])))
        node, constants = (NONE, (variable,)) if fixed else (len(scopes) + variable, ())
        contractor.add(_Factor(node, constants, scope))
    for variable in order:
        contractor.reduce(contractor.holders[variable])
    contractor.reduce(list(contractor.factors))
    (last,) = contractor.factors.values()
    if last.node < len(leaves) or last.constants:
        contractor.sum_out(last.scope, last.scope, (last.node,), last.constants)
    return Contraction(tuple(contractor.nodes), len(scopes))
