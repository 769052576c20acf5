"""One training on its way: where its steps leave what they made, and how each is timed and reported."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from functools import cached_property
from typing import Any

from bnpipe.config import Settings
from bnpipe.data import Dataset
from bnpipe.errors import BnpipeError, StoreError
from bnpipe.network import Network
from bnpipe.registry import Registry
from bnpipe.schema import Schema
from bnpipe.steps.recipe import Recipe
from bnpipe.store import Store
from bnpipe.verdict import Verdict

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Training:
    """A reference that fits into an XCom: which training, and which MLflow run tells of it.

    Parameters
    ----------
    model : str
        Name of the network.
    key : str
        The training key; everything the steps make lies under ``runs/<key>/`` in the store.
    run_id : str
        The MLflow run of this Airflow or terminal run.
    actor : str
        Who started it: a user or ``schedule``.
    """

    model: str
    key: str
    run_id: str
    actor: str

    def to_dict(self) -> dict[str, str]:
        """Give plain strings for XCom."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, str]) -> Training:
        """Read what :meth:`to_dict` gave."""
        return cls(**{field.name: values[field.name] for field in dataclass_fields(cls)})


class Bench:
    """What the steps of one training work with: the store, the registry, and what earlier steps left."""

    def __init__(self, training: Training, settings: Settings | None = None) -> None:
        self.training = training
        self.settings = settings or Settings.from_environ()
        self.store = Store(self.settings.store)
        self.registry = Registry(self.settings.tracking_uri)

    @cached_property
    def recipe(self) -> Recipe:
        """What the snapshot step froze."""
        return Recipe.from_json(self.read("training.json", step="snapshot"))

    @cached_property
    def schema(self) -> Schema:
        """The schema that the learn step fixed."""
        return Schema.from_dict(json.loads(self.read("schema.json", step="learn")))

    @cached_property
    def parents(self) -> dict[str, tuple[str, ...]]:
        """The graph that the learn step found."""
        found = json.loads(self.read("structure.json", step="learn"))["parents"]
        return {node: tuple(parents) for node, parents in found.items()}

    @cached_property
    def network(self) -> Network:
        """The network that the fit step made."""
        return Network.from_json(self.read("network.json", step="fit"))

    def training_rows(self) -> Dataset:
        """Read the rows to learn from, encoded."""
        window = self.recipe.window
        return self._rows(self.schema, window.start, window.train_end)

    def held_out_rows(self, *, schema: Schema | None = None, since: datetime | None = None) -> Dataset:
        """Read the rows to prove on, encoded; only later ones where the champion learned `since` then."""
        window = self.recipe.window
        start = window.train_end if since is None else min(max(window.train_end, since), window.end)
        return self._rows(schema or self.schema, start, window.end)

    def _rows(self, schema: Schema, start: datetime, end: datetime) -> Dataset:
        from bnpipe.store import load_dataset

        with self.store.open_snapshot(self.recipe.snapshot) as path:
            return load_dataset(path, schema, start=start, end=end)

    def read(self, name: str, *, step: str) -> str:
        """Read a file an earlier step left under this training.

        Raises
        ------
        StoreError
            It is not there: names the step that makes it.
        """
        place = f"runs/{self.training.key}/{name}"
        if not self.store.exists(place):
            raise StoreError(f"{place} is not in {self.store}; run the step `{step}` of this training first")
        return self.store.read_text(place)

    def keep(self, name: str, text: str, *, log_to_run: bool = True) -> None:
        """Leave a file for later steps and, by default, in the MLflow run."""
        self.store.write_text(f"runs/{self.training.key}/{name}", text)
        if log_to_run:
            self.registry.log_text(self.training.run_id, text, name)

    def verdicts(self, name: str) -> tuple[Verdict, ...]:
        """Read what ``validation`` or ``release`` decided."""
        fields = json.loads(self.read(f"verdicts/{name}.json", step="validate" if name == "validation" else "evaluate"))
        return tuple(Verdict.from_dict(item) for item in fields)

    def costs(self) -> dict[str, StepCost]:
        """Cost of the steps that have ended so far, in their order."""
        costs = {}
        for step in STEPS:
            place = f"runs/{self.training.key}/cost/{step}.json"
            if self.store.exists(place):
                costs[step] = StepCost(**json.loads(self.store.read_text(place)))
        return costs


STEPS = ("snapshot", "validate", "learn", "audit", "fit", "evaluate", "register", "promote")


@dataclass(frozen=True, slots=True)
class StepCost:
    """Wall-clock seconds of a step, and the peak resident memory of its process so far, in MB."""

    seconds: float
    peak_mb: float


class Record:
    """What a step answers: a frozen dataclass of small values, for XCom and for the terminal."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Give JSON-ready fields."""
        fields_of: dict[str, Any] = asdict(self)  # type: ignore[call-overload]
        return fields_of


@contextmanager
def step(name: str, bench: Bench, *, started: float | None = None) -> Iterator[None]:
    """Time a step (since `started`); write an error that no retry can heal into the MLflow run before it goes up."""
    started = time.perf_counter() if started is None else started
    log.info("%s: %s of training %s", bench.training.model, name, bench.training.key[:12])
    try:
        yield
    except BnpipeError as error:
        if not error.retryable:
            close_failed(bench, name, error)
        raise
    cost = StepCost(round(time.perf_counter() - started, 3), round(peak_mb(), 1))
    bench.store.write_text(f"runs/{bench.training.key}/cost/{name}.json", json.dumps(asdict(cost)))
    bench.registry.log_metrics(
        bench.training.run_id, {f"seconds.{name}": cost.seconds, f"peak_mb.{name}": cost.peak_mb}
    )
    log.info("%s: %s took %.1f s, peak memory %.0f MB", bench.training.model, name, cost.seconds, cost.peak_mb)


def close_failed(bench: Bench, name: str, error: BaseException) -> None:
    """End the MLflow run as failed with the reason; MLflow being away must not hide the error itself."""
    try:
        fail_run(bench.registry, bench.training.run_id, f"{name}: {error}")
    except BnpipeError as second:
        log.warning("could not write the failure into MLflow: %s", second)


def fail_run(registry: Registry, run_id: str, reason: str) -> None:
    """Mark an MLflow run as failed and say why in its tag ``bnpipe.error``."""
    registry.log_tags(run_id, {"bnpipe.error": reason[:2000], "bnpipe.outcome": "failed"})
    registry.finish_run(run_id, "FAILED")


def peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024) if sys.platform == "darwin" else peak / 1024
