"""A registered version can be learned again, and the store keeps what that needs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from bnpipe import steps
from bnpipe.config import Overrides, Settings
from bnpipe.errors import RegistryError, StoreError, VersionNotFound


def test_rebuilt_version_has_the_same_content_hash(clinic):
    """Both a first version and one that reuses the first one's bins come out bit for bit."""
    for at in (date(2026, 3, 1), date(2026, 3, 20)):
        steps.train(spec=clinic.spec, at=at, actor="ada")
    for version in (1, 2):
        rebuilt = steps.rebuild("clinic", version)
        assert rebuilt.same
        assert rebuilt.registered == rebuilt.rebuilt
        assert rebuilt.differences == ()


def test_rebuild_learns_with_the_overrides_of_the_run(clinic):
    """The recorded spec has the form's choices in it."""
    overrides = Overrides(score="bdeu", max_parents=1)
    steps.train(spec=clinic.spec, at=date(2026, 3, 1), actor="ada", overrides=overrides)
    assert steps.rebuild("clinic", 1).same


def test_changed_rows_are_noticed(clinic, tmp_path: Path):
    """A snapshot that was tampered with is refused by its fingerprint."""
    import pandas as pd

    steps.train(spec=clinic.spec, at=date(2026, 3, 1), actor="ada")
    [snapshot] = (tmp_path / "store").rglob("*.parquet")
    snapshot.chmod(0o644)
    frame = pd.read_parquet(snapshot)
    frame.loc[0, "age"] += 1
    frame.to_parquet(snapshot)
    with pytest.raises(StoreError, match="fingerprint"):
        steps.rebuild("clinic", 1)


def test_unknown_version(clinic):
    """There is nothing to rebuild of a version that does not exist."""
    with pytest.raises(VersionNotFound, match="clinic"):
        steps.rebuild("clinic", 9)


def test_sweep_keeps_what_versions_need(clinic):
    """Rows of a registered version stay; those of a training that never got one go, once they are old enough."""
    steps.train(spec=clinic.spec, at=date(2026, 3, 1), actor="ada")
    steps.snapshot(spec=clinic.spec, at=date(2026, 3, 5), run_key="abandoned", actor="ada")
    assert steps.sweep(older_than_days=1).removed == 0
    planned = steps.sweep(older_than_days=0)
    assert planned.removed == 2
    assert steps.sweep(older_than_days=0, dry_run=False).removed == 2
    assert steps.sweep(older_than_days=0).removed == 0
    assert steps.rebuild("clinic", 1).same


def test_late_data_do_not_overwrite_what_a_version_is_made_of(clinic):
    """A cleared Dag run that finds other rows makes another version; the first is rebuilt from its own recipe."""
    for _ in range(2):
        training = steps.snapshot(
            spec=clinic.spec,
            at=date(2026, 3, 1),
            run_key="nightly/1",
            actor="ada",
            overrides=Overrides(promotion="manual"),
        )
        for name in steps.STEPS[1:]:
            getattr(steps, name)(training)
        clinic.edit_rows(lambda frame: frame.iloc[:-1], days={"2026-02-01"})
    assert steps.rebuild("clinic", 1).same
    assert steps.rebuild("clinic", 2).same


def test_a_version_outlives_the_one_whose_bins_it_took(clinic):
    """Deleting the base version does not make the later one impossible to rebuild."""
    from bnpipe.registry import Registry

    for at in (date(2026, 3, 1), date(2026, 3, 20)):
        steps.train(spec=clinic.spec, at=at, actor="ada")
    client = Registry(Settings.from_environ().tracking_uri).connection.client
    client.delete_registered_model_alias("clinic", "champion")
    client.delete_model_version("clinic", "1")
    assert steps.rebuild("clinic", 2).same


def test_sweep_refuses_when_mlflow_knows_nothing(clinic, monkeypatch, tmp_path: Path):
    """The wrong MLFLOW_TRACKING_URI must not cost every snapshot."""
    steps.train(spec=clinic.spec, at=date(2026, 3, 1), actor="ada")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
    with pytest.raises(RegistryError, match="no version"):
        steps.sweep(older_than_days=0, dry_run=False)


def test_sweep_leaves_what_is_not_its_own(clinic, tmp_path: Path):
    """Files of others in the same folder stay."""
    steps.train(spec=clinic.spec, at=date(2026, 3, 1), actor="ada")
    precious = tmp_path / "store" / "other" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    steps.sweep(older_than_days=0, dry_run=False)
    assert precious.read_text() == "mine"
