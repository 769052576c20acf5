"""Ways to write and check a spec."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bnpipe.config import check_spec


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a spec's text to ``claims.yaml``."""

    def write(text: str) -> Path:
        path = tmp_path / "claims.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def mistakes(write: Callable[[str], Path]) -> Callable[[str], list[str]]:
    """Check a spec's text without its source; each problem without the folder in front."""

    def mistakes(text: str) -> list[str]:
        return [str(problem).replace(f"{write(text).parent}/", "") for problem in check_spec(write(text), online=False)]

    return mistakes
