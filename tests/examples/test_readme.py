"""The README says what is so: its example prints what stands below it, its spec is one, its links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bnpipe.config import load_spec
from bnpipe.serving.questions import read_question


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    """The text."""
    return (repository / "README.md").read_text(encoding="utf-8")


def test_the_ten_lines_print_what_the_readme_says(readme: str, flights_feed: Path, tmp_path: Path):
    """The first Python block, run where the demo has laid out the flights, prints the block that follows it."""
    code = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    printed = re.search(r"```text\n(.*?)```", readme, re.DOTALL)
    assert code is not None
    assert printed is not None
    home = tmp_path / ".demo" / "data"
    home.mkdir(parents=True)
    (home / "flights").symlink_to(flights_feed, target_is_directory=True)
    done = subprocess.run([sys.executable, "-c", code[1]], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed[1]


def test_the_spec_to_begin_with_is_one(readme: str, tmp_path: Path):
    """The YAML block loads as it stands."""
    text = re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert text is not None
    file = tmp_path / "claims.yaml"
    file.write_text(text[1])
    assert load_spec(file).name == "claims"


def test_the_question_to_the_service_is_one(readme: str, repository: Path):
    """What curl sends decodes as a question, about variables that the flights have."""
    body = re.search(r"-d '(\{.*?\})'", readme, re.DOTALL)
    assert body is not None
    question = read_question(body[1].encode(), most_rows=10)
    spec = load_spec(repository / "config" / "models" / "flights.yaml")
    assert set(question.targets or ()) <= set(spec.targets)
    for row in question.rows:
        assert set(row) <= set(spec.variables)


def test_links_lead_somewhere(readme: str, repository: Path):
    """Every relative link of the README and of docs/ is a file of the repository."""
    pages = [repository / "README.md", repository / "CONTRIBUTING.md", *(repository / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
