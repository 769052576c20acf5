"""Evidence as the kernels want it: codes of cells, and likelihoods of states."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, shorten
from bnpipe.schema import MISSING, Schema

Likelihood: TypeAlias = Mapping[str, ArrayLike]


@dataclass(frozen=True, eq=False)
class SoftEvidence:
    """Likelihoods of the states of some variables, divided by their peak in each row.

    Parameters
    ----------
    values : mapping of int to float64 (states, rows)
        Of each variable by number; C-contiguous.
    log_peak : float64 (rows,)
        Sum of the logs of the peaks taken out, nats; 0 where a peak was 0.
    """

    values: Mapping[int, NDArray[np.float64]]
    log_peak: NDArray[np.float64]

    @property
    def log_least(self) -> float:
        """Log of the product of the smallest positive entries, one a variable."""
        return sum(float(np.log(values[values > 0].min(initial=1.0))) for values in self.values.values())

    def select(self, rows: NDArray[np.int64]) -> SoftEvidence:
        """Keep some rows."""
        return SoftEvidence(
            {variable: values.take(rows, axis=1) for variable, values in self.values.items()},
            self.log_peak[rows],
        )


def encode(evidence: pd.DataFrame | Dataset, schema: Schema) -> NDArray[np.uint8]:
    """Encode evidence, uint8 (variables, rows).

    Raises
    ------
    EvidenceError
        Neither a frame nor a Dataset, or a Dataset whose states differ from the network's.
    """
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


def encode_cells(cells: Mapping[str, object], schema: Schema) -> NDArray[np.uint8]:
    """Encode the named cells of one row, uint8 (variables,); nulls are missing.

    Raises
    ------
    EvidenceError
        An unknown variable or state; it is named, with those there are.
    """
    codes = np.full(len(schema), MISSING, dtype=np.uint8)
    for name, value in cells.items():
        if name not in schema:
            raise EvidenceError(f"no variable {name!r} in the network; there are {shorten(schema.names)}")
        variable, place = schema[name], schema.index(name)
        if isinstance(value, str) and value in variable.states:
            codes[place] = variable.states.index(value)
            continue
        (code,), (strange,) = variable.encode(pd.Series([value], dtype=object))
        if strange and code == MISSING:
            raise EvidenceError(f"{name}: no state {value!r}; there are {shorten(variable.states)}")
        codes[place] = code
    return codes


def check_codes(codes: NDArray[np.uint8], schema: Schema) -> NDArray[np.uint8]:
    """Take codes (variables,) or (variables, rows) as (variables, rows), C-contiguous.

    Raises
    ------
    EvidenceError
        Another shape or type, or a code that is no state.
    """
    codes = np.asarray(codes)
    if codes.dtype != np.uint8 or codes.ndim not in (1, 2) or codes.shape[0] != len(schema):
        raise EvidenceError(
            f"codes must be uint8 ({len(schema)},) or ({len(schema)}, rows), got {codes.dtype} {codes.shape}"
        )
    table = np.ascontiguousarray(codes.reshape(codes.shape[0], -1))
    limits = _limits(schema.cardinalities)
    if not ((table < limits) | (table == MISSING)).all():
        odd = (table >= limits) & (table != MISSING)
        place = int(odd.any(axis=1).argmax())
        raise EvidenceError(
            f"{schema.names[place]}: code {int(table[place][odd[place]][0])} is no state; "
            f"there are {schema.cardinalities[place]}, and {MISSING} is missing"
        )
    return table


@functools.lru_cache(maxsize=64)
def _limits(cardinalities: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.array(cardinalities, dtype=np.uint8)[:, None]


def soft_evidence(likelihood: Likelihood, schema: Schema, rows: int) -> SoftEvidence:
    """Check likelihoods and bring them to one shape.

    Parameters
    ----------
    likelihood : mapping of str to array (states,) or (rows, states)
        Not negative, finite. Only their ratios matter to posteriors.
    schema : Schema
    rows : int

    Raises
    ------
    EvidenceError
        An unknown variable, a wrong shape, or values that are no likelihoods; the variable is named.
    """
    values, log_peak = {}, np.zeros(rows)
    for name, given in likelihood.items():
        if name not in schema:
            raise EvidenceError(f"no variable {name!r} to have a likelihood; there are {shorten(schema.names)}")
        try:
            table = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise EvidenceError(f"{name}: a likelihood must be numbers: {shorten([error])}") from error
        states = schema[name].cardinality
        if table.shape not in ((states,), (rows, states)):
            raise EvidenceError(
                f"{name}: a likelihood must have shape ({states},) or ({rows}, {states}), got {table.shape}"
            )
        if not np.isfinite(table).all() or (table.size and table.min() < 0):
            raise EvidenceError(f"{name}: a likelihood must be finite and not negative")
        peak = np.broadcast_to(table.max(axis=-1), (rows,))
        scale = np.where(peak > 0, peak, 1.0)
        values[schema.index(name)] = np.ascontiguousarray(np.broadcast_to(table, (rows, states)).T / scale)
        log_peak += np.log(scale)
    return SoftEvidence(values, log_peak)
