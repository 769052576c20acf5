"""`bnpipe serve` as it is run: processes, a real registry, promotions, restarts, stops."""

from __future__ import annotations

import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from registry_bench import add_versions
from watched import Launched, launched

from bnpipe.answers import rows as logged_rows
from bnpipe.registry import Registry

ROW = {"rows": [{"rain": "yes"}]}


def serving(folder: Path, tracking: str, *, config: str = "") -> AbstractContextManager[Launched]:
    """Run it in a folder of its own, until it is ready."""
    environment = {"MLFLOW_TRACKING_URI": tracking, "BNPIPE_STORE": str(folder / "store")}
    return launched(folder, f"poll: 0.2\n{config}", environment)


def ask(server: Launched, path: str = "/v1/models/flights/posterior") -> requests.Response:
    """Ask over a connection of its own, so that any worker may answer."""
    return requests.post(server.address + path, json=ROW, timeout=30)


def versions(server: Launched) -> set[int]:
    """Who answers, of all workers: sixteen connections miss one of two with probability 3e-5."""
    return {ask(server).json().get("version", 0) for _ in range(16)}


def pinged(server: Launched) -> bool:
    """Whether it answers; else it must refuse the connection: silence, or a reset, is an error."""
    try:
        return requests.get(f"{server.address}/ping", timeout=3).status_code == 200
    except requests.ConnectionError as error:
        if "refused" in str(error):
            return False
        pytest.fail(str(error))
    except requests.Timeout:
        pytest.fail("nobody looked")


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
        assert versions(server) == {1}
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
        server.wait_for(lambda: versions(server) == {2})
        done.set()
        asker.join()
        assert set(statuses) == {200}
        assert len(statuses) > 20
        assert ask(server, "/v1/models/flights/posterior?version=1").json()["arm"] == "pinned"
        assert ask(server, "/v1/models/flights/posterior?version=3").status_code == 404
        assert ask(server, "/invocations").status_code == 422
        assert server.stop() == 0
    day = time.time()
    with serving(tmp_path, "http://127.0.0.1:9") as server:  # nothing listens there
        assert versions(server) == {2}

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


@pytest.mark.parametrize(("drain", "status"), [(50.0, 200), (0.5, 503)])
def test_a_stop_finishes_what_is_held(mlflow_uri: str, tmp_path: Path, drain: float, status: int) -> None:
    """SIGTERM while a long question is worked on: it is answered in the time there is; who comes later is refused at
    once, and does not wait for the end.
    """
    add_versions(mlflow_uri, "flights", 1)
    promote(Registry(mlflow_uri), 1)
    config = f"workers: 1\ndrain: {drain}\n"
    config += "limits: {deadline: 60.0, cost: 1.0e+12, rows: 100000}\nbreaker: {slow: 60.0}\n"
    with serving(tmp_path, mlflow_uri, config=config) as server:
        found: list[requests.Response] = []
        many = {"rows": [{"rain": "yes", "wind": 1}] * 20_000, "interval": 0.9}

        def ask_much() -> None:
            found.append(requests.post(f"{server.address}/v1/models/flights/posterior", json=many, timeout=120))

        asker = threading.Thread(target=ask_much)
        asker.start()
        time.sleep(1.0)
        server.process.terminate()
        server.wait_for(lambda: not pinged(server))
        assert not found or status == 503, "it is still being worked on"
        assert server.process.wait(60) == 0
        asker.join(10)
        assert [reply.status_code for reply in found] == [status]
        if status == 200:
            assert len(found[0].json()["answers"]) == 20_000
        else:
            assert "stops" in found[0].json()["detail"]
            assert found[0].headers["retry-after"]
