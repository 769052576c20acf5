"""docker-compose.yaml as plain processes: commands, environments and health checks come from the file alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bnpipe.demo.processes import Child, Processes

VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<operator>:-|:\?)(?P<word>[^}]*))?\})")


class Missing(Exception):
    """A required variable has no value."""


@dataclass(frozen=True)
class Service:
    """What of a service a process needs."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health: tuple[str, ...] | None
    needs: Mapping[str, str] = field(default_factory=dict)  # service -> condition


def interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    """Fill in ${NAME}, ${NAME:-default}, ${NAME:?message} and $$ as the compose specification says."""
    if isinstance(value, dict):
        return {key: interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found["name"] is None:
            return "$"
        given = variables.get(found["name"], "")
        if given or found["operator"] is None:
            return given
        if found["operator"] == ":?":
            raise Missing(f"{found['name']}: {found['word']}")
        return found["word"]

    return VARIABLE.sub(fill, value)


def read(path: Path, variables: Mapping[str, str]) -> dict[str, Service]:
    """Read the services of a compose file, in its order."""
    services = interpolate(yaml.safe_load(path.read_text()), variables)["services"]
    return {name: _service(name, found) for name, found in services.items()}


def read_env_file(path: Path) -> dict[str, str]:
    """Read NAME=value lines; a later line wins."""
    lines = (line.strip() for line in path.read_text().splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Stack:
    """Services started in the order of their conditions.

    Parameters
    ----------
    base : Mapping
        The environment that an image would give: PATH, HOME. All else comes from the file.
    """

    def __init__(self, services: Mapping[str, Service], folder: Path, base: Mapping[str, str]) -> None:
        self.services = dict(services)
        self.processes = Processes(folder)
        self._folder, self._base = folder, dict(base)
        self._running: dict[str, Child] = {}
        self._met: dict[str, set[str]] = {}

    def up(self, *, given: set[str], timeout: float) -> None:
        """Start all but the `given`, which are there already; return when each is healthy or has ended well."""
        self.processes.claim()
        everything = {"service_started", "service_healthy", "service_completed_successfully"}
        self._met = {name: set(everything) if name in given else set() for name in self.services}
        deadline = time.monotonic() + timeout
        while waiting := [name for name in self.services if not self._settled(name)]:
            for name in waiting:
                self._advance(self.services[name], deadline - time.monotonic())
            started = [self._running[name].process for name in waiting if name in self._running]
            if not any(process.poll() == 0 for process in started):  # that one ended well since; it is taken next time
                self.processes.check()
            assert time.monotonic() < deadline, f"not up after {timeout} s: {waiting}; logs in {self._folder}"
            time.sleep(1)  # each look starts a Python per service, on the cores that they start on

    def _settled(self, name: str) -> bool:
        return bool(self._met[name] & {"service_healthy", "service_completed_successfully"})

    def _advance(self, service: Service, patience: float) -> None:
        if service.name not in self._running:
            if all(condition in self._met[other] for other, condition in service.needs.items()):
                environment = {**self._base, **service.environment}
                self._running[service.name] = self.processes.start(
                    service.name, service.command, env=environment, cwd=self._folder
                )
                self._met[service.name].add("service_started")
        elif service.health is None:
            if self._running[service.name].process.poll() is not None:
                self.processes.finish(self._running[service.name], timeout=patience)
                self._met[service.name].add("service_completed_successfully")
        elif self._healthy(service):
            self._met[service.name].add("service_healthy")

    def _healthy(self, service: Service) -> bool:
        assert service.health is not None
        environment = {**self._base, **service.environment}
        done = subprocess.run(service.health, env=environment, capture_output=True, timeout=30, check=False)
        return done.returncode == 0


def _service(name: str, found: Mapping[str, Any]) -> Service:
    test = found.get("healthcheck", {}).get("test")
    if test and test[0] == "CMD-SHELL":
        test = ["CMD", "sh", "-c", test[1]]
    return Service(
        name,
        tuple(found.get("command", ())),
        {key: str(value) for key, value in found.get("environment", {}).items()},
        tuple(test[1:]) if test else None,
        {other: needed["condition"] for other, needed in found.get("depends_on", {}).items()},
    )


def process_environment(home: Path) -> dict[str, str]:
    """Give what the image would: the programs of the lock on the PATH, a home, a language."""
    path = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return {"PATH": os.pathsep.join(path), "HOME": str(home), "LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
