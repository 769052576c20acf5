"""Results as tables on the terminal, and as sections of docs/benchmarks.md that can be written one by one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.machine import BUSY
from benchmarks.results import Conditions, PartResult, Table, Target

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
_HEAD: Final = """# Benchmarks

bnpipe, pgmpy and pyAgrum on the same rows in the same run. `make bench` writes this page, `make bench ARGS=search` one
section of it, and `make bench ARGS=--help` lists the parts. Nothing here is typed by hand: whether a target is met is
computed from the numbers beside it. Targets are those of the design; a ratio says how many times as long the peer
takes. "> 150 s" means that a peer was ended then, "> 40 ×" that the ratio is at least that, "–" that there is no
number. Drift and the nightly retrain of the example are not measured here yet.
"""
_FIGURE: Final = "benchmarks-{part}.svg"
_MARK: Final = "<!-- part: {part} -->"


def show(result: PartResult, console: Console) -> None:
    """Print a result."""
    console.rule(result.title)
    for table in _tables(result):
        drawn = RichTable(title=table.title, box=box.SIMPLE_HEAD, title_justify="left", caption=table.note or None)
        for column in table.columns:
            drawn.add_column(column)
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def section(result: PartResult, conditions: Conditions) -> str:
    """Render a result as Markdown."""
    lines = [_MARK.format(part=result.part), f"## {result.title}", "", result.text, ""]
    if result.figure:
        lines += [f"![{result.title}]({_FIGURE.format(part=result.part)})", ""]
    for table in _tables(result):
        lines += [f"### {table.title}", "", *(_markdown(table) if table.rows else ["None."]), ""]
        if table.note:
            lines += [table.note, ""]
    versions = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    others = f"others kept {conditions.load:.2f} cores busy when it began"
    measured = f"Measured on {conditions.day}: {conditions.machine}; {versions}; {others}."
    if conditions.load > BUSY:
        measured += " **Something else was running: the seconds are too long.**"
    return "\n".join([*lines, f"*{measured}*", ""])


def write_section(page: Path, result: PartResult, conditions: Conditions, order: tuple[str, ...]) -> None:
    """Put a section in its place on the page and leave the others as they are."""
    sections = _sections(page.read_text(encoding="utf-8")) if page.exists() else {}
    sections[result.part] = section(result, conditions)
    kept = [sections[part] for part in (*order, *sorted(set(sections) - set(order))) if part in sections]
    page.parent.mkdir(parents=True, exist_ok=True)
    if result.figure:
        (page.parent / _FIGURE.format(part=result.part)).write_text(result.figure, encoding="utf-8")
    page.write_text("\n".join([_HEAD, *kept]), encoding="utf-8")


def _sections(text: str) -> dict[str, str]:
    pieces = re.split(r"^<!-- part: (\w+) -->\n", text, flags=re.MULTILINE)[1:]
    return {
        part: f"{_MARK.format(part=part)}\n{body.rstrip()}\n"
        for part, body in zip(pieces[::2], pieces[1::2], strict=True)
    }


def _tables(result: PartResult) -> list[Table]:
    """Targets come first."""
    return [*([_targets(result.targets)] if result.targets else []), *result.tables]


def _targets(targets: tuple[Target, ...]) -> Table:
    rows = tuple((target.work, target.asked, target.found, target.verdict) for target in targets)
    return Table("Targets", ("work", "asked", "measured", ""), rows)


def _markdown(table: Table) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(table.columns), line(("---",) * len(table.columns)), *(line(row) for row in table.rows)]
