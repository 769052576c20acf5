"""MLflow for bnpipe: training runs, versions, the champion and its ledger.

The only package that imports mlflow, and only inside its functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from bnpipe.errors import VersionNotFound
from bnpipe.registry.client import Connection
from bnpipe.registry.entries import (
    ANY,
    GRACE,
    Anywhere,
    Kind,
    LedgerEntry,
    Reconciliation,
    Request,
    read_entries,
)
from bnpipe.registry.ledger import CHAMPION, LEDGER_TAG, Ledger
from bnpipe.registry.runs import Runs
from bnpipe.registry.versions import Version, Versions

__all__ = ["ANY", "Anywhere", "LedgerEntry", "Reconciliation", "Registry", "Version", "describe"]


class Registry(Runs, Versions):
    """Everything bnpipe asks of MLflow.

    Parameters
    ----------
    tracking_uri : str or None
        None: ``MLFLOW_TRACKING_URI``.
    clock : callable
        Seconds since 1970.
    grace : float
        Seconds after which the unfinished work of another process is taken for dead.
    checkpoint : callable or None
        Called with the name of each step between which a process may die; for tests.

    Raises
    ------
    SettingsError
        No tracking URI.
    RegistryUnavailable
        From every method, when MLflow does not answer.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
        grace: float = GRACE,
        checkpoint: Callable[[str], None] | None = None,
    ) -> None:
        self.connection = Connection(tracking_uri)
        self.ledger = Ledger(self.connection, clock, grace)
        if checkpoint is not None:
            self.ledger.checkpoint = checkpoint

    def promote(
        self,
        model: str,
        to: int,
        *,
        actor: str,
        reason: str,
        evidence: str = "",
        expected: int | Anywhere | None = ANY,
        kind: Kind = "promotion",
        key: str = "",
    ) -> LedgerEntry:
        """Move the champion and enter it in the ledger (protocol: :mod:`bnpipe.registry.ledger`).

        Parameters
        ----------
        model : str
        to : int
            The version to become champion.
        actor, reason, evidence : str
            Who, why, and where to look it up (a URL or run id).
        expected : int or None or ANY
            The champion this was decided against; None: that there was none.
        kind : {"promotion", "rollback"}
        key : str
            Names this request, as an Airflow run id does: a retry with the same key gives the entry of the first
            attempt while that is the last move; once the champion has moved on it is judged like any other request.
            Without a key the same arguments, if evidence is among them, are taken for a retry.

        Raises
        ------
        PromotionRefused
            Another champion than expected, one being moved right now, or `to` already is the champion.
        VersionNotFound
        """
        self.version(model, to)
        return self.ledger.move(model, Request(kind, to, actor, reason, evidence, key), expected)

    def history(self, model: str) -> tuple[LedgerEntry, ...]:
        """Give the ledger of a model, oldest entry first.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        run_id = self.ledger.find(model)
        return read_entries(model, self.ledger.params(run_id)) if run_id else ()

    def reconcile(self, model: str) -> Reconciliation:
        """Make ledger and alias agree: close what died half-way, enter what was done by hand. Idempotent.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        self.ledger.find(model)
        found = self.ledger.settle(model)
        return replace(found, warnings=found.warnings + tuple(self._warnings(found.by_hand)))

    def models(self) -> tuple[str, ...]:
        """Give the names of the models bnpipe has registered."""
        return tuple(self.champions())

    def champions(self) -> Mapping[str, int | None]:
        """Give the champion's version of each model bnpipe has registered, None where there is none, in one search."""
        managed = f"tags.`{LEDGER_TAG}` != ''"
        found = self.connection.pages("search_registered_models", filter_string=managed, max_results=1000)
        aliased = {model.name: model.aliases.get(CHAMPION) for model in found}
        return {name: None if number is None else int(number) for name, number in sorted(aliased.items())}

    def _warnings(self, by_hand: tuple[LedgerEntry, ...]) -> list[str]:
        warnings = []
        for entry in by_hand:
            moved = f"champion of {entry.model!r} was set to version {entry.to} in MLflow"
            if entry.to is None:
                warnings.append(f"champion of {entry.model!r} was removed in MLflow; it was version {entry.source}")
                continue
            try:
                doubts = self.version(entry.model, entry.to).doubts
            except VersionNotFound:
                continue
            warnings.extend(f"{moved}, but {doubt}" for doubt in doubts)
        return warnings


def describe(entry: LedgerEntry) -> str:
    """Tell an entry of the ledger in one line."""
    source, to = (f"version {number}" if number is not None else "no version" for number in (entry.source, entry.to))
    fate = {"done": "", "void": " (not carried out)", "by hand": " (overtaken by hand)", "open": " (under way)"}
    evidence = f" [{entry.evidence}]" if entry.evidence else ""
    when = entry.time.strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{entry.number:>4}  {when}  {entry.kind}: {source} -> {to} by {entry.actor}: {entry.reason}{evidence}"
        + (fate[entry.outcome])
    )
