"""What all pages share: how a template is filled, an outcome's colour and sign, a number in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnpipe.verdict import Verdict

Pairs = Sequence[tuple[str, str]]

TONES = {
    "pass": ("good", "✓"),
    "fail": ("bad", "✗"),
    "promote": ("good", "✓"),
    "await approval": ("open", "…"),
    "left to MLflow": ("open", "…"),
    "canary": ("open", "…"),
    "held": ("open", "="),
    "refused": ("bad", "✗"),
    "nothing": ("good", "="),
    "hold": ("bad", "✗"),
    "roll back": ("bad", "↩"),
    "refit": ("open", "↻"),
    "relearn": ("open", "↻"),
    "changed": ("bad", "▲"),
    "calm": ("good", "="),
}


@dataclass(frozen=True, slots=True)
class Badge:
    """An outcome with its colour and sign; the sign tells it apart without colour."""

    gate: str
    outcome: str
    reason: str

    @property
    def tone(self) -> str:
        """Class of its colours."""
        return TONES.get(self.outcome, ("open", "?"))[0]

    @property
    def sign(self) -> str:
        """One character."""
        return TONES.get(self.outcome, ("open", "?"))[1]


def badges(verdicts: Iterable[Verdict]) -> list[Badge]:
    """Give the badge of each verdict."""
    return [Badge(verdict.gate, verdict.outcome, verdict.reason) for verdict in verdicts]


def count(number: int) -> str:
    """Write a whole number in groups of three digits."""
    return f"{number:,}".replace(",", "\u202f")  # narrow blank: the same in every language


def nats(value: float) -> str:
    """Write nats a row with four decimals."""
    return f"{round(value, 4) + 0.0:.4f}"  # no "-0.0000"


def render(template: str, **values: Any) -> str:
    """Fill a template of this package; all texts are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent / "templates"
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(template).render(**values)
