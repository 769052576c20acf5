"""The repository keeps the promises that its layout makes."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "bnpipe").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


def test_the_top_level_folders_are_there():
    """The folders that DESIGN fixes exist, and a demo can find them."""
    for name in ("bnpipe", "config/models", "dags", "plugins", "tests"):
        assert (ROOT / name).is_dir(), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_stay_readable(path: Path):
    """No module outgrows what a person reads in one sitting, and each says in its first line what it is for."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 500
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "no module docstring"
    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_it_shows(path: Path):
    """A test's docstring is the sentence that its failure refutes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tests = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


def test_importing_bnpipe_is_light():
    """`import bnpipe` pulls in none of the heavy libraries: Airflow pays for it at every parse and every task."""
    heavy = ["airflow", "duckdb", "evidently", "great_expectations", "igraph", "matplotlib", "mlflow", "pandas"]
    heavy += ["pgmpy", "scipy", "sklearn"]
    code = f"import bnpipe, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_every_lock_agrees_with_the_one_that_was_tested():
    """A package has one version, whichever extra is installed."""
    pins = {path.name: _pins(path) for path in (ROOT / "requirements").glob("*.txt")}
    tested = pins["dev.txt"]
    for name in ("airflow.txt", "mlflow-server.txt", "serve.txt", "train.txt"):
        assert pins[name]
        assert {package: version for package, version in pins[name].items() if tested.get(package) != version} == {}


def test_every_extra_has_its_lock():
    """What `pip install bnpipe[…]` may resolve has a locked, hashed counterpart."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locked = {path.stem for path in (ROOT / "requirements").glob("*.txt")}
    assert set(extras) - {"examples"} <= locked  # part of dev


def test_nothing_of_this_machine_is_committed():
    """No tracked text holds a path of the author's machine or the host of a package registry."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=False, capture_output=True, text=True, cwd=ROOT)
    if listed.returncode:
        names = [str(path.relative_to(ROOT)) for path in MODULES]  # an unpacked archive: no git
    else:
        names = [name for name in listed.stdout.split("\0") if name]
    assert names
    unwanted = ("/" + "work/", "files.python" + "hosted.org", "py" + "pi.org", "registry." + "npmjs.org")
    found = []
    for name in names:
        path = ROOT / name
        if path.suffix in {".png", ".parquet", ".gz"} or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [(name, word) for word in unwanted if word in text]
    assert found == []


def _pins(path: Path) -> dict[str, str]:
    """Package -> version of a requirements file written by uv."""
    lines = path.read_text().splitlines()
    pairs = (line.split(" ", 1)[0].split("==") for line in lines if line and line[0].isalnum())
    return dict(pairs)
