"""The files of a version: a pyfunc from code with the network as JSON and BIF, a signature and an input example."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import bnpipe

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.inference import TrainingLikelihoods
    from bnpipe.network import Network

CODE: Final = Path(__file__).with_name("pyfunc.py")


def save_model(
    path: Path,
    network: Network,
    targets: tuple[str, ...],
    *,
    logged: Any,
    run_id: str,
    input_example: pd.DataFrame | None = None,
    likelihoods: TrainingLikelihoods | None = None,
) -> None:
    """Write the folder of a model.

    Requirements are given, so MLflow does not start processes to find out what the code imports.

    Parameters
    ----------
    path : Path
        A folder that does not exist yet.
    network, targets
    logged : mlflow.entities.LoggedModel
        What the files are for.
    run_id : str
    input_example : DataFrame, optional
    likelihoods : TrainingLikelihoods, optional
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    with tempfile.TemporaryDirectory() as folder, _quiet():
        network.save(Path(folder) / "network.json")
        network.to_bif(Path(folder) / "network.bif")
        files = {"network": f"{folder}/network.json", "bif": f"{folder}/network.bif"}
        if input_example is not None:
            (Path(folder) / "example.json").write_text(json.dumps(answered_example(network, targets, input_example)))
            files["example"] = f"{folder}/example.json"
        if likelihoods is not None:
            (Path(folder) / "likelihoods.json").write_text(likelihoods.to_json())
            files["likelihoods"] = f"{folder}/likelihoods.json"
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(CODE),
            artifacts=files,
            model_config={"targets": list(targets)},
            signature=signature(network, targets),
            input_example=input_example,
            pip_requirements=requirements(),
            metadata={"bnpipe.content_hash": network.content_hash},
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run_id,
                model_id=logged.model_id,
            ),
        )


def answered_example(network: Network, targets: tuple[str, ...], rows: pd.DataFrame) -> dict[str, Any]:
    """Give example rows with the posteriors they must have wherever the version is loaded: services check it."""
    posterior = bnpipe.compile(network).posterior(rows, targets=targets)
    return {
        "rows": json.loads(rows.to_json(orient="records")),
        "posterior": {
            target: [[None if math.isnan(p) else p for p in row] for row in table.tolist()]
            for target, table in posterior.items()
        },
    }


def signature(network: Network, targets: tuple[str, ...]) -> Any:
    """Give the signature: every variable an optional input of any type.

    MLflow refuses integers, booleans and categories for a column declared as string, and a declared column is required
    unless said otherwise. ``any`` lets through whatever a frame holds (``True``, 3, 3.0, a category), and the network's
    own schema reads it; unknown states would have passed MLflow's check in any case. The price is one pass of Python
    over the cells, about 1 µs each. Without a signature MLflow would hand on the frame untouched, but show no inputs on
    the model's page. A frame that has none of the network's columns loses its rows on the way: MLflow's doing.
    """
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, Schema

    outputs = []
    for target in targets:
        outputs.append(ColSpec(DataType.string, target, required=False))
        outputs += [ColSpec(DataType.double, f"{target}={state}") for state in network.schema[target].states]
    outputs += [ColSpec(DataType.boolean, "impossible"), ColSpec(DataType.long, "unseen")]
    return ModelSignature(
        inputs=Schema([ColSpec(AnyType(), name, required=False) for name in network.nodes]), outputs=Schema(outputs)
    )


def requirements() -> list[str]:
    """Give what a process needs to load the model, pinned; where from is the installer's business."""
    pinned = [f"bnpipe=={bnpipe.__version__}"]
    for package in ("mlflow", "numba", "numpy", "pandas"):
        try:
            pinned.append(f"{package}=={version(package)}")
        except PackageNotFoundError:  # mlflow-skinny under another name
            continue
    return pinned


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's advice to give what we leave out on purpose."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"mlflow\.")
            warnings.filterwarnings("ignore", message=".*type hints.*|.*input example.*")
            yield
    finally:
        logger.setLevel(level)
