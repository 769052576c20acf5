"""What the service tells whoever watches it. The base class hears and forgets; `metrics` counts."""

from __future__ import annotations

import msgspec

from bnpipe.serving.batching import EngineCall
from bnpipe.serving.cells import Encoded
from bnpipe.serving.questions import Kind
from bnpipe.serving.versions import ServedVersion


class Finished(msgspec.Struct, frozen=True, gc=False):
    """A request that was answered or refused.

    Parameters
    ----------
    endpoint : str
        Last part of its route, such as ``posterior``.
    status : int
    seconds : float
    model, version, arm : str, int, str
        Who answered; '' and 0 where nobody did, or the model is not served.
    request_id, caller : str
    rows : int
    trace : str
        Id of its trace, if it has one.
    error : str
        Class of what refused it.
    reason : str
        Why it failed, if that is the service's own doing (5xx); it holds nothing of a row.
    """

    endpoint: str
    status: int
    seconds: float
    model: str = ""
    version: int = 0
    arm: str = ""
    request_id: str = ""
    caller: str = ""
    rows: int = 0
    trace: str = ""
    error: str = ""
    reason: str = ""


class Observer:
    """Hears of everything; must be quick, and never raise."""

    def request(self, done: Finished) -> None:
        """Hear of an answered or refused request."""

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

    def answered(self, version: ServedVersion, kind: Kind, text: bytes) -> None:
        """Hear what a version believes: the JSON of its rows' answers, remembered or fresh."""

    def breaker(self, version: ServedVersion, state: str) -> None:
        """Hear of a breaker that changed."""

    def shadow(self, model: str, version: int, *, apart: float) -> None:
        """Hear how far a shadow's posterior was from the answer given: total variation, mean over rows and targets."""

    def unshadowed(self, model: str) -> None:
        """Hear that a shadow was not asked, as too many were under way."""

    def labelled(self, model: str) -> None:
        """Hear that labels of a row were kept."""

    def logged(self, records: int, *, refused: bool) -> None:
        """Hear that records went into the log of answers, or that it refused them."""
