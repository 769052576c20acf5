"""Folders that many tests start from: made once, and brought back as they were for each."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class KeptFolders:
    """Folders by kind, brought back in place, since MLflow keeps paths and holds its database open.

    Parameters
    ----------
    root : Path
        An empty folder.
    """

    root: Path
    made: set[str] = field(default_factory=set)

    def give(self, kind: str, make: Callable[[Path], None], *databases: Path) -> Path:
        """Give the folder of a kind as `make` left it the first time, and `databases` as they were then."""
        folder, kept = self.root / kind, self.root / f"{kind}.kept"
        if kind in self.made:
            _bring_back(kept, folder, databases)
            return folder
        make(folder)
        shutil.copytree(folder, kept)
        for database in databases:
            copy_database(database, kept / database.name)
        self.made.add(kind)
        return folder


def _bring_back(kept: Path, folder: Path, databases: tuple[Path, ...]) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix != ".db":
            path.unlink()
    shutil.copytree(kept, folder, ignore=shutil.ignore_patterns("*.db"), dirs_exist_ok=True)
    elsewhere = {database.name: database for database in databases}
    for database in kept.glob("*.db"):
        copy_database(database, elsewhere.get(database.name, folder / database.name))


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite database into a file that other connections may hold open."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)
