"""A network compiled: programs, plans and tables, each made when first needed, then kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.inference.contraction import contraction
from bnpipe.inference.evidence import SoftEvidence
from bnpipe.inference.lookup import Families
from bnpipe.inference.program import Plan, Program
from bnpipe.inference.run import Answers, given_evidence, propagate
from bnpipe.junction import JunctionTree
from bnpipe.network import Network

Codes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]

_LOG_FAINT: Final = -650.0
_MOST_PLANS: Final = 256


@dataclass(frozen=True, eq=False)
class Compiled:
    """What an engine runs; nodes are numbers here.

    Parameters
    ----------
    network : Network
    tree : JunctionTree
    """

    network: Network
    tree: JunctionTree

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each node."""
        return {node: place for place, node in enumerate(self.network.nodes)}

    def look_up_first(self, codes: Codes, targets: Sequence[int], threads: int | None) -> list[Floats]:
        """Answer by look-up where that is possible, elsewhere by messages."""
        rows = codes.shape[1]
        tables = [np.empty((rows, self.tree.cardinalities[target])) for target in targets]
        covered = [self.families.covered(target, codes) for target in targets]
        rest = [place for place in range(len(targets)) if not covered[place].all()]
        closed = np.logical_and.reduce([covered[place] for place in rest]) if rest else np.ones(rows, dtype=np.bool_)
        for place, target in enumerate(targets):
            known = closed if place in rest else covered[place]
            self.families.posterior(target, codes, np.flatnonzero(known), tables[place])
        if rest:
            open_rows = np.flatnonzero(~closed)
            everywhere = open_rows.size == rows
            plan = self.plan([targets[place] for place in rest])
            answers = self.propagate(plan, codes if everywhere else codes.take(open_rows, axis=1), None, threads)
            for place, answer in zip(rest, answers.tables, strict=True):
                if everywhere:
                    tables[place] = answer
                else:
                    tables[place][open_rows] = answer
        return tables

    def looked_up(self, codes: Codes, targets: Sequence[int]) -> NDArray[np.bool_]:
        """Tell which rows :meth:`row_by_row` looks up."""
        known: NDArray[np.bool_] = np.logical_and.reduce([self.families.covered(target, codes) for target in targets])
        return known

    def row_by_row(self, codes: Codes, targets: Sequence[int], threads: int | None) -> list[Floats]:
        """Answer by look-up the rows in which every target can be, others by messages.

        A row's bits are the same whatever other rows there are, which those of :meth:`look_up_first` are not.
        """
        rows = codes.shape[1]
        known = self.looked_up(codes, targets)
        closed = np.flatnonzero(known)
        if closed.size == 0:
            return self.propagate(self.plan(targets), codes, None, threads).tables
        tables = [np.empty((rows, self.tree.cardinalities[target])) for target in targets]
        for target, table in zip(targets, tables, strict=True):
            self.families.posterior(target, codes, closed, table)
        if closed.size < rows:
            opened = np.flatnonzero(~known)
            answers = self.propagate(self.plan(targets), codes.take(opened, axis=1), None, threads)
            for table, answer in zip(tables, answers.tables, strict=True):
                table[opened] = answer
        return tables

    def propagate(self, plan: Plan, codes: Codes, soft: SoftEvidence | None, threads: int | None) -> Answers:
        """Run a plan over all rows."""
        least = self.families.log_least + (soft.log_least if soft is not None else 0.0)
        given = given_evidence(plan, soft, codes.shape[1])
        return propagate(plan, codes, given, scaled=least < _LOG_FAINT, threads=threads)

    def plan(self, targets: Sequence[int], *, mass: bool = False, fixed: bool = True) -> Plan:
        """Give the plan for these leaves, and the probability of the evidence; laid out once, and kept."""
        key = (tuple(targets), mass, fixed)
        if key not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = (self.program if fixed else self.open_program).plan(targets, mass=mass)
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[tuple[int, ...], bool, bool], Plan]:
        return {}

    @cached_property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Parents, then the node itself, by number."""
        return tuple(
            tuple(self.index[name] for name in (*self.network.parents[node], node)) for node in self.network.nodes
        )

    @cached_property
    def tables(self) -> tuple[Floats, ...]:
        """CPDs, an axis for each member of the family."""
        return tuple(np.ascontiguousarray(self.network.cpd(node).table) for node in self.network.nodes)

    @cached_property
    def families(self) -> Families:
        """CPDs to look up in."""
        return Families(self.members, self.tables)

    @cached_property
    def program(self) -> Program:
        """CPDs are constants."""
        return self._new_program(fixed=True)

    @cached_property
    def open_program(self) -> Program:
        """CPDs are leaves: they may differ from row to row, and have posteriors."""
        return self._new_program(fixed=False)

    def _new_program(self, *, fixed: bool) -> Program:
        tree = contraction(self.members, self.tree.cardinalities, self.tree.order, fixed=fixed)
        return Program(tree, self.tree.cardinalities, self.members, self.tables)

    def under(self, plan: Plan, tables: Mapping[int, Floats]) -> Plan:
        """Put other CPDs, by number of the node, into a plan whose CPDs are leaves."""
        initial = plan.initial.copy()
        for place, table in tables.items():
            if (slot := plan.leaf_slots.get(len(self.network.nodes) + place)) is not None:
                initial[slot + self.open_program.cells_of_family(place)] = table.ravel()
        return replace(plan, initial=initial)
