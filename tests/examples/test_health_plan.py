"""The second example: another real data set, from a package's CSV file, with YAML alone."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from examples.spec_trial import try_spec

from bnpipe.config import check_spec


def test_the_spec_has_no_mistake(repository: Path) -> None:
    """Neither by itself nor against the file in the package."""
    assert not check_spec(repository / "config" / "models" / "health_plan.yaml", online=True)


@pytest.mark.parametrize("end", [date(1979, 1, 1), date(1980, 1, 1)])
def test_it_learns_from_yaml_alone(repository: Path, tmp_path: Path, end: date) -> None:
    """Both years that can be held out: valid rows, the experiment respected, every absolute gate passed."""
    spec = repository / "config" / "models" / "health_plan.yaml"
    trial = try_spec(spec, end, data=None, scratch=tmp_path)
    assert not trial.validation.failures
    assert [verdict.reason for verdict in trial.verdicts if not verdict.passed] == []
    assert trial.parents["plan"] == ("site",)
    assert {"plan", "visits_before"} <= set(trial.parents["visits"])
    assert trial.training.cluster_count > 4_000
    assert all(target.roc_auc > 0.65 for target in trial.evaluation.targets)
