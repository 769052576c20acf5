"""What a spec asks of rows before they are learned from, and of each version before it is registered."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from bnpipe.config.scalars import Part, Share, Text

Severity = Literal["critical", "warning"]


class GatesSpec(Part):
    """What every new version must reach on held-out rows, whatever the champion does."""

    min_rows: int = Field(default=100, ge=0, description="Fewest held-out rows.")
    max_impossible_share: Share = Field(
        default=0.05, description="Share of held-out rows the served CPDs call impossible."
    )
    max_unseen_share: Share = Field(
        default=0.01, description="Share of held-out rows with a value that no state takes."
    )
    max_overfit: float = Field(default=1.0, ge=0.0, description="Training minus held-out log-likelihood, nats per row.")
    beat_marginal: bool = Field(
        default=True, description="Every target must beat its own marginal distribution in log-loss."
    )
    max_calibration_error: Share = Field(
        default=0.1,
        description="Largest expected calibration error of a target; fails only when its interval lies above.",
    )


class ExpectationSpec(Part):
    """One more expectation of Great Expectations."""

    type: Text = Field(description="Its name.", examples=["expect_column_mean_to_be_between"])
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Its arguments; columns by the variable's name.")
    severity: Severity = Field(default="critical", description="`critical` stops the run, `warning` is recorded.")


class ValidationSpec(Part):
    """What the rows of a window must fulfil before anything is learned, beside what the variables say."""

    min_rows: int = Field(default=1, ge=1, description="Fewest rows of the window.")
    max_duplicates: Share = Field(
        default=1.0,
        description="Largest share of rows that repeat another in every column; left out: above 1 % is a warning.",
    )
    expectations: tuple[ExpectationSpec, ...] = Field(default=(), description="Further expectations.")
