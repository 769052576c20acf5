"""The JSON schema for editors and the reference of the keys are those of the models."""

from __future__ import annotations

import re

import pytest
import yaml
from claims_spec import GOOD
from jsonschema import Draft202012Validator

from bnpipe.config import json_schema, load_spec
from bnpipe.config.__main__ import main


@pytest.fixture(scope="module")
def validator():
    """What an editor does with the schema."""
    return Draft202012Validator(json_schema())


def test_the_written_files_are_current(repository, tmp_path):
    """`python -m bnpipe.config` brings them up to date."""
    docs = repository / "docs"
    for page in ("spec.md", "serving.md"):
        (tmp_path / page).write_text((docs / page).read_text())
    main(tmp_path)
    for name in ("model.schema.json", "spec.md", "serving.schema.json", "serving.md"):
        assert (tmp_path / name).read_text() == (docs / name).read_text(), f"run python -m bnpipe.config ({name})"


def test_every_key_has_a_description():
    """An editor shows it."""
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    for name, part in {"top": schema, **schema["$defs"]}.items():
        for key, value in part["properties"].items():
            target = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or target.get("description"), f"{name}.{key}"


def test_it_takes_what_bnpipe_takes(validator):
    """Short forms, empty targets, states that YAML reads as booleans."""
    spec = yaml.safe_load(GOOD.replace("[SE, DK]", "[SE, no, 01, ~]"))
    for promotion in ("auto", {"policy": "manual", "rope": 0.01}):
        validator.validate({**spec, "promotion": promotion, "targets": {"size": None}})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("owner", "ownr"),
        ("90d", "90"),
        ("quantiles: 4", "quantiles: 4, edges: [1]"),
        ("other: other", "othr: other"),
        ("  size: {tol", "  big size: {tol"),
        ("targets:", "promotion: automatic\ntargets:"),
    ],
)
def test_it_refuses_what_bnpipe_refuses(validator, old, new):
    """An editor underlines it while it is typed."""
    assert not validator.is_valid(yaml.safe_load(GOOD.replace(old, new, 1)))


def test_the_example_of_the_reference_is_a_spec(repository, tmp_path, validator):
    """It can be copied, and reads as its comments say."""
    page = (repository / "docs" / "spec.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    spec = load_spec(path)
    assert spec.variables["region"].states == ("NO", "SE", "DK", "01")
    assert spec.window.train == 26 * 7
    validator.validate(yaml.safe_load(text))


def test_the_examples_of_the_repository_are_specs(repository, validator):
    """Those a newcomer copies."""
    paths = sorted((repository / "config" / "models").glob("*.yaml"))
    assert paths
    for path in paths:
        assert load_spec(path).name == path.stem
        validator.validate(yaml.safe_load(path.read_text()) | {"source": {"path": "x", "timestamp": "x"}})
