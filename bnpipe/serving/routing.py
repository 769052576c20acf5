"""Which arm answers a request: a pure function of its key, the same in every process and after every restart.

A key's place in [0, 1) is a hash of salt and key, so who is in the challenger's share at 1 % stays there at 10 %. The
salt is a canary's own: the next one begins with other keys, not again with the same customers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bnpipe.release.arms import Arm, arm_of, place

if TYPE_CHECKING:
    from bnpipe.release.canary import CanaryState


@dataclass(frozen=True, slots=True)
class Canary:
    """What a worker needs to know of a canary.

    Parameters
    ----------
    version : int
        The challenger.
    share : float
        Of keys whose requests it answers; 0 while it only shadows.
    shadow : float
        Of keys whose requests it answers beside the champion, unseen by the caller.
    salt : str
        What tells this canary's places from another's.
    """

    version: int
    share: float
    shadow: float = 0.0
    salt: str = ""

    @classmethod
    def of(cls, state: CanaryState | None) -> Canary | None:
        """Take what workers need from a canary's state; None where none is running."""
        if state is None or not state.running:
            return None
        shadows = state.mode == "shadow"
        return cls(state.version, 0.0 if shadows else state.share, state.share if shadows else 0.0, state.salt)


def choose_arm(key: str, canary: Canary | None) -> Arm:
    """Say who answers.

    Parameters
    ----------
    key : str
        The caller's routing key; the request's id where it gave none. Whoever is pinned to a version is not routed.
    canary : Canary or None
        None: no canary is running.
    """
    return "champion" if canary is None else arm_of(key, canary.salt, canary.share)


def is_shadowed(key: str, canary: Canary | None) -> bool:
    """Say whether the challenger answers this request, too, without being heard."""
    return canary is not None and place(key, canary.salt) < canary.shadow
