"""Are these the rows the network was made for? Great Expectations asks, from what the spec says of each variable."""

from __future__ import annotations

from bnpipe.expectations.rules import FeatureRule, Severity, expectations_of
from bnpipe.expectations.units import Suspicion, Unit, unit_changed
from bnpipe.expectations.validation import ExpectationProblem, Failure, ValidationReport, expectation_problems, validate

__all__ = [
    "ExpectationProblem",
    "Failure",
    "FeatureRule",
    "Severity",
    "Suspicion",
    "Unit",
    "ValidationReport",
    "expectation_problems",
    "expectations_of",
    "unit_changed",
    "validate",
]
