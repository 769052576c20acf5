"""The follower over a real MLflow: what it brings, what it refuses, and that it never makes things worse."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from registry_bench import add_versions, make_network, make_rows, remove_files

from bnpipe.alerts import Alert
from bnpipe.config.serving import ServingSpec
from bnpipe.errors import RegistryUnavailable, ServiceBusy
from bnpipe.network import Network
from bnpipe.registry import Registry, Version
from bnpipe.serving.archiving import Archivist
from bnpipe.serving.follower import Follower
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.situation import Situation, read_situation, version_folder


@dataclass
class Bench:
    """A registry, a follower of it and a shelf of one worker."""

    registry: Registry
    cache: Path
    spec: ServingSpec = field(default_factory=ServingSpec)
    alerts: list[Alert] = field(default_factory=list)
    time: float = 0.0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Start both anew, as after a restart of the service."""
        self.follower = Follower(
            self.registry, self.cache, self.spec, clock=lambda: self.time, alert=self.alerts.append
        )
        self.shelf = Shelf(self.cache, self.spec)

    def poll(self) -> Situation:
        """Let the follower look, then the worker."""
        found = self.follower.poll()
        self.shelf.refresh()
        return found

    @property
    def champion(self) -> int | None:
        """Who answers."""
        model = self.shelf.models.get("flights")
        return model.champion.number if model and model.champion else None

    def promote(self, number: int) -> None:
        """Make a version champion."""
        self.registry.promote("flights", number, actor="eve", reason="test", key=f"to {number}")

    def register(self, network: Network | None = None, **more: Any) -> Version:
        """Register a version as a training does, with its answered example."""
        run = self.registry.start_run(model="flights", key=f"k{len(self.alerts)}-{id(more)}")
        return self.registry.register(
            model="flights",
            network=network or make_network(),
            targets=["late"],
            run_id=run,
            training_key=run,
            input_example=make_rows(3),
        )


@pytest.fixture
def bench(mlflow_uri: str, tmp_path: Path) -> Bench:
    """Three versions, of which the first is champion."""
    add_versions(mlflow_uri, "flights", 3)
    made = Bench(Registry(mlflow_uri), tmp_path / "cache")
    made.promote(1)
    return made


class Away:
    """A registry that does not answer."""

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise RegistryUnavailable("MLflow did not answer")

        return fail


def test_a_promotion_is_followed(bench: Bench) -> None:
    """The champion answers, then its successor; the predecessor stays at hand, and what nobody needs is removed."""
    assert bench.poll().registry == ""
    assert bench.champion == 1
    bench.promote(2)
    bench.poll()
    assert bench.champion == 2
    model = bench.shelf.model("flights")
    assert model.previous is not None
    assert model.previous.number == 1
    bench.promote(3)
    bench.poll()
    folder = version_folder(bench.cache, "flights", 3).parent
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2", "3"]
    archivist = Archivist(bench.cache.with_name("answers"), bench.cache)
    assert archivist.schema("flights", make_network().content_hash) == make_network().schema
    bench.time += 10_000.0  # the log of answers has had its time
    bench.poll()
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    assert not bench.alerts


def test_a_registered_version_brings_its_example_and_targets(bench: Bench) -> None:
    """What a training registers is checked against its own example, whose answer was recorded when it was made."""
    version = bench.register()
    bench.promote(version.number)
    bench.poll()
    assert bench.champion == version.number
    served = bench.shelf.model("flights").version(version.number)
    assert served.about.targets == ("late",)
    assert served.about.created == version.created.isoformat()
    example = json.loads((version_folder(bench.cache, "flights", version.number) / "example.json").read_text())
    assert len(example["rows"]) == 3
    assert len(example["posterior"]["late"]) == 3


