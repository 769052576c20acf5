"""What the tests of the registry share."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bnpipe.registry.client import Connection
from bnpipe.registry.ledger import Ledger


class Killed(BaseException):
    """The process died here: nothing below may catch it."""


@dataclass
class Clock:
    """Wall-clock time that tests may move on."""

    ahead: float = 0.0

    def __call__(self) -> float:
        """Give seconds since 1970."""
        return time.time() + self.ahead


def add_versions(uri: str, model: str, count: int, **tags: str) -> None:
    """Register versions without files, which is all that aliases and the ledger look at."""
    connection = Connection(uri)
    Ledger(connection).ensure(model)
    for _ in range(count):
        connection.client.create_model_version(model, "file:///nowhere", tags={"bnpipe.verdict": "pass"} | tags)
