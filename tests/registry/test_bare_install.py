"""A champion loads where only `bnpipe[serve]` is installed: no Airflow, no pgmpy, no Great Expectations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import bnpipe
from bnpipe.registry import Registry

PREDICT = """
import importlib.util, json, sys
import mlflow, pandas as pd
there = [name for name in ("airflow", "pgmpy", "great_expectations", "evidently", "duckdb", "igraph")
         if importlib.util.find_spec(name)]
model = mlflow.pyfunc.load_model("models:/weather@champion")
rows = pd.DataFrame({"rain": ["yes", "hail", None]})  # no column `late`; a state nobody knows; nothing at all
answer = model.predict(rows)
print(json.dumps({"there": there, "unseen": answer["unseen"].tolist(), "late": answer["late=yes"].tolist()}))
"""


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The Python of a new environment made from `requirements/serve.txt` alone, as a serving host would."""
    uv = [sys.executable, "-m", "uv"]
    home = tmp_path_factory.mktemp("bare") / "venv"
    python = home / "bin" / "python"
    requirements = repository / "requirements"
    for command in (
        [*uv, "venv", "--python", sys.executable, str(home)],
        [*uv, "pip", "install", "--python", str(python), "--require-hashes", "-r", str(requirements / "build.txt"),
         "-r", str(requirements / "serve.txt")],
        [*uv, "pip", "install", "--python", str(python), "--no-deps", "--no-build-isolation", str(repository)],
    ):  # fmt: skip
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return python


def test_champion_answers_in_a_bare_environment(bare_python: Path, mlflow_uri: str, tmp_path: Path):
    """Rows with missing columns and unknown states are answered by mlflow and bnpipe alone."""
    frame = pd.DataFrame({"rain": ["yes", "yes", "no", "no"], "late": ["yes", "no", "no", "no"]})
    network = bnpipe.fit(bnpipe.Dataset.from_pandas(frame), {"rain": (), "late": ("rain",)})
    registry = Registry(mlflow_uri)
    run = registry.start_run(model="weather", key="bare", tags={}, params={})
    version = registry.register(
        model="weather", network=network, targets=("late",), run_id=run, training_key="bare", tags={}
    )
    registry.promote("weather", version.number, actor="ada", reason="test", evidence=run, expected=None)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(bare_python), "-c", PREDICT], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["there"] == []
    assert answer["unseen"] == [0, 1, 0]
    assert answer["late"] == pytest.approx([0.5, 0.25, 0.25])
