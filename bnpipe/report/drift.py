"""One look for drift on one page: what was decided, which CPDs changed, where and since when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from bnpipe.drift import DriftReport
from bnpipe.verdict import Verdict

if TYPE_CHECKING:
    from bnpipe.release.reaction import DriftDecision


def drift_report(
    *,
    model: str,
    version: int,
    report: DriftReport | None,
    parents: Mapping[str, tuple[str, ...]],
    decision: DriftDecision,
    validation: tuple[Verdict, ...] = (),
    targets: tuple[str, ...] = (),
    tiers: Sequence[Sequence[str]] = (),
    evidently: str | None = None,
    subtitle: str = "",
    links: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Write the page of one look."""
    raise NotImplementedError
