"""Who asks, and what they may."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bnpipe.config.serving import ClientSpec, Scope
from bnpipe.errors import AccessDenied

PREFIX: Final = "bnp_"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with, or without, a key.

    Parameters
    ----------
    name : str
    models : tuple of str
        ``*`` is all.
    scopes : tuple of str
    pins : mapping of str to int
        Versions to answer with.
    """

    name: str
    models: tuple[str, ...] = ("*",)
    scopes: tuple[Scope, ...] = ("ask", "feedback", "operate")
    pins: Mapping[str, int] = field(default_factory=dict)

    def sees(self, model: str) -> bool:
        """Tell whether a model is among those it may ask."""
        return "*" in self.models or model in self.models

    def check(self, scope: Scope, model: str | None = None) -> None:
        """Refuse what it may not do.

        Raises
        ------
        AccessDenied
        """
        if scope not in self.scopes:
            raise AccessDenied(f"{self.name} may not {scope}; its scopes are {', '.join(self.scopes)}", known=True)
        if model is not None and not self.sees(model):
            raise AccessDenied(f"{self.name} may not ask {model[:100]!r}", known=True)


ANONYMOUS: Final = Caller("anonymous")


class Access:
    """Knows callers by the hash of their key.

    Keys are 256 random bits, so a plain SHA-256 is as good as a slow hash, and costs a request a microsecond.

    Parameters
    ----------
    clients : sequence of ClientSpec
    anonymous : bool
        Whether somebody without a key is answered.
    """

    def __init__(self, clients: tuple[ClientSpec, ...], *, anonymous: bool) -> None:
        self._by_hash = {
            client.key_sha256: Caller(client.name, client.models, client.scopes, client.pins) for client in clients
        }
        self._anonymous = anonymous

    def caller(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """Tell who asks, from ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

        Raises
        ------
        AccessDenied
            An unknown key, or none where one is needed.
        """
        key = api_key
        if authorization is not None:
            scheme, _, rest = authorization.partition(" ")
            if scheme.lower() != "bearer":
                raise AccessDenied("Authorization: only `Bearer KEY` is understood", known=False)
            key = rest.strip()
        if key is None:
            if self._anonymous:
                return ANONYMOUS
            raise AccessDenied("a key is needed: Authorization: Bearer KEY", known=False)
        # A look-up by hash gives an attacker nothing to time: he can't choose the hash.
        found = self._by_hash.get(hash_key(key))
        if found is None:
            raise AccessDenied("unknown key", known=False)
        return found


_FORWARDED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"})


def check_local(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a stranger's request that only seems to come from this machine.

    A proxy here brings those of others. And a page in somebody's browser may let its own name lead to a local address,
    and is then let in as its owner.

    Parameters
    ----------
    headers : iterable of (bytes, bytes)
        Names in small letters, and values.

    Raises
    ------
    AccessDenied
    """
    for header, value in headers:
        if header in _FORWARDED:
            raise AccessDenied(
                f"without a key this is answered to callers of this machine, and {header.decode()} says that a proxy "
                f"asks for another; {_HOW}",
                known=False,
            )
        if header == b"host":
            name = value.partition(b":")[0].decode("latin-1")  # of an address as [::1] nothing is left that has a point
            labels = name.split(".")
            if len(labels) > 1 and labels[-1] != "localhost" and not all(label.isdecimal() for label in labels):
                raise AccessDenied(
                    f"without a key this is answered to callers of localhost, not of {name[:60]!r}; {_HOW}",
                    known=False,
                )


_HOW: Final = "take a key, or write `anonymous: true` into the serving file"


def hash_key(key: str) -> str:
    """Make what is kept of a key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def new_key() -> str:
    """Make a key: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)
