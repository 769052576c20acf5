"""What tests of the service share: versions laid into a cache folder, a worker's service over them, and its HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx
import msgspec
from registry_bench import make_network, make_rows

import bnpipe
from bnpipe.answers.records import AnswerRecord, FeedbackRecord, Record
from bnpipe.config.serving import ServingSpec
from bnpipe.data import Dataset
from bnpipe.errors import JournalError
from bnpipe.inference import TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.serving.access import ANONYMOUS, Access, Caller
from bnpipe.serving.app import create_app
from bnpipe.serving.observing import Observer
from bnpipe.serving.questions import Kind
from bnpipe.serving.routing import Canary
from bnpipe.serving.service import Service
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.situation import ModelSituation, Situation, VersionOnDisk, version_folder, write_situation

TARGETS = ("late",)


@dataclass
class Kept:
    """A log of answers in memory, which may refuse."""

    records: list[Record] = field(default_factory=list)
    full: bool = False

    def append(self, records: list[Record]) -> None:
        """Keep records."""
        if self.full:
            raise JournalError("no space left on device")
        self.records += records

    @property
    def answers(self) -> list[AnswerRecord]:
        """Records of answers."""
        return [record for record in self.records if isinstance(record, AnswerRecord)]

    @property
    def feedback(self) -> list[FeedbackRecord]:
        """Records of labels."""
        return [record for record in self.records if isinstance(record, FeedbackRecord)]


def put_version(
    cache: Path,
    model: str,
    number: int,
    network: Network,
    targets: tuple[str, ...] = TARGETS,
    *,
    trained: TrainingLikelihoods | None = None,
) -> VersionOnDisk:
    """Lay a version into a cache folder as the follower does."""
    folder = version_folder(cache, model, number)
    folder.mkdir(parents=True, exist_ok=True)
    about = VersionOnDisk(network.content_hash, targets, likelihoods="" if trained is None else trained.hash)
    network.save(folder / "network.json")
    if trained is not None:
        (folder / "likelihoods.json").write_text(trained.to_json())
    (folder / "version.json").write_bytes(msgspec.json.encode(about))
    return about


def usual_in_training(rows: int = 400) -> TrainingLikelihoods:
    """Measure what is usual by the training of the network of as many rows: whole rows, and such without targets."""
    network = make_network(rows)
    data = Dataset.from_pandas(make_rows(rows), network.schema)
    patterns = (network.nodes, set(network.nodes) - set(TARGETS))
    return TrainingLikelihoods.measure(bnpipe.compile(network), data, patterns)


def reign(
    cache: Path,
    champion: int | None,
    versions: Mapping[int, VersionOnDisk],
    *,
    model: str = "flights",
    previous: int | None = None,
    canary: Canary | None = None,
    faults: Mapping[str, str] | None = None,
) -> None:
    """Write a situation of one model."""
    there = {str(number): about for number, about in versions.items()}
    its = ModelSituation(champion, previous, None, canary, there, dict(faults or {}))
    write_situation(cache, Situation(datetime.now(UTC), {model: its}))


def make_service(
    cache: Path,
    networks: Sequence[Network] = (),
    *,
    champion: int | None = None,
    previous: int | None = None,
    canary: Canary | None = None,
    targets: tuple[str, ...] = TARGETS,
    log: Kept | None = None,
    observer: Observer | None = None,
    clock: Callable[[], float] = time.monotonic,
    trained: Sequence[TrainingLikelihoods | None] = (),
    **spec: Any,
) -> Service:
    """Make a worker's service of ``flights``, whose versions 1, 2, ... are the networks and the last is champion."""
    networks = networks or (make_network(),)
    versions = {
        number: put_version(cache, "flights", number, network, targets, trained=usual)
        for number, (network, usual) in enumerate(zip_longest(networks, trained), start=1)
    }
    reign(cache, champion or len(networks), versions, previous=previous, canary=canary)
    parsed = ServingSpec.model_validate(spec)
    shelf = Shelf(cache, parsed)
    shelf.refresh()
    access = Access(parsed.clients, anonymous=parsed.open_to_all)
    return Service(parsed, shelf, access, log, observer or Observer(), clock)


def ask(
    service: Service,
    kind: Kind,
    rows: Sequence[Mapping[str, Any]],
    *,
    caller: Caller = ANONYMOUS,
    version: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Ask once, in an event loop of its own."""

    async def one() -> bytes:
        body = json.dumps({"rows": rows, **more}).encode()
        reply = await service.ask(kind, "flights", body, caller, version=version, arrived=service.clock())
        return reply.body

    return dict(json.loads(asyncio.run(one())))


def over_http(service: Service, use: Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]], **app: Any) -> Any:
    """Use a service by its HTTP, without a socket."""

    async def talk() -> Any:
        transport = httpx.ASGITransport(create_app(service, **app))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await use(client)

    return asyncio.run(talk())


def send(service: Service, method: str, path: str, **request: Any) -> httpx.Response:
    """Send one request."""

    async def use(client: httpx.AsyncClient) -> httpx.Response:
        return await client.request(method, path, **request)

    return over_http(service, use)
