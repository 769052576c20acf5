"""Moves made by hand in MLflow: entered, warned of, and told apart from versions and models that are gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from bnpipe.errors import VersionNotFound
from bnpipe.registry.client import quoted
from bnpipe.registry.entries import BY_MOVER, LedgerEntry, Reconciliation, Sighting
from bnpipe.registry.ledger import EXPERIMENT, LEDGER_TAG, MODEL_TAG
from bnpipe.registry.versions import Versions

_log = logging.getLogger(__name__)


class Hands(Versions):
    """What :class:`bnpipe.registry.Registry` does about moves by hand."""

    def reconcile(self, model: str, sightings: Sequence[Sighting] = ()) -> Reconciliation:
        """Make ledger and alias agree: close what died half-way, enter what was done by hand. Idempotent.

        Parameters
        ----------
        model : str
        sightings : sequence of Sighting
            What a watcher saw, of whatever models: where the alias was in between is entered too.

        Raises
        ------
        VersionNotFound
            No such model; says whether it was renamed or deleted.
        """
        try:
            self.ledger.find(model)
        except VersionNotFound as error:
            unknown = f"MLflow at {self.connection.shown} has no registered model {model!r}"
            raise VersionNotFound(self._fate(model) or unknown) from error
        mine = tuple(seen for seen in sightings if seen.model == model)
        before = self._entered_by_movers(model, mine) if mine else ()
        found = self.ledger.settle(model, sightings=mine)
        return replace(found, warnings=found.warnings + tuple(self._warnings(before + found.by_hand)))

    def enter_moves_by_hand(self, model: str) -> None:
        """Settle the ledger before a move of our own, and warn in its log of what was done by hand until now."""
        for warning in self._warnings(self.ledger.settle(model, by_mover=True).by_hand):
            _log.warning("%s", warning)

    def _entered_by_movers(self, model: str, sightings: Sequence[Sighting]) -> tuple[LedgerEntry, ...]:
        """Find moves by hand that a watcher saw and a mover of ours entered first: only its log has been warned."""
        grace = timedelta(seconds=self.ledger.grace)
        seen = [(sighting.previous, sighting.version, sighting.time) for sighting in sightings]
        return tuple(
            entry
            for entry in self.ledger.history(model)
            if entry.key == BY_MOVER
            and any((entry.source, entry.to) == (a, b) and abs(entry.time - time) <= grace for a, b, time in seen)
        )

    def _warnings(self, by_hand: Sequence[LedgerEntry]) -> list[str]:
        warnings = []
        for entry in by_hand:
            if entry.to is None:
                warnings.append(self._removed(entry.model, entry.source))
                continue
            moved = f"champion of {entry.model!r} was set to version {entry.to} in MLflow"
            try:
                doubts = self.version(entry.model, entry.to).doubts
            except VersionNotFound:
                doubts = ("that version has been deleted since",)
            warnings.extend(f"{moved}, but {doubt}" for doubt in doubts)
        return warnings

    def _removed(self, model: str, number: int | None) -> str:
        """Tell an alias that was taken away from a version that was deleted, and the alias with it."""
        if number is not None:
            try:
                self.version(model, number)
            except VersionNotFound:
                return f"version {number} of {model!r}, the champion, was deleted in MLflow; there is none now"
        return f"champion of {model!r} was removed in MLflow; it was version {number}"

    def vacancy(self, model: str) -> str:
        """Say why a model without champion has none any more; '' if it never had one."""
        try:
            entries = self.ledger.history(model)
        except VersionNotFound:
            return self._fate(model)
        reigned = [entry.to for entry in entries if entry.to is not None and entry.outcome in ("done", "by hand")]
        return self._removed(model, reigned[-1]) if reigned else ""

    def _fate(self, model: str) -> str:
        """Say what became of a model that is not there, renamed or deleted; '' if bnpipe never made it."""
        experiment = self.connection.call("get_experiment_by_name", EXPERIMENT)
        ledgers = () if experiment is None else self._ledgers_of(model, experiment.experiment_id)
        for run_id in ledgers:
            condition = f"tags.`{LEDGER_TAG}` = {quoted(run_id)}"
            for renamed in self.connection.pages("search_registered_models", filter_string=condition, max_results=1):
                return (
                    f"{model!r} was renamed to {renamed.name!r} in MLflow, so {model!r} has no champion: rename it "
                    "back, or the spec with it"
                )
        if ledgers:
            return f"{model!r} was deleted in MLflow with all its versions; its next training begins anew"
        return ""

    def _ledgers_of(self, model: str, experiment: str) -> tuple[str, ...]:
        runs = self.connection.pages(
            "search_runs",
            experiment_ids=[experiment],
            filter_string=f"tags.`{MODEL_TAG}` = {quoted(model)}",
            order_by=["attributes.start_time DESC"],
        )
        return tuple(str(run.info.run_id) for run in runs)
