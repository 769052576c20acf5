"""Networks as pgmpy's objects, there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bnpipe.bif import Parents, Tables
from bnpipe.errors import NetworkError, shorten
from bnpipe.schema import Schema, Variable, state_name

if TYPE_CHECKING:
    from pgmpy.models import DiscreteBayesianNetwork


def pgmpy_model(schema: Schema, parents: Parents, tables: Tables) -> DiscreteBayesianNetwork:
    """Give a pgmpy network with the same CPDs and state names."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork()
    model.add_nodes_from(schema.names)
    model.add_edges_from((parent, node) for node in schema.names for parent in parents[node])
    for variable in schema:
        family = (variable.name, *parents[variable.name])
        cards = [schema[name].cardinality for name in family]
        states = {name: list(schema[name].states) for name in family}
        values = tables[variable.name].reshape(-1, cards[0]).T
        model.add_cpds(TabularCPD(variable.name, cards[0], values, list(family[1:]) or None, cards[1:] or None, states))
    return model


def read_pgmpy(
    model: DiscreteBayesianNetwork,
) -> tuple[Schema, dict[str, tuple[str, ...]], dict[str, NDArray[np.float64]]]:
    """Take over the CPDs of a pgmpy network.

    Returns
    -------
    schema, parents, tables

    Raises
    ------
    NetworkError
        A node has no CPD, or a CPD names its parents' states otherwise than the parents do themselves.
    """
    cpds = {str(node): model.get_cpds(node) for node in model.nodes()}
    if lacking := [name for name, cpd in cpds.items() if cpd is None]:
        raise NetworkError(f"the pgmpy network has no CPD for {shorten(lacking)}")
    states = {name: [state_name(state) for state in cpd.state_names[cpd.variable]] for name, cpd in cpds.items()}
    schema = Schema(tuple(Variable(name, tuple(own)) for name, own in states.items()))
    parents = {name: tuple(str(parent) for parent in cpd.variables[1:]) for name, cpd in cpds.items()}
    return schema, parents, {name: _child_last(cpd, states) for name, cpd in cpds.items()}


def _child_last(cpd: Any, states: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """Move the child's axis last and put every axis in the order of that variable's own states."""
    table = np.asarray(cpd.values, dtype=np.float64)
    for axis, variable in enumerate(cpd.variables):
        names = [state_name(state) for state in cpd.state_names[variable]]
        own = states[str(variable)]
        if sorted(names) == sorted(own):
            table = np.take(table, [names.index(state) for state in own], axis=axis)
        elif names != [str(code) for code in range(len(own))]:  # unnamed states are taken in their order
            raise NetworkError(f"{cpd.variable}: knows {variable} by other states than {variable} itself")
    return np.ascontiguousarray(np.moveaxis(table, 0, -1))
