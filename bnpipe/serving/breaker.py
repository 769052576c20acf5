"""A circuit breaker: after too many failures a model is left alone for a while, then tried with one call.

References
----------
Nygard, M. (2018). Release It!, 2nd edition, chapter 5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from bnpipe.config.serving import BreakerSpec

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Counts the last calls of one version.

    Parameters
    ----------
    spec : BreakerSpec
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, spec: BreakerSpec, clock: Callable[[], float]) -> None:
        self.spec, self.clock = spec, clock
        self._failed: deque[bool] = deque(maxlen=spec.of)
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        """Where it is."""
        if self._opened is None:
            return "closed"
        return "half-open" if self.clock() - self._opened >= self.spec.pause else "open"

    def allows(self) -> bool:
        """Tell whether a call may be made; half-open, only the first one asked for is."""
        state = self.state
        if state == "closed":
            return True
        if state == "open" or self._trying:
            return False
        self._trying = True
        return True

    def record(self, *, seconds: float, failed: bool) -> None:
        """Note how a call went."""
        bad = failed or seconds >= self.spec.slow
        if self._opened is not None:
            self._trying = False
            self._opened = self.clock() if bad else None
            self._failed.clear()
            return
        self._failed.append(bad)
        if len(self._failed) == self.spec.of and sum(self._failed) >= self.spec.failures * self.spec.of:
            self._opened = self.clock()

    def abandon(self) -> None:
        """Take back an allowed call that was never made."""
        self._trying = False
