"""`bnpipe serve` as it is run: processes, a real registry, promotions, restarts, stops."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from registry_bench import add_versions

from bnpipe.answers import rows as logged_rows
from bnpipe.registry import Registry

ROW = {"rows": [{"rain": "yes"}]}


@dataclass
class Server:
    """A running service."""

    address: str
    process: subprocess.Popen[str]
    log: Path

    def ask(self, path: str = "/v1/models/flights/posterior", **more: Any) -> requests.Response:
        """Ask over a connection of its own, so that any worker may answer."""
        return requests.post(self.address + path, json={**ROW, **more}, timeout=30)

    def wait_for(self, truth: Callable[[], Any], seconds: float = 60.0) -> Any:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(requests.RequestException):
                if found := truth():
                    return found
            assert time.monotonic() < end, f"not within {seconds} s; the log ends: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def versions(self) -> set[int]:
        """Who answers, of all workers: sixteen connections miss one of two with probability 3e-5."""
        return {self.ask().json().get("version", 0) for _ in range(16)}

    def stop(self) -> int:
        """Stop as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def serving(folder: Path, tracking: str, *, config: str = "") -> Iterator[Server]:
    """Run it in a folder of its own, until it is ready."""
    (folder / "serving.yaml").write_text(f"poll: 0.2\n{config}")
    log = folder / f"serve-{time.monotonic_ns()}.log"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking, "BNPIPE_STORE": str(folder / "store")}
    command = [sys.executable, "-m", "bnpipe.cli", "serve", "--config", "serving.yaml", "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment, cwd=folder
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + log.read_text()
        server = Server(found[0], process, log)
        server.wait_for(lambda: requests.get(f"{server.address}/ready", timeout=5).status_code == 200)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
        assert process.stdout is not None
        process.stdout.close()


def promote(registry: Registry, number: int) -> None:
    """Make a version champion."""
    registry.promote("flights", number, actor="eve", reason="test", key=f"to {number}")


def test_it_follows_the_registry_and_lives_without_it(mlflow_uri: str, tmp_path: Path) -> None:
    """A promotion reaches every worker without a failed request; with MLflow gone it starts from its cache.

    What was asked is in the log of answers, whoever answered, after it has stopped.
    """
    add_versions(mlflow_uri, "flights", 3)
    registry = Registry(mlflow_uri)
    promote(registry, 1)
    with serving(tmp_path, mlflow_uri) as server:
        assert server.versions() == {1}
        statuses: list[int] = []
        done = threading.Event()

        def keep_asking() -> None:
            with requests.Session() as session:
                while not done.is_set():
                    found = session.post(f"{server.address}/v1/models/flights/posterior", json=ROW, timeout=30)
                    statuses.append(found.status_code)

        asker = threading.Thread(target=keep_asking)
        asker.start()
        promote(registry, 2)
        server.wait_for(lambda: server.versions() == {2})
        done.set()
        asker.join()
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert server.ask("/v1/models/flights/posterior?version=1").json()["arm"] == "pinned"
        assert server.ask("/v1/models/flights/posterior?version=3").status_code == 404
        assert server.ask("/invocations").status_code == 422
        assert server.stop() == 0
    day = time.time()
    with serving(tmp_path, "http://127.0.0.1:9") as server:  # nothing listens there
        assert server.versions() == {2}

        def without_registry() -> dict[str, Any] | None:
            found = requests.get(f"{server.address}/health", timeout=30).json()
            return found if "did not answer" in found["registry"] else None

        health = server.wait_for(without_registry)
        assert health["models"]["flights"]["champion"] == 2
        assert server.stop() == 0
    from datetime import UTC, datetime, timedelta

    at = datetime.fromtimestamp(day, UTC)
    table = logged_rows(tmp_path / "store" / "answers", "flights", at - timedelta(days=1), at + timedelta(days=1))
    assert table.num_rows >= len(statuses) + 16 + 16
    assert {1, 2} == set(table["_version"].to_pylist())


def test_a_stop_finishes_what_is_held(mlflow_uri: str, tmp_path: Path) -> None:
    """SIGTERM while a long question is worked on: it is answered, and no new connection is."""
    add_versions(mlflow_uri, "flights", 1)
    promote(Registry(mlflow_uri), 1)
    config = "workers: 1\nlimits: {deadline: 60.0, cost: 1.0e+12, rows: 100000}\nbreaker: {slow: 60.0}\n"
    with serving(tmp_path, mlflow_uri, config=config) as server:
        found: list[requests.Response] = []
        many = {"rows": [{"rain": "yes", "wind": 1}] * 20_000, "interval": 0.9}

        def ask() -> None:
            found.append(requests.post(f"{server.address}/v1/models/flights/posterior", json=many, timeout=120))

        asker = threading.Thread(target=ask)
        asker.start()
        time.sleep(1.0)
        assert not found, "it is still being worked on"
        assert server.stop() == 0
        asker.join(10)
        assert [reply.status_code for reply in found] == [200]
        assert len(found[0].json()["answers"]) == 20_000
        with pytest.raises(requests.ConnectionError):
            server.ask()
