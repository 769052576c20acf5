"""The page of a validation: every expectation in words, failures first; one file, nothing fetched from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, Literal

from bnpipe.source import Window

STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; color: #1b2733; background: #f4f6f8;
  margin: 0; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.5rem 4rem; }
h1 { font-size: 1.5rem; margin: 0; }
p.about { color: #52606d; margin: .2rem 0 1.4rem; }
.banner { border-radius: 8px; padding: .8rem 1.1rem; margin-bottom: 1.4rem; font-weight: 600; border-left: 6px solid; }
.banner.ok { background: #e3f1fb; border-color: #0072b2; }
.banner.warning { background: #fdf3d8; border-color: #e69f00; }
.banner.critical { background: #fbe4dc; border-color: #d55e00; }
h2 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
table { width: 100%; border-collapse: collapse; background: #fff; border-radius: 8px; overflow: hidden;
  box-shadow: 0 1px 2px rgb(0 0 0 / .12); }
th, td { text-align: left; vertical-align: top; padding: .45rem .8rem; border-top: 1px solid #e4e7eb; }
th { background: #e9edf1; border-top: 0; font-weight: 600; font-size: .85rem; }
td.column { font-weight: 600; white-space: nowrap; }
td.mark { white-space: nowrap; width: 6.5rem; }
.mark.ok { color: #005a8c; } .mark.warning { color: #8a5a00; } .mark.critical { color: #b34700; font-weight: 700; }
tr.critical td { background: #fdf3ef; } tr.warning td { background: #fefaf0; }
""".strip()

MARKS: Final = {"ok": "✓ met", "warning": "! warning", "critical": "✗ critical"}


@dataclass(frozen=True)
class Row:
    """One expectation in words.

    Parameters
    ----------
    column : str or None
        None for the table as a whole.
    kind : str
        Name in Great Expectations.
    expected, observed : str
        In a few words.
    severity : {"critical", "warning"}
        How bad it is if it is not met.
    met : bool
        Whether it is.
    """

    column: str | None
    kind: str
    expected: str
    observed: str
    severity: Literal["critical", "warning"]
    met: bool

    @property
    def level(self) -> str:
        """``ok``, or the severity."""
        return "ok" if self.met else self.severity


def render(name: str, *, rows: int, window: Window | None, checks: Sequence[Row]) -> str:
    """Give the page as HTML."""
    failed = sorted((check for check in checks if not check.met), key=lambda check: check.severity)
    about = f"{rows:,} rows, window {window}" if window else f"{rows:,} rows"
    parts = [f"<h1>Validation of {escape(name)}</h1>", f'<p class="about">{escape(about)}</p>', _banner(checks)]
    if failed:
        parts += ["<h2>Not met</h2>", _table(failed)]
    parts += ["<h2>All expectations</h2>", _table(checks)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>Validation of {escape(name)}</title>'
        f"<style>\n{STYLE}\n</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _banner(checks: Sequence[Row]) -> str:
    counts = {level: sum(check.level == level for check in checks) for level in MARKS}
    level = next((level for level in ("critical", "warning") if counts[level]), "ok")
    text = f"{counts['ok']} of {len(checks)} expectations met"
    if counts["critical"]:
        text = f"Stopped: {counts['critical']} critical, {counts['warning']} recorded as a warning; {text}."
    elif counts["warning"]:
        text = f"Passed with {counts['warning']} recorded as a warning; {text}."
    else:
        text = f"Passed: {text}."
    return f'<div class="banner {level}">{text}</div>'


def _table(checks: Sequence[Row]) -> str:
    head = "<tr><th>Column</th><th>Expected</th><th>Found</th><th></th></tr>"
    return f"<table>{head}\n{''.join(map(_line, checks))}</table>"


def _line(check: Row) -> str:
    cells = (
        f'<td class="column">{escape(check.column or "all rows")}</td>'
        f'<td title="{escape(check.kind)}">{escape(check.expected)}</td><td>{escape(check.observed)}</td>'
        f'<td class="mark {check.level}">{MARKS[check.level]}</td>'
    )
    return f'<tr class="{check.level}">{cells}</tr>\n'
