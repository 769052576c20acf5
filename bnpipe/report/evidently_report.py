"""Evidently's own data-drift report, beside ours and with our measure of each CPD in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bnpipe.data import Dataset
from bnpipe.drift import DriftReport
from bnpipe.errors import DataError
from bnpipe.schema import MISSING

if TYPE_CHECKING:
    import pandas as pd

_METHOD: Final = "jensenshannon"
"""A distance. Evidently's default on small samples is a chi-squared test that takes the reference as exact."""
_POLICY: Final = (
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline' "
    "'unsafe-eval'; style-src 'unsafe-inline'; font-src data:; img-src data: blob:\">"
)
_SCRIPTS: Final = "<script>var global = globalThis</script>"


def evidently_html(reference: Dataset, live: Dataset, report: DriftReport) -> str:
    """Write Evidently's comparison of the marginals, with the effects of `report` as a metric of it.

    Parameters
    ----------
    reference, live : Dataset
        Rows the champion learned from, and those compared with it. Variables without any value on a side are left out.
    report : DriftReport

    Returns
    -------
    str
        A page of some 4 MB whose scripts and fonts are in it; its own policy forbids it to load anything.

    Raises
    ------
    DataError
        No variable has values on both sides.

    Notes
    -----
    Its verdicts are for reading, never for acting: rows of a day are not independent and it takes them so.
    """
    from evidently import DataDefinition, Report
    from evidently import Dataset as Rows
    from evidently.presets import DataDriftPreset

    from bnpipe.report.evidently_metric import CpdDrift

    names = [name for name in live.schema.names if _has_values(reference, name) and _has_values(live, name)]
    if not names:
        raise DataError("no variable has values both in the reference and in the live rows: there is nothing to draw")
    definition = DataDefinition(categorical_columns=names)
    current, past = (Rows.from_pandas(_frame(rows, names), data_definition=definition) for rows in (live, reference))
    preset = DataDriftPreset(cat_method=_METHOD)
    return _offline(Report([CpdDrift.of(report), preset]).run(current, past).get_html_str(as_iframe=False))


def _has_values(rows: Dataset, name: str) -> bool:
    return bool((rows.column(name) != MISSING).any())


def _frame(rows: Dataset, names: list[str]) -> pd.DataFrame:
    """Give the columns as text; Evidently stumbles over categories."""
    return rows.project(names).to_pandas().astype(object)


def _offline(page: str) -> str:
    """Forbid the page to load anything, and keep states such as ``</script>`` from ending its data."""
    start, end = page.index("<script>"), page.rindex("</script>", 0, page.rindex(_SCRIPTS))
    data = page[start + len("<script>") : end].replace("<", "\\u003c")
    head = page[:start].replace("<head>", f"<head>{_POLICY}", 1)
    return head + "<script>" + data + page[end:]
