"""What serving is measured with: a network of the example's size, rows as callers send them, and the processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

import bnpipe
from benchmarks.load import Address, post
from benchmarks.networks import sample
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable

MODEL: Final = "flights"
TARGET: Final = "late_arrival"
_START: Final = 180.0
_ANSWERED: Final = re.compile(r"serves on http://([^:]+):(\d+)")

_STATES: Final[Mapping[str, tuple[str, ...]]] = {
    "carrier": ("9E", "AA", "B6", "DL", "EV", "FL", "MQ", "UA", "US", "VX", "WN", "other"),
    "late_arrival": ("no", "yes", "cancelled or diverted"),
    "origin": ("EWR", "JFK", "LGA"),
    "region": ("northeast", "southeast", "florida", "central", "mountain", "pacific", "caribbean"),
    "weekday": ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
}
_EDGES: Final[Mapping[str, tuple[float, ...]]] = {
    "congestion": (12, 17, 22),
    "departure_delay": (0, 5, 15, 30, 60),
    "distance": (500, 1000, 1500, 2200),
    "hour": (8, 11, 14, 17, 20),
    "humidity": (50, 75, 90),
    "plane_age": (5, 10, 15, 20),
    "plane_size": (80, 130, 190),
    "pressure": (1008, 1016, 1022),
    "rain": (0.005, 0.05),
    "temperature": (-6, 0, 6),
    "visibility": (3, 9),
    "wind": (7, 12, 18),
}
_MISSING: Final[Mapping[str, str]] = {
    "departure_delay": "cancelled",
    "plane_age": "unknown",
    "plane_size": "unknown",
    "pressure": "missing",
}
_PARENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "carrier": ("origin", "region"),
    "congestion": ("hour", "origin"),
    "departure_delay": ("carrier", "plane_size"),
    "distance": ("origin", "region"),
    "humidity": ("hour", "pressure"),
    "late_arrival": ("departure_delay", "visibility"),
    "origin": ("hour",),
    "plane_age": ("carrier", "plane_size"),
    "plane_size": ("carrier", "region"),
    "rain": ("humidity", "wind"),
    "region": ("hour", "origin"),
    "temperature": ("pressure",),
    "visibility": ("humidity", "rain"),
    "wind": ("pressure", "temperature"),
}


def flights_network(seed: int = 0, rows: int = 80_000) -> Network:
    """Learn a network with the variables and the graph of the example (`config/models/flights.yaml`), other numbers."""
    schema = Schema(tuple(_variable(name) for name in sorted({*_STATES, *_EDGES})))
    parents = {name: _PARENTS.get(name, ()) for name in schema.names}
    rng = np.random.default_rng(seed)
    tables = {
        name: rng.dirichlet(
            np.full(schema[name].cardinality, 0.7), size=[schema[parent].cardinality for parent in parents[name]]
        )
        for name in schema.names
    }
    return bnpipe.fit(sample(Network(schema, parents, tables=tables), rows, seed), parents, equivalent_sample_size=10.0)


def json_rows(network: Network, count: int, seed: int, *, unobserved: float = 0.0) -> list[dict[str, Any]]:
    """Draw rows as callers send them: numbers where the network has bins, nulls where it has a state for them.

    Parameters
    ----------
    network, count, seed
    unobserved : float
        Share of cells that are left out besides; the target always is.
    """
    rng = np.random.default_rng(seed)
    codes = sample(network, count, seed).codes
    left_out = rng.random(codes.shape) < unobserved
    places = rng.random(codes.shape)
    rows: list[dict[str, Any]] = [{} for _ in range(count)]
    for variable, its, hidden, within in zip(network.schema, codes, left_out, places, strict=True):
        if variable.name != TARGET:
            for row, code, absent, share in zip(rows, its.tolist(), hidden.tolist(), within.tolist(), strict=True):
                if not absent:
                    row[variable.name] = _cell(variable, code, share)
    return rows


def questions(
    rows: Sequence[Mapping[str, Any]], *, each: int = 1, model: str = MODEL, headers: str = ""
) -> list[bytes]:
    """Give requests for the posterior of the model's targets, so many rows in each."""
    bodies = [json.dumps({"rows": rows[first : first + each]}).encode() for first in range(0, len(rows), each)]
    return [post(f"/v1/models/{model}/posterior", body, headers=headers) for body in bodies]


def invocations(rows: Sequence[Mapping[str, Any]], *, each: int = 1) -> list[bytes]:
    """Give requests in MLflow's protocol, for its own server."""
    bodies = [json.dumps({"dataframe_records": rows[n : n + each]}).encode() for n in range(0, len(rows), each)]
    return [post("/invocations", body) for body in bodies]


def register(uri: str, network: Network, *, model: str = MODEL, target: str = TARGET, promote: bool = True) -> int:
    """Register a network as a version, complete as training does it, and make it champion."""
    from bnpipe.registry import Registry

    registry = Registry(uri)
    key = network.content_hash[:32]
    run = registry.start_run(model=model, key=key)
    version = registry.register(
        model=model, network=network, targets=(target,), run_id=run, training_key=key, tags={"bnpipe.verdict": "pass"}
    )
    registry.finish_run(run)
    if promote:
        registry.promote(model, version.number, actor="bench", reason="to be measured")
    return version.number


