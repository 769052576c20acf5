"""Places and connections from the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnpipe.config import Settings
from bnpipe.config.settings import hide_secrets
from bnpipe.errors import SettingsError


def test_defaults_lie_below_the_working_directory(tmp_path, monkeypatch):
    """Absolute, so that a later change of directory changes nothing; empty variables count as unset."""
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environ({"BNPIPE_STORE": " "})
    assert settings.models == tmp_path / "config" / "models"
    assert settings.data == tmp_path / "data"
    assert settings.store == str(tmp_path / ".bnpipe" / "store")
    assert settings.tracking_uri == f"sqlite:///{tmp_path}/.bnpipe/mlflow.db"


@pytest.mark.parametrize(
    ("given", "tracking_uri"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:///my.db", "sqlite:////base/my.db"),
        ("sqlite:////var/my.db", "sqlite:////var/my.db"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
        ("file:///var/runs", "file:///var/runs"),
        ("runs", "/base/runs"),
        ("databricks", "databricks"),
    ],
)
def test_tracking_uris_are_made_absolute(given, tracking_uri):
    """Where they name files."""
    assert Settings.from_environ({"MLFLOW_TRACKING_URI": given}, base=Path("/base")).tracking_uri == tracking_uri


def test_the_store_may_be_a_uri():
    """Any fsspec URI is taken as it is."""
    assert Settings.from_environ({"BNPIPE_STORE": "s3://bucket/x/"}).store == "s3://bucket/x"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "MLFLOW_TRACKING_URI",
            "htp://u:secret@h",
            r"MLFLOW_TRACKING_URI: 'htp://\*\*\*@h' is no address",
        ),
        ("BNPIPE_MODELS", "s3://models", "BNPIPE_MODELS must be a folder of this machine"),
        ("BNPIPE_MODELS", __file__, "BNPIPE_MODELS: .* is a file; give a folder"),
        ("BNPIPE_DATA", __file__, "BNPIPE_DATA: .* is a file"),
        ("BNPIPE_STORE", __file__, "BNPIPE_STORE: .* is a file"),
        ("BNPIPE_METRICS_KEY", "hunter2", "BNPIPE_METRICS_KEY has 7 characters, at least 20 are needed"),
    ],
)
def test_what_cannot_be_meant_is_told_with_its_variable(variable, value, message):
    """And without its secrets."""
    with pytest.raises(SettingsError, match=message) as raised:
        Settings.from_environ({variable: value})
    assert "secret" not in str(raised.value)


def test_connections_are_found_by_name():
    """The connection `local` is the data folder."""
    settings = Settings.from_environ({"BNPIPE_CONN_CLAIMS": "postgresql://u:secret@h/db"}, base=Path("/base"))
    assert settings.connection("claims").kind == "postgres"
    assert settings.connection("local").url == "/base/data"
    with pytest.raises(SettingsError, match="set BNPIPE_CONN_OTHER"):
        settings.connection("other")


def test_no_secret_is_shown():
    """Neither of a connection nor in an address."""
    settings = Settings.from_environ(
        {
            "BNPIPE_CONN_CLAIMS": "postgresql://u:secret@h/db",
            "BNPIPE_STORE": "s3://key:secret@bucket/x?token=secret&region=eu",
            "MLFLOW_TRACKING_URI": "https://user:secret@mlflow:5000",
        }
    )
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "secret" not in text
        assert "BNPIPE_CONN_CLAIMS" in text
    assert hide_secrets("s3://bucket/x?region=eu") == "s3://bucket/x?region=eu"


def test_the_key_for_the_metrics_is_not_shown():
    """It is a secret like any other."""
    settings = Settings.from_environ({"BNPIPE_METRICS_KEY": "0123456789-0123456789"})
    assert settings.metrics_key == "0123456789-0123456789"
    assert "0123456789" not in repr(settings)
