"""From a contraction to flat arrays: the messages that some targets need, as slots of a workspace and terms to add."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.inference.contraction import NONE, Contraction

_CACHED: Final = 2**17
"""Cells of a workspace that stays in a core's second cache: a megabyte, half of it."""

_HELD: Final = 2**25
"""Cells of the largest workspace that is made wider than need be: 256 MiB for each thread."""

_LEAST_LANES, _MOST_LANES = 16, 128
"""Rows at a time: fewer than 16 leave vector units idle, whatever the cache says; more than 128 gain nothing."""

UP, DOWN = 0, 1


@dataclass(frozen=True, eq=False)
class Plan:
    """What `bnpipe.kernels.propagation` runs; its docstring tells the arrays."""

    slots: int
    lanes: int
    leaves: NDArray[np.int64]
    initial: NDArray[np.float64]
    steps: NDArray[np.int64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    constants: NDArray[np.float64]
    targets: NDArray[np.int64]
    root: int
    leaf_slots: dict[int, int]
    """First slot of each leaf that is needed."""

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """The step, or the number of steps plus the leaf, that each slot belongs to; one more for slot 0."""
        spans = [(slot, size) for slot, size, *_ in self.steps.tolist()]
        spans += [(slot, states) for _, slot, states in self.leaves.tolist()]
        owner = np.full(self.slots, len(spans), dtype=np.int64)
        for place, (slot, size) in enumerate(spans):
            owner[slot : slot + size] = place
        return owner

    @cached_property
    def states(self) -> int:
        """States of all targets together."""
        return int(self.targets[:, 2].sum())


@dataclass(frozen=True, eq=False)
class _Terms:
    """One message: each of its cells adds `group` terms, the terms of a cell one after the other."""

    size: int
    group: int
    places: tuple[NDArray[np.int32], ...]
    constants: NDArray[np.float64] | None


class Program:
    """All messages of a contraction; each is laid out when first asked for.

    Parameters
    ----------
    tree : Contraction
    cardinalities : sequence of int
    families : sequence of sequence of int
        Parents, then the variable itself.
    tables : sequence of float64 arrays
        CPDs, an axis for each member of the family.
    """

    def __init__(
        self,
        tree: Contraction,
        cardinalities: Sequence[int],
        families: Sequence[Sequence[int]],
        tables: Sequence[NDArray[np.float64]],
    ) -> None:
        self.tree, self.cardinalities, self.families, self.tables = tree, cardinalities, families, tables
        self._terms: dict[tuple[int, int], _Terms] = {}

    def plan(self, targets: Iterable[int] = (), *, mass: bool = False) -> Plan:
        """Choose the messages that these leaves (and the probability of the evidence) need, and lay them out."""
        wanted, root = list(targets), len(self.tree.nodes) - 1
        messages = self._needed([(DOWN, leaf) for leaf in wanted] + [(UP, root)] * mass)
        slot_of: dict[tuple[int, int], int] = {}
        slots = 1
        for message in messages:
            slot_of[message] = slots
            slots += self._size(message)
        leaves = [place for way, place in messages if way == UP and self._is_leaf(place)]
        steps, terms = [], []
        first = 0
        for message in messages:
            if message[0] == UP and self._is_leaf(message[1]):
                continue
            found = self._message(message)
            steps.append((slot_of[message], found.size, found.group, first, int(message[0] == UP)))
            terms.append(self._placed(found, [slot_of[source] for source in self._sources(message)]))
            first += found.size * found.group
        before, lines = 0, []
        for leaf in wanted:
            weight = slot_of[UP, leaf] if leaf >= self.tree.variables else NONE
            lines.append((slot_of[DOWN, leaf], weight, self._size((DOWN, leaf)), before))
            before += self._size((DOWN, leaf))
        return Plan(
            slots=slots,
            lanes=_lanes(slots),
            leaves=np.array(
                [(p if p < self.tree.variables else NONE, slot_of[UP, p], self._size((UP, p))) for p in leaves],
                dtype=np.int64,
            ).reshape(-1, 3),
            initial=self._initial(slots, leaves, slot_of),
            steps=np.array(steps, dtype=np.int64).reshape(-1, 5),
            left=np.concatenate([left for left, _, _ in terms] or [np.empty(0, np.int32)]),
            right=np.concatenate([right for _, right, _ in terms] or [np.empty(0, np.int32)]),
            constants=np.concatenate([constants for _, _, constants in terms] or [np.empty(0)]),
            targets=np.array(lines, dtype=np.int64).reshape(-1, 4),
            root=slot_of[UP, root] if mass else NONE,
            leaf_slots={leaf: slot_of[UP, leaf] for leaf in leaves},
        )

    def _is_leaf(self, place: int) -> bool:
        node = self.tree.nodes[place]
        return not node.children and not node.constants

    def _initial(self, slots: int, leaves: Sequence[int], slot_of: dict[tuple[int, int], int]) -> NDArray[np.float64]:
        initial = np.ones(slots)
        for leaf in leaves:
            if leaf >= self.tree.variables:
                table = self._expanded(leaf - self.tree.variables, self.tree.nodes[leaf].scope)
                initial[slot_of[UP, leaf] : slot_of[UP, leaf] + table.size] = table
        return initial

    def _needed(self, outputs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """Messages that the outputs rest on, in an order in which they can be computed."""
        needed: set[tuple[int, int]] = set()
        ahead = list(outputs)
        while ahead:
            message = ahead.pop()
            if message not in needed:
                needed.add(message)
                ahead += self._sources(message)
                if message[0] == DOWN and message[1] >= self.tree.variables and self._is_leaf(message[1]):
                    ahead.append((UP, message[1]))
        return sorted(
            needed, key=lambda message: message[1] if message[0] == UP else 2 * len(self.tree.nodes) - message[1]
        )

    def _sources(self, message: tuple[int, int]) -> list[tuple[int, int]]:
        """Messages whose product a message sums."""
        way, place = message
        if way == UP:
            return [(UP, child) for child in self.tree.nodes[place].children]
        parent, sibling = self.tree.parent[place], self.tree.sibling(place)
        above = [(DOWN, parent)] if self.tree.parent[parent] != NONE else []
        return above + ([(UP, sibling)] if sibling != NONE else [])

    def _scope(self, message: tuple[int, int]) -> tuple[int, ...]:
        return self.tree.nodes[message[1]].onto

    def _size(self, message: tuple[int, int]) -> int:
        return math.prod(self.cardinalities[variable] for variable in self._scope(message))

    def _message(self, message: tuple[int, int]) -> _Terms:
        if message not in self._terms:
            self._terms[message] = self._lay_out(message)
        return self._terms[message]

    def _lay_out(self, message: tuple[int, int]) -> _Terms:
        way, place = message
        node = self.tree.nodes[place if way == UP else self.tree.parent[place]]
        onto = self._scope(message)
        axes = (*onto, *(variable for variable in node.scope if variable not in onto))
        places = tuple(self._places(axes, self._scope(source)) for source in self._sources(message))
        constants = None
        for variable in node.constants:
            family = [member for member in self.families[variable] if self.cardinalities[member] > 1]
            factor = self.tables[variable].ravel()[self._places(axes, family)]
            constants = factor if constants is None else constants * factor
        size = self._size(message)
        return _Terms(size, math.prod(self.cardinalities[axis] for axis in axes) // size, places, constants)

    def _places(self, axes: Sequence[int], members: Sequence[int]) -> NDArray[np.int32]:
        """Place within a table over `members` of each cell of a table over `axes`."""
        strides: dict[int, int] = {}
        stride = 1
        for member in reversed(members):
            strides[member] = stride
            stride *= self.cardinalities[member]
        places = np.zeros(1, dtype=np.int32)
        for axis in axes:
            steps = np.arange(self.cardinalities[axis], dtype=np.int32) * np.int32(strides.get(axis, 0))
            places = (places[:, None] + steps).ravel()
        return places

    def cells_of_family(self, variable: int) -> NDArray[np.int32]:
        """Where the open leaf of a CPD, its variables increasing, holds each cell of the CPD's table."""
        family = [member for member in self.families[variable] if self.cardinalities[member] > 1]
        return self._places(family, sorted(family))

    def _expanded(self, variable: int, scope: Sequence[int]) -> NDArray[np.float64]:
        family = [member for member in self.families[variable] if self.cardinalities[member] > 1]
        table: NDArray[np.float64] = self.tables[variable].ravel()[self._places(scope, family)]
        return table

    def _placed(self, terms: _Terms, bases: Sequence[int]) -> tuple[Any, Any, Any]:
        """Slots multiplied by each term, slot 0, which is 1, where there is nothing, and constants."""
        count = terms.size * terms.group
        slots = [places + np.int32(base) for places, base in zip(terms.places, bases, strict=True)]
        slots += [np.zeros(count, dtype=np.int32)] * (2 - len(slots))
        return slots[0], slots[1], np.ones(count) if terms.constants is None else terms.constants


def _lanes(slots: int) -> int:
    """Choose how many rows go through a workspace together."""
    wide = min(max(_CACHED // slots, _LEAST_LANES), _MOST_LANES)
    return max(min(wide, _HELD // slots), 1)
