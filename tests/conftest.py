"""What every test starts from: no telemetry, no screen, nothing inherited from the shell it was started in."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# Set before anything imports mlflow, airflow or matplotlib, and inherited by the processes that tests start.
os.environ.update(
    {
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
        "MPLBACKEND": "Agg",
    }
)
for name in list(os.environ):
    if name.startswith(("BNPIPE_", "AIRFLOW_")) and not name.startswith("BNPIPE_TEST_"):
        del os.environ[name]
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_EXPERIMENT_NAME", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)

# The same examples each time, no matter how slow the machine is today; nothing written beside the code.
settings.register_profile("bnpipe", derandomize=True, deadline=None, database=None)
settings.load_profile("bnpipe")

REPOSITORY = Path(__file__).resolve().parent.parent

# The longest first, so that no worker of xdist is left alone with one of them at the end; not two beside each other
# that measure time.
FIRST = (
    *("demo/test_retrain.py", "airflow", "deploy", "serving/test_load.py", "steps"),
    *("serving/test_kill.py", "demo", "registry", "examples"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Let xdist keep the order of the files; by itself it takes those with the fewest tests last, here the longest."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move long files to the front; the rest stays as pytest-randomly has shuffled it."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    tests = REPOSITORY / "tests"
    return next((place for place, name in enumerate(FIRST) if item.path.is_relative_to(tests / name)), len(FIRST))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the work tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def migrated_mlflow_db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file that already holds MLflow's tables, made once for all workers: copying it is quick."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path = folder / "mlflow-template.db"
    with (folder / "mlflow-template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            made = path.with_suffix(".part")
            upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", f"sqlite:///{made}"]
            subprocess.run(upgrade, check=True, capture_output=True, cwd=folder)
            made.rename(path)
    return path


@pytest.fixture
def mlflow_uri(migrated_mlflow_db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of this test's own MLflow store, also in MLFLOW_TRACKING_URI; stray files land in its folder."""
    path = tmp_path / "mlflow.db"
    shutil.copy(migrated_mlflow_db, path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{path}")
    return uri
