"""What one run may change of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from bnpipe.config.scalars import Day, Part, VariableName
from bnpipe.config.spec import Estimator, Policy, Score


class Overrides(Part):
    """What one run may change: the trigger form and the options of ``bnpipe train``."""

    end: Day | None = Field(default=None, description="End of the window: the local midnight that begins this day.")
    score: Score | None = Field(default=None, description="Score to maximise.")
    max_parents: int | None = Field(default=None, ge=0, le=30, description="Most parents a variable may have.")
    estimator: Estimator | None = Field(default=None, description="Maximum likelihood or Bayes.")
    equivalent_sample_size: float | None = Field(default=None, gt=0.0, description="Rows that the prior is worth.")
    promotion: Policy | None = Field(default=None, description="Who promotes.")
    relearn_schema: bool = Field(
        default=False, description="Learn quantile bins anew instead of reusing the champion's."
    )
    refit: tuple[VariableName, ...] | None = Field(
        default=None,
        min_length=1,
        description="Learn only the distributions of these variables anew; graph and all others stay the champion's.",
    )
    since: Day | None = Field(default=None, description="With `refit`: the first day of the rows to learn from.")
    refit_of: int | None = Field(
        default=None, ge=1, description="With `refit`: the version whose graph is kept; left out: the champion."
    )
    reason: str | None = Field(default=None, max_length=1000, description="Why a person started this run.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Overrides:
        """Read a filled form or the options of the command line; None is left out.

        Raises
        ------
        SpecError
            Every unknown key and wrong value, with what was given and what is allowed.
        """
        from bnpipe.config.builders import read_overrides

        return read_overrides(values)
