"""Shops that are trained once a session and brought back for each test, with MLflow's database and Airflow's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kept_folders import KeptFolders
from shop_bench import SPEC, Shop


@dataclass(frozen=True)
class KeptShops:
    """What the first trainings leave, by kind.

    Parameters
    ----------
    folders : KeptFolders
    airflow, mlflow : Path
        Airflow's database, and an empty one of MLflow.
    rows : Path
        What BNPIPE_DATA is.
    """

    folders: KeptFolders
    airflow: Path
    mlflow: Path
    rows: Path

    def give(
        self, patch: pytest.MonkeyPatch, kind: str, *, more: str = "", nights: Mapping[str, dict[str, Any]]
    ) -> Shop:
        """Point this process to a shop whose training ran on these nights with these forms; `more` ends its spec."""
        root = self.folders.root / kind
        shop = Shop(kind, root, root / "models" / f"{kind}.yaml", f"sqlite:///{root}/mlflow.db", self.rows)
        shop.spec.parent.mkdir(parents=True, exist_ok=True)
        point_to(patch, shop)

        def train(_: Path) -> None:
            shop.spec.write_text(SPEC.format(name=kind) + more)
            shutil.copy(self.mlflow, root / "mlflow.db")
            for night, form in nights.items():
                assert shop.run(night, form).state == "success"

        self.folders.give(kind, train, self.airflow)
        return shop


def point_to(patch: pytest.MonkeyPatch, shop: Shop) -> None:
    """Let this process find a shop's files and its MLflow; stray files land in its folder."""
    patch.chdir(shop.root)
    patch.setenv("BNPIPE_MODELS", str(shop.spec.parent))
    patch.setenv("BNPIPE_DATA", str(shop.rows))
    patch.setenv("BNPIPE_STORE", str(shop.root / "store"))
    patch.setenv("MLFLOW_TRACKING_URI", shop.tracking_uri)
