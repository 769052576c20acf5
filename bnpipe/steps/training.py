"""One training on its way: where its steps leave what they made, and how each is timed and reported."""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from functools import cached_property
from typing import Any, Self

from bnpipe.config import Settings
from bnpipe.data import Dataset
from bnpipe.errors import BnpipeError, StoreError
from bnpipe.inference import TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.registry import Registry
from bnpipe.schema import Schema
from bnpipe.steps.learning import load_base
from bnpipe.steps.recipe import Recipe
from bnpipe.store import Store
from bnpipe.verdict import Verdict

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Reference:
    """What fits into an XCom: which training or look, and which MLflow run tells of it.

    Parameters
    ----------
    model : str
        Name of the network.
    key : str
        The training's or look's key; everything the steps make lies under ``runs/<key>/`` in the store.
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
    def from_dict(cls, values: Mapping[str, str]) -> Self:
        """Read what :meth:`to_dict` gave."""
        return cls(**{field.name: values[field.name] for field in dataclass_fields(cls)})


class Training(Reference):
    """One training on its way."""

    __slots__ = ()


class Shelf:
    """Where the steps of one training or look leave what they made, with the registry they tell it to."""

    def __init__(self, reference: Reference, settings: Settings | None = None) -> None:
        self.reference = reference
        self.settings = settings or Settings.from_environ()
        self.store = Store(self.settings.store)
        self.registry = Registry(self.settings.tracking_uri)

    def read(self, name: str, *, step: str, of_run: bool = False) -> str:
        """Read a file an earlier step left under this key.

        Raises
        ------
        StoreError
            It is not there: names the step that makes it.
        """
        place = f"{self._place(of_run=of_run)}/{name}"
        if not self.store.exists(place):
            raise StoreError(f"{place} is not in {self.store}; run the step `{step}` first")
        return self.store.read_text(place)

    def holds(self, name: str, *, of_run: bool = False) -> bool:
        """Whether an earlier step left a file of this name."""
        return self.store.exists(f"{self._place(of_run=of_run)}/{name}")

    def keep(self, name: str, text: str, *, log_to_run: bool = True, of_run: bool = False) -> None:
        """Leave a file for later steps and, by default, in the MLflow run.

        What depends on more than the training, as on the champion of the moment, is kept `of_run`: two runs of the
        same training do not see each other's.
        """
        self.store.write_text(f"{self._place(of_run=of_run)}/{name}", text)
        if log_to_run:
            self.registry.log_text(self.reference.run_id, text, name)

    def keep_verdicts(self, name: str, verdicts: Sequence[Verdict]) -> None:
        """Leave verdicts, and write them into the log."""
        self.keep(name, json.dumps([verdict.to_dict() for verdict in verdicts], indent=1))
        self._tell(verdicts)

    def validation(self) -> tuple[Verdict, ...]:
        """Read the verdicts of the validate step."""
        return tuple(map(Verdict.from_dict, json.loads(self.read("verdicts/validation.json", step="validate"))))

    def _tell(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            log.info("%s: gate %s: %s: %s", self.reference.model, verdict.gate, verdict.outcome, verdict.reason)

    def _place(self, *, of_run: bool) -> str:
        shared = f"runs/{self.reference.key}"
        return f"{shared}/of/{self.reference.run_id}" if of_run else shared


class Bench(Shelf):
    """What the steps of one training work with: the store, the registry, and what earlier steps left."""

    def __init__(self, training: Training, settings: Settings | None = None) -> None:
        super().__init__(training, settings)
        self.training = training

    @cached_property
    def recipe(self) -> Recipe:
        """What the snapshot step froze."""
        return Recipe.from_json(self.read("training.json", step="snapshot"))

    @cached_property
    def base(self) -> Network | None:
        """The version that a refit keeps all but some families of; None if this is no refit."""
        return load_base(self.recipe, self.store, self.registry)

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

    @cached_property
    def likelihoods(self) -> TrainingLikelihoods | None:
        """What the fit step found usual among the training rows; None if that was an older bnpipe's."""
        if not self.holds("likelihoods.json"):
            return None
        return TrainingLikelihoods.from_json(self.read("likelihoods.json", step="fit"))

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

    def keep_release(self, release: Release) -> None:
        """Leave verdicts and the champion they are against as one file, so that nobody reads one without the other."""
        self.keep("release.json", release.to_json(), of_run=True)
        self._tell(release.verdicts)

    def release(self) -> Release:
        """Read what the evaluate step of this run found."""
        return Release.from_json(self.read("release.json", step="evaluate", of_run=True))

    def costs(self) -> dict[str, StepCost]:
        """Cost of the steps of this run that have ended so far, in their order."""
        costs = {}
        for step in STEPS:
            place = f"{self._place(of_run=True)}/cost/{step}.json"
            if self.store.exists(place):
                costs[step] = StepCost(**json.loads(self.store.read_text(place)))
        return costs


@dataclass(frozen=True, slots=True)
class Release:
    """What decides about a version.

    Parameters
    ----------
    compared_with : int or None
        The champion when it was judged; None where nobody held the alias.
    verdicts : tuple of Verdict
        Absolute gates, then those against the champion.
    """

    compared_with: int | None
    verdicts: tuple[Verdict, ...]

    def to_json(self) -> str:
        """Write both."""
        fields = {"compared_with": self.compared_with, "verdicts": [verdict.to_dict() for verdict in self.verdicts]}
        return json.dumps(fields, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Release:
        """Read what :meth:`to_json` wrote."""
        fields = json.loads(text)
        return cls(fields["compared_with"], tuple(map(Verdict.from_dict, fields["verdicts"])))


def read_release(registry: Registry, run_id: str) -> Release:
    """Read from MLflow what the evaluate step of a run found.

    Raises
    ------
    RegistryError
        The run has no ``release.json``: it did not come that far, or is not bnpipe's.
    """
    return Release.from_json(registry.read_text(run_id, "release.json"))


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
def step(name: str, bench: Shelf, *, started: float | None = None) -> Iterator[None]:
    """Time a step (since `started`); write an error that no retry can heal into the MLflow run before it goes up."""
    started = time.perf_counter() if started is None else started
    log.info("%s: %s of %s", bench.reference.model, name, bench.reference.key[:12])
    try:
        yield
    except BnpipeError as error:
        if not error.retryable:
            close_failed(bench.registry, bench.reference.run_id, f"{name}: {error}")
        raise
    cost = StepCost(round(time.perf_counter() - started, 3), round(peak_mb(), 1))
    bench.keep(f"cost/{name}.json", json.dumps(asdict(cost)), log_to_run=False, of_run=True)
    bench.registry.log_metrics(
        bench.reference.run_id, {f"seconds.{name}": cost.seconds, f"peak_mb.{name}": cost.peak_mb}
    )
    log.info("%s: %s took %.1f s, peak memory %.0f MB", bench.reference.model, name, cost.seconds, cost.peak_mb)


def close_failed(registry: Registry, run_id: str, reason: str) -> None:
    """End an MLflow run as failed, its tag ``bnpipe.error`` saying why; MLflow being away must not hide the error."""
    try:
        registry.log_tags(run_id, {"bnpipe.error": reason[:2000], "bnpipe.outcome": "failed"})
        registry.finish_run(run_id, "FAILED")
    except BnpipeError as second:
        log.warning("could not write the failure into MLflow: %s", second)


def peak_mb() -> float:
    """Peak resident memory of this process, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024) if sys.platform == "darwin" else peak / 1024
