"""Watching the champions: one poll of the registry for all models, one asset event for each alias that moved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Hashable, Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from bnpipe.errors import BnpipeError

log = logging.getLogger("bnpipe.airflow")

Champions = Mapping[str, int | None]

_SEEN = "champion"
_NEVER = "never looked"


class ChampionTrigger(BaseEventTrigger):
    """Fire when the champion of one model is another version than the last one announced.

    All triggers of one poll interval share a single poll. What was announced last is kept in the asset's state store,
    so that a move made while no triggerer ran is still noticed. It is stored at the next look, since Airflow takes an
    event out of the triggerer a second or so after it was given: a crash in between announces twice rather than never.
    Without a store the first look announces: reconciling is idempotent.

    Parameters
    ----------
    model : str
        Name of the network.
    poll_seconds : float
        Time between two looks at the registry.
    """

    def __init__(self, model: str, poll_seconds: float = 5.0) -> None:
        super().__init__()
        self.model = model
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give class path and arguments, from which the triggerer builds it again."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"model": self.model, "poll_seconds": self.poll_seconds},
        )

    def shared_stream_key(self) -> Hashable:
        """Share the poll with the triggers of all other models."""
        return ("bnpipe.registry", self.poll_seconds)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Champions]:
        """Yield the champions of all models, again and again; an outage is logged once and waited out."""
        away = False
        while True:
            try:
                champions = await asyncio.to_thread(poll_champions)
            except BnpipeError as error:
                if not away:
                    log.warning("the registry can't be read, the watcher goes on trying: %s", error)
                away = True
            else:
                if away:
                    log.info("the registry answers again")
                away = False
                yield champions
            await asyncio.sleep(float(kwargs["poll_seconds"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Champions]) -> AsyncIterator[TriggerEvent]:
        """Yield an event at each move.

        It has ``model``, ``version`` and ``previous`` (None: no champion, or unknown), ``seen``, when that was, and
        ``missing``, whether the model itself is no longer among those that bnpipe manages.
        """
        announced = stored = await self._announced()
        async for champions in shared_stream:
            if announced != stored and self.asset_state_store is not None:
                await self.asset_state_store.aset(_SEEN, {"version": announced})
                stored = announced
            version = champions.get(self.model)
            if version == announced or (version is None and announced == _NEVER):
                continue
            previous = announced if isinstance(announced, int) else None
            yield TriggerEvent(
                {
                    "model": self.model,
                    "version": version,
                    "previous": previous,
                    "seen": datetime.now(UTC).isoformat(),
                    "missing": self.model not in champions,
                }
            )
            announced = version

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Watch alone, where the triggerer shares no streams."""
        async for event in self.filter_shared_stream(self.open_shared_stream({"poll_seconds": self.poll_seconds})):
            yield event

    async def _announced(self) -> int | str | None:
        if self.asset_state_store is None:
            return _NEVER
        stored = await self.asset_state_store.aget(_SEEN)
        return stored.get("version", _NEVER) if isinstance(stored, dict) else _NEVER


def poll_champions() -> Champions:
    """Read the champion's version of every model in the registry, by one request.

    Raises
    ------
    RegistryUnavailable
        MLflow did not answer.
    """
    from bnpipe.config import Settings
    from bnpipe.registry import Registry

    return Registry(Settings.from_environ().tracking_uri).champions()