def test_a_version_that_answers_its_example_otherwise_is_refused(bench: Bench) -> None:
    """The old one goes on, one alert is sent however often it is looked at, and the fault can be seen."""
    bench.poll()
    version = bench.register()
    load = bench.registry.load_example
    wrong = {"rows": [{"rain": "yes"}], "posterior": {"late": [[0.5, 0.5]]}}
    bench.registry.load_example = lambda version: wrong  # type: ignore[method-assign]
    bench.promote(version.number)
    for _ in range(3):
        bench.poll()
    assert bench.champion == 1
    assert [alert.model for alert in bench.alerts] == ["flights"]
    assert "answers its own example otherwise" in bench.alerts[0].text
    assert "Version 1 goes on" in bench.alerts[0].text
    assert "example" in bench.shelf.model("flights").faults[str(version.number)]
    bench.start()  # a restart neither forgets the old one nor tells again
    bench.poll()
    assert bench.champion == 1
    assert len(bench.alerts) == 1
    bench.registry.load_example = load  # type: ignore[method-assign]  mended: it is tried again after a while
    bench.poll()
    assert bench.champion == 1
    bench.time += 100.0
    bench.poll()
    assert bench.champion == version.number
    assert not bench.shelf.model("flights").faults


def test_a_version_without_files_is_refused(bench: Bench) -> None:
    """Artifacts that were cleaned away keep nobody from answering."""
    bench.poll()
    remove_files(bench.registry, "flights", 2)
    bench.promote(2)
    bench.poll()
    assert bench.champion == 1
    assert "2" in bench.shelf.model("flights").faults
    assert len(bench.alerts) == 1
    bench.promote(3)  # and the next good one is taken
    bench.poll()
    assert bench.champion == 3


def test_a_version_whose_hash_is_not_its_tags_is_refused(bench: Bench, mlflow_uri: str) -> None:
    """Files that are not those that were registered are not served."""
    bench.poll()
    add_versions(mlflow_uri, "flights", 1, **{"bnpipe.content_hash": "0" * 64})
    bench.promote(4)
    bench.poll()
    assert bench.champion == 1
    assert "its tag says" in bench.shelf.model("flights").faults["4"]


def test_a_version_that_is_too_costly_is_refused(bench: Bench) -> None:
    """A limit of cliques holds for the follower; the worker never sees the version."""
    bench.spec = ServingSpec.model_validate({"limits": {"clique_cells": 2}})
    bench.start()
    bench.poll()
    assert bench.champion is None
    assert "cells" in bench.shelf.model("flights").faults["1"]
    assert len(bench.alerts) == 1


def test_a_deleted_champion_goes_on(bench: Bench) -> None:
    """Deleting the version in MLflow takes its alias; the service says so and goes on answering."""
    bench.promote(2)
    bench.poll()
    bench.registry.connection.client.delete_model_version("flights", "2")
    for _ in range(2):
        bench.poll()
    assert bench.champion == 2
    assert len(bench.alerts) == 1
    assert "no longer champion" in bench.shelf.model("flights").faults["2"]
    bench.promote(3)
    bench.poll()
    assert bench.champion == 3
    assert "2" not in bench.shelf.model("flights").faults


def test_what_is_damaged_on_the_disk_is_brought_again(bench: Bench) -> None:
    """A restart over a cache with a broken file mends it from the registry."""
    bench.poll()
    (version_folder(bench.cache, "flights", 1) / "network.json").write_text("{}")
    bench.start()
    bench.poll()
    assert bench.champion == 1
    assert not bench.alerts


