"""Where a key lies among all keys: what routing goes by, and what tells afterwards whom a request was meant for."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal, TypeAlias

Arm: TypeAlias = Literal["champion", "challenger"]


def place(key: str, salt: str) -> float:
    """Give a key's place in [0, 1), uniform over keys, the same in every process."""
    # A key of its own for the hash: salt and key can't run into each other, however long.
    seed = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, key=seed).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def arm_of(key: str, salt: str, share: float) -> Arm:
    """Say whom a request goes to while the challenger has this share."""
    return "challenger" if place(key, salt) < share else "champion"
