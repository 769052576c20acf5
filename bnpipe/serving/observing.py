"""What the service tells whoever watches it. The base class hears and forgets; `metrics` counts."""

from __future__ import annotations

from bnpipe.serving.batching import EngineCall
from bnpipe.serving.cells import Encoded
from bnpipe.serving.versions import ServedVersion


class Observer:
    """Hears of everything, at most once a request each; must be quick, and never raise."""

    def request(self, *, endpoint: str, model: str, version: int, arm: str, status: int, seconds: float) -> None:
        """Hear of an answered or refused request; `version` 0 and `arm` '' where none was chosen."""

    def error(self, *, kind: str, model: str) -> None:
        """Hear of an error by its class name."""

    def shed(self) -> None:
        """Hear that a request was turned away unread."""

    def batch(self, call: EngineCall) -> None:
        """Hear of a call of the engine."""

    def cached(self, *, hit: bool) -> None:
        """Hear whether an answer was remembered."""

    def evidence(self, version: ServedVersion, encoded: Encoded) -> None:
        """Hear of the evidence of a question."""

    def answers(self, version: ServedVersion, answers: list[dict[str, object]]) -> None:
        """Hear of fresh answers of the engine, row by row as in `answering`."""

    def breaker(self, version: ServedVersion, state: str) -> None:
        """Hear of a breaker that changed."""

    def serving(self, model: str, champion: int, challenger: int, share: float) -> None:
        """Hear which versions of a model answer now; 0 is none."""

    def shadow(self, model: str, version: int, *, apart: float) -> None:
        """Hear how far a shadow's posterior was from the answer given: total variation, mean over rows and targets."""
