"""Which arm answers a request: a pure function of its key, the same in every process and after every restart.

A key's place in [0, 1) is a hash of salt and key, so who is in the challenger's share at 1 % stays there at 10 %. The
salt is a canary's own: the next one begins with other keys, not again with the same customers.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from bnpipe.release.canary import CanaryState

Arm: TypeAlias = Literal["champion", "challenger"]


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


def place(key: str, salt: str) -> float:
    """Give a key's place in [0, 1), uniform over keys."""
    # A key of its own for the hash: salt and key can't run into each other, however long.
    seed = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=seed).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def choose_arm(key: str, canary: Canary | None) -> Arm:
    """Say who answers.

    Parameters
    ----------
    key : str
        The caller's routing key; the request's id where it gave none. Whoever is pinned to a version is not routed.
    canary : Canary or None
        None: no canary is running.
    """
    return "challenger" if canary is not None and place(key, canary.salt) < canary.share else "champion"


def is_shadowed(key: str, canary: Canary | None) -> bool:
    """Say whether the challenger answers this request, too, without being heard."""
    return canary is not None and place(key, canary.salt) < canary.shadow
