"""Figures and pages for people: the network drawn, its calibration, one training on one page."""
