"""Figures and pages for people: the network drawn, its calibration, one training and one look for drift on one page."""

from __future__ import annotations

from bnpipe.report.calibration import calibration_figure, calibration_png
from bnpipe.report.drift import drift_report
from bnpipe.report.evidently_report import evidently_html
from bnpipe.report.graph import NodeLook, draw_network, network_png
from bnpipe.report.training import training_report

__all__ = [
    "NodeLook",
    "calibration_figure",
    "calibration_png",
    "draw_network",
    "drift_report",
    "evidently_html",
    "network_png",
    "training_report",
]
