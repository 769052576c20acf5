"""What a part of the benchmarks found: tables and targets, kept as JSON and rendered by `report`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """A title, the names of the columns, rows of text, and what to know about them."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Target:
    """What was asked of one piece of work, and what was measured.

    Parameters
    ----------
    work : str
    needed : float
    measured : float or None
        None: not measured in this run.
    unit : str
        ``"×"``, ``"%"``, ``"s"``, …
    at_least : bool
        Whether more is better.
    bound : bool
        Whether `measured` is only a lower bound, because the peer ran out of its limit.
    """

    work: str
    needed: float
    measured: float | None
    unit: str
    at_least: bool = True
    bound: bool = False

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``not decided`` (only a bound is known) or ``not measured``."""
        if self.measured is None or math.isnan(self.measured):
            return "not measured"
        if (self.measured >= self.needed) if self.at_least else (self.measured <= self.needed):
            return "met"
        return "not decided" if self.bound else "missed"

    @property
    def asked(self) -> str:
        """The condition as text."""
        return f"{'≥' if self.at_least else '≤'} {self.needed:g} {self.unit}"

    @property
    def found(self) -> str:
        """The measurement as text."""
        if self.measured is None or math.isnan(self.measured):
            return "–"
        digits = f"{self.measured:.3g}" if abs(self.measured) < 1000 else f"{self.measured:.0f}"
        return f"{'> ' if self.bound else ''}{digits} {self.unit}"


@dataclass(frozen=True)
class Conditions:
    """Where and with what a part was measured.

    Parameters
    ----------
    day : str
    machine : str
        Cores, memory, processor features.
    versions : dict of str to str
    load : float
        Cores that others kept busy when it began.
    """

    day: str
    machine: str
    versions: Mapping[str, str]
    load: float


@dataclass(frozen=True)
class PartResult:
    """One section of the report.

    Parameters
    ----------
    part : str
        Its name on the command line.
    title : str
    text : str
        How it was measured; Markdown.
    tables : tuple of Table
    targets : tuple of Target
    figure : str
        SVG; empty without.
    """

    part: str
    title: str
    text: str
    tables: tuple[Table, ...]
    targets: tuple[Target, ...] = ()
    figure: str = ""


def write_result(path: Path, result: PartResult, conditions: Conditions) -> None:
    """Keep a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"result": asdict(result), "conditions": asdict(conditions)}, indent=1, ensure_ascii=False)
    path.write_text(text, encoding="utf-8")


def read_result(path: Path) -> tuple[PartResult, Conditions]:
    """Read what :func:`write_result` kept."""
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    fields = kept["result"]
    tables = tuple(
        Table(table["title"], tuple(table["columns"]), tuple(tuple(row) for row in table["rows"]), table["note"])
        for table in fields["tables"]
    )
    targets = tuple(Target(**target) for target in fields["targets"])
    return PartResult(**{**fields, "tables": tables, "targets": targets}), Conditions(**kept["conditions"])
