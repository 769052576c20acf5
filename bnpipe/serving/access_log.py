"""A line in the log for each request, or only for those that failed or were slow: never a row, never a key."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from bnpipe.config.serving import LogSpec
from bnpipe.serving.observing import Finished

_MOST: Final = 50
"""Lines a second about requests that failed or were slow: a flood of them must not become a flood of lines."""

_log = logging.getLogger("bnpipe.serving.access")


class AccessLog:
    """Writes lines as the serving file says.

    Parameters
    ----------
    spec : LogSpec
    clock : callable
        Seconds that only grow.
    """

    def __init__(self, spec: LogSpec, clock: Callable[[], float] = time.monotonic) -> None:
        self._all, self._failed = spec.requests == "all", spec.requests == "failed"
        self._slow, self._clock = spec.slow, clock
        self._second, self._lines, self._withheld = 0, 0, 0

    def __call__(self, done: Finished) -> None:
        """Hear of a request."""
        if not (self._all or (self._failed and done.status >= 400) or done.seconds >= self._slow):
            return
        if not self._all and not self._may():
            self._withheld += 1
            return
        fields = {name: value for name, value in msgspec.structs.asdict(done).items() if value not in {"", 0}}
        if self._withheld:
            fields["withheld"], self._withheld = self._withheld, 0
        level = logging.WARNING if done.status >= 500 else logging.INFO
        _log.log(level, "%s %d", done.endpoint, done.status, extra={"fields": fields})

    def _may(self) -> bool:
        """Whether this second has room for another line."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        return self._lines <= _MOST
