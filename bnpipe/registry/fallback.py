"""Going back to an earlier champion: which would do, the rollback itself, and barring what must not come back.

The move is the ledger's (:mod:`bnpipe.registry.ledger`), so two rollbacks at once, one during a promotion or one killed
half-way leave alias and ledger together. Here is decided where to go, before anything moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from bnpipe.errors import BnpipeError, PromotionRefused, VersionNotFound
from bnpipe.registry.entries import (
    ANY,
    Anywhere,
    Book,
    LedgerEntry,
    Request,
    cut,
    name_version,
    refuse_unexpected,
)
from bnpipe.registry.hands import Hands
from bnpipe.registry.ledger import BARRED_TAG
from bnpipe.registry.versions import Version

if TYPE_CHECKING:
    from bnpipe.network import Network

SUGGESTED: Final = 3  # versions named as an alternative; each is loaded before it is named
FAULT_LENGTH: Final = 200


class Fallback(Hands):
    """What :class:`bnpipe.registry.Registry` does to take a champion back."""

    def predecessor(self, model: str) -> Version | None:
        """Give the version a rollback would go to, None if there is none; nothing is moved.

        It is the newest earlier champion that passed its gates, is not barred and whose files can be loaded. A champion
        whose alias was taken away by hand is not gone back to.
        """
        try:
            return next(self._fallbacks(model, self.ledger.history(model), self.ledger.alias(model)), None)
        except VersionNotFound:
            return None

    def rollback(
        self,
        model: str,
        *,
        to: int | None = None,
        actor: str,
        reason: str,
        evidence: str = "",
        expected: int | Anywhere | None = ANY,
        key: str = "",
        force: bool = False,
    ) -> LedgerEntry:
        """Make an earlier version champion again, and bar the present one from automatic promotion once that is done.

        Parameters
        ----------
        model : str
        to : int or None
            Where to go; None: :meth:`predecessor`.
        actor, reason, evidence : str
            As for :meth:`~bnpipe.registry.Registry.promote`; actor and reason are also why the version is barred.
        expected : int or None or ANY
            The champion this was decided against; ANY: the one there is when this is called.
        key : str
            As for :meth:`~bnpipe.registry.Registry.promote`: a retry gives the entry of the first attempt. Without key
            and evidence a second call is a second rollback.
        force : bool
            Also to a version that is barred or never passed its gates; never to one whose files can't be loaded.

        Raises
        ------
        PromotionRefused
            Nothing to go back to; `to` has doubts or can't be loaded; another champion than expected, or one being
            moved right now. The alias has not moved.
        VersionNotFound
        """
        self.ledger.find(model)
        self.enter_moves_by_hand(model)
        book = self.ledger.read(model)
        request = Request("rollback", to, actor, reason, evidence, key, force)
        if (attempt := book.attempt(request)) is not None:
            target, source = attempt.to, attempt.source
        else:
            refuse_unexpected(book, request, expected)
            target, source = self._target(book, request), book.position
        return self.ledger.move(model, replace(request, to=target), source if expected is ANY else expected)

    def bar(self, version: Version, reason: str) -> None:
        """Keep a version from automatic promotion; its tag ``bnpipe.barred`` says why and since when."""
        self.ledger.bar(version.model, version.number, reason, datetime.fromtimestamp(self.ledger.clock(), UTC))

    def unbar(self, version: Version) -> None:
        """Let a version be promoted again."""
        self.connection.call("delete_model_version_tag", version.model, str(version.number), BARRED_TAG)

    def _target(self, book: Book, request: Request) -> int:
        """Choose where to go, or refuse with what is wrong and what would do."""
        if request.to is None:
            return self._choose(book)
        version = self.version(book.model, request.to)
        faults = self._unreadable(version) if request.force else version.doubts + self._unreadable(version)
        if faults:
            good = islice(self._fallbacks(book.model, book.entries, book.position), SUGGESTED)
            others = " or ".join(f"version {other.number}" for other in good) or "no earlier champion"
            raise PromotionRefused(
                f"{book.model!r} can't be rolled back to version {request.to}: {'; '.join(faults)}; {others} would do"
            )
        return request.to

    def _choose(self, book: Book) -> int:
        found = next(self._fallbacks(book.model, book.entries, book.position), None)
        if found is not None:
            return found.number
        earlier = _earlier(book.entries, book.position)
        faults = [f"version {number}: {self._fault(book.model, number)}" for number in earlier[:SUGGESTED]]
        raise PromotionRefused(
            f"{book.model!r} has no earlier champion to go back to from {name_version(book.position)}"
            + (f": {', '.join(faults)}" if faults else "")
        )

    def _fallbacks(self, model: str, entries: Sequence[LedgerEntry], champion: int | None) -> Iterator[Version]:
        """Give the earlier champions that are free of doubts and can be loaded, the one that reigned last first."""
        for number in _earlier(entries, champion):
            try:
                version = self.version(model, number)
            except VersionNotFound:
                continue
            if not version.doubts and not self._unreadable(version):
                yield version

    def _fault(self, model: str, number: int) -> str:
        try:
            version = self.version(model, number)
        except VersionNotFound:
            return "it was deleted"
        return "; ".join(version.doubts or self._unreadable(version))

    def _unreadable(self, version: Version) -> tuple[str, ...]:
        """Say, as a clause, what keeps a version's network from being loaded; nothing if it can be."""
        try:
            network = self.load_network(version)
        except BnpipeError as error:
            if error.retryable:
                raise
            return (f"its files can't be loaded ({cut(str(error), FAULT_LENGTH)})",)
        return (
            () if _is_what_was_registered(network, version) else ("its files hold another network than its tags say",)
        )


def _is_what_was_registered(network: Network, version: Version) -> bool:
    return version.tags.get("bnpipe.content_hash", network.content_hash) == network.content_hash


def _earlier(entries: Sequence[LedgerEntry], champion: int | None) -> tuple[int, ...]:
    """List every version that has been champion, the latest reign first, without the one that is or was the last."""
    reigned = [entry.to for entry in reversed(entries) if entry.outcome == "done" and entry.to is not None]
    last = champion if champion is not None else next(iter(reigned), None)
    return tuple(number for number in dict.fromkeys(reigned) if number != last)
