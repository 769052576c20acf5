"""What the tests of the registry share."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

import bnpipe
from bnpipe.network import Network
from bnpipe.registry import LedgerEntry, Registry
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
    """Register versions that hold a network, beside MLflow's database, and no more: no run, no upload."""
    connection = Connection(uri)
    Ledger(connection).ensure(model)
    for _ in range(count):
        folder = Path(uri.removeprefix("sqlite:///")).parent / "versions" / uuid.uuid4().hex
        (folder / "artifacts").mkdir(parents=True)
        (folder / "artifacts" / "network.json").write_text(network_json())
        connection.client.create_model_version(model, folder.as_uri(), tags={"bnpipe.verdict": "pass"} | tags)


def remove_files(registry: Registry, model: str, version: int) -> None:
    """Delete what a version holds, as a cleaning of the artifact store does."""
    folder = registry.connection.client.get_model_version_download_uri(model, str(version)).removeprefix("file://")
    (Path(folder) / "artifacts" / "network.json").unlink()


def check_agreement(registry: Registry, model: str = "flights") -> tuple[LedgerEntry, ...]:
    """Ledger and alias agree, numbers have no gaps, and each move begins where the last one ended."""
    entries = registry.history(model)
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    done = [entry for entry in entries if entry.outcome == "done"]
    assert [entry.source for entry in done] == [None, *(entry.to for entry in done)][: len(done)]
    assert registry.ledger.alias(model) == (done[-1].to if done else None)
    assert not [entry for entry in entries if entry.outcome == "open"]
    return entries


@cache
def network_json() -> str:
    """The file of the network over :func:`make_rows`."""
    return make_network().to_json()


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
