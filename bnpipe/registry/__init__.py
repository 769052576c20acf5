"""MLflow for bnpipe: training runs, versions, the champion and its ledger.

The only package that imports mlflow, and only inside its functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from bnpipe.registry.canary import CanaryEntry, describe_canary
from bnpipe.registry.client import Connection
from bnpipe.registry.entries import ANY, GRACE, Anywhere, LedgerEntry, Reconciliation, Request, Sighting
from bnpipe.registry.fallback import Fallback
from bnpipe.registry.freezing import Freeze
from bnpipe.registry.ledger import CHAMPION, LEDGER_TAG, Ledger
from bnpipe.registry.runs import Runs
from bnpipe.registry.standings import Standing, Standings
from bnpipe.registry.versions import Version

__all__ = [
    "ANY",
    "Anywhere",
    "CanaryEntry",
    "Freeze",
    "LedgerEntry",
    "Reconciliation",
    "Registry",
    "Sighting",
    "Standing",
    "Version",
    "describe",
    "describe_canary",
]


class Registry(Runs, Fallback, Standings):
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
        key: str = "",
        force: bool = False,
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
        key : str
            Names this request, as an Airflow run id does: a retry with the same key gives the entry of the first
            attempt while that is the last move; once the champion has moved on it is judged like any other request.
            Without a key the same arguments, if evidence is among them, are taken for a retry.
        force : bool
            Also a version that is barred.

        Raises
        ------
        PromotionRefused
            Another champion than expected, one being moved right now, or `to` already is the champion or is barred.
        VersionNotFound
        """
        self.version(model, to)
        self.enter_moves_by_hand(model)
        return self.ledger.move(model, Request("promotion", to, actor, reason, evidence, key, force), expected)

    def history(self, model: str) -> tuple[LedgerEntry, ...]:
        """Give the ledger of a model, oldest entry first.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        return self.ledger.history(model)

    def models(self) -> tuple[str, ...]:
        """Give the names of the models bnpipe has registered."""
        return tuple(self.champions())

    def champions(self) -> Mapping[str, int | None]:
        """Give the champion's version of each model bnpipe has registered, None where there is none, in one search."""
        managed = f"tags.`{LEDGER_TAG}` != ''"
        found = self.connection.pages("search_registered_models", filter_string=managed, max_results=1000)
        aliased = {model.name: model.aliases.get(CHAMPION) for model in found}
        return {name: None if number is None else int(number) for name, number in sorted(aliased.items())}


def describe(entry: LedgerEntry | Freeze) -> str:
    """Tell an entry of the ledger, or a freeze, in one line."""
    when = entry.time.strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(entry, Freeze):
        return f"{entry.number:>4}  {when}  " + (
            f"frozen by {entry.actor}: {entry.reason}" if entry.frozen else f"thawed by {entry.actor}"
        )
    source, to = (f"version {number}" if number is not None else "no version" for number in (entry.source, entry.to))
    fate = {"done": "", "void": " (not carried out)", "by hand": " (overtaken by hand)", "open": " (under way)"}
    evidence = f" [{entry.evidence}]" if entry.evidence else ""
    return (
        f"{entry.number:>4}  {when}  {entry.kind}: {source} -> {to} by {entry.actor}: {entry.reason}{evidence}"
        + (fate[entry.outcome])
    )
