"""A real Airflow on SQLite, migrated once, and the small shop of `shop_bench`."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from alert_servers import Webhook, running
from jsonschema import Draft202012Validator
from kept_folders import KeptFolders
from kept_shops import KeptShops, point_to
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


@pytest.fixture(scope="session", autouse=True)
def schemas_checked_once() -> Iterator[None]:
    """Airflow lets the same few schemas of forms be checked hundreds of times a run: a fifth of what a run takes."""
    real, sound = Draft202012Validator.check_schema, set[str]()

    def check(schema: Any, **options: Any) -> None:
        if (text := f"{schema} {options}") not in sound:
            real(schema, **options)
            sound.add(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draft202012Validator, "check_schema", check)
        yield


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
    shop = Shop(name, models.parent, spec, mlflow_uri, shop_rows.parent)
    point_to(monkeypatch, shop)
    return shop


@pytest.fixture(scope="session")
def kept_shops(airflow_db, shop_rows, migrated_mlflow_db, tmp_path_factory) -> KeptShops:
    """Shops that are trained when they are first asked for."""
    folders = KeptFolders(tmp_path_factory.mktemp("shops"))
    return KeptShops(folders, airflow_db / "airflow.db", migrated_mlflow_db, shop_rows.parent)


@pytest.fixture
def trained(kept_shops, monkeypatch) -> Shop:
    """A shop whose version 1, learned as of 5 February, is champion."""
    return kept_shops.give(monkeypatch, "trained", nights={"2026-02-05T02:00": {}})


@pytest.fixture
def alerts(monkeypatch):
    """What a webhook of this test was sent."""
    with running(Webhook()) as server:
        monkeypatch.setenv("BNPIPE_ALERT_WEBHOOK", server.address)
        yield server.posted


@pytest.fixture
def live(kept_shops, alerts, monkeypatch) -> Shop:
    """A shop with the section `drift` whose first version, learned from January, is champion."""
    return kept_shops.give(monkeypatch, "live", more=DRIFT, nights={"2026-02-02T02:00": {}})


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