def new_store(folder: Path) -> str:
    """Make an empty SQLite MLflow in a folder; give its URI."""
    folder.mkdir(parents=True, exist_ok=True)
    uri = f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", uri]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, env=_environment(folder, uri))
    return uri


@dataclass(frozen=True, eq=False)
class Running:
    """A server that runs.

    Parameters
    ----------
    process : Popen
    address : (host, port)
    log : Path
        What it and its children write to standard error.
    """

    process: subprocess.Popen[bytes]
    address: Address
    log: Path

    @property
    def workers(self) -> dict[str, psutil.Process]:
        """Processes of `bnpipe serve` by name (``worker-1``, ``follower``), with the supervisor."""
        found = {"supervisor": psutil.Process(self.process.pid)}
        for child in found["supervisor"].children():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                if len(command) > 1 and command[-1].endswith(".json"):
                    found[Path(command[-1]).stem] = child
        return found

    def get(self, path: str) -> Any:
        """Ask for a JSON document."""
        host, port = self.address
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
            return json.load(answer)


@contextmanager
def serving(
    folder: Path, uri: str, *, workers: int = 2, config: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run `bnpipe serve` in a folder until the block ends, from the time it has all champions.

    Parameters
    ----------
    folder : Path
        Holds cache, log of answers and the log of the processes.
    uri : str
        Of MLflow.
    workers : int
    config : str
        YAML of the serving file.
    environment : mapping, optional
        Variables besides.
    """
    (folder / "store").mkdir(parents=True, exist_ok=True)
    (folder / "serving.yaml").write_text(config or "{}\n")
    log = folder / "serve.log"
    script = "import sys; from bnpipe.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "serve", "--config", "serving.yaml", "--port", "0"]
    command += ["--workers", str(workers)]
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(folder, uri) | dict(environment or {}),
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdout is not None
    with _ended(process):
        line = process.stdout.readline().decode()
        found = _ANSWERED.search(line)
        if found is None:
            raise RuntimeError(f"bnpipe serve did not start: {log.read_text()[-2000:]}")
        running = Running(process, (found[1], int(found[2])), log)
        _await(running, "/ready")
        yield running


@contextmanager
def mlflow_models_serve(folder: Path, uri: str, *, model: str = MODEL) -> Iterator[Running]:
    """Run `mlflow models serve` of the champion in this environment, as MLflow sets it up by default."""
    port, log = free_port(), folder / "mlflow-models-serve.log"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/{model}@champion"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with _logged(command, folder, _environment(folder, uri), log) as process:
        running = Running(process, ("127.0.0.1", port), log)
        _await(running, "/ping")
        yield running


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[Running]:
    """Run an MLflow server on the store of :func:`new_store`."""
    log = folder / "mlflow-server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    environment = _environment(folder, "") | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with _logged(command, folder, environment, log) as process:
        running = Running(process, ("127.0.0.1", port), log)
        _await(running, "/health")
        yield running


def free_port() -> int:
    """Give a port nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def resident(process: psutil.Process) -> float:
    """Memory of a process, 10⁶ bytes."""
    return float(process.memory_info().rss) / 1e6


def _variable(name: str) -> Variable:
    if name in _STATES:
        return Variable(name, _STATES[name], other="other" if "other" in _STATES[name] else None)
    edges, missing = _EDGES[name], _MISSING.get(name)
    labels = tuple(f"bin {place}" for place in range(len(edges) + 1))
    return Variable(name, (*labels, *([missing] if missing else [])), edges=edges, missing=missing)


def _cell(variable: Variable, code: int, share: float) -> str | float | None:
    """Give a value that the network reads as this code; for bins a number within, `share` of the way."""
    if variable.states[code] == variable.missing:
        return None
    if variable.edges is None:
        return variable.states[code]
    edges = (2 * variable.edges[0] - variable.edges[1], *variable.edges, 2 * variable.edges[-1] - variable.edges[-2])
    return round(edges[code] + share * (edges[code + 1] - edges[code]), 4)


def _environment(folder: Path, uri: str) -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BNPIPE_", "MLFLOW_"))}
    return kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "BNPIPE_STORE": str(folder / "store"),
        "BNPIPE_ANSWERS": str(folder / "answers"),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


@contextmanager
def _logged(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    with _ended(process):
        yield process


@contextmanager
def _ended(process: subprocess.Popen[bytes], patience: float = 30.0) -> Iterator[None]:
    """End a process and its group when the block ends."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _await(running: Running, path: str) -> None:
    """Wait until a server answers with 200."""
    host, port = running.address
    end = time.monotonic() + _START
    while time.monotonic() < end:
        if running.process.poll() is not None:
            raise RuntimeError(f"{path}: the server has ended: {running.log.read_text(errors='replace')[-2000:]}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=2):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{path}: no answer within {_START:g} s: {running.log.read_text(errors='replace')[-2000:]}")


def clean(folder: Path) -> Path:
    """Give an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
