"""The ledger: who or what moved the champion, when, from which version to which, on what evidence.

MLflow keeps no history of an alias and cannot move it only *if* it still is where one believes it to be. What it has is
write-once run params: ``(run, key)`` is a primary key of its database, so of two processes that log different values
under one key exactly one succeeds, and logging the same value again changes nothing (HTTP retries are harmless). That
is a compare-and-set, and all that follows is built from it.

Where
    Each registered model has one ledger: an MLflow run of the experiment ``bnpipe ledgers``, named by the tag
    ``bnpipe.ledger`` of the registered model, which survives renaming. Two first promotions at once must find one
    ledger: the run is made first, then ``create_registered_model(name, tags={"bnpipe.ledger": run})``, atomic because
    names are unique; the loser deletes its spare run. A model made by somebody else is adopted by a compare-and-set on
    the unique name of an experiment that holds nothing but this tag (:meth:`Ledger._adopt`).

How the champion is moved
    1. Read the ledger, settle what is open (below), and see that the alias is where the ledger says.
    2. Claim the next number: param ``NNNNNN.claim`` = JSON with a nonce, from, to, actor, reason, evidence, time, kind.
       Read it back: only the nonce that stands has won. A loser starts again from 1.
    3. Read the alias again: it is ``from``, or the entry is closed ``void`` and the promotion refused.
       So it is, too, if the version has been barred since it was chosen, unless the request is forced.
    4. Set the alias. A rollback now bars the version it came from. 5. Close: param ``NNNNNN.outcome`` = ``done``, and
    read back what stands. Whoever closes the rollback of a killed mover as ``done`` bars first, in the same words: a
    rollback that is done has barred its source, and a bar lifted later by a person is not put back.

How an open entry is settled by somebody else (the mover was killed)
    Alias at ``to``: ``done``, at once. Otherwise, once the claim is older than the grace (60 s): alias at ``from``:
    ``void``; elsewhere: ``by hand``. A mover takes less than half of the grace or gives up before step 4, so a live one
    is not voided under its feet; if it was (a machine slept), it finds ``void`` in step 5 and enters its move again
    under a new number. A retried promotion settles the entry of its own killed predecessor without waiting. What a
    predecessor has done stands for the retry only while it is the last move and the alias still is there.
    With no entry open and the alias elsewhere than the ledger says, somebody moved it by hand: that is entered too,
    with actor ``unknown (MLflow)``, after whatever else a watcher has seen on the way
    (:func:`~bnpipe.registry.entries.next_unannounced`). The ledger is read *before* the alias: a move in between shows
    as a lost claim.

Why it holds
    *One mover.* A number is claimed only by a process that has read every earlier entry closed; entries never reopen;
    so at most one is open, and of those who claim the same number one wins. *One chain.* A claim's ``from`` is the
    ledger's position at the number before; since no other entry can lie between, the ``to`` of each ``done`` entry is
    the ``from`` of the next. *Ledger and alias agree.* ``done`` is written only after the alias was at ``to`` while the
    entry was open, or, by hand, was seen there, and what others did to the alias meanwhile becomes the next entry at
    the next :meth:`settle`. Unseen remain only moves by hand that were taken back before anybody looked: MLflow
    forgets them.

Clocks enter only through the grace: a machine whose clock is behind by more than half a minute can see its open claims
voided early, which step 5 repairs. MLflow must let each process read what was written before:
no read replica behind it.
"""

from __future__ import annotations

import json
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from bnpipe.errors import PromotionRefused, RegistryError, RegistryUnavailable, VersionNotFound
from bnpipe.registry.client import EXISTS, INVALID, Connection, code, quoted
from bnpipe.registry.entries import (
    ANY,
    GRACE,
    KEY_LENGTH,
    NO_REASON,
    Anywhere,
    Book,
    LedgerEntry,
    Outcome,
    Reconciliation,
    Request,
    Sighting,
    already_done,
    cut,
    name_version,
    next_unannounced,
    noticed,
    read_entries,
    read_entry,
    read_outcome,
    refuse_unexpected,
    settled_outcome,
)

