"""A shadow that fails or is slow is halted by what a worker logged of it, on the whole way to the ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from registry_bench import add_versions, make_network
from serving_bench import TARGETS, put_version, reign

from bnpipe.answers import Journal
from bnpipe.answers.records import Record
from bnpipe.cli import main
from bnpipe.config import ModelSpec, load_spec
from bnpipe.config.serving import ServingSpec
from bnpipe.registry import Registry
from bnpipe.serving.access import ANONYMOUS, Access
from bnpipe.serving.routing import Canary
from bnpipe.serving.service import Service
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.versions import ServedVersion
from bnpipe.steps.canary import CanaryStep, canary_start, canary_step

SPEC = """\
name: flights
owner: gate-4
description: Who is late.
source: {connection: local, path: flights.parquet, timestamp: at, time_zone: UTC}
window: {train: 40d, held_out: 14d}
variables:
  rain: {states: ["no", "yes"]}
  late: {states: ["false", "true"]}
targets:
  late: {tolerance: 0.05}
promotion: {policy: auto, rope: 0.03}
schedule: "0 3 * * *"
canary: {}
"""
SECONDS = 0.1
"""What a call of the champion's engine is taken to last longer than it does: much beside what a busy machine adds."""


@dataclass
class Dated:
    """A journal of another day."""

    journal: Journal
    later: timedelta

    def append(self, records: list[Record]) -> None:
        """Keep them as if they had been made then."""
        self.journal.append([msgspec.structs.replace(record, at=record.at + self.later) for record in records])


@dataclass
class Ahead:
    """A clock that calls of the engine move on."""

    seconds: float = 0.0

    def perf_counter(self) -> float:
        """Tell the time, and what they added."""
        return time.perf_counter() + self.seconds

    monotonic = staticmethod(time.monotonic)


@dataclass
class Shadowed:
    """Version 1 is champion of what a worker serves, version 2 is its shadow."""

    folder: Path
    spec: ModelSpec
    clock: Ahead

    def serve(self, day: int, *, slower: float = 1.0, fails: bool = False) -> list[str]:
        """Answer requests as if some days later; give their ids."""
        shelf = Shelf(self.folder / "cache", spec := ServingSpec(answers_cached=0))
        shelf.refresh()
        with Journal(self.folder / "answers" / "journal", f"day-{day}") as journal:
            service = Service(spec, shelf, Access((), anonymous=True), Dated(journal, timedelta(days=day)))
            ask_engine, seconds = service.batcher.ask, {1: SECONDS, 2: slower * SECONDS}

            def ask(version: ServedVersion, *question: Any) -> Any:
                self.clock.seconds += seconds[version.number]
                if fails and version.number == 2:
                    raise RuntimeError(str(question))
                return ask_engine(version, *question)

            service.batcher.ask = ask
            return asyncio.run(self._ask(service))

    @staticmethod
    async def _ask(service: Service) -> list[str]:
        ids = []
        for rain, wind, _ in product(("no", "yes"), (1, 2, 3), range(8)):
            body = json.dumps({"rows": [{"rain": rain, "wind": wind}]}).encode()
            reply = await service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock())
            assert (reply.arm, reply.version) == ("champion", 1)
            ids.append(reply.request_id)
        await service.drain()
        return ids

    def step(self, day: int) -> tuple[CanaryStep, Mapping[str, Any]]:
        """Look at it, some days later; give its verdict on latency, too."""
        now = datetime.now(UTC) + timedelta(days=day, minutes=1)
        found = canary_step(self.spec, actor="schedule", answers=self.folder / "answers", now=now)
        return found, next(verdict for verdict in found.verdicts if verdict["gate"] == "latency")


@pytest.fixture
def shadowed(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shadowed:
    monkeypatch.setattr("bnpipe.serving.batching.time", clock := Ahead())
    add_versions(mlflow_uri, "flights", 2)
    registry = Registry(mlflow_uri)
    registry.promote("flights", 1, actor="eve", reason="first")
    (tmp_path / "flights.yaml").write_text(SPEC)
    found = Shadowed(tmp_path, load_spec(tmp_path / "flights.yaml"), clock)
    canary_start(found.spec, 2, actor="eve", reason="try it", shadow=1.0)
    versions = {
        number: put_version(tmp_path / "cache", "flights", number, make_network(), TARGETS) for number in (1, 2)
    }
    reign(tmp_path / "cache", 1, versions, canary=Canary.of(registry.canary("flights")))
    return found


def test_a_challenger_that_raises_is_halted_within_the_day(shadowed: Shadowed, mlflow_uri: str, capsys: Any) -> None:
    """Nobody heard it, so nothing but the log could tell; `bnpipe audit` tells it of each request."""
    (request, *_) = shadowed.serve(0, fails=True)
    found, _ = shadowed.step(0)
    assert found.action == "halt"
    assert found.reason.startswith("errors: fail, 48 of the challenger's 48 rows were not answered by it: 100.00%")
    assert Registry(mlflow_uri).canary("flights") is None
    assert main(["audit", request, "--answers", str(shadowed.folder / "answers")]) == 0
    said = capsys.readouterr().out
    assert "flights 1 as champion" in said
    assert "flights 2 as shadow" in said
    assert "answer    none: it failed (RuntimeError)" in said


def test_a_challenger_three_times_slower_is_halted_after_two_days(shadowed: Shadowed, mlflow_uri: str) -> None:
    """After the first it waits: what one day saw may have been that day's."""
    for day, action in ((0, "wait"), (1, "halt")):
        shadowed.serve(day, slower=3.0)
        found, latency = shadowed.step(day)
        assert found.action == action, latency["reason"] + found.reason
    assert found.reason.startswith("latency: fail")
    assert latency["statistic"] > 0.8
    assert Registry(mlflow_uri).canary_entries("flights")[-1].state.status == "halted"


def test_an_equal_challenger_is_not(shadowed: Shadowed, mlflow_uri: str) -> None:
    """Its calls are compared, and few took more than twice as long."""
    for day in (0, 1):
        shadowed.serve(day)
    found, latency = shadowed.step(1)
    assert (found.action, latency["outcome"]) == ("wait", "pass")
    assert latency["statistic"] < 0.3
    assert Registry(mlflow_uri).canary("flights") is not None
