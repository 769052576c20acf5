"""Evidently's own data-drift report, beside ours and with our CPD metric in it."""

from __future__ import annotations

from bnpipe.data import Dataset
from bnpipe.drift import DriftReport


def evidently_html(reference: Dataset, live: Dataset, report: DriftReport) -> str:
    """Write Evidently's page, which opens offline."""
    raise NotImplementedError
