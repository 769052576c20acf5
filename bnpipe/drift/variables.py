"""What is kept beside the CPDs: marginals, missing cells, unseen values, configurations that are new or thin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from bnpipe.counts import FamilyCounts
from bnpipe.drift.records import VariableDrift
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    from bnpipe.data import Dataset
    from bnpipe.network import Network

_THIN: Final = 5
"""Reference rows below which a configuration is thin."""


def compare_variable(network: Network, live: Dataset, name: str, live_counts: FamilyCounts) -> VariableDrift:
    """Describe the live cells of one variable; `live_counts` are those of its family."""
    place = network.schema.index(name)
    column, states = live.column(name), network.schema[name].cardinality
    known = column[column != MISSING]
    now = np.bincount(known, minlength=states)[:states] / max(known.size, 1)
    reference = network.family_counts(name).total()
    before = reference.sum(axis=0) / max(int(reference.sum()), 1)
    shift = 0.5 * float(np.abs(now - before).sum()) if known.size else 0.0
    unseen = 0.0 if live.unseen is None or not live.rows else float(live.unseen[place].mean())
    traffic, learned = live_counts.total().sum(axis=1), reference.sum(axis=1)
    rows = max(int(traffic.sum()), 1)
    return VariableDrift(
        name,
        marginal_shift=shift,
        missing=float((column == MISSING).mean()) if live.rows else 0.0,
        unseen=unseen,
        new_configurations=float(traffic[learned == 0].sum()) / rows,
        thin_configurations=float(traffic[(learned > 0) & (learned < _THIN)].sum()) / rows,
    )
