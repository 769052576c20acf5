"""Entries of the ledger as values, and the rules about them that need no MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal

from bnpipe.errors import PromotionRefused, RegistryError

Outcome = Literal["done", "void", "by hand", "open"]
Kind = Literal["promotion", "rollback", "by hand"]

UNKNOWN_ACTOR: Final = "unknown (MLflow)"
GRACE: Final = 60.0  # seconds
KEY_LENGTH: Final = 200
TEXT_LENGTH: Final = 1500  # of reason and evidence each: a param holds 6000 characters


class Anywhere(Enum):
    """No expectation about which version is champion."""

    ANY = "any"


ANY: Final = Anywhere.ANY


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One move of the champion alias.

    Parameters
    ----------
    number : int
        Counted from 1 without gaps.
    model : str
        Name of the registered model, as it is called now.
    source, to : int or None
        Version before and after; None: no champion.
    actor : str
        An Airflow user, the user of the command line, ``schedule`` or ``unknown (MLflow)``.
    reason, evidence : str
        Why, and where to look it up: a URL or run id.
    time : datetime
        When it was claimed, or noticed if by hand; UTC.
    outcome : {"done", "void", "by hand", "open"}
        ``void``: the alias was never moved. ``by hand``: overtaken by somebody in MLflow before it closed.
    kind : {"promotion", "rollback", "by hand"}
    key : str
        What makes a retry the same request; '' if none was given.
    """

    number: int
    model: str
    source: int | None
    to: int | None
    actor: str
    reason: str
    evidence: str
    time: datetime
    outcome: Outcome
    kind: Kind
    key: str = ""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What :meth:`Ledger.settle` found and did.

    Parameters
    ----------
    closed, voided, by_hand : tuple of LedgerEntry
        Orphans whose move had happened, orphans whose move had not, and moves that nobody had announced.
    warnings : tuple of str
        What a person should look at.
    """

    closed: tuple[LedgerEntry, ...] = ()
    voided: tuple[LedgerEntry, ...] = ()
    by_hand: tuple[LedgerEntry, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything was entered."""
        return bool(self.closed or self.voided or self.by_hand)


@dataclass(frozen=True, slots=True)
class Request:
    """A wish to move the champion."""

    kind: Kind
    to: int | None
    actor: str
    reason: str
    evidence: str
    key: str = ""

    def wrote(self, entry: LedgerEntry) -> bool:
        """Whether an earlier attempt of this very request wrote `entry`.

        Told by the key; without one by all else being the same, if evidence (as a run's address) makes that telling.
        """
        if self.key or entry.key:
            return cut(self.key, KEY_LENGTH) == entry.key and self.to == entry.to and self.kind == entry.kind
        written = (entry.kind, entry.to, entry.actor, entry.reason, entry.evidence)
        return bool(self.evidence) and written == (
            self.kind,
            self.to,
            cut(self.actor, KEY_LENGTH),
            cut(self.reason),
            cut(self.evidence),
        )


@dataclass(frozen=True, slots=True)
class Book:
    """All entries of one model as read at one moment."""

    model: str
    run_id: str
    entries: tuple[LedgerEntry, ...]

    @property
    def position(self) -> int | None:
        """Where the ledger believes the champion to be."""
        return self.last_done.to if self.last_done else None

    @property
    def last_done(self) -> LedgerEntry | None:
        """The latest move that happened."""
        return next((entry for entry in reversed(self.entries) if entry.outcome == "done"), None)

    @property
    def open(self) -> LedgerEntry | None:
        """The entry being carried out, if any."""
        return next((entry for entry in self.entries if entry.outcome == "open"), None)

    @property
    def next_number(self) -> int:
        """The number to claim."""
        return len(self.entries) + 1


def read_entries(model: str, params: Mapping[str, str]) -> tuple[LedgerEntry, ...]:
    """Read the entries out of a ledger run's params, in order."""
    numbers = sorted(int(key[:6]) for key in params if key[6:] == ".claim")
    return tuple(read_entry(model, number, params) for number in numbers)


def settled_outcome(entry: LedgerEntry, alias: int | None, *, now: float, grace: float = GRACE) -> Outcome:
    """Say how an open entry is to be closed by a process that did not write it.

    Parameters
    ----------
    entry : LedgerEntry
        An open entry.
    alias : int or None
        Where the champion is.
    now, grace : float
        Seconds; within the grace its mover may still be at work, and the entry stays ``open``.
    """
    if alias == entry.to or entry.kind == "by hand":  # a move by hand was seen before it was claimed
        return "done"
    if now - entry.time.timestamp() < grace:
        return "open"
    return "void" if alias == entry.source else "by hand"


def already_done(book: Book, request: Request) -> LedgerEntry | None:
    """Find the move that an earlier attempt of this request made, unless the champion has moved on since."""
    last = book.last_done
    return last if last is not None and request.wrote(last) else None


def refuse_unexpected(book: Book, request: Request, expected: int | Anywhere | None) -> None:
    """Raise PromotionRefused if the champion is another than expected, or the wanted one already."""
    if expected is not ANY and book.position != expected:
        raise PromotionRefused(
            f"{name_version(request.to)} of {book.model!r} was compared with {name_version(_plain(expected))}, but the "
            f"champion is {name_version(book.position)} (see bnpipe history {book.model}); compare again"
        )
    if book.position == request.to:
        number = book.last_done.number if book.last_done else 0
        raise PromotionRefused(f"{name_version(request.to)} already is the champion of {book.model!r} (entry {number})")


def noticed(source: int | None, to: int | None) -> Request:
    """Describe a move that somebody made in MLflow."""
    what = "champion alias deleted in MLflow" if to is None else "champion alias set in MLflow"
    return Request("by hand", to, UNKNOWN_ACTOR, f"{what}; the ledger had {name_version(source)}", "")


def read_entry(model: str, number: int, params: Mapping[str, str]) -> LedgerEntry:
    """Read one entry out of a ledger run's params.

    Raises
    ------
    RegistryError
        Somebody else wrote into the ledger.
    """
    try:
        claim: dict[str, Any] = json.loads(params[f"{number:06d}.claim"])
        return LedgerEntry(
            number=number,
            model=model,
            source=claim["from"],
            to=claim["to"],
            actor=claim["actor"],
            reason=claim["reason"],
            evidence=claim["evidence"],
            time=datetime.fromisoformat(claim["time"]),
            outcome=read_outcome(params.get(f"{number:06d}.outcome", "open")),
            kind=claim["kind"],
            key=claim.get("key", ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RegistryError(f"entry {number} of the ledger of {model!r} can't be read: {error!r}") from error


def read_outcome(text: str) -> Outcome:
    """Read an outcome; ValueError if it is none."""
    for known in ("done", "void", "by hand", "open"):
        if text == known:
            return known
    raise ValueError(f"outcome {text!r}")


def name_version(number: int | None) -> str:
    """Name a version, or that there is none, in a sentence."""
    return "no version" if number is None else f"version {number}"


def _plain(expected: int | Anywhere | None) -> int | None:
    return expected if isinstance(expected, int) else None


def cut(text: str, length: int = TEXT_LENGTH) -> str:
    """Shorten a text to what a param can hold beside the others."""
    return text if len(text) <= length else text[: length - 3] + "..."
