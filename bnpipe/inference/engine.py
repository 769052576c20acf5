"""The engine: a compiled network and its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, TooDenseError, shorten
from bnpipe.inference.compiled import Compiled
from bnpipe.inference.evidence import Likelihood, check_codes, encode, encode_cells, soft_evidence
from bnpipe.inference.results import Explanation, FamilyPosterior, Posterior
from bnpipe.inference.run import explain, given_evidence, propagate
from bnpipe.inference.uncertainty import Uncertainty, check_level, posterior_interval
from bnpipe.junction import MAX_CLIQUE_CELLS, InferenceCost, JunctionTree, junction_tree, tree_cost
from bnpipe.network import Network
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    import pandas as pd

Codes: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]


def compile(network: Network, *, max_clique_cells: int = MAX_CLIQUE_CELLS) -> Engine:  # noqa: A001
    """Compile a network for exact inference.

    Parameters
    ----------
    network : Network
    max_clique_cells : int
        Cells one clique's table may have.

    Raises
    ------
    TooDenseError
        A clique is larger; it is named.
    """
    cardinalities = {variable.name: variable.cardinality for variable in network.schema.variables}
    tree = junction_tree(network.parents, cardinalities)
    cost = tree_cost(tree, network.nodes)
    if cost.largest_cells > max_clique_cells:
        raise TooDenseError(
            f"exact inference needs a table of {cost.largest_cells} cells over {len(cost.largest_clique)} variables "
            f"({shorten(cost.largest_clique)}), of {max_clique_cells} allowed; lower max_parents or join states, "
            "or estimate with bnpipe.inference.likelihood_weighting"
        )
    return Engine(network, tree, cost)


@dataclass(frozen=True, eq=False)
class Engine:
    """A compiled network; made by :func:`compile`. Frozen, and safe to share between threads.

    Parameters
    ----------
    network : Network
    tree : JunctionTree
        Over the numbers of the network's nodes.
    cost : InferenceCost
        Of one row.
    learned : Network, optional
        Whose counts tell how certain the CPDs are. None: `network`.
    fixed : frozenset of str
        Nodes set from outside, see :meth:`do`.
    """

    network: Network
    tree: JunctionTree
    cost: InferenceCost
    learned: Network | None = None
    fixed: frozenset[str] = frozenset()

    def posterior(
        self,
        evidence: pd.DataFrame | Dataset,
        targets: Sequence[str] | None = None,
        *,
        likelihood: Likelihood | None = None,
        interval: float | None = None,
        shortcut: bool = True,
        threads: int | None = None,
    ) -> Posterior:
        """Give each target's distribution in each row, given the row's other cells.

        Parameters
        ----------
        evidence : DataFrame or Dataset
            Absent columns, nulls and unknown states (where there is no ``other``) count as missing; columns the
            network does not know are ignored. A target's own cell is ignored for that target.
        targets : sequence of str, optional
            None: all variables.
        likelihood : mapping of str to array (states,) or (rows, states), optional
            Soft evidence: how likely what was seen is under each state, up to a factor. It multiplies what the
            variable's cell says. A target's own likelihood counts, other than its own cell.
        interval : float, optional
            Level, such as 0.95, of intervals that say how far each posterior may be off because the CPDs were estimated
            from finitely many rows and clusters; they are the answer's `interval`. See docs/intervals.md.
        shortcut : bool
            Whether to look up where the Markov blanket is observed; the answers are the same.
        threads : int, optional
            None: one a core. The number changes no bit of the answers.

        Raises
        ------
        EvidenceError
            A target the network does not have, a Dataset whose states differ from the network's, or a likelihood
            that is none; an `interval` that is no level.
        NoCountsError
            Intervals of a network that was imported.
        """
        if interval is not None:
            check_level(interval)
        names = self._names(targets)
        wanted = [self._number(name) for name in names]
        codes = encode(evidence, self.network.schema)
        rows = codes.shape[1]
        soft = soft_evidence(likelihood, self.network.schema, rows) if likelihood else None
        if shortcut and soft is None:
            tables = self._compiled.look_up_first(codes, wanted, threads)
        else:
            tables = self._compiled.propagate(self._compiled.plan(wanted), codes, soft, threads).tables
        if soft is not None:
            tables = [_times(table, soft.values.get(target)) for target, table in zip(wanted, tables, strict=True)]
        impossible = np.zeros(rows, dtype=np.bool_)
        for table in tables:
            impossible |= np.isnan(table[:, 0])
        return Posterior(
            dict(zip(names, tables, strict=True)),
            {name: self.network.schema[name].states for name in names},
            impossible,
            interval=None
            if interval is None
            else {
                name: posterior_interval(
                    self, codes, target, table, likelihood=likelihood, level=interval, threads=threads
                )
                for name, target, table in zip(names, wanted, tables, strict=True)
            },
        )

    def log_likelihood(
        self, evidence: pd.DataFrame | Dataset, *, likelihood: Likelihood | None = None, threads: int | None = None
    ) -> Floats:
        """Give the log probability of each row's observed cells, float64 (rows,) in nats.

        Missing cells are summed out; ``-inf`` where the row is impossible, 0 where nothing is observed. With a
        `likelihood` (see :meth:`posterior`) it is the log of the expectation of its product.

        Raises
        ------
        EvidenceError
            A Dataset whose states differ from the network's, or a likelihood that is none.
        """
        codes = encode(evidence, self.network.schema)
        if likelihood:
            soft = soft_evidence(likelihood, self.network.schema, codes.shape[1])
            return (
                self._compiled.propagate(self._compiled.plan((), mass=True), codes, soft, threads).log_mass
                + soft.log_peak
            )
        partial, total = self._compiled.families.log_likelihood(codes)
        if partial.size:
            total[partial] = self._compiled.propagate(
                self._compiled.plan((), mass=True), codes.take(partial, axis=1), None, threads
            ).log_mass
        return total

    def marginals(self) -> dict[str, Floats]:
        """Give every node's distribution when nothing is observed, float64 (states,)."""
        everything = range(len(self.network.nodes))
        nothing = np.full((len(self.network.nodes), 1), MISSING, dtype=np.uint8)
        tables = self._compiled.propagate(self._compiled.plan(everything), nothing, None, 1).tables
        return {node: table[0] for node, table in zip(self.network.nodes, tables, strict=True)}

    def most_probable_explanation(
        self, evidence: pd.DataFrame | Dataset, *, likelihood: Likelihood | None = None, threads: int | None = None
    ) -> Explanation:
        """Find each row's most probable assignment of all variables, given its cells (max-product, traced back).

        Of several the first by order of states, variable by variable from the root of the computation, is taken; it
        is always the same one.

        Parameters
        ----------
        evidence, likelihood, threads
            See :meth:`posterior`.

        Raises
        ------
        EvidenceError
            See :meth:`posterior`.
        """
        codes = encode(evidence, self.network.schema)
        soft = soft_evidence(likelihood, self.network.schema, codes.shape[1]) if likelihood else None
        plan = self._compiled.plan((), mass=True)
        best, log_mass = explain(plan, codes, given_evidence(plan, soft, codes.shape[1]), threads=threads)
        impossible = np.isneginf(log_mass)
        return Explanation(self.network.schema, best, log_mass + (0.0 if soft is None else soft.log_peak), impossible)

    def do(self, interventions: Mapping[str, str | int]) -> Engine:
        """Compile the network in which some variables are set from outside: arcs into them cut, their states fixed.

        Rows whose cell of such a variable says otherwise are impossible there.

        Parameters
        ----------
        interventions : mapping of str to state

        Raises
        ------
        EvidenceError
            An unknown variable or state.

        References
        ----------
        Pearl, J. (2009). Causality, 2nd edition, section 3.2.
        """
        codes = encode_cells(interventions, self.network.schema)
        parents = {node: () if node in interventions else self.network.parents[node] for node in self.network.nodes}
        tables = dict(zip(self.network.nodes, self._compiled.tables, strict=True))
        for node in interventions:
            place = self._compiled.index[node]
            if codes[place] == MISSING:
                raise EvidenceError(
                    f"{node}: to intervene needs a state; there are {shorten(self.network.schema[node].states)}"
                )
            tables[node] = np.zeros(self.tree.cardinalities[place])
            tables[node][codes[place]] = 1.0
        changed = compile(
            Network(self.network.schema, parents, tables=tables), max_clique_cells=self.cost.largest_cells
        )
        return replace(changed, learned=self.learned or self.network, fixed=self.fixed | set(interventions))

    def query(
        self,
        evidence: Mapping[str, object],
        targets: Sequence[str] | None = None,
        *,
        likelihood: Likelihood | None = None,
    ) -> dict[str, Floats]:
        """Answer one question: each target's distribution, float64 (states,), given some states.

        Quicker than a frame of one row. NaN where the evidence is impossible.

        Parameters
        ----------
        evidence : mapping of str to state
            Null is missing. A target's own state is ignored for that target.
        targets, likelihood
            See :meth:`posterior`.

        Raises
        ------
        EvidenceError
            An unknown variable or state: a question asked by hand has no strange cells to forgive.
        """
        codes = encode_cells(evidence, self.network.schema).reshape(-1, 1)
        names = self._names(targets)
        wanted = [self._number(name) for name in names]
        soft = soft_evidence(likelihood, self.network.schema, 1) if likelihood else None
        tables = self._compiled.propagate(self._compiled.plan(wanted), codes, soft, 1).tables
        if soft is not None:
            tables = [_times(table, soft.values.get(target)) for target, table in zip(wanted, tables, strict=True)]
        return {name: table[0] for name, table in zip(names, tables, strict=True)}

    def posterior_codes(
        self,
        codes: Codes,
        targets: Sequence[str] | None = None,
        *,
        threads: int | None = None,
        shortcut: bool = False,
    ) -> dict[str, Floats]:
        """Give each target's distribution from encoded rows: the shortest way to an answer.

        Parameters
        ----------
        codes : uint8 (variables,) or (variables, rows)
            In the order of the network's nodes, 255 where missing. A target's own cell is ignored for that target.
        targets : sequence of str, optional
            None: all variables.
        shortcut : bool
            Look up rows in which what the targets depend on is observed, instead of passing messages. Either way a
            row's bits depend on nothing but the row.

        Returns
        -------
        dict of str to float64 (states,) or (rows, states)
            NaN where the evidence is impossible.

        Raises
        ------
        EvidenceError
            An unknown target, or codes of another shape, type or range.
        """
        table_of_codes = check_codes(codes, self.network.schema)
        names = self._names(targets)
        wanted = [self._number(name) for name in names]
        if shortcut and wanted:
            tables = self._compiled.row_by_row(table_of_codes, wanted, threads)
        else:
            tables = self._compiled.propagate(self._compiled.plan(wanted), table_of_codes, None, threads).tables
        if codes.ndim == 1:
            return {name: table[0] for name, table in zip(names, tables, strict=True)}
        return dict(zip(names, tables, strict=True))

    def count_messages(self, codes: Codes, targets: Sequence[str]) -> int:
        """Count the encoded rows (variables, rows) that :meth:`posterior_codes` does not look up by its shortcut."""
        if not targets:
            return int(codes.shape[1])
        known = self._compiled.looked_up(codes, [self._number(name) for name in self._names(targets)])
        return int(known.size - known.sum())

    def family_posteriors(
        self, codes: Codes, *, likelihood: Likelihood | None = None, threads: int | None = None
    ) -> FamilyPosterior:
        """Give P(parents' configuration, state | evidence) of every family in each row; own cells are evidence too.

        That times P(evidence) over a CPD's entry is the derivative of P(evidence) by the entry (Darwiche 2003).
        One pass towards the root and one back; no table look-ups.

        Parameters
        ----------
        codes : uint8 (variables, rows)
            As in `Dataset.codes` of the network's schema.
        likelihood : mapping, optional
            See :meth:`posterior`.
        """
        nodes = self.network.nodes
        codes = np.ascontiguousarray(codes)
        soft = soft_evidence(likelihood, self.network.schema, codes.shape[1]) if likelihood else None
        plan = self._compiled.plan(range(len(nodes), 2 * len(nodes)), mass=True, fixed=False)
        answers = self._compiled.propagate(plan, codes, soft, threads)
        tables = {
            node: np.ascontiguousarray(table.T)[self._compiled.open_program.cells_of_family(place)]
            for place, (node, table) in enumerate(zip(nodes, answers.tables, strict=True))
        }
        log_peak = soft.log_peak if soft is not None else 0.0
        return FamilyPosterior(tables, answers.log_mass + log_peak)

    def posterior_of_draws(
        self, codes: Codes, targets: Sequence[str], tables: Mapping[str, Floats], *, threads: int | None = None
    ) -> dict[str, Floats]:
        """Give each target's distribution under draws of the CPDs, the draws on the axis of the rows.

        Parameters
        ----------
        codes : uint8 (variables,) or (variables, draws)
            One row for all draws, or one for each. A target's own cell is ignored for that target.
        targets : sequence of str
        tables : mapping of str to float64 (configurations * states, draws)
            Drawn CPDs, cells in the order of the CPD's table; other nodes keep their own.

        Returns
        -------
        dict of str to float64 (draws, states)

        Raises
        ------
        EvidenceError
            An unknown target, or a drawn table of a wrong shape.
        """
        draws = next(iter(tables.values())).shape[1] if tables else 1
        single = np.asarray(codes).reshape(len(self.network.nodes), -1)
        whole = np.ascontiguousarray(np.broadcast_to(single, (len(self.network.nodes), draws)))
        names = self._names(targets)
        plan = self._compiled.plan([self._number(name) for name in names], fixed=False)
        initial, slots, given = plan.initial.copy(), [], []
        for node, table in tables.items():
            place = self._number(node)
            expected = (self._compiled.tables[place].size, draws)
            if table.shape != expected:
                raise EvidenceError(f"{node}: draws of its CPD must have shape {expected}, got {table.shape}")
            if (slot := plan.leaf_slots.get(len(self.network.nodes) + place)) is not None:
                slots.append(slot + self._compiled.open_program.cells_of_family(place).astype(np.int64))
                given.append(np.asarray(table, dtype=np.float64))
                initial[slots[-1]] = 1.0
        held = (
            (np.concatenate(slots), np.ascontiguousarray(np.concatenate(given)))
            if slots
            else given_evidence(plan, None, draws)
        )
        answers = propagate(replace(plan, initial=initial), whole, held, scaled=True, threads=threads)
        return dict(zip(names, answers.tables, strict=True))

    def family_tables(
        self,
        codes: Codes,
        tables: Mapping[int, Floats],
        *,
        likelihood: Likelihood | None = None,
        threads: int | None = None,
    ) -> tuple[dict[int, Floats], Floats]:
        """Give posteriors of the families in `tables` if those were their CPDs, and the evidence's log probability.

        Parameters
        ----------
        codes, likelihood, threads
            See :meth:`family_posteriors`.
        tables : mapping of int to float64 arrays
            CPDs by number of the node, cells in the order of the CPD; other nodes keep their own.

        Returns
        -------
        posteriors : dict of int to float64 (rows, cells)
            Zeros where the evidence is impossible.
        log_mass : float64 (rows,)
        """
        soft = soft_evidence(likelihood, self.network.schema, codes.shape[1]) if likelihood else None
        places, program = list(tables), self._compiled.open_program
        plan = self._compiled.plan([len(self.network.nodes) + place for place in places], mass=True, fixed=False)
        given = given_evidence(plan, soft, codes.shape[1])
        answers = propagate(self._compiled.under(plan, tables), codes, given, scaled=True, threads=threads)
        posteriors = {
            place: np.nan_to_num(np.take(table, program.cells_of_family(place), axis=1))
            for place, table in zip(places, answers.tables, strict=True)
        }
        return posteriors, answers.log_mass

    def log_mass_under(
        self,
        codes: Codes,
        tables: Mapping[int, Floats],
        *,
        likelihood: Likelihood | None = None,
        threads: int | None = None,
    ) -> Floats:
        """Give the log of the sum of products, float64 (rows,), as if `tables`, which need not sum to 1, were CPDs."""
        soft = soft_evidence(likelihood, self.network.schema, codes.shape[1]) if likelihood else None
        plan = self._compiled.plan((), mass=True, fixed=False)
        given = given_evidence(plan, soft, codes.shape[1])
        return propagate(self._compiled.under(plan, tables), codes, given, scaled=True, threads=threads).log_mass

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """What the counts leave open about the CPDs.

        Raises
        ------
        NoCountsError
            The network was imported.
        """
        return Uncertainty(self.learned or self.network, self.fixed)

    def _names(self, targets: Sequence[str] | None) -> tuple[str, ...]:
        if targets is None:
            return self.network.nodes
        return (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))

    def _number(self, target: str) -> int:
        if target not in self._compiled.index:
            known = shorten(self.network.nodes)
            raise EvidenceError(f"no target {target!r} in the network; there are {known}")
        return self._compiled.index[target]

    @cached_property
    def _compiled(self) -> Compiled:
        return Compiled(self.network, self.tree)


def _times(table: Floats, likelihood: Floats | None) -> Floats:
    """Multiply by a likelihood (states, rows) and normalise again; NaN where nothing is left."""
    if likelihood is None:
        return table
    weights = table * likelihood.T
    mass = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, weights / mass, np.nan)
