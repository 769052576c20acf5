"""The section `canary` of a spec: how a challenger earns its traffic while both versions serve."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from bnpipe.config.scalars import Days, Part, Share

if TYPE_CHECKING:
    from bnpipe.config.spec import ModelSpec
    from bnpipe.release.canary import CanaryPolicy


def _rising(stages: tuple[float, ...]) -> tuple[float, ...]:
    if any(low >= high for low, high in pairwise(stages)) or stages[0] <= 0 or stages[-1] != 1:
        raise ValueError(f"got {list(stages)}; shares must rise from above 0 to 1")
    return stages


class CanarySpec(Part):
    """How a challenger earns its traffic."""

    stages: Annotated[tuple[Share, ...], AfterValidator(_rising)] = Field(
        default=(0.01, 0.1, 0.5, 1.0),
        min_length=2,
        description="Shares of the requests that it answers, one after the other; 1 is the promotion.",
        examples=[[0.05, 0.5, 1.0]],
    )
    shadow: Share | None = Field(
        default=None,
        gt=0.0,
        description="Share of the requests that it first answers unheard, where a training begins its canary. Left "
        "out: it begins with the first stage.",
    )
    cluster: Literal["day", "hour"] = Field(default="day", description="What both arms are compared by.")
    min_clusters: int = Field(default=3, ge=1, description="Fewest whole clusters of a stage.")
    min_rows: int = Field(default=100, ge=1, description="Fewest rows that it has answered in a stage.")
    min_labels: int = Field(default=10, ge=1, description="Fewest labelled rows for a cluster to count.")
    max_days: Days = Field(default=28, ge=1, description="Days after which a stage that proved nothing is a halt.")
    label_lag: Days | None = Field(
        default=None, description="Days that labels need to arrive. Left out: `drift.label_lag`, else `source.lag`."
    )
    error: float = Field(
        default=0.05,
        gt=0.0,
        lt=1.0,
        description="Chance that luck halts, or lets pass, a challenger that is worse by just the tolerance.",
    )
    max_error_share: Share = Field(default=0.01, description="Share of its requests that it may fail to answer.")
    max_unseen_share: Share = Field(default=0.01, description="Share of its rows with a value that no state takes.")


def canary_policy(spec: ModelSpec) -> CanaryPolicy:
    """Give the policy of a spec; the defaults where it has no section `canary`. Targets bring their tolerances."""
    from bnpipe.release.canary import CanaryPolicy

    section = spec.canary or CanarySpec()
    late = (section.label_lag, spec.drift.label_lag if spec.drift else None, spec.source.lag)
    return CanaryPolicy(
        **{name: getattr(section, name) for name in CanarySpec.model_fields if name not in ("label_lag", "shadow")},
        label_lag=next(days for days in late if days is not None),
        tolerances={name: target.tolerance for name, target in spec.targets.items()},
    )
