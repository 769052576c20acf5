"""Are these the rows the network was made for? Great Expectations asks, from what the spec says of each variable."""

from __future__ import annotations

from bnpipe.expectations.rules import FeatureRule, Severity, expectations_of
from bnpipe.expectations.validation import Failure, ValidationReport, validate

__all__ = ["Failure", "FeatureRule", "Severity", "ValidationReport", "expectations_of", "validate"]
