"""What a person types."""

from __future__ import annotations

import errno
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bnpipe.cli import main
from bnpipe.config.serving import ServingSpec, load_serving
from bnpipe.errors import JournalError, SettingsError
from bnpipe.serving import commands
from bnpipe.serving.access import Access


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[ServingSpec]:
    """With what the service would have been started."""
    specs: list[ServingSpec] = []

    def run(spec: ServingSpec, reload: Any) -> int:
        specs.append(spec)
        assert reload() == spec
        return 0

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.chdir(tmp_path)
    return specs


def test_without_a_file(started: list[ServingSpec]) -> None:
    """The defaults."""
    assert main(["serve"]) == 0
    assert started == [ServingSpec()]


def test_the_file_of_the_working_folder_is_taken(started: list[ServingSpec], tmp_path: Path) -> None:
    """`config/serving.yaml`, unless another is named; arguments go before it."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "serving.yaml").write_text("port: 9000\nworkers: 3\n")
    (tmp_path / "other.yaml").write_text("port: 9001\n")
    assert main(["serve"]) == 0
    assert main(["serve", "--port", "0", "--host", "::1"]) == 0
    assert main(["serve", "--config", "other.yaml", "--workers", "1"]) == 0
    assert [(spec.host, spec.port, spec.workers) for spec in started] == [
        ("127.0.0.1", 9000, 3),
        ("::1", 0, 3),
        ("127.0.0.1", 9001, 1),
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "gone.yaml"], "gone.yaml"),
        (["--port", "70000"], "--port: got 70000"),
        (["--workers", "0"], "--workers: got 0"),
        (["--host", "0.0.0.0"], "nobody could ask"),
    ],
)
def test_misuse(
    started: list[ServingSpec], capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    """Exit code 2 and a line that says what to do."""
    assert main(["serve", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert not started


def test_elsewhere_with_keys_or_open_on_purpose(started: list[ServingSpec], tmp_path: Path) -> None:
    """Bound where others reach it, it wants clients, or to be told that it needs none."""
    (tmp_path / "open.yaml").write_text("host: 0.0.0.0\nanonymous: true\n")
    (tmp_path / "keys.yaml").write_text(f"host: 0.0.0.0\nclients:\n  - {{name: a, key_sha256: {'ab' * 32}}}\n")
    assert main(["serve", "--config", "open.yaml"]) == 0
    assert main(["serve", "--config", "keys.yaml"]) == 0
    assert len(started) == 2


def test_a_new_key_works(started: list[ServingSpec], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is printed can be put into the file as it stands, and lets its holder in."""
    assert main(["serve", "--new-key", "dispatch"]) == 0
    printed = capsys.readouterr().out
    key = re.search(r"bnp_\S+", printed)
    assert key is not None
    (tmp_path / "serving.yaml").write_text(printed[printed.index("clients:") :])
    spec = load_serving(tmp_path / "serving.yaml")
    assert key[0] not in (tmp_path / "serving.yaml").read_text()
    assert Access(spec.clients, anonymous=False).caller(f"Bearer {key[0]}").name == "dispatch"
    assert not started


def test_a_key_for_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    """A name that the file would not take gets no key."""
    assert main(["serve", "--new-key", "A b"]) == 2
    assert "small letters" in capsys.readouterr().err


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so before any process is started."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SettingsError, match=r"can't listen on.*choose another `port`"):
            commands.serve(port=taken.getsockname()[1])


def test_a_host_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port would not help."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open.yaml").write_text("anonymous: true\n")
    with pytest.raises(SettingsError, match=r"choose another `host` .* or --host"):
        commands.serve(Path("open.yaml"), host="192.0.2.7", port=0)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("answers: {folder: file/answers}", "answers.folder: file/answers/journal: no journal can be begun here"),
        ("answers: {folder: file, required: false}", "answers.folder: file/journal: no journal can be begun here"),
        ("cache: file", "cache: file: versions can't be kept here"),
    ],
)
def test_folders_that_are_none(
    started: list[ServingSpec], capsys: pytest.CaptureFixture[str], tmp_path: Path, config: str, says: str
) -> None:
    """Workers could only fail: exit code 2 and a line that names key and folder, before anything is started."""
    (tmp_path / "file").write_text("")
    (tmp_path / "serving.yaml").write_text(config)
    assert main(["serve", "--config", "serving.yaml"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert not started


@pytest.mark.parametrize("required", [True, False])
def test_a_disk_that_is_full(started: list[ServingSpec], monkeypatch: pytest.MonkeyPatch, required: bool) -> None:
    """It is refused if answers must be logged; else the service starts, as it would go on."""

    def fail(_: Path) -> None:
        raise JournalError("full") from OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commands, "try_folder", fail)
    Path("serving.yaml").write_text(f"answers: {{required: {str(required).lower()}}}")
    assert main(["serve", "--config", "serving.yaml"]) == (2 if required else 0)
    assert len(started) == (0 if required else 1)


def test_a_level_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told before anything is started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNPIPE_LOG_LEVEL", "bogus")
    with pytest.raises(SettingsError, match="BNPIPE_LOG_LEVEL: got 'bogus'; one of DEBUG, INFO"):
        commands.serve(port=0)


def test_the_supervisor_stays_small() -> None:
    """It starts in a moment and holds no library: what answers are made of is for its workers."""
    code = "import sys, bnpipe.serving.commands; print({'numpy', 'pandas', 'pyarrow', 'mlflow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
