"""Exact answers for batches of rows: a junction tree compiled once, rows along the innermost axis.

Evidence enters as likelihood vectors, ones where a cell is missing, so rows with any pattern of missing cells go
through together. Messages are passed without division (Shafer & Shenoy), hence zeros are safe, and scaled by their
largest entry. Where a target's Markov blanket is observed its posterior is a product of table look-ups instead.

References
----------
Shafer, G. & Shenoy, P. P. (1990). Probability propagation. Annals of Mathematics and AI 2, 327-351.
Koller, D. & Friedman, N. (2009). Probabilistic Graphical Models, chapter 10.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pandas as pd

from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, TooDenseError, shorten
from bnpipe.junction import MAX_CLIQUE_CELLS, InferenceCost, JunctionTree, inference_cost, junction_tree
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    from bnpipe.network import Network

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Codes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_BLOCK_CELLS: Final = 2**17
_FAINT: Final = 1e-290
_LOG_FAINT: Final = -650.0


@dataclass(frozen=True, eq=False)
class Posterior(Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]):
    """Posteriors of the targets, a mapping ``target -> float64 (rows, states)``.

    Parameters
    ----------
    tables : mapping of str to float64 (rows, states)
        Rows sum to 1; NaN where the evidence is impossible.
    states : mapping of str to tuple of str
        Names of the columns.
    impossible : bool (rows,)
        Rows whose evidence has probability zero for at least one target.
    """

    tables: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]]
    states: Mapping[str, tuple[str, ...]]
    impossible: Mask

    def __getitem__(self, target: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self.tables[target]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


@dataclass(frozen=True, eq=False)
class _Family:
    """One CPD as look-up: the members' strides into the flat log table."""

    members: tuple[int, ...]
    strides: tuple[int, ...]
    log_table: Array
    has_zero: bool

    def look_up(self, codes: Codes, free: int | None = None, states: int = 1) -> Array:
        """Log probability per row, float64 (states, rows), over the states of member `free` (its code unread)."""
        place = np.zeros((states, codes.shape[1]), dtype=np.int64)
        for member, stride in zip(self.members, self.strides, strict=True):
            place += np.arange(states)[:, None] * stride if member == free else codes[member] * np.int64(stride)
        return self.log_table[place]


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
    cost = inference_cost(network.parents, cardinalities)
    if cost.largest_cells > max_clique_cells:
        raise TooDenseError(
            f"exact inference needs a table of {cost.largest_cells} cells over {len(cost.largest_clique)} variables "
            f"({shorten(cost.largest_clique)}), of {max_clique_cells} allowed; lower max_parents or join states"
        )
    return Engine(network, junction_tree(network.parents, cardinalities), cost)


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
    """

    network: Network
    tree: JunctionTree
    cost: InferenceCost

    def posterior(
        self, evidence: pd.DataFrame | Dataset, targets: Sequence[str], *, shortcut: bool = True
    ) -> Posterior:
        """Give each target's distribution in each row, given the row's other cells.

        Parameters
        ----------
        evidence : DataFrame or Dataset
            Absent columns, nulls and unknown states (where there is no ``other``) count as missing; columns the
            network does not know are ignored. A target's own cell is ignored for that target.
        targets : sequence of str
        shortcut : bool
            Whether to look up where the Markov blanket is observed; the answers are the same.

        Raises
        ------
        EvidenceError
            A target the network does not have, or a Dataset whose states differ from the network's.
        """
        names = (targets,) if isinstance(targets, str) else tuple(dict.fromkeys(targets))
        wanted = [self._number(name) for name in names]
        codes = self._codes(evidence)
        rows = codes.shape[1]
        tables = {target: np.full((self.tree.cardinalities[target], rows), np.nan) for target in wanted}
        looked_up = {target: np.zeros(rows, dtype=bool) for target in wanted}
        if shortcut:
            for target in wanted:
                looked_up[target] = self._look_up(target, codes, tables[target])
        rest = [target for target in wanted if not looked_up[target].all()]
        if rest:
            open_rows = np.flatnonzero(~np.logical_and.reduce([looked_up[target] for target in rest]))
            found = self._propagate(codes[:, open_rows], rest)
            for target in rest:
                exact = ~looked_up[target][open_rows]
                tables[target][:, open_rows[exact]] = found[target][:, exact]
        impossible = np.zeros(rows, dtype=bool)
        for target in wanted:
            impossible |= np.isnan(tables[target][0])
        return Posterior(
            {name: np.ascontiguousarray(tables[target].T) for name, target in zip(names, wanted, strict=True)},
            {name: self.network.schema[name].states for name in names},
            impossible,
        )

    def log_likelihood(self, evidence: pd.DataFrame | Dataset) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Give the log probability of each row's observed cells, float64 (rows,) in nats.

        Missing cells are summed out; ``-inf`` where the row is impossible, 0 where nothing is observed.

        Raises
        ------
        EvidenceError
            A Dataset whose states differ from the network's.
        """
        codes = self._codes(evidence)
        total = np.zeros(codes.shape[1])
        complete = (codes != MISSING).all(axis=0)
        whole = codes[:, complete]
        total[complete] = sum((family.look_up(whole)[0] for family in self._families), start=np.zeros(whole.shape[1]))
        partial = np.flatnonzero(~complete)
        for block in self._blocks(partial.size):
            places = partial[block]
            total[places], doubtful = _Messages(self, codes[:, places]).log_mass()
            if doubtful.any():
                total[places[doubtful]] = _Messages(self, codes[:, places[doubtful]], np.longdouble).log_mass()[0]
        return total

    def marginals(self) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
        """Give every node's distribution when nothing is observed, float64 (states,)."""
        nothing = np.full((len(self.network.nodes), 1), MISSING, dtype=np.uint8)
        found = self._propagate(nothing, list(range(len(self.network.nodes))))
        return {node: found[place][:, 0] for place, node in enumerate(self.network.nodes)}

    @cached_property
    def _index(self) -> dict[str, int]:
        return {node: place for place, node in enumerate(self.network.nodes)}

    def _number(self, target: str) -> int:
        if target not in self._index:
            known = shorten(self.network.nodes)
            raise EvidenceError(f"no target {target!r} in the network; there are {known}")
        return self._index[target]

    def _codes(self, evidence: pd.DataFrame | Dataset) -> Codes:
        """Encode evidence, uint8 (variables, rows)."""
        schema = self.network.schema
        if isinstance(evidence, pd.DataFrame):
            return Dataset.from_pandas(evidence, schema).codes
        if not isinstance(evidence, Dataset):
            raise EvidenceError(f"evidence must be a DataFrame or a Dataset, not {type(evidence).__name__}")
        if evidence.schema == schema:
            return evidence.codes
        codes = np.full((len(schema.names), evidence.rows), MISSING, dtype=np.uint8)
        known = set(evidence.schema.names)
        for place, name in enumerate(schema.names):
            if name in known:
                if evidence.schema[name].states != schema[name].states:
                    raise EvidenceError(
                        f"{name}: the rows have states {shorten(evidence.schema[name].states)}, "
                        f"the network {shorten(schema[name].states)}; encode them with the network's schema"
                    )
                codes[place] = evidence.column(name)
        return codes

    def _blocks(self, rows: int) -> Iterator[slice]:
        """Cut rows into blocks whose tables stay in the cache."""
        size = min(max(_BLOCK_CELLS // max(self.tree.cells), 8), 1024)
        return (slice(start, min(start + size, rows)) for start in range(0, rows, size))

    def _propagate(self, codes: Codes, targets: Sequence[int]) -> dict[int, Array]:
        """Exact posteriors by messages, float64 (states, rows) for each target; NaN where impossible."""
        found = {target: np.empty((self.tree.cardinalities[target], codes.shape[1])) for target in targets}
        for block in self._blocks(codes.shape[1]):
            part = codes[:, block]
            posteriors, doubtful = _Messages(self, part).posteriors(targets)
            for target in targets:
                found[target][:, block] = posteriors[target]
            if doubtful.any():
                places = np.flatnonzero(doubtful)
                again, _ = _Messages(self, part[:, places], np.longdouble).posteriors(targets)
                for target in targets:
                    found[target][:, block.start + places] = again[target]
        return found

    def _look_up(self, target: int, codes: Codes, table: Array) -> Mask:
        """Fill in the rows whose Markov blanket is observed; tell which they are.

        Elsewhere than in the blanket evidence can only be impossible through a family with zeros: all of those must
        be observed too, or the row goes to the exact path.
        """
        own = [family for family in self._families if target in family.members]
        others = [family for family in self._families if target not in family.members and family.has_zero]
        needed = {member for family in (*own, *others) for member in family.members} - {target}
        ready: Mask = np.ones(codes.shape[1], dtype=bool)
        for member in needed:
            ready &= codes[member] != MISSING
        if not ready.any():
            return ready
        observed = codes if ready.all() else codes[:, ready]
        states = self.tree.cardinalities[target]
        logs = np.zeros((states, observed.shape[1]))
        for family in own:
            logs += family.look_up(observed, target, states)
        for family in others:
            logs += np.where(np.isneginf(family.look_up(observed)), -np.inf, 0.0)
        peak = logs.max(axis=0)
        weights = np.exp(logs - np.where(np.isneginf(peak), 0.0, peak))
        table[:, ready] = _normalised(weights)[0]
        return ready

    @cached_property
    def _families(self) -> tuple[_Family, ...]:
        return tuple(self._family(node) for node in self.network.nodes)

    def _family(self, node: str) -> _Family:
        table = np.ascontiguousarray(self.network.cpd(node).table, dtype=np.float64)
        members = tuple(self._index[name] for name in (*self.network.parents[node], node))
        with np.errstate(divide="ignore"):
            log_table = np.log(table)
        strides = tuple(stride // table.itemsize for stride in table.strides)
        return _Family(members, strides, log_table.ravel(), bool((table == 0).any()))

    @cached_property
    def _home(self) -> tuple[int, ...]:
        """The clique where each variable's evidence enters and its posterior is read."""
        return tuple(cliques[0] if cliques else 0 for cliques in self.tree.holding)

    @cached_property
    def _potentials(self) -> tuple[Array, ...]:
        """Product of the CPDs assigned to each clique, one axis a member."""
        cardinalities = self.tree.cardinalities
        potentials = [np.ones([cardinalities[variable] for variable in clique]) for clique in self.tree.cliques]
        for node in self.network.nodes:
            members = [self._index[name] for name in (*self.network.parents[node], node)]
            open_members = [member for member in members if cardinalities[member] > 1]
            table = np.asarray(self.network.cpd(node).table).reshape([cardinalities[m] for m in open_members])
            clique = self.tree.smallest_with(open_members)
            in_order = np.argsort(open_members)
            shape = [cardinalities[v] if v in open_members else 1 for v in self.tree.cliques[clique]]
            potentials[clique] = potentials[clique] * table.transpose(in_order).reshape(shape)
        return tuple(potentials)

    @cached_property
    def _may_underflow(self) -> bool:
        """Whether a product of positive probabilities, one a family, can come near the smallest float."""
        logs = (family.log_table for family in self._families)
        return sum(float(log[np.isfinite(log)].min(initial=0.0)) for log in logs) < _LOG_FAINT


class _Messages:
    """The messages of one block of rows. Arrays have the rows as last axis, of length 1 where no evidence entered."""

    def __init__(self, engine: Engine, codes: Codes, dtype: type[np.floating[Any]] = np.float64) -> None:
        self.engine, self.tree, self.dtype = engine, engine.tree, dtype
        self.rows = codes.shape[1]
        self.doubtful: Mask = np.zeros(self.rows, dtype=bool)
        self.log_scale = np.zeros(self.rows, dtype=dtype)
        self._sent: dict[tuple[int, int], Array] = {}
        self._evidence: dict[int, list[tuple[int, Array]]] = {}
        for variable, column in enumerate(codes):
            states = self.tree.cardinalities[variable]
            missing = column == MISSING
            if states > 1 and not missing.all():
                likelihood = ((column == np.arange(states)[:, None]) | missing).astype(dtype)
                self._evidence.setdefault(engine._home[variable], []).append((variable, likelihood))

    def log_mass(self) -> tuple[Array, Mask]:
        """Log probability of the evidence, (rows,), and the rows that may have underflown."""
        self._collect(0)
        mass = self._belief(0, ()).reshape(-1)
        self._note_faint(mass)
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(mass) + self.log_scale, dtype=np.float64), self.doubtful

    def posteriors(self, targets: Sequence[int]) -> tuple[dict[int, Array], Mask]:
        """Posterior of each target without its own evidence, (states, rows), and the rows that may have underflown."""
        homes = [self.engine._home[target] for target in targets]
        root = max(sorted(set(homes)), key=homes.count)
        self._collect(root)
        self._distribute(root, set(homes) - {root})
        found = {}
        for target, home in zip(targets, homes, strict=True):
            states = self.tree.cardinalities[target]
            belief = self._belief(home, (target,) if states > 1 else (), without=target)
            posterior, mass = _normalised(np.broadcast_to(belief.reshape(states, -1), (states, self.rows)))
            self._note_faint(mass)
            found[target] = posterior
        return found, self.doubtful

    def _collect(self, root: int) -> None:
        for nearer, farther in reversed(self.tree.outward(root)):
            self._send(farther, nearer)

    def _distribute(self, root: int, wanted: set[int]) -> None:
        edges = self.tree.outward(root)
        needed = set(wanted)
        for nearer, farther in reversed(edges):
            if farther in needed:
                needed.add(nearer)
        for nearer, farther in edges:
            if farther in needed:
                self._send(nearer, farther)

    def _send(self, sender: int, receiver: int) -> None:
        shared = tuple(v for v in self.tree.cliques[sender] if v in self.tree.cliques[receiver])
        message = self._belief(sender, shared, ignoring=receiver)
        peak = message.max(axis=tuple(range(message.ndim - 1)))
        self._note_faint(peak)
        scale = np.where(peak > 0, peak, 1)
        message /= scale
        self.log_scale = self.log_scale + np.log(scale)
        self._sent[sender, receiver] = message

    def _note_faint(self, mass: Array) -> None:
        if self.engine._may_underflow and self.dtype is not np.longdouble:
            self.doubtful = self.doubtful | (mass < _FAINT)

    def _belief(
        self, clique: int, onto: tuple[int, ...], *, ignoring: int | None = None, without: int | None = None
    ) -> Array:
        """Sum a clique's product onto some of its variables.

        Left out are the message of neighbour `ignoring` and the evidence of variable `without`.
        """
        members = self.tree.cliques[clique]
        product: Array = self.engine._potentials[clique].astype(self.dtype)[..., None]
        for factor in self._factors(clique, ignoring, without):
            product = product * factor
        summed = tuple(axis for axis, variable in enumerate(members) if variable not in onto)
        # With nothing to sum this is still a copy, which the sender may scale in place.
        return product.sum(axis=summed) if summed else product.copy()

    def _factors(self, clique: int, ignoring: int | None, without: int | None) -> Iterable[Array]:
        members = self.tree.cliques[clique]
        for variable, likelihood in self._evidence.get(clique, ()):
            if variable != without:
                yield self._aligned(likelihood, (variable,), members)
        for neighbour in self.tree.neighbours[clique]:
            if neighbour != ignoring:
                shared = tuple(v for v in members if v in self.tree.cliques[neighbour])
                yield self._aligned(self._sent[neighbour, clique], shared, members)

    def _aligned(self, factor: Array, variables: tuple[int, ...], members: tuple[int, ...]) -> Array:
        shape = [self.tree.cardinalities[v] if v in variables else 1 for v in members]
        return factor.reshape(*shape, factor.shape[-1])


def _normalised(weights: Array) -> tuple[Array, Array]:
    """Divide by the sum over states, the first axis; NaN where that is zero. Give the sums too."""
    mass = weights.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(mass > 0, weights / mass, np.nan), mass
