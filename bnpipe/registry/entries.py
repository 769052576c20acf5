"""Entries of the ledger as values, and the rules about them that need no MLflow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal

from bnpipe.errors import PromotionRefused, RegistryError

Outcome = Literal["done", "void", "by hand", "open"]
Kind = Literal["promotion", "rollback", "by hand"]

NO_REASON: Final = "no reason given"
BY_MOVER: Final = "found by a mover"  # key of a move by hand that only the log of a promotion or rollback told of
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
class Sighting:
    """What a watcher saw at one of its polls: the champion is another version than at the poll before.

    Parameters
    ----------
    model : str
    version, previous : int or None
        The champion seen, and the one seen before; None: no champion, or nobody had looked before.
    time : datetime
        UTC.
    missing : bool
        The model itself was not among those that bnpipe manages, so nothing is known of its alias.
    """

    model: str
    version: int | None
    previous: int | None
    time: datetime
    missing: bool = False

    @property
    def key(self) -> str:
        """What makes a sighting that is reported twice the same one."""
        return f"seen {self.time.isoformat()}"


@dataclass(frozen=True, slots=True)
class Request:
    """A wish to move the champion.

    `force` lets a barred version have its way; `time` is when a move by hand was seen, None: now.
    """

    kind: Kind
    to: int | None
    actor: str
    reason: str
    evidence: str
    key: str = ""
    force: bool = False
    time: datetime | None = None

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

    def attempt(self, request: Request) -> LedgerEntry | None:
        """Give the move that an earlier attempt of this request made or began, unless it came to nothing.

        A request that leaves open where to go is recognised by all the rest.
        """
        last = next((entry for entry in reversed(self.entries) if entry.outcome in ("done", "open")), None)
        if last is None:
            return None
        return last if replace(request, to=last.to if request.to is None else request.to).wrote(last) else None

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
        present = f"the champion is {name_version(book.position)} (see bnpipe history {book.model})"
        if request.kind == "rollback":
            raise PromotionRefused(
                f"{book.model!r} was to be rolled back from {name_version(_plain(expected))}, but {present}; decide "
                "again"
            )
        raise PromotionRefused(
            f"{name_version(request.to)} of {book.model!r} was compared with {name_version(_plain(expected))}, but "
            f"{present}; compare again"
        )
    if request.to is not None and book.position == request.to:
        number = book.last_done.number if book.last_done else 0
        raise PromotionRefused(f"{name_version(request.to)} already is the champion of {book.model!r} (entry {number})")


def noticed(source: int | None, to: int | None, *, seen: Sighting | None = None, by_mover: bool = False) -> Request:
    """Describe a move that somebody made in MLflow, as it is found now or as a watcher saw it."""
    what = "champion alias deleted in MLflow" if to is None else "champion alias set in MLflow"
    key, time = (seen.key, seen.time) if seen else (BY_MOVER if by_mover else "", None)
    return Request("by hand", to, UNKNOWN_ACTOR, f"{what}; the ledger had {name_version(source)}", "", key, time=time)


def next_unannounced(book: Book, sightings: Sequence[Sighting], *, grace: float = GRACE) -> Sighting | None:
    """Find the earliest move by hand among what a watcher saw that the ledger lacks, None if there is none.

    Hands may move the alias twice before anybody reconciles, and only the watcher has seen where it was in between.
    It leads on from where the ledger is, and is later than the last entry; our own moves are entered before the alias
    is set, so within the grace of one the watcher may have seen what was before it.
    """
    last = book.last_done
    after = datetime.min.replace(tzinfo=UTC)
    if last is not None:
        after = last.time if last.kind == "by hand" else last.time + timedelta(seconds=grace)
    entered = {entry.key for entry in book.entries}
    for seen in sorted(sightings, key=lambda seen: seen.time):
        leads_on = seen.previous == book.position != seen.version
        if leads_on and seen.time >= after and not seen.missing and seen.key not in entered:
            return seen
    return None


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