CHAMPION: Final = "champion"
LEDGER_TAG: Final = "bnpipe.ledger"
BARRED_TAG: Final = "bnpipe.barred"
MODEL_TAG: Final = "bnpipe.ledger_of"
EXPERIMENT: Final = "bnpipe ledgers"
ROUNDS: Final = 20

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Ledger:
    """The protocol of this module's head over one MLflow.

    Parameters
    ----------
    connection : Connection
    clock : callable
        Seconds since 1970.
    grace : float
        Seconds before others may close an open entry.
    checkpoint : callable
        Called with ``claimed``, ``moved``, ``barred`` between the steps, so that tests can kill a mover there.
    """

    connection: Connection
    clock: Callable[[], float] = time.time
    grace: float = GRACE
    checkpoint: Callable[[str], None] = field(default=lambda _stage: None)

    def ensure(self, model: str) -> str:
        """Give the run id of a model's ledger; registers the model and makes the ledger if needed."""
        try:
            return self.find(model) or self._adopt(model)
        except VersionNotFound:
            return self._found(model)

    def find(self, model: str) -> str:
        """Give the run id of a model's ledger, '' if it has none.

        Raises
        ------
        VersionNotFound
            No such registered model.
        """
        return str(self.connection.call("get_registered_model", model).tags.get(LEDGER_TAG, ""))

    def read(self, model: str) -> Book:
        """Read all entries of a model."""
        return self._book(model, self.ensure(model))

    def history(self, model: str) -> tuple[LedgerEntry, ...]:
        """Read all entries of a model; makes no ledger where there is none.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        run_id = self.find(model)
        return read_entries(model, self.params(run_id)) if run_id else ()

    def alias(self, model: str) -> int | None:
        """Read where the champion is."""
        version = self.connection.call("get_registered_model", model).aliases.get(CHAMPION)
        return None if version is None else int(version)

    def settle(
        self,
        model: str,
        *,
        author: Request | None = None,
        sightings: Sequence[Sighting] = (),
        by_mover: bool = False,
    ) -> Reconciliation:
        """Close orphans and enter moves made by hand; idempotent.

        Parameters
        ----------
        model : str
        author : Request or None
            A mover that was voided under its feet: an unannounced move to its target is its own.
        sightings : sequence of Sighting
            What a watcher saw of this model.
        by_mover : bool
            Before a move of our own: whoever looks after the ledger is still to be told what is entered here.
        """
        closed: list[LedgerEntry] = []
        voided: list[LedgerEntry] = []
        by_hand: list[LedgerEntry] = []
        for _ in range(ROUNDS + len(sightings)):
            book = self.read(model)
            alias = self.alias(model)  # after the ledger: see the module's head
            seen = next_unannounced(book, sightings, grace=self.grace)
            if (entry := book.open) is not None:
                outcome = settled_outcome(entry, alias, now=self.clock(), grace=self.grace)
                if outcome == "open":
                    return Reconciliation(tuple(closed), tuple(voided), tuple(by_hand), (self._under_way(entry),))
                settled = self._close(book, entry, outcome)
                (closed if settled.outcome == "done" else voided).append(settled)
            elif seen is None and alias == book.position:
                return Reconciliation(tuple(closed), tuple(voided), tuple(by_hand))
            else:
                request = noticed(book.position, seen.version if seen else alias, seen=seen, by_mover=by_mover)
                if author is not None and author.to == request.to:
                    request = author
                if (claimed := self._claim(book, request)) is not None:
                    by_hand.append(self._close(book, claimed, "done"))
        raise RegistryUnavailable(
            f"the champion of {model!r} kept moving while its ledger was being settled; try again"
        )

    def move(self, model: str, request: Request, expected: int | Anywhere | None = ANY) -> LedgerEntry:
        """Move the champion; exactly one of several movers gets each number.

        Parameters
        ----------
        model : str
        request : Request
        expected : int or None or ANY
            The champion that `request` was decided against.

        Raises
        ------
        PromotionRefused
            The champion is another than expected, or is being moved, or is there already.
        """
        for _ in range(ROUNDS):
            self.settle(model, by_mover=True)
            book = self.read(model)
            if (entry := book.open) is not None:
                if not request.wrote(entry):
                    raise PromotionRefused(self._under_way(entry))
                # By our own killed predecessor, so there is no live mover to wait for.
                self._close(book, entry, settled_outcome(entry, self.alias(model), now=math.inf))
                continue
            if (done := already_done(book, request)) is not None:
                if self.alias(model) == done.to:
                    return done
                continue  # moved by hand just now: to be entered first
            refuse_unexpected(book, request, expected)
            began = time.monotonic()
            if (claimed := self._claim(book, request)) is not None:
                return self._carry_out(book, claimed, request, began)
        raise RegistryUnavailable(f"the champion of {model!r} kept moving; try again")

    def bar(self, model: str, version: int, reason: str, since: datetime) -> None:
        """Bar a version from automatic promotion, its tag saying why and since when."""
        self.connection.call(
            "set_model_version_tag", model, str(version), BARRED_TAG, f"{reason} (since {since:%Y-%m-%d %H:%M UTC})"
        )

    def claim(self, run_id: str, key: str, value: str) -> str:
        """Log a write-once param and give the value that stands, be it ours or another's."""
        try:
            self.connection.call("log_param", run_id, key, value)
        except RegistryError as error:
            if code(error) == INVALID and (standing := self.params(run_id).get(key)) is not None:
                return standing
            raise
        return self.params(run_id)[key]

    def params(self, run_id: str) -> Mapping[str, str]:
        """Read a ledger run's params; a run that someone deleted is brought back."""
        run = self.connection.call("get_run", run_id)
        if run.info.lifecycle_stage == "deleted":
            _log.warning("ledger run %s had been deleted in MLflow; restored", run_id)
            experiment = self.connection.call("get_experiment", run.info.experiment_id)
            if experiment.lifecycle_stage == "deleted":
                self.connection.call("restore_experiment", experiment.experiment_id)
            self.connection.call("restore_run", run_id)
        params: Mapping[str, str] = run.data.params
        return params

    def _carry_out(self, book: Book, entry: LedgerEntry, request: Request, began: float) -> LedgerEntry:
        self.checkpoint("claimed")
        if not request.force:
            self._refuse_barred(book, entry)
        if (alias := self.alias(book.model)) != entry.source:
            if (closed := self._close(book, entry, "void")).outcome == "done":
                return closed  # somebody made the very same version champion, and was taken for us
            raise PromotionRefused(
                f"{name_version(entry.to)} of {book.model!r} was not promoted: meanwhile somebody made "
                f"{name_version(alias)} the champion in MLflow"
            )
        if time.monotonic() - began > self.grace / 2:
            self._close(book, entry, "void")
            raise RegistryUnavailable(
                f"MLflow took too long to promote {name_version(entry.to)} of {book.model!r}; try again"
            )
        try:
            self.connection.call("set_registered_model_alias", book.model, CHAMPION, str(entry.to))
        except VersionNotFound:
            self._close(book, entry, "void")
            raise
        self.checkpoint("moved")
        closed = self._close(book, entry, "done")
        return closed if closed.outcome == "done" else self._enter_again(book.model, closed, request)

    def _refuse_barred(self, book: Book, entry: LedgerEntry) -> None:
        """Close an entry as void whose version was barred, or deleted, since it was chosen."""
        try:
            bar = self.connection.call("get_model_version", book.model, str(entry.to)).tags.get(BARRED_TAG)
        except VersionNotFound:
            self._close(book, entry, "void")
            raise
        if bar is not None:
            self._close(book, entry, "void")
            raise PromotionRefused(
                f"{name_version(entry.to)} of {book.model!r} was not promoted: it is barred: {bar or NO_REASON}"
            )

    def _enter_again(self, model: str, voided: LedgerEntry, request: Request) -> LedgerEntry:
        """Somebody closed our entry before we had moved the alias: make the ledger say what happened."""
        _log.warning("ledger of %s: entry %d was closed as %s while being moved", model, voided.number, voided.outcome)
        self.settle(model, author=request)
        last = self.read(model).last_done
        if last is None or last.to != request.to:
            raise PromotionRefused(f"{name_version(request.to)} of {model!r} was overtaken; see bnpipe history {model}")
        return last

    def _claim(self, book: Book, request: Request) -> LedgerEntry | None:
        """Claim the next number for a request; None if another was first."""
        number = book.next_number
        claim = {
            "nonce": uuid.uuid4().hex,
            "from": book.position,
            "to": request.to,
            "actor": cut(request.actor, KEY_LENGTH),
            "reason": cut(request.reason),
            "evidence": cut(request.evidence),
            "time": (request.time or datetime.fromtimestamp(self.clock(), UTC)).isoformat(),
            "kind": request.kind,
            "key": cut(request.key, KEY_LENGTH),
        }
        value = json.dumps(claim, ensure_ascii=False)
        name = f"{number:06d}.claim"
        if self.claim(book.run_id, name, value) != value:
            return None
        return read_entry(book.model, number, {name: value})

    def _close(self, book: Book, entry: LedgerEntry, outcome: Outcome) -> LedgerEntry:
        """Close an entry and give it with the outcome that stands; a rollback is done once its source is barred."""
        if outcome == "done" and entry.kind == "rollback" and entry.source is not None:
            with suppress(VersionNotFound):
                self.bar(book.model, entry.source, f"rolled back by {entry.actor}: {entry.reason}", entry.time)
            self.checkpoint("barred")
        standing = self.claim(book.run_id, f"{entry.number:06d}.outcome", outcome)
        return replace(entry, outcome=read_outcome(standing))

    def _book(self, model: str, run_id: str) -> Book:
        try:
            return Book(model, run_id, read_entries(model, self.params(run_id)))
        except VersionNotFound as error:
            raise RegistryError(
                f"the ledger of {model!r} (MLflow run {run_id}) is gone; delete the tag {LEDGER_TAG} of the registered "
                "model to begin a new one"
            ) from error

    def _new_run(self, model: str) -> str:
        experiment = self.connection.ensure_experiment(EXPERIMENT)
        tags = {MODEL_TAG: model, "mlflow.note.content": "Moves of the champion. Written by bnpipe; do not delete."}
        run = self.connection.call("create_run", experiment, tags=tags, run_name=f"ledger of {model}")
        return str(run.info.run_id)

    def _found(self, model: str) -> str:
        run_id = self._new_run(model)
        try:
            self.connection.call("create_registered_model", model, tags={LEDGER_TAG: run_id})
        except RegistryError as error:
            if code(error) != EXISTS:
                raise
            winner = self.find(model)  # may be ours: MLflow's HTTP layer repeats what it believes lost
            if winner != run_id:
                self.connection.call("delete_run", run_id)
            return winner or self._adopt(model)
        return run_id

    def _adopt(self, model: str) -> str:
        """Give a ledger to a model that has none: made outside bnpipe, or its tag was deleted.

        The compare-and-set is an experiment that is named for this very model and holds the winner's run as a tag from
        its first moment.
        """
        made = self.connection.call("get_registered_model", model).creation_timestamp
        holder = f"bnpipe ledger of {model} ({made})"
        found = self.connection.call("get_experiment_by_name", holder)
        if found is None:
            candidate = self._earlier_ledger(model) or self._new_run(model)
            self.connection.ensure_experiment(holder, **{LEDGER_TAG: candidate})
            found = self.connection.call("get_experiment_by_name", holder)
            if found.tags[LEDGER_TAG] != candidate and not self.params(candidate):
                self.connection.call("delete_run", candidate)
        run_id = str(found.tags[LEDGER_TAG])
        self.connection.call("set_registered_model_tag", model, LEDGER_TAG, run_id)
        return run_id

    def _earlier_ledger(self, model: str) -> str:
        """Find the ledger of a model whose tag was deleted by hand, '' if none has entries."""
        experiment = self.connection.ensure_experiment(EXPERIMENT)
        runs = self.connection.pages(
            "search_runs",
            experiment_ids=[experiment],
            filter_string=f"tags.`{MODEL_TAG}` = {quoted(model)}",
            order_by=["attributes.start_time ASC"],
        )
        return next((str(run.info.run_id) for run in runs if read_entries(model, run.data.params)), "")

    def _under_way(self, entry: LedgerEntry) -> str:
        age = max(self.clock() - entry.time.timestamp(), 0.0)
        what = f"{name_version(entry.to)} of {entry.model!r} is being promoted"
        if entry.kind == "rollback":
            what = f"{entry.model!r} is being rolled back to {name_version(entry.to)}"
        return (
            f"{what} by {entry.actor} (entry {entry.number}, {age:.0f} s ago); if that process has died, the entry is "
            f"closed after {self.grace:.0f} s"
        )
