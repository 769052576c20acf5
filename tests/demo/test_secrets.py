"""`bnpipe env` makes secrets once, strong ones, and shows them to nobody."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest

from bnpipe.demo.secrets import main, new_secret, write_env
from bnpipe.errors import SettingsError

TEMPLATE = "# kept\nDB_PASSWORD=\nAPP_FERNET_KEY=\nSESSION_KEY=\nPORT=5000\n#HOST=here\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a template."""
    (tmp_path / ".env.example").write_text(TEMPLATE)
    return tmp_path


def test_every_empty_variable_gets_a_secret_of_its_own(folder: Path):
    """Comments and given values stay; the file is its owner's only."""
    names = write_env(folder / ".env")
    assert names == ("DB_PASSWORD", "APP_FERNET_KEY", "SESSION_KEY")
    lines = (folder / ".env").read_text().splitlines()
    assert [lines[0], *lines[4:]] == ["# kept", "PORT=5000", "#HOST=here"]
    values = [line.split("=", 1)[1] for line in lines[1:4]]
    assert len(set(values)) == 3
    assert len(base64.urlsafe_b64decode(values[1])) == 32
    assert len(values[0]) >= 32
    assert len(values[2]) >= 64
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600


def test_an_existing_file_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]):
    """Databases are guarded by what is in it."""
    (folder / ".env").write_text("OLD=1\n")
    assert main([str(folder / ".env")]) == 2
    assert "move it away" in capsys.readouterr().err
    assert (folder / ".env").read_text() == "OLD=1\n"


def test_a_missing_template_or_folder_is_named(tmp_path: Path, folder: Path):
    """The error says which file, and where one finds it."""
    with pytest.raises(SettingsError, match=r"nowhere/.env.example: .*clone"):
        write_env(tmp_path / "nowhere" / ".env")
    with pytest.raises(SettingsError, match=r"nowhere/.env: No such file"):
        write_env(tmp_path / "nowhere" / ".env", example=folder / ".env.example")


def test_the_command_names_what_it_made_but_not_the_values(folder: Path, capsys: pytest.CaptureFixture[str]):
    """A terminal's scroll-back is no place for a password."""
    assert main([str(folder / ".env")]) == 0
    said = capsys.readouterr().out
    assert "DB_PASSWORD" in said
    assert (folder / ".env").read_text().splitlines()[1].split("=")[1] not in said


def test_secrets_need_no_quoting():
    """They go into URLs, shells and env-files as they are."""
    for name in ("A_PASSWORD", "A_KEY", "A_FERNET_KEY"):
        assert new_secret(name).replace("-", "").replace("_", "").rstrip("=").isalnum()
