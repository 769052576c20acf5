"""A circuit breaker: after too many failures a version is left alone for a while, then tried with one call.

References
----------
Nygard, M. (2018). Release It!, 2nd edition, chapter 5.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Literal

from bnpipe.config.serving import BreakerSpec

State = Literal["closed", "open", "half-open"]


class Breaker:
    """Counts the last calls of one version. Threads may share it.

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
        self._tried: float | None = None
        self._lock = threading.Lock()

    @property
    def state(self) -> State:
        """Where it is."""
        opened = self._opened
        if opened is None:
            return "closed"
        return "half-open" if self.clock() - opened >= self.spec.pause else "open"

    def allows(self) -> bool:
        """Tell whether a call may be made; half-open, only the first one asked for is."""
        if self._opened is None:
            return True
        with self._lock:
            if self.state == "closed":
                return True
            now = self.clock()
            if self.state == "open" or (self._tried is not None and now - self._tried < self.spec.pause):
                return False
            self._tried = now  # one that is never heard of again is forgotten after another pause
            return True

    def record(self, *, seconds: float, failed: bool) -> None:
        """Note how a call went; what comes late, from before it opened, decides nothing."""
        bad = failed or seconds >= self.spec.slow
        with self._lock:
            if self._opened is None:
                self._failed.append(bad)
                if len(self._failed) == self.spec.of and sum(self._failed) >= self.spec.failures * self.spec.of:
                    self._opened = self.clock()
                    self._failed.clear()
            elif self._tried is not None:
                self._tried = None
                self._opened = self.clock() if bad else None

    def abandon(self) -> None:
        """Take back an allowed call that was never made."""
        with self._lock:
            self._tried = None
