"""The answer of every gate: what was asked, what was measured, what was decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bnpipe.errors import FormatError

Outcome = Literal["pass", "fail", "undecided", "incomparable", "superseded"]
Kind = Literal["absolute", "relative"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One gate's answer.

    Parameters
    ----------
    gate : str
        Name of the gate, as in the spec (``max_impossible_share``) or the rule (``challenger``).
    outcome : {"pass", "fail", "undecided", "incomparable", "superseded"}
        Only ``pass`` lets a version through.
    reason : str
        One sentence for a person, with the numbers that decided.
    kind : {"absolute", "relative"}
        A failing absolute gate fails the run; a relative one only holds the version back.
    statistic, threshold : float or None
        What was measured and what it was held against, both in `unit`.
    interval : tuple of float or None
        Confidence interval of `statistic`.
    unit : str
        ``nats/row``, ``share``, ``rows`` or empty.
    """

    gate: str
    outcome: Outcome
    reason: str
    kind: Kind = "absolute"
    statistic: float | None = None
    threshold: float | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether this gate lets the version through."""
        return self.outcome == "pass"

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields; a number that is not finite becomes its text (JSON has none)."""
        return {key: _writable(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Verdict:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        FormatError
            A field is missing or unknown.
        """
        try:
            values = dict(fields)
            for name in ("statistic", "threshold"):
                if values.get(name) is not None:
                    values[name] = float(values[name])
            if values.get("interval") is not None:
                low, high = values["interval"]
                values["interval"] = (float(low), float(high))
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise FormatError(f"not a verdict: {error}") from error


def _writable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, tuple):
        return [_writable(item) for item in value]
    return value
