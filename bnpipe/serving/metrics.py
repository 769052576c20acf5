"""Prometheus metrics, the sum over all workers whichever of them is asked.

On the way of a request a hook only notes what it heard; a thread of its own counts it, four times a second, into the
files that prometheus_client keeps for the processes of one service. What is costly to learn, such as which states are
believed, is learned from a sample and counted with its weight, so that rates and shares have no bias.
"""

from __future__ import annotations

import logging
import math
import os
import random
import struct
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from bnpipe.data import Dataset
from bnpipe.schema import MISSING
from bnpipe.serving.batching import EngineCall
from bnpipe.serving.cells import Codes, Encoded
from bnpipe.serving.observing import Finished, Observer
from bnpipe.serving.process import METRICS_FOLDER
from bnpipe.serving.questions import Kind
from bnpipe.serving.service import Service, where_failed
from bnpipe.serving.shelf import ServedModel
from bnpipe.serving.versions import ServedVersion

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_T = TypeVar("_T")

_EVERY: Final = 0.25
_HEARD: Final = 100_000
"""Events kept while nobody counts them; then the oldest go."""
_UNBROKEN: Final = 64
"""Events counted between two naps, of so many seconds:"""
_NAP: Final = 5e-5
_SAMPLED: Final = 200
"""Answers looked into at each count."""
_ROWS: Final = 32
"""Rows looked at of one answer."""
_LIKELY: Final = 64
"""Rows whose likelihood is computed at each count, for each version;"""
_LIKELY_CELLS: Final = 1e7
"""fewer where they would touch more cells than this, 5 ms of a core: none where one row alone would."""

