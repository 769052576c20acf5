"""Services to watch, with networks small enough to know every figure by hand; no registry is needed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import requests

from bnpipe.config.serving import ServingSpec
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable
from bnpipe.serving.access import hash_key
from bnpipe.serving.routing import Canary
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.situation import (
    ModelSituation,
    Situation,
    VersionOnDisk,
    read_situation,
    version_folder,
    write_situation,
)

KEY = "bnp_a-key-that-must-never-be-logged"
METRICS_KEY = "one-that-reads-the-metrics-and-no-more"
ASKING_KEY = "bnp_one-that-may-ask-and-no-more"


def garden(rain: float = 0.25) -> Network:
    """Rain wets the grass for sure, else it is wet with probability 1/5; the gauge is a number in two bins."""
    schema = Schema(
        (
            Variable("rain", ("no", "yes")),
            Variable("wet", ("no", "yes")),
            Variable("gauge", ("<5", ">=5"), edges=(5.0,)),
        )
    )
    tables = {
        "rain": np.array([1.0 - rain, rain]),
        "wet": np.array([[0.8, 0.2], [0.0, 1.0]]),
        "gauge": np.array([[0.9, 0.1], [0.3, 0.7]]),
    }
    return Network(schema, {"rain": (), "wet": ("rain",), "gauge": ("rain",)}, tables=tables)


def lay_out(
    cache: Path,
    versions: Mapping[int, Network],
    *,
    name: str = "garden",
    champion: int = 1,
    canary: Canary | None = None,
) -> None:
    """Put versions of a model where the follower would have; other models stay."""
    about = {}
    for number, network in versions.items():
        folder = version_folder(cache, name, number)
        folder.mkdir(parents=True, exist_ok=True)
        network.save(folder / "network.json")
        about[str(number)] = VersionOnDisk(network.content_hash, ("wet",))
    held = read_situation(cache)
    models = {**(held.models if held else {}), name: ModelSituation(champion, canary=canary, versions=about)}
    write_situation(cache, Situation(datetime.now(UTC), models))


def shelf_of(cache: Path, spec: ServingSpec | None = None) -> Shelf:
    """Load what is laid out."""
    shelf = Shelf(cache, spec or ServingSpec())
    assert shelf.refresh()
    return shelf


@dataclass
class Launched:
    """A running ``bnpipe serve``."""

    address: str
    process: subprocess.Popen[str]
    log: Path

    def wait_for(self, truth: Callable[[], Any], *, seconds: float = 60.0) -> Any:
        """Wait until something holds; give it back."""
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(requests.RequestException):
                if found := truth():
                    return found
            assert time.monotonic() < end, f"not within {seconds} s; the log ends: {self.log.read_text()[-3000:]}"
            time.sleep(0.1)

    def ready(self) -> bool:
        """Tell whether it is."""
        return requests.get(f"{self.address}/ready", timeout=5).status_code == 200

    def stop(self) -> int:
        """Stop as a service manager does."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextlib.contextmanager
def launched(folder: Path, config: str, environment: Mapping[str, str]) -> Iterator[Launched]:
    """Run ``bnpipe serve`` in a folder on any port, from the time it is ready."""
    (folder / "serving.yaml").write_text(config)
    log = folder / f"serve-{time.monotonic_ns()}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "bnpipe.cli", "serve", "--config", "serving.yaml", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **environment},
            cwd=folder,
        )
    assert process.stdout is not None
    with process.stdout:
        try:
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + log.read_text()
            service = Launched(found[0], process, log)
            service.wait_for(service.ready)
            yield service
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Served(Launched):
    """A running service that lets in only who has a key."""

    session: requests.Session

    def ask(self, kind: str, *rows: Mapping[str, Any], model: str = "garden", **more: Any) -> requests.Response:
        """Ask a question, over one connection."""
        return self.session.post(
            f"{self.address}/v1/models/{model}/{kind}", json={"rows": rows, **more}, headers=self.headers(), timeout=20
        )

    def metrics(self) -> str:
        """Ask for the metrics, over a connection of its own: any worker may answer."""
        headers = {"Authorization": f"Bearer {METRICS_KEY}"}
        found = requests.get(f"{self.address}/metrics", headers=headers, timeout=20)
        assert found.status_code == 200, found.text
        return found.text

    def headers(self) -> dict[str, str]:
        """What a request must bring."""
        return {"Authorization": f"Bearer {KEY}"}

    def workers(self) -> dict[str, int]:
        """Give the pids of the workers by name."""
        found = {}
        for line in self.log.read_text().splitlines():
            if (started := re.search(r"Started server process \[(\d+)\]", line)) is not None:
                found[json.loads(line)["process"]] = int(started[1])
        return found


@contextlib.contextmanager
def serving(folder: Path, cache: Path, **settings: Any) -> Iterator[Served]:
    """Run ``bnpipe serve`` on what is laid out, beside a registry that does not answer."""
    clients = [
        {"name": "watcher", "key_sha256": hash_key(KEY), "scopes": ["ask", "feedback", "operate"]},
        {"name": "asker", "key_sha256": hash_key(ASKING_KEY), "scopes": ["ask"]},
    ]
    spec = {"cache": str(cache), "answers": {"folder": str(folder / "answers")}, "clients": clients}
    environment = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "BNPIPE_METRICS_KEY": METRICS_KEY,
        "BNPIPE_LOG_LEVEL": "INFO",
    }
    with launched(folder, json.dumps({**spec, **settings}), environment) as service:  # JSON is YAML
        yield Served(service.address, service.process, service.log, requests.Session())
