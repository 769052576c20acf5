"""The section `drift` of a spec: when live rows are compared with the champion, and what may follow."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bnpipe.config.scalars import Cron, Days, Part, Share
from bnpipe.config.source import LiveSourceSpec

Actions = Literal["advise", "auto"]


class DriftSpec(Part):
    """When and how live rows are compared with the champion, and what may follow."""

    source: LiveSourceSpec | None = Field(
        default=None, description="Where live rows come from; left out: from where a training reads."
    )
    schedule: Cron | None = Field(
        default=None,
        description="Cron of the drift run, in the source's time zone; left out: only by hand, or when live rows are "
        "announced.",
        examples=["0 7 * * *"],
    )
    window: Days = Field(default=7, ge=1, description="Days tested: the newest of the live rows.")
    history: Days = Field(
        default=49,
        ge=1,
        description="Days before those, to date a change; never days that the champion learned from.",
    )
    label_lag: Days | None = Field(
        default=None,
        description="Days that labels need to arrive; the live window ends that much earlier. Left out: `source.lag`.",
    )
    min_rows: int | None = Field(
        default=None,
        ge=1,
        description="Fewest rows of the days tested; left out: `validation.min_rows`, in proportion to the days.",
    )
    alarms_per_year: float = Field(
        default=0.5, gt=0.0, description="False alarms tolerated a year, over all variables together."
    )
    looks_per_year: float = Field(
        default=365.0,
        gt=0.0,
        le=366.0,
        description="Looks a year that share them. Windows end at midnight, so more than one a day never differ; "
        "fewer only if nobody looks between the scheduled ones.",
    )
    min_effect: Share = Field(
        default=0.02, description="Total variation between a distribution before and now that does not matter."
    )
    min_row_share: Share = Field(
        default=0.01, description="Share of live rows from which one row of a distribution is named as changed."
    )
    actions: Actions = Field(
        default="advise", description="`advise` says what should be done, `auto` does it: roll back, refit, relearn."
    )
    cool_down: Days = Field(default=7, description="Days after one of these in which no other is begun.")
    youth: Days = Field(default=28, description="Days after its promotion in which a champion may be rolled back.")
    rollbacks_per_year: float = Field(
        default=0.2,
        gt=0.0,
        description="Rollbacks from a champion that is as good as its predecessor, tolerated a year.",
    )
