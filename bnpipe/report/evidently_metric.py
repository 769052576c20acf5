"""Our measure of each CPD as a metric of Evidently; imported where it is needed, since Evidently takes seconds.

``table_data`` is not in Evidently's public surface: the version is pinned.
"""

from __future__ import annotations

from typing import Any

from evidently.core.metric_types import ByLabelCalculation, ByLabelMetric, ByLabelValue
from evidently.legacy.renderers.html_widgets import table_data

from bnpipe.drift import DriftReport
from bnpipe.report.page import nats

HEAD = ("node", "its CPD", "p", "effect", "nats/row")


class CpdDrift(ByLabelMetric):
    """Effect of each known node; `lines` is the table that is shown."""

    effects: dict[str, float]
    lines: list[list[str]]

    @classmethod
    def of(cls, report: DriftReport) -> CpdDrift:
        """Take the numbers of a report."""
        nodes = sorted(report.nodes.values(), key=lambda node: (not node.flagged, node.p, -node.effect))
        lines = [
            [
                node.name,
                "CHANGED" if node.flagged else "calm",
                f"{node.p:.3g}",
                f"{node.effect:.3f}",
                nats(node.share),
            ]
            if node.known
            else [node.name, "unknown", "–", "–", "–"]
            for node in nodes
        ]
        return cls(effects={node.name: node.effect for node in nodes if node.known}, lines=lines)


class CpdDriftCalculation(ByLabelCalculation[CpdDrift]):
    """Shows what bnpipe found; Evidently's rows are not read."""

    def display_name(self) -> str:
        """Title of the table."""
        return "bnpipe: change of each conditional distribution"

    def calculate(self, context: Any, current_data: Any, reference_data: Any) -> ByLabelValue:
        """Give the effects, with the table as their picture."""
        result = self.result(dict(self.metric.effects))
        result.widget = [table_data(title=self.display_name(), column_names=HEAD, data=self.metric.lines)]
        return result
