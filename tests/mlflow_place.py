"""MLflow's one address of a process, for tests of what has no other way to be told, and a model loaded from there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bnpipe.network import Network
from bnpipe.registry import Registry


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


@contextmanager
def loaded_champion(
    database: Path, folder: Path, network: Network, targets: Sequence[str], **version: Any
) -> Iterator[Any]:
    """Make a network the champion of ``flights`` in an MLflow of its own; load it as a user of MLflow would."""
    import mlflow

    shutil.copy(database, folder / "mlflow.db")
    registry = Registry(uri := f"sqlite:///{folder}/mlflow.db")
    made = {"run_id": registry.start_run(model="flights", key="k"), "training_key": "k"}
    number = registry.register(model="flights", network=network, targets=targets, **made, **version).number
    registry.promote("flights", number, actor="eve", reason="first")
    with mlflow_at(uri):
        yield mlflow.pyfunc.load_model("models:/flights@champion")
