"""The serving file: what stands in the repository is what is done anyway, and mistakes are told by key and line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from bnpipe.config.json_schema import serving_schema
from bnpipe.config.reference import SERVING
from bnpipe.config.serving import ServingSpec, load_serving
from bnpipe.errors import SpecError

HASH = "0123456789abcdef" * 4


def load(tmp_path: Path, text: str) -> ServingSpec:
    """Load a text."""
    path = tmp_path / "serving.yaml"
    path.write_text(text)
    return load_serving(path)


def test_the_example_is_the_default(repository: Path) -> None:
    """Who reads it knows what happens without it; and it validates as an editor sees it."""
    path = repository / "config" / "serving.yaml"
    assert load_serving(path) == ServingSpec()
    Draft202012Validator(serving_schema()).validate(yaml.safe_load(path.read_text()))


def test_the_example_shows_every_key(repository: Path, tmp_path: Path) -> None:
    """Those that are commented out can be uncommented, and are then taken."""
    text = (repository / "config" / "serving.yaml").read_text()
    text = re.sub(r"^( *)# ?(cache|anonymous|models|  folder|folder): ", r"\1\2: ", text, flags=re.MULTILINE)
    text = text.replace("clients: []", "clients:").replace("\n#  - {", "\n  - {")
    spec = load(tmp_path, text)
    assert [client.name for client in spec.clients] == ["ledger", "dispatch"]
    document = yaml.safe_load(text)
    assert set(document) == set(ServingSpec.model_fields)
    assert spec.answers.folder is not None
    for title, model in SERVING:
        shown = document.get(title) if title != "tracing" else {"endpoint": "", "share": 0.01}
        if isinstance(shown, dict):
            assert set(shown) == set(model.model_fields), title


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    """Nothing is needed."""
    for text in ("", "{}", "# workers: 4\n"):
        assert load(tmp_path, text) == ServingSpec()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port: x", ":1: port:"),
        ("port: 70000", ":1: port:"),
        ("workers: 0", ":1: workers:"),
        ("limits:\n  rows: 0", ":2: limits.rows:"),
        ("limits:\n  deadline: 0", ":2: limits.deadline:"),
        ("limitz: {}", ":1: limitz:"),
        ("limits:\n  row: 3", ":2: limits.row:"),
        ("answers: {evidence: some}", ":1: answers.evidence:"),
        ("defaults: {unknown_states: other}", "unknown_states"),
        ("models:\n  flights: {fallback: perhaps}", ":2: models.flights.fallback:"),
        ("clients:\n  - {name: a}", "key_sha256"),
        (f"clients:\n  - {{name: A b, key_sha256: {HASH}}}", ":2: clients"),
        ("clients:\n  - {name: a, key_sha256: bnp_the-key-itself}", ":2: clients"),
        (f"clients:\n  - {{name: a, key_sha256: {HASH}, scopes: [all]}}", ":2: clients"),
        (f"clients:\n  - {{name: a, key_sha256: {HASH}, pins: {{flights: 0}}}}", ":2: clients"),
        (f"clients:\n  - {{name: a, key_sha256: {HASH}}}\n  - {{name: b, key_sha256: {HASH}}}", "given twice"),
        (
            f"clients:\n  - {{name: a, key_sha256: {HASH}}}\n  - {{name: a, key_sha256: {HASH[::-1]}}}",
            "'a' is given twice",
        ),
        ("port: 1\nport: 2", ":2"),
        ("- 1", "serving.yaml"),
        ("port: [", "serving.yaml"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, says: str) -> None:
    """By file, line and key; no key of a client that was written by mistake is repeated."""
    with pytest.raises(SpecError) as refused:
        load(tmp_path, text)
    told = "\n".join(refused.value.problems)
    assert says in told
    assert "the-key-itself" not in told


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Nobody mends them one by one."""
    with pytest.raises(SpecError) as refused:
        load(tmp_path, "port: x\nworkers: 0\nlimits: {rows: -1}\n")
    assert len(refused.value.problems) == 3


def test_every_key_has_a_description() -> None:
    """An editor shows it, and so does docs/serving.md."""
    schema = serving_schema()
    Draft202012Validator.check_schema(schema)
    for name, part in {"top": schema, **schema["$defs"]}.items():
        for key, value in part["properties"].items():
            target: dict[str, Any] = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or target.get("description"), f"{name}.{key}"


@pytest.mark.parametrize("wrong", [{"prot": 1}, {"port": "x"}, {"limits": {"rows": 0}}, {"clients": [{"name": "a"}]}])
def test_an_editor_refuses_what_bnpipe_refuses(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The schema is as strict as the file's reader."""
    assert list(Draft202012Validator(serving_schema()).iter_errors(wrong))
    with pytest.raises(SpecError):
        load(tmp_path, json.dumps(wrong))


def test_how_a_model_is_served() -> None:
    """As its own entry says, else as the defaults do."""
    spec = ServingSpec.model_validate({"models": {"a": {"fallback": False}}, "defaults": {"unknown_states": "refuse"}})
    assert spec.served("a").unknown_states == "missing"
    assert not spec.served("a").fallback
    assert spec.served("b").unknown_states == "refuse"
