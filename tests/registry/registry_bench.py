"""What the tests of the registry share."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

import bnpipe
from bnpipe.network import Network
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


def make_rows(rows: int = 400) -> pd.DataFrame:
    """Four variables of four types: text, integers, truth values, and one with awkward names of states."""
    rng = np.random.default_rng(7)
    rain = rng.choice(["no", "yes"], rows)
    wind = rng.choice([1, 2, 3], rows)
    late = np.where(rng.random(rows) < 0.8, rain == "yes", wind == 3)
    note = np.where(late, "delay, >= 15 min", "on time")
    return pd.DataFrame({"rain": rain, "wind": wind, "late": late, "note": note})


def make_network(rows: int = 400) -> Network:
    """A network over :func:`make_rows`; some evidence is impossible under it: late and on time."""
    parents = {"rain": (), "wind": (), "late": ("rain", "wind"), "note": ("late",)}
    return bnpipe.fit(bnpipe.Dataset.from_pandas(make_rows(rows)), parents)
