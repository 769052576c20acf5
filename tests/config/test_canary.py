"""The section `canary` of a spec."""

from __future__ import annotations

import pytest
from test_spec_values import GOOD

from bnpipe.config import load_spec
from bnpipe.config.canary import canary_policy
from bnpipe.errors import SpecError
from bnpipe.release.canary import CanaryPolicy


@pytest.fixture
def write(tmp_path):
    """Write a spec and give its path."""

    def put(text: str):
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return put


def test_canary_has_the_defaults_of_its_policy(write):
    """An empty section, and none, mean what the policy means by itself, with the tolerances of the targets."""
    for more in ("", "canary: {}\n"):
        policy = canary_policy(load_spec(write(GOOD + more)))
        assert policy == CanaryPolicy(tolerances={"size": 0.002})


def test_labels_are_as_late_as_the_rows_unless_it_says_otherwise(write):
    """`canary.label_lag`, else `drift.label_lag`, else `source.lag`; 0 is a number, too."""
    late = GOOD.replace("Berlin}", "Berlin, lag: 2d}")
    assert canary_policy(load_spec(write(late))).label_lag == 2
    assert canary_policy(load_spec(write(late + "drift: {label_lag: 9d}\n"))).label_lag == 9
    assert canary_policy(load_spec(write(late + "drift: {label_lag: 9d}\ncanary: {label_lag: 0}\n"))).label_lag == 0


@pytest.mark.parametrize("stages", ["[0.5]", "[0.5, 0.1, 1.0]", "[0.0, 1.0]", "[0.1, 0.5]", "[0.1, 2.0]"])
def test_stages_that_can_not_be_meant(write, stages):
    """They are refused with key and line."""
    with pytest.raises(SpecError, match=r"spec.yaml:\d+.*canary.stages"):
        load_spec(write(GOOD + f"canary: {{stages: {stages}}}\n"))


def test_a_spec_without_canary_keeps_its_old_text(write):
    """Trainings of such a spec keep the keys they had; with the section its training knows of it."""
    from bnpipe.config import ModelSpec

    assert "canary" not in load_spec(write(GOOD)).resolved_json()
    spec = load_spec(write(GOOD + "canary: {stages: [0.2, 1.0], shadow: 0.5}\n"))
    assert ModelSpec.from_resolved(spec.resolved_json()) == spec