_REQUEST_SECONDS: Final = (2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_ENGINE_SECONDS: Final = (5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.05, 0.2, 1.0, 5.0)
_QUESTIONS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_DISTANCES: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_BREAKER: Final = {"closed": 0, "half-open": 1, "open": 2}

_log = logging.getLogger(__name__)


class _Metrics:
    """The metrics; docs/monitoring.md says what they are for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"bnpipe_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, mode: Any, *labels: str) -> Gauge:
            return Gauge(f"bnpipe_{name}", text, labels, multiprocess_mode=mode, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"bnpipe_{name}", text, labels, buckets=buckets, registry=registry)

        self.request_seconds = histogram(
            "request_seconds", "From a request to its answer", _REQUEST_SECONDS, "endpoint", "model", "arm"
        )
        self.requests = counter("requests", "Requests answered or refused", "endpoint", "model", "status")
        self.shed = counter("shed", "Requests turned away unread, by 503")
        self.held = gauge("requests_held", "Requests under way", "livesum")
        self.errors = counter("errors", "Errors by class", "kind", "model")
        self.rows = counter("rows", "Rows asked about", "model")

        self.engine_seconds = histogram("engine_seconds", "Calls of the engine", _ENGINE_SECONDS, "model", "kind")
        self.engine_rows = counter("engine_rows", "Rows that the engine answered", "model", "kind")
        self.engine_failures = counter("engine_failures", "Calls of the engine that failed", "model", "kind")
        self.batch_questions = histogram("batch_questions", "Questions answered by one call", _QUESTIONS)
        self.cache_lookups = counter("cache_lookups", "Looks for a remembered answer", "result")
        self.breaker_opened = counter("breaker_opened", "Times that a breaker opened", "model")
        self.breaker_state = gauge(
            "breaker_state", "Worst over workers: 0 closed, 1 half-open, 2 open", "livemax", "model", "role"
        )
        self.journal_records = counter("journal_records", "Records logged")
        self.journal_refused = counter("journal_refused", "Records that could not be logged")

        self.workers = gauge("workers", "Workers that answer", "livesum")
        self.workers_wanted = gauge("workers_wanted", "Workers that should", "livemax")
        self.worker_started = gauge("worker_started_timestamp_seconds", "When a worker began", "liveall")
        self.worker_memory = gauge("worker_resident_bytes", "Memory of a worker", "liveall")
        self.version_in_use = gauge(
            "version_in_use", "Version that a worker answers with; 0 is none", "liveall", "model", "role"
        )
        self.canary_share = gauge(
            "canary_share", "Share of keys that the challenger answers or shadows", "livemax", "model", "mode"
        )
        self.unfit = gauge("versions_unfit", "Versions asked for and not served", "livemax", "model")
        self.swaps = counter("swaps", "Changes of champion, in each worker", "model")
        self.registry_up = gauge("registry_up", "1 while the registry answers", "livemin")
        self.registry_answered = gauge(
            "registry_answered_timestamp_seconds", "When the registry last answered", "livemin"
        )
        self.shadow_distance = histogram(
            "shadow_distance", "Total variation between answer and shadow", _DISTANCES, "model"
        )
        self.labelled_rows = counter(
            "labelled_rows", "Rows of labels that were kept, whether they match or not", "model"
        )
        self.unshadowed = counter("unshadowed", "Questions a shadow was spared, as too many were under way", "model")

        self.node_observed = counter("node_observed", "Rows in which a node is observed", "model", "node")
        self.node_unseen = counter("node_unseen", "Cells whose value is no state", "model", "node")
        self.unknown_cells = counter("unknown_cells", "Cells of variables the network does not have", "model")
        self.belief_mass = counter(
            "belief_mass", "Sum of the probabilities of a state, over rows asked for it", "model", "target", "state"
        )
        self.predicted = counter("predicted", "Rows whose predicted state it was", "model", "target", "state")
        self.abstained = counter("abstained", "Rows in which no state was probable enough", "model", "target")
        self.surprise = counter(
            "surprise_nats", "Sum of minus the log-likelihood of what was observed, over possible rows", "model"
        )
        self.impossible = counter("impossible_rows", "Rows that have probability 0", "model")


class _Guess(msgspec.Struct):
    state: str | None


class _Belief(msgspec.Struct):
    belief: dict[str, float]


class _Row(msgspec.Struct):
    """What is counted of a row's answer, whatever was asked."""

    posterior: dict[str, dict[str, float] | None] = {}
    prediction: dict[str, _Guess | None] = {}
    targets: dict[str, _Belief | None] = {}


_ROWS_OF: Final = msgspec.json.Decoder(list[msgspec.Raw])
_ROW: Final = msgspec.json.Decoder(_Row)


class _Count:
    """Everything heard between two counts."""

    def __init__(self, metrics: _Metrics) -> None:
        self.metrics = metrics
        self._sums: dict[tuple[Any, tuple[object, ...]], float] = defaultdict(float)
        self._codes: dict[ServedVersion, list[Codes]] = defaultdict(list)
        self._answers: list[tuple[ServedVersion, Kind, bytes]] = []
        self._answered = 0
        self._failed = False

    def do(self, fold: Callable[[_Count, Any], None], what: Any) -> None:
        """Count one thing; if that fails, the rest is still counted."""
        try:
            fold(self, what)
        except Exception as error:  # noqa: BLE001  metrics never end
            if not self._failed:
                _log.error("something could not be counted: %s", where_failed(error))
            self._failed = True

    def add(self, metric: Any, amount: float, *labels: object) -> None:
        """Add to a counter."""
        self._sums[metric, labels] += amount

    def request(self, done: Finished) -> None:
        self.add(self.metrics.requests, 1, done.endpoint, done.model, done.status)
        self.metrics.request_seconds.labels(done.endpoint, done.model, done.arm).observe(done.seconds)

    def error(self, what: tuple[str, str]) -> None:
        self.add(self.metrics.errors, 1, *what)

    def shed(self, _: None) -> None:
        self.add(self.metrics.shed, 1)

    def batch(self, call: EngineCall) -> None:
        labels = call.version.model, call.kind
        self.metrics.engine_seconds.labels(*labels).observe(call.seconds)
        self.metrics.batch_questions.observe(call.questions)
        self.add(self.metrics.engine_rows, call.rows, *labels)
        if call.error is not None:
            self.add(self.metrics.engine_failures, 1, *labels)

    def cached(self, hit: bool) -> None:
        self.add(self.metrics.cache_lookups, 1, "hit" if hit else "miss")

    def evidence(self, what: tuple[ServedVersion, Encoded]) -> None:
        version, encoded = what
        self._codes[version].append(encoded.codes)
        for _, name, _ in encoded.unseen:
            self.add(self.metrics.node_unseen, 1, version.model, name)
        if encoded.unknown:
            self.add(self.metrics.unknown_cells, len(encoded.unknown), version.model)

    def answered(self, what: tuple[ServedVersion, Kind, bytes]) -> None:
        """Keep each answer with the same probability (reservoir sampling)."""
        self._answered += 1
        if len(self._answers) < _SAMPLED:
            self._answers.append(what)
        elif (place := random.randrange(self._answered)) < _SAMPLED:
            self._answers[place] = what

    def breaker(self, what: tuple[str, str]) -> None:
        model, state = what
        if state == "open":
            self.add(self.metrics.breaker_opened, 1, model)

    def shadow(self, what: tuple[str, float]) -> None:
        model, apart = what
        if not math.isnan(apart):
            self.metrics.shadow_distance.labels(model).observe(apart)

    def unshadowed(self, model: str) -> None:
        self.add(self.metrics.unshadowed, 1, model)

    def labelled(self, model: str) -> None:
        self.add(self.metrics.labelled_rows, 1, model)

    def logged(self, what: tuple[int, bool]) -> None:
        records, refused = what
        self.add(self.metrics.journal_refused if refused else self.metrics.journal_records, records)

    def close(self) -> None:
        """Put the sums where they are read."""
        for each in self._codes.items():
            self.do(_Count._activation, each)
        for answer in _gently(self._answers):
            self.do(_Count._beliefs, answer)
        for (metric, labels), amount in self._sums.items():
            (metric.labels(*labels) if labels else metric).inc(amount)

    def _activation(self, what: tuple[ServedVersion, list[Codes]]) -> None:
        version, parts = what
        codes = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        rows, model = codes.shape[1], version.model
        self.add(self.metrics.rows, rows, model)
        observed = (codes != MISSING).sum(axis=1).tolist()
        for node, count in zip(version.network.nodes, observed, strict=True):
            self.add(self.metrics.node_observed, count, model, node)  # 0, too: what was never there can't be missed
            self.add(self.metrics.node_unseen, 0, model, node)
        if most := min(_LIKELY, int(_LIKELY_CELLS // version.cost)):
            self._surprise(version, codes[:, _some(rows, most)], rows / min(rows, most))

    def _surprise(self, version: ServedVersion, sample: Codes, weight: float) -> None:
        found = version.engine.log_likelihood(Dataset(version.network.schema, sample), threads=1)
        possible = np.isfinite(found)
        self.add(self.metrics.surprise, weight * max(0.0, -float(found[possible].sum())), version.model)
        self.add(self.metrics.impossible, weight * float((~possible).sum()), version.model)

    def _beliefs(self, what: tuple[ServedVersion, Kind, bytes]) -> None:
        version, kind, text = what
        if kind == "likelihood":
            return
        rows = _ROWS_OF.decode(text)
        sample = _some(len(rows), _ROWS)
        weight = self._answered / len(self._answers) * len(rows) / len(sample)
        for place in sample:
            self._believe(version.model, _ROW.decode(rows[place]), weight)

    def _believe(self, model: str, row: _Row, weight: float) -> None:
        beliefs = {**row.posterior, **{target: its and its.belief for target, its in row.targets.items()}}
        for target, belief in beliefs.items():
            for state, probability in (belief or {}).items():
                self.add(self.metrics.belief_mass, weight * probability, model, target, state)
        for target, guess in row.prediction.items():
            if guess is None:
                continue
            self.add(self.metrics.abstained, weight if guess.state is None else 0, model, target)
            if guess.state is not None:
                self.add(self.metrics.predicted, weight, model, target, guess.state)


class PrometheusObserver(Observer):
    """Counts for ``/metrics``.

    Parameters
    ----------
    registry : CollectorRegistry, optional
        Of this process's own metrics; left out: a new one.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        from prometheus_client import CollectorRegistry

        self._registry = registry or CollectorRegistry()
        self._metrics = _Metrics(self._registry)
        self._metrics.worker_started.set(time.time())
        self._heard: deque[tuple[Callable[[_Count, Any], None], Any]] = deque(maxlen=_HEARD)
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._look: Callable[[], None] = lambda: None
        self._champions: dict[str, int] = {}

    # -- what is heard

    def request(self, done: Finished) -> None:
        """Hear of an answered or refused request."""
        self._heard.append((_Count.request, done))

    def error(self, *, kind: str, model: str) -> None:
        """Hear of an error by its class name."""
        self._heard.append((_Count.error, (kind, model)))

    def shed(self) -> None:
        """Hear that a request was turned away unread."""
        self._heard.append((_Count.shed, None))

    def batch(self, call: EngineCall) -> None:
        """Hear of a call of the engine."""
        self._heard.append((_Count.batch, call))

    def cached(self, *, hit: bool) -> None:
        """Hear whether an answer was remembered."""
        self._heard.append((_Count.cached, hit))

    def evidence(self, version: ServedVersion, encoded: Encoded) -> None:
        """Hear of the evidence of a question."""
        self._heard.append((_Count.evidence, (version, encoded)))

    def answered(self, version: ServedVersion, kind: Kind, text: bytes) -> None:
        """Hear what a version believes."""
        self._heard.append((_Count.answered, (version, kind, text)))

    def breaker(self, version: ServedVersion, state: str) -> None:
        """Hear of a breaker that changed."""
        self._heard.append((_Count.breaker, (version.model, state)))

    def shadow(self, model: str, version: int, *, apart: float) -> None:
        """Hear how far a shadow was from the answer given."""
        self._heard.append((_Count.shadow, (model, apart)))

    def unshadowed(self, model: str) -> None:
        """Hear that a shadow was not asked, as too many were under way."""
        self._heard.append((_Count.unshadowed, model))

    def labelled(self, model: str) -> None:
        """Hear that labels of a row were kept."""
        self._heard.append((_Count.labelled, model))

    def logged(self, records: int, *, refused: bool) -> None:
        """Hear that records went into the log of answers, or that it refused them."""
        self._heard.append((_Count.logged, (records, refused)))

    # -- what is looked at

    def watch(self, service: Service, held: Callable[[], int]) -> None:
        """Look at a service at each count: versions, breakers, registry, requests under way."""

        def look() -> None:
            metrics, situation = self._metrics, service.shelf.situation
            metrics.workers.set(1)
            metrics.workers_wanted.set(service.spec.workers)
            metrics.worker_memory.set(_resident())
            metrics.held.set(held())
            metrics.registry_up.set(situation is not None and not situation.registry)
            metrics.registry_answered.set(0.0 if situation is None else situation.at.timestamp())
            models = service.shelf.models
            for name in self._champions.keys() | models.keys():
                self._look_at(service, models.get(name) or ServedModel(name))

        self._look = look

    def _look_at(self, service: Service, model: ServedModel) -> None:
        metrics, name, canary = self._metrics, model.name, model.canary
        challenger = None if canary is None else model.versions.get(canary.version)
        for role, version in (("champion", model.champion), ("previous", model.previous), ("challenger", challenger)):
            metrics.version_in_use.labels(name, role).set(0 if version is None else version.number)
            state = "closed" if version is None else service.breaker_state(version)
            metrics.breaker_state.labels(name, role).set(_BREAKER[state])
        for mode, share in (("answers", canary and canary.share), ("shadows", canary and canary.shadow)):
            metrics.canary_share.labels(name, mode).set(share or 0.0)
        metrics.unfit.labels(name).set(len(model.faults))
        now = 0 if model.champion is None else model.champion.number
        metrics.swaps.labels(name).inc(self._champions.get(name, now) != now)
        for counter in (metrics.breaker_opened, metrics.unshadowed):
            counter.labels(name)  # one that is not there yet can't be seen to rise
        self._champions[name] = now

    # -- counting

    def count(self) -> None:
        """Count what was heard since the last time."""
        with self._counting:
            count, heard = _Count(self._metrics), self._heard
            for _ in _gently(range(len(heard))):
                fold, what = heard.popleft()
                count.do(fold, what)
            count.close()
            self._look()

    def start(self) -> None:
        """Count regularly, in a thread of its own, until :meth:`stop`."""
        threading.Thread(target=self._follow, daemon=True, name="metrics").start()

    def stop(self) -> None:
        """End the thread; count what is left."""
        self._stop.set()
        self.count()

    def _follow(self) -> None:
        while not self._stop.wait(_EVERY):
            try:
                self.count()
            except Exception:  # noqa: BLE001  what is served must not hang on it
                _log.exception("metrics could not be counted")

    def expose(self) -> bytes:
        """Give the text for ``/metrics``: of all processes where they share a folder."""
        from prometheus_client import CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self.count()
        if not os.environ.get(METRICS_FOLDER):
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        try:
            return generate_latest(together)
        except struct.error:  # a process that starts has made its file and not yet written its head
            time.sleep(0.05)
            return generate_latest(together)


def _gently(things: Iterable[_T]) -> Iterator[_T]:
    """Go through things with naps, so that a request gets the interpreter at once and not after a switch interval."""
    for place, thing in enumerate(things, start=1):
        yield thing
        if place % _UNBROKEN == 0:
            time.sleep(_NAP)


def _some(rows: int, most: int) -> list[int]:
    """Choose rows by chance; by steps could be in step with what the rows say."""
    return random.sample(range(rows), most) if rows > most else list(range(rows))


def _resident() -> float:
    """Give this process's memory, where the system tells it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except OSError:
        return math.nan
