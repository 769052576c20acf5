"""A registry of each test's own, and versions that need no network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from registry_bench import Clock, Killed, add_versions

from bnpipe.registry import Registry


@pytest.fixture
def clock() -> Clock:
    """The registries' clock."""
    return Clock()


@pytest.fixture
def registry(mlflow_uri: str, clock: Clock) -> Registry:
    """A registry over this test's own MLflow."""
    return Registry(mlflow_uri, clock=clock)


@pytest.fixture
def dying(mlflow_uri: str, clock: Clock) -> Callable[[str], Registry]:
    """Give a registry whose process is killed at the named step."""

    def make(stage: str) -> Registry:
        def kill(reached: str) -> None:
            if reached == stage:
                raise Killed(stage)

        return Registry(mlflow_uri, clock=clock, checkpoint=kill)

    return make


@pytest.fixture
def model(mlflow_uri: str) -> str:
    """A model with five versions and no champion."""
    add_versions(mlflow_uri, "flights", 5)
    return "flights"
