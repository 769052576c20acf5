"""What a look is made of: its window, its rows and the champion; and where its verbs leave what they made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bnpipe.config import ModelSpec
from bnpipe.data import Dataset
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema
from bnpipe.source import Window, find_time_zone
from bnpipe.steps.recipe import key_of, read_fields
from bnpipe.steps.training import Reference, Shelf
from bnpipe.store import Snapshot

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.drift import DriftReport
    from bnpipe.registry import Version
    from bnpipe.release import DriftDecision

FORMAT = 1


class Look(Reference):
    """One look on its way; its key is the hash of resolved spec, window, rows, champion and code."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class LiveWindow:
    """Live days: ``[start, tested)`` dates a change, ``[tested, end)`` is what is compared.

    Parameters
    ----------
    start, tested, end : datetime
        Local midnights in `time_zone`, each with its offset; start <= tested < end.
    time_zone : str
        IANA name.
    """

    start: datetime
    tested: datetime
    end: datetime
    time_zone: str

    def __str__(self) -> str:
        return f"[{self.tested.date()}, {self.end.date()}) in {self.time_zone}"

    @property
    def days(self) -> int:
        """Local days tested."""
        return (self.end.date() - self.tested.date()).days

    @classmethod
    def of(cls, window: Window) -> LiveWindow:
        """Take a window whole."""
        return cls(window.start, window.train_end, window.end, window.time_zone)

    @classmethod
    def after(cls, window: Window, learned: datetime | None) -> LiveWindow | None:
        """Cut a window to what is later than the rows `learned` from; None if nothing is."""
        if learned is None:
            return cls.of(window)
        learned = learned.astimezone(find_time_zone(window.time_zone))
        if learned >= window.end:
            return None
        return cls(max(window.start, learned), max(window.train_end, learned), window.end, window.time_zone)

    def to_dict(self) -> dict[str, str]:
        """Give ISO texts with offsets, and the time zone."""
        return {
            "start": self.start.isoformat(),
            "tested": self.tested.isoformat(),
            "end": self.end.isoformat(),
            "time_zone": self.time_zone,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, str]) -> LiveWindow:
        """Read what :meth:`to_dict` wrote."""
        zone = find_time_zone(fields["time_zone"])
        start, tested, end = (
            datetime.fromisoformat(fields[name]).astimezone(zone) for name in ("start", "tested", "end")
        )
        return cls(start, tested, end, fields["time_zone"])


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that live rows are compared with, as it was when the look began.

    Parameters
    ----------
    number : int
    start, train_end, window_end : datetime
        Where the days it learned from begin and end, and where those it was proved on end.
    fingerprint : str
        Of the rows it learned from and was proved on.
    base : Champion, optional
        Of a refit: the version that all but the refitted families are from.
    """

    number: int
    start: datetime
    train_end: datetime
    window_end: datetime
    fingerprint: str
    base: Champion | None = None

    @classmethod
    def of(cls, version: Version, base: Champion | None = None) -> Champion | None:
        """Read a version's tags; None if bnpipe did not make it."""
        try:
            start = datetime.fromisoformat(version.tags.get("bnpipe.window_start", ""))
        except ValueError:
            return None
        if version.train_end is None or version.window_end is None:
            return None
        fingerprint = version.tags.get("bnpipe.data_fingerprint", "")
        return cls(version.number, start, version.train_end, version.window_end, fingerprint, base)

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        times = {name: getattr(self, name).isoformat() for name in ("start", "train_end", "window_end")}
        fields = {"number": self.number, **times, "fingerprint": self.fingerprint}
        return fields if self.base is None else {**fields, "base": self.base.to_dict()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Champion:
        """Read what :meth:`to_dict` wrote."""
        times = {name: datetime.fromisoformat(fields[name]) for name in ("start", "train_end", "window_end")}
        base = fields.get("base")
        return cls(**{**fields, **times, "base": None if base is None else cls.from_dict(base)})


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can be compared, and whether a person should be told."""

    reason: str
    alert: bool = True


@dataclass(frozen=True, slots=True)
class LookRecipe:
    """Everything a look depends on; frozen by the snapshot, read by all later verbs.

    Parameters
    ----------
    spec : ModelSpec
        With the actions of this run.
    window : LiveWindow
    snapshot : Snapshot or None
        The live rows; None where there are none.
    absent : tuple of str
        Variables whose column the source lacks.
    champion : Champion or None
    obstacle : Obstacle or None
    code_version : str
    """

    spec: ModelSpec
    window: LiveWindow
    snapshot: Snapshot | None
    absent: tuple[str, ...]
    champion: Champion | None
    obstacle: Obstacle | None
    code_version: str

    @property
    def key(self) -> str:
        """SHA-256 over everything above; the snapshot counts by its fingerprint, the champion by its number."""
        identity = {
            **self._fields(),
            "kind": "look",
            "snapshot": self.snapshot and self.snapshot.fingerprint,
            "champion": self.champion and self.champion.number,
        }
        return key_of(identity)

    def _fields(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "spec": json.loads(self.spec.resolved_json()),
            "window": self.window.to_dict(),
            "absent": list(self.absent),
            "obstacle": self.obstacle and asdict(self.obstacle),
            "code_version": self.code_version,
        }

    def to_json(self) -> str:
        """Write all of it, to be read and argued with."""
        fields = {
            **self._fields(),
            "snapshot": self.snapshot and self.snapshot.to_dict(),
            "champion": self.champion and self.champion.to_dict(),
        }
        return json.dumps(fields, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> LookRecipe:
        """Read what :meth:`to_json` wrote.

        Raises
        ------
        FormatError
            Written by a newer bnpipe, or not by bnpipe.
        """
        fields = read_fields(text, "look.json", FORMAT)
        return cls(
            spec=ModelSpec.from_resolved(json.dumps(fields["spec"])),
            window=LiveWindow.from_dict(fields["window"]),
            snapshot=fields["snapshot"] and Snapshot.from_dict(fields["snapshot"]),
            absent=tuple(fields["absent"]),
            champion=fields["champion"] and Champion.from_dict(fields["champion"]),
            obstacle=fields["obstacle"] and Obstacle(**fields["obstacle"]),
            code_version=fields["code_version"],
        )


class LookBench(Shelf):
    """What the verbs of one look work with."""

    @cached_property
    def recipe(self) -> LookRecipe:
        """What the snapshot froze."""
        return LookRecipe.from_json(self.read("look.json", step="look_snapshot"))

    @cached_property
    def network(self) -> Network:
        """The champion as it was when the look began; it may be gone from MLflow by now."""
        return Network.from_json(self.read("champion.json", step="look_snapshot"))

    @property
    def hindrance(self) -> str:
        """Say why nothing may be compared, '' if nothing is in the way."""
        if self.recipe.obstacle is not None:
            return self.recipe.obstacle.reason
        failed = [verdict for verdict in self.validation() if not verdict.passed]
        return f"the live rows failed validation: {failed[0].reason}" if failed else ""

    def live_rows(self, schema: Schema, *, start: datetime | None = None, end: datetime | None = None) -> Dataset:
        """Read live rows, encoded; variables that the source lacks, or a request did not have, are missing."""
        from bnpipe.answers.columns import UNOBSERVED
        from bnpipe.store import load_dataset, load_frame

        recipe = self.recipe
        absent = {*recipe.absent, *(name for name in schema.names if name not in recipe.spec.variables)}
        assert recipe.snapshot is not None, "the recipe has an obstacle where there are no rows"
        with self.store.open_snapshot(recipe.snapshot) as path:
            rows = load_dataset(path, schema, start=start, end=end, absent=absent)
            if recipe.spec.drift_rule().source is None or UNOBSERVED in absent:
                return rows
            return _without(rows, load_frame(path, (UNOBSERVED,), start=start, end=end)[UNOBSERVED])

    def learned_rows(self) -> Dataset | None:
        """Read the rows the champion learned from, encoded; None if they are gone from the store."""
        from bnpipe.errors import StoreError
        from bnpipe.store import load_dataset

        champion = self.recipe.champion
        if champion is None:
            return None
        try:
            with self.store.open_snapshot(Snapshot("", champion.fingerprint, 0, 0)) as path:
                return load_dataset(path, self.network.schema, start=champion.start, end=champion.train_end)
        except StoreError as error:
            if error.retryable:
                raise
            return None

    def live_frame(self, columns: tuple[str, ...], *, start: datetime) -> pd.DataFrame:
        """Read columns of the live rows from `start` on, as they came."""
        from bnpipe.store import load_frame

        assert self.recipe.snapshot is not None, "the recipe has an obstacle where there are no rows"
        with self.store.open_snapshot(self.recipe.snapshot) as path:
            return load_frame(path, columns, start=start)

    @cached_property
    def report(self) -> DriftReport | None:
        """What the comparison found; None where nothing could be compared."""
        from bnpipe.drift import DriftReport

        compared = json.loads(self.read("compared.json", step="look_compare"))
        if compared["skipped"]:
            return None
        return DriftReport.from_dict(json.loads(self.read("drift.json", step="look_compare")))

    @cached_property
    def decision(self) -> DriftDecision:
        """What was decided in this run."""
        from bnpipe.release import DriftDecision

        return DriftDecision.from_dict(json.loads(self.read("decision.json", step="look_decide", of_run=True)))


def _without(rows: Dataset, unobserved: pd.Series[str]) -> Dataset:
    """Take out cells that were left out: as nulls they would have a state of their own."""
    codes = rows.codes.copy()
    for names, places in unobserved.groupby(unobserved, observed=True).indices.items():
        for name in json.loads(str(names)):
            if name in rows.schema:
                codes[rows.schema.index(name), places] = MISSING
    return replace(rows, codes=codes)
