"""The OpenAPI document's words: what each route takes and gives, with examples."""

from __future__ import annotations

from typing import Any, Final

from bnpipe.serving.questions import Kind

SERVICE: Final = "Beliefs of Bayesian networks on request. Every answer names its version and can be reproduced."
FEEDBACK: Final[dict[str, Any]] = {"summary": "Labels that arrived later", "status_code": 202}
MODELS: Final[dict[str, Any]] = {"summary": "Models, their champions, canaries and pins"}
MODEL: Final[dict[str, Any]] = {"summary": "One model: graph, states, provenance"}
HEALTH: Final[dict[str, Any]] = {"summary": "Whether this worker lives"}
READY: Final[dict[str, Any]] = {"summary": "Whether every model can answer"}
METRICS: Final[dict[str, Any]] = {"summary": "Prometheus metrics"}


def question(kind: Kind) -> dict[str, Any]:
    """Describe the route of one kind of question."""
    return {"summary": kind.capitalize()}
