"""Engines timed in turn, round by round, so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.child import Outcome


@dataclass(frozen=True)
class Timing:
    """What one engine took for one piece of work.

    Parameters
    ----------
    seconds : tuple of float
        Of each run that ended.
    failure : str
        Why the last run did not end; empty if all did.
    bound : float or None
        Seconds the run took at least that ran out of its limit.
    value : dict
        What the first run gave besides.
    """

    seconds: tuple[float, ...]
    failure: str
    bound: float | None
    value: Mapping[str, Any]

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> Timing:
        """Put the runs of an engine together; each outcome's value holds ``seconds``."""
        values = [outcome.value for outcome in outcomes if outcome.value is not None]
        last = outcomes[-1]
        return cls(tuple(value["seconds"] for value in values), last.failure, last.bound, values[0] if values else {})

    @property
    def median(self) -> float | None:
        """Seconds, None if no run ended."""
        return statistics.median(self.seconds) if self.seconds else None

    def __str__(self) -> str:
        if self.median is None:
            return self.failure
        spread = "" if len(self.seconds) == 1 else f" ({duration(min(self.seconds))} to {duration(max(self.seconds))})"
        return duration(self.median) + spread


@dataclass(frozen=True)
class Ratio:
    """How many times as long a peer takes; a lower bound if it ran out of its limit; None if unknown."""

    value: float | None
    bound: bool = False

    @classmethod
    def of(cls, peer: Timing, ours: Timing) -> Ratio:
        """Compare medians."""
        if ours.median is None:
            return cls(None)
        if peer.median is not None:
            return cls(peer.median / ours.median)
        return cls(None) if peer.bound is None else cls(peer.bound / ours.median, bound=True)

    def __str__(self) -> str:
        if self.value is None:
            return "–"
        return ("> " if self.bound else "") + f"{_three_digits(self.value)} ×"


def alternate(
    jobs: Mapping[str, Callable[[], Outcome]],
    *,
    repeats: int,
    enough: float,
    begun: Mapping[str, Outcome] | None = None,
) -> dict[str, Timing]:
    """Run every job in turn, `repeats` rounds.

    A job that failed is not run again, nor one whose runs took more than `enough` seconds together. What was `begun`
    is a job's first run.
    """
    outcomes = {name: [begun[name]] if begun and name in begun else [] for name in jobs}
    for done_rounds in range(repeats):
        for name, job in jobs.items():
            done = outcomes[name]
            if len(done) > done_rounds:
                continue
            failed = any(outcome.failure for outcome in done)
            if not failed and sum(outcome.value["seconds"] for outcome in done if outcome.value) <= enough:
                done.append(job())
    return {name: Timing.of(done) for name, done in outcomes.items()}


def duration(seconds: float) -> str:
    """Write seconds to three digits.

    Examples
    --------
    >>> [duration(seconds) for seconds in (0.00001234, 0.0123, 1.234, 123.4)]
    ['12.3 µs', '12.3 ms', '1.23 s', '123 s']
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size or unit == "µs":
            break
    return f"{_three_digits(seconds / size)} {unit}"


def count(number: float) -> str:
    """Write a large number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")


def _three_digits(number: float) -> str:
    if number >= 1000:
        return count(number)
    return f"{number:#.3g}".rstrip(".")
