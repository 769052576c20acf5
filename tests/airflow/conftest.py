"""A real Airflow on SQLite, migrated once, and the small shop of `shop_bench`."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import sys
import tempfile
from datetime import date
from pathlib import Path

import pytest
from alert_servers import Webhook, running
from shop_bench import DRIFT, REPOSITORY, SPEC, Shop, draw_days

HOME = Path(tempfile.mkdtemp(prefix="bnpipe-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)


def prepare_environment() -> None:
    """Airflow reads these once, when it is imported first; nothing else in the suite may have done so before."""
    if "airflow.settings" in sys.modules:
        raise RuntimeError("Airflow was imported before tests/airflow/conftest.py could say where its database is")
    (HOME / "passwords.json").write_text('{"ada": "secret", "grace": "secret"}')
    os.environ.update(
        {
            "AIRFLOW_HOME": str(HOME),
            "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ada:viewer,grace:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(HOME / "passwords.json"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(HOME / "logs"),
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-tests-" * 5,
            "AIRFLOW__API__BASE_URL": "http://airflow.test:8080",
        }
    )


prepare_environment()

_names = itertools.count(1)


@pytest.fixture(scope="session")
def airflow_db() -> Path:
    """Migrate Airflow's database and load the Dag bundle's record once."""
    from airflow.utils import db

    db.initdb()
    return HOME


@pytest.fixture(scope="session")
def shop_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Days that are all alike."""
    return draw_days(tmp_path_factory.mktemp("rows") / "shop")


@pytest.fixture(scope="session")
def fickle_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same days, but from 7 February on customers with a large basket rarely come back."""
    return draw_days(tmp_path_factory.mktemp("fickle") / "shop", fickle_from=date(2026, 2, 7))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of specs."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("BNPIPE_MODELS", str(folder))
    return folder


@pytest.fixture
def shop(airflow_db, shop_rows, models, mlflow_uri, monkeypatch) -> Shop:
    """A shop with a name that no other test uses, since all share Airflow's database."""
    name = f"shop{next(_names)}"
    spec = models / f"{name}.yaml"
    spec.write_text(SPEC.format(name=name))
    monkeypatch.setenv("BNPIPE_DATA", str(shop_rows.parent))
    monkeypatch.setenv("BNPIPE_STORE", str(models.parent / "store"))
    return Shop(name, models.parent, spec, mlflow_uri, shop_rows.parent)


@pytest.fixture
def alerts(monkeypatch):
    """What a webhook of this test was sent."""
    with running(Webhook()) as server:
        monkeypatch.setenv("BNPIPE_ALERT_WEBHOOK", server.address)
        yield server.posted


@pytest.fixture
def live(shop, alerts):
    """A shop with the section `drift` whose first version, learned from January, is champion."""
    shop.spec.write_text(shop.spec.read_text() + DRIFT)
    assert shop.run("2026-02-02T02:00").xcom("promote")["outcome"] == "promoted"
    return shop


@pytest.fixture
def changed(live, fickle_rows, monkeypatch):
    """The same shop, where customers with a large basket rarely come back since 7 February."""
    monkeypatch.setenv("BNPIPE_DATA", str(fickle_rows.parent))
    return live


@pytest.fixture(scope="session")
def client(airflow_db):
    """Airflow's API server in this process, not logged in."""
    from airflow.api_fastapi.app import create_app
    from starlette.testclient import TestClient

    return TestClient(create_app(), raise_server_exceptions=False)


def log_in(client, user: str) -> dict[str, str]:
    """Give the header of a user who has logged in."""
    answer = client.post("/auth/token", json={"username": user, "password": "secret"})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@pytest.fixture(scope="session")
def viewer(client):
    """Ada may look."""
    return log_in(client, "ada")


@pytest.fixture(scope="session")
def admin(client):
    """Grace may decide."""
    return log_in(client, "grace")
