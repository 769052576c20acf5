"""MLflow's one address of a process, for tests of what has no other way to be told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def mlflow_at(uri: str) -> Iterator[None]:
    """Set the address for a while; afterwards none is set, so that the environment of later tests counts again."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
