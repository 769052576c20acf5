"""Figures and pages for people: the network drawn, its calibration, one training on one page."""

from __future__ import annotations

from bnpipe.report.calibration import calibration_figure, calibration_png
from bnpipe.report.graph import draw_network, network_png
from bnpipe.report.training import training_report

__all__ = ["calibration_figure", "calibration_png", "draw_network", "network_png", "training_report"]
