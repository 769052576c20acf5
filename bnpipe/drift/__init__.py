"""Drift of conditional distributions: which CPDs of live rows are not those of the registered network."""

from bnpipe.drift.comparison import compare_cpds, fewest_replays, look_level
from bnpipe.drift.records import AddedArc, DriftReport, NodeDrift, RowDrift, VariableDrift

__all__ = [
    "AddedArc",
    "DriftReport",
    "NodeDrift",
    "RowDrift",
    "VariableDrift",
    "compare_cpds",
    "fewest_replays",
    "look_level",
]