def test_mlflow_away(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Away at the first start: nothing is served, nothing fails. Away later, or at a restart: all goes on as it was."""
    away: Any = Away()
    empty = Bench(away, bench.cache.with_name("empty"))
    assert empty.poll().registry == "MLflow did not answer"
    assert not empty.shelf.models
    assert not empty.shelf.ready
    with pytest.raises(ServiceBusy, match="has not said yet"):
        empty.shelf.model("flights")
    bench.poll()
    at = bench.shelf.situation.at  # type: ignore[union-attr]
    bench.follower.registry = away
    caplog.clear()
    for _ in range(3):
        bench.poll()
    assert len(caplog.records) == 1, "it is told once"
    assert bench.champion == 1
    assert bench.shelf.situation.registry == "MLflow did not answer"  # type: ignore[union-attr]
    assert bench.shelf.situation.at == at, "when it last answered"  # type: ignore[union-attr]
    registry, bench.registry = bench.registry, away
    bench.start()
    bench.poll()
    assert bench.champion == 1
    assert bench.shelf.ready
    bench.registry = registry
    bench.promote(2)
    bench.start()
    bench.poll()
    assert bench.champion == 2
    assert bench.shelf.situation.registry == ""  # type: ignore[union-attr]


def test_mlflow_goes_away_in_the_middle(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that can't be brought now keeps no other from reigning, and is brought when it can be."""
    bench.poll()
    bench.promote(2)
    with monkeypatch.context() as broken:
        broken.setattr(bench.registry, "load_network", Away().load_network)
        bench.poll()
        assert bench.champion == 1
    bench.poll()
    assert bench.champion == 2


def test_a_rollback_needs_no_artifacts(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The predecessor is on the disk: going back to it works while artifacts can't be read."""
    bench.poll()
    bench.promote(2)
    bench.poll()
    monkeypatch.setattr(bench.registry, "load_network", Away().load_network)
    bench.registry.ledger.connection.client.set_registered_model_alias("flights", "champion", "1")
    bench.poll()
    assert bench.champion == 1


def test_pins_are_brought(bench: Bench) -> None:
    """A version that a client is pinned to is at hand, one that is not there is told; others are not brought."""
    client = {"name": "ledger", "key_sha256": "a" * 64, "pins": {"flights": 3}}
    other = {"name": "old", "key_sha256": "b" * 64, "pins": {"flights": 9}}
    bench.spec = ServingSpec.model_validate({"clients": [client, other]})
    bench.start()
    bench.poll()
    model = bench.shelf.model("flights")
    assert sorted(model.versions) == [1, 3]
    assert model.faults == {"9": "there is no such version in the registry"}


def test_a_full_disk_changes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be written down is not half there."""
    bench.poll()
    bench.promote(2)

    def full(self: Network, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Network, "save", full)
        bench.poll()
    assert bench.champion == 1
    assert "No space left" in bench.shelf.model("flights").faults["2"]
    bench.poll()
    assert bench.champion == 2


def test_a_folder_that_cannot_be_written_to_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """One alert that nothing answers, not one with each look; when there is room all is well again."""
    bench.cache.write_text("in the way")
    for _ in range(4):
        bench.poll()
    assert bench.champion is None
    assert len(bench.alerts) == 1
    assert "Nothing answers in its place" in bench.alerts[0].text
    assert sum("can't be written to" in record.getMessage() for record in caplog.records) == 1
    bench.cache.unlink()
    bench.poll()
    assert bench.champion == 1
    bench.cache.rename(bench.cache.with_name("away"))
    bench.cache.write_text("in the way again")
    bench.poll()
    assert sum("can't be written to" in record.getMessage() for record in caplog.records) == 2


def test_a_deleted_model_is_no_longer_served(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Who deletes a registered model wants it gone; it is told once."""
    bench.poll()
    bench.registry.connection.client.delete_registered_model("flights")
    bench.poll()
    bench.poll()
    assert not bench.shelf.models
    assert sum("no longer in the registry" in record.getMessage() for record in caplog.records) == 1


def test_models_not_named_are_not_served(bench: Bench, mlflow_uri: str) -> None:
    """With `models:` in the file only these are followed, and only these must be ready."""
    add_versions(mlflow_uri, "trains", 1)
    bench.registry.promote("trains", 1, actor="eve", reason="test")
    bench.poll()
    assert sorted(bench.shelf.models) == ["flights", "trains"]
    bench.spec = ServingSpec.model_validate({"models": {"trains": {}}})
    bench.start()
    bench.poll()
    assert list(bench.shelf.models) == ["trains"]
    assert bench.shelf.ready
    shutil.rmtree(bench.cache)
    bench.spec = ServingSpec.model_validate({"models": {"planes": {}}})
    bench.start()
    bench.poll()
    assert not bench.shelf.ready


def test_the_situation_is_whole_or_not_there(bench: Bench) -> None:
    """A file that is not ours is as none; it is replaced, and no part of a file is left beside it."""
    bench.cache.mkdir(parents=True)
    (bench.cache / "situation.json").write_text('{"at": 3')
    assert read_situation(bench.cache) is None
    bench.poll()
    assert bench.champion == 1
    assert sorted(path.name for path in bench.cache.iterdir()) == ["models", "situation.json"]
