"""A small clinic whose rows are drawn from a known network: `rows` of each day, a spec, and places to keep things."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kept_folders import KeptFolders

SPEC = """\
name: clinic
owner: ward-3
description: Who comes back within a month.
source:
  connection: local
  path: "clinic/day=*/*.parquet"
  timestamp: admitted_at
  time_zone: Europe/Berlin
  until: 2026-04-10
window: {train: 40d, held_out: 14d}
variables:
  season: {states: [cold, warm]}
  age: {edges: [40, 65], minimum: 0, maximum: 120}
  pressure: {quantiles: 3, missing: state}
  treatment: {states: [drug, rest]}
  back: {states: ["no", "yes"]}
targets:
  back: {tolerance: 0.05}
structure:
  score: bic
  max_parents: 3
  tiers: [[season, age], [pressure, treatment], [back]]
gates: {min_rows: 200}
promotion: {policy: auto, rope: 0.03}
drift: {window: 7d, history: 21d}
schedule: "0 3 * * *"
"""


@dataclass(frozen=True)
class Clinic:
    """Where the clinic's spec and rows lie, and how to change them."""

    root: Path

    @property
    def spec(self) -> Path:
        """The YAML file."""
        return self.root / "models" / "clinic.yaml"

    def edit_spec(self, old: str, new: str) -> None:
        """Replace a part of the YAML that must be there."""
        text = self.spec.read_text()
        assert old in text
        self.spec.write_text(text.replace(old, new))

    def edit_rows(self, change, days=None) -> None:
        """Rewrite the rows of some days (default: all) by a function of a frame."""
        for file in sorted((self.root / "data" / "clinic").glob("day=*/*.parquet")):
            if days is None or file.parent.name.removeprefix("day=") in days:
                change(pd.read_parquet(file, partitioning=None)).to_parquet(file)


def draw_day(day: date, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw the rows of one day from the known network."""
    season = np.where(rng.random(rows) < (0.7 if day.month in (11, 12, 1, 2, 3) else 0.3), "cold", "warm")
    age = rng.integers(18, 95, rows)
    pressure = 110 + 0.4 * age + rng.normal(0, 12, rows)
    pressure[rng.random(rows) < 0.05] = np.nan
    treatment = np.where(rng.random(rows) < np.where(np.nan_to_num(pressure, nan=120) > 135, 0.8, 0.25), "drug", "rest")
    risk = 0.1 + 0.35 * (age >= 65) + 0.25 * (season == "cold") - 0.1 * (treatment == "drug")
    back = np.where(rng.random(rows) < risk, "yes", "no")
    minutes = np.sort(rng.integers(0, 24 * 60, rows))
    return pd.DataFrame(
        {
            "admitted_at": pd.Timestamp(day) + pd.to_timedelta(minutes, unit="min"),
            "season": season,
            "age": age,
            "pressure": pressure,
            "treatment": treatment,
            "back": back,
        }
    )


@pytest.fixture(scope="session")
def clinic_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred days from 1 January 2026 with 60 rows each, drawn with seed 7."""
    root = tmp_path_factory.mktemp("clinic")
    rng = np.random.default_rng(7)
    for offset in range(100):
        day = date(2026, 1, 1) + timedelta(days=offset)
        folder = root / f"day={day}"
        folder.mkdir()
        draw_day(day, 60, rng).to_parquet(folder / "part.parquet")
    return root


@pytest.fixture
def clinic(clinic_rows: Path, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clinic:
    """The clinic in a folder of its own, with its own store and MLflow."""
    _point_to(monkeypatch, made := Clinic(tmp_path))
    _lay_out(made, clinic_rows)
    return made


@pytest.fixture(scope="session")
def kept_clinics(tmp_path_factory: pytest.TempPathFactory) -> KeptFolders:
    """Clinics that are trained when they are first asked for."""
    return KeptFolders(tmp_path_factory.mktemp("clinics"))


@pytest.fixture
def trained_clinic(
    kept_clinics: KeptFolders, clinic_rows: Path, migrated_mlflow_db: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, Callable[[Clinic], Any]], Clinic]:
    """Give a clinic by name, to which the first test that asked for it has done what it needs, as training."""

    def give(name: str, train: Callable[[Clinic], Any]) -> Clinic:
        (root := kept_clinics.root / name).mkdir(exist_ok=True)
        _point_to(monkeypatch, clinic := Clinic(root))

        def make(_: Path) -> None:
            shutil.copy(migrated_mlflow_db, root / "mlflow.db")
            _lay_out(clinic, clinic_rows)
            train(clinic)

        kept_clinics.give(name, make)
        return clinic

    return give


def _lay_out(clinic: Clinic, rows: Path) -> None:
    shutil.copytree(rows, clinic.root / "data" / "clinic")
    clinic.spec.parent.mkdir()
    clinic.spec.write_text(SPEC)


def _point_to(patch: pytest.MonkeyPatch, clinic: Clinic) -> None:
    patch.chdir(clinic.root)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{clinic.root}/mlflow.db")
    for name, folder in {"MODELS": "models", "DATA": "data", "STORE": "store"}.items():
        patch.setenv(f"BNPIPE_{name}", str(clinic.root / folder))
