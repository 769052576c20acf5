"""Freezing: a person's word that nothing moves this model's champion by itself until it is thawed.

The state is the tag ``bnpipe.frozen`` of the registered model, where MLflow shows it; each freeze and thaw is also
entered for good under a write-once param of the model's ledger, ``freeze.NNNNNN``. Who dies between the two leaves the
model frozen: a freeze is tagged before it is entered, a thaw entered before the tag goes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Final

from bnpipe.errors import VersionNotFound
from bnpipe.registry.client import Connection
from bnpipe.registry.entries import KEY_LENGTH, NO_REASON, cut
from bnpipe.registry.ledger import Ledger

FROZEN_TAG: Final = "bnpipe.frozen"


@dataclass(frozen=True, slots=True)
class Freeze:
    """A freeze, or the end of one.

    Parameters
    ----------
    number : int
        Counted from 1 for each model.
    model : str
    frozen : bool
        False: thawed.
    actor, reason : str
        Who, and why it was frozen.
    time : datetime
        UTC.
    """

    number: int
    model: str
    frozen: bool
    actor: str
    reason: str
    time: datetime


class Freezing:
    """What :class:`bnpipe.registry.Registry` does with freezes."""

    connection: Connection
    ledger: Ledger

    def freeze(self, model: str, *, actor: str, reason: str) -> None:
        """Let nothing move the champion by itself from now on; people still may.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        self.ledger.find(model)
        now = datetime.fromtimestamp(self.ledger.clock(), UTC)
        text = f"by {cut(actor, KEY_LENGTH)} since {now:%Y-%m-%d %H:%M UTC}: {cut(reason) or NO_REASON}"
        self.connection.call("set_registered_model_tag", model, FROZEN_TAG, text)
        self._enter(model, frozen=True, actor=actor, reason=reason, now=now)

    def thaw(self, model: str, *, actor: str) -> None:
        """End a freeze; does nothing if there is none.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        self.ledger.find(model)
        if self.frozen(model) is None:
            return
        self._enter(model, frozen=False, actor=actor, reason="", now=datetime.fromtimestamp(self.ledger.clock(), UTC))
        self.connection.call("delete_registered_model_tag", model, FROZEN_TAG)

    def frozen(self, model: str) -> str | None:
        """Say by whom, since when and why a model is frozen; None if it is not, or does not exist."""
        try:
            text = self.connection.call("get_registered_model", model).tags.get(FROZEN_TAG)
        except VersionNotFound:
            return None
        return None if text is None else str(text) or NO_REASON

    def freezes(self, model: str) -> tuple[Freeze, ...]:
        """Give every freeze and thaw of a model, oldest first.

        Raises
        ------
        VersionNotFound
            No such model.
        """
        run_id = self.ledger.find(model)
        params = self.ledger.params(run_id) if run_id else {}
        names = sorted(name for name in params if name.startswith("freeze."))
        return tuple(_read(model, int(name.removeprefix("freeze.")), params) for name in names)

    def _enter(self, model: str, *, frozen: bool, actor: str, reason: str, now: datetime) -> None:
        run_id = self.ledger.ensure(model)
        fields = {"frozen": frozen, "actor": cut(actor, KEY_LENGTH), "reason": cut(reason), "time": now.isoformat()}
        value = json.dumps(fields | {"nonce": uuid.uuid4().hex}, ensure_ascii=False)
        for number in count(len(self.freezes(model)) + 1):
            if self.ledger.claim(run_id, f"freeze.{number:06d}", value) == value:
                return


def _read(model: str, number: int, params: Mapping[str, str]) -> Freeze:
    fields = json.loads(params[f"freeze.{number:06d}"])
    time = datetime.fromisoformat(fields["time"])
    return Freeze(number, model, fields["frozen"], fields["actor"], fields["reason"], time)
