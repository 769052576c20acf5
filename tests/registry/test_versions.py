"""Versions: one for each training, complete or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from registry_bench import Clock, Killed, add_versions, make_network, make_rows

from bnpipe.errors import NetworkError, RegistryError, VersionNotFound
from bnpipe.registry import Registry, Version
from bnpipe.registry.ledger import LEDGER_TAG


def started(registry: Registry, key: str = "night-1") -> str:
    """A training run."""
    return registry.start_run(model="flights", key=key)


def register(registry: Registry, run_id: str, training_key: str = "k1", **tags: str) -> Version:
    """Register the small network."""
    return registry.register(
        model="flights",
        network=make_network(),
        targets=["late"],
        run_id=run_id,
        training_key=training_key,
        tags=tags,
        input_example=make_rows(3),
    )


def logged_models(registry: Registry) -> list[object]:
    """What MLflow's page of logged models shows."""
    client = registry.connection.client
    experiment = client.get_experiment_by_name("bnpipe/flights").experiment_id
    return list(client.search_logged_models([experiment]))


def test_a_version_carries_its_identity(registry: Registry) -> None:
    """Tags and run are there, the network comes back with the same hash; a second training is a second version."""
    run_id = started(registry)
    tags = {"bnpipe.verdict": "pass", "bnpipe.schema_hash": "abc"}
    version = register(registry, run_id, **tags)
    assert (version.number, version.run_id, version.training_key) == (1, run_id, "k1")
    assert tags.items() <= version.tags.items()
    assert version.uri == "models:/flights/1"
    assert registry.version("flights", 1) == version == registry.find("flights", "k1")
    network = make_network()
    assert registry.load_network(version).content_hash == network.content_hash
    second = register(registry, run_id, "k2")
    assert registry.versions("flights") == (version, second)
    assert registry.models() == ("flights",)


def test_a_version_tells_what_its_tags_mean(mlflow_uri: str, registry: Registry, model: str) -> None:
    """Times with offsets, verdict and bar; nothing is made of tags that bnpipe did not write so."""
    good = {
        "bnpipe.training_key": "k6",
        "bnpipe.train_end": "2026-01-21T00:00:00+01:00",
        "bnpipe.end": "2026-02-02T00:00:00+01:00",
        "bnpipe.verdict": "pass",
    }
    add_versions(mlflow_uri, model, 1, **good)
    add_versions(mlflow_uri, model, 1, **good | {"bnpipe.end": "2026-02-02", "bnpipe.train_end": "soon"})
    bad = {"bnpipe.training_key": "k8", "bnpipe.verdict": "fail", "bnpipe.barred": "it was wrong"}
    add_versions(mlflow_uri, model, 1, **bad)
    add_versions(mlflow_uri, model, 1, **{"bnpipe.end": good["bnpipe.end"], "bnpipe.training_key": ""})
    whole, torn, barred, foreign = (registry.version(model, number) for number in (6, 7, 8, 9))
    assert whole.train_end == datetime(2026, 1, 20, 23, tzinfo=UTC)
    assert whole.window_end == datetime(2026, 2, 1, 23, tzinfo=UTC)
    assert (whole.passed_gates, whole.barred, whole.doubts) == (True, None, ())
    for version in (torn, barred, foreign):
        assert (version.window_end, version.train_end) == (None, None)
    assert (barred.passed_gates, barred.barred) == (False, "it was wrong")
    assert barred.doubts == ("it never passed its gates", "it is barred: it was wrong")
    unexplained = replace(whole, tags={**whole.tags, "bnpipe.barred": ""})
    assert (unexplained.barred, unexplained.doubts) == ("", ("it is barred: no reason given",))


def test_all_versions_of_all_models(mlflow_uri: str, registry: Registry) -> None:
    """Those that bnpipe made, also of a model that lost its ledger's tag or got it from nobody; no others."""
    register(registry, started(registry), "k1")
    client = registry.connection.client
    client.delete_registered_model_tag("flights", LEDGER_TAG)
    client.create_registered_model("archive")
    client.create_model_version("archive", "file:///nowhere")
    client.create_model_version("archive", "file:///nowhere", tags={"bnpipe.training_key": "k0"})
    assert registry.models() == ()
    found = registry.all_versions()
    assert [(version.model, version.number, version.training_key) for version in found] == [
        ("archive", 2, "k0"),
        ("flights", 1, "k1"),
    ]


def test_requirements_are_given_not_inferred(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned, and naming no place to get them from; MLflow's inference, seconds in other processes, does not run."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("MLflow infers requirements")

    monkeypatch.setattr("mlflow.models.infer_pip_requirements", refuse)
    monkeypatch.setattr("mlflow.utils.environment._infer_requirements", refuse)
    register(registry, started(registry))
    folder = Path(registry.connection.client.get_model_version_download_uri("flights", "1").removeprefix("file://"))
    requirements = (folder / "requirements.txt").read_text().split()
    assert [line.split("==")[0] for line in requirements] == ["bnpipe", "mlflow", "numba", "numpy", "pandas"]
    assert (folder / "artifacts" / "network.bif").is_file()
    assert not list(folder.rglob("*.pkl"))


def test_the_same_training_again(registry: Registry) -> None:
    """Another run with the same training key gets the first one's version, and uploads nothing."""
    first = register(registry, started(registry))
    again = register(registry, started(registry, "night-2"))
    assert again == first
    assert len(logged_models(registry)) == 1


def test_threads_register_one_training(mlflow_uri: str, registry: Registry) -> None:
    """Four runs at once with one training key: one version, one logged model."""
    runs = [started(registry, f"night-{number}") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda run_id: register(Registry(mlflow_uri), run_id), runs))
    assert {version.number for version in versions} == {1}
    assert registry.versions("flights") == (versions[0],)
    assert len(logged_models(registry)) == 1


def test_one_run_twice_at_once(mlflow_uri: str, registry: Registry) -> None:
    """A zombie and its retry, which share the run and so do not wait for each other, still leave one version."""
    run_id = started(registry)
    with ThreadPoolExecutor(3) as pool:
        versions = list(pool.map(lambda _: register(Registry(mlflow_uri), run_id), range(3)))
    assert len({version.number for version in versions}) == 1
    assert len(registry.versions("flights")) == 1


REGISTRANT = """
    import sys
    from registry_bench import make_network
    from bnpipe.registry import Registry
    registry, network = Registry(sys.argv[1]), make_network()
    registry.versions("flights")
    print("ready", flush=True)
    sys.stdin.readline()
    run_id = registry.start_run(model="flights", key=sys.argv[2])
    options = dict(model="flights", network=network, targets=["late"], run_id=run_id, training_key="k1")
    print(registry.register(**options).number, registry.register(**options).number, flush=True)
"""


def test_processes_register_one_training(mlflow_uri: str, registry: Registry, repository: Path) -> None:
    """The first registration ever, by two processes at once: one experiment, one model, one ledger, one version."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(REGISTRANT), mlflow_uri, f"night-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent,
            env=os.environ | {"PYTHONPATH": str(repository)},
        )
        for number in range(2)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = [racer.communicate(timeout=120)[0] for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert answers == ["1 1\n"] * 2
    assert [version.number for version in registry.versions("flights")] == [1]


@pytest.mark.parametrize("stage", ["uploaded", "claimed version"])
def test_a_killed_registration_is_retried_at_once(
    registry: Registry, dying: Callable[[str], Registry], stage: str
) -> None:
    """Nothing is half-registered, and the same run needs no grace."""
    run_id = started(registry)
    with pytest.raises(Killed):
        register(dying(stage), run_id)
    assert registry.versions("flights") == ()
    assert register(registry, run_id).number == 1


def test_a_dead_claimant_is_replaced_after_the_grace(
    registry: Registry, dying: Callable[[str], Registry], clock: Clock
) -> None:
    """Another run takes over what a killed one had claimed, and so does one after it."""
    for key in ("night-1", "night-2"):
        with pytest.raises(Killed):
            register(dying("claimed version"), started(registry, key))
        clock.ahead += 61
    version = register(registry, started(registry, "night-3"))
    assert (version.number, version.training_key) == (1, "k1")
    assert len(registry.versions("flights")) == 1


def test_who_lost_the_claim_waits_for_the_winner(mlflow_uri: str, registry: Registry) -> None:
    """A loser gives the version of a winner that is still at work."""
    claimed, go_on = threading.Event(), threading.Event()

    def slow(stage: str) -> None:
        if stage == "claimed version":
            claimed.set()
            assert go_on.wait(30)

    first, second = started(registry), started(registry, "night-2")
    with ThreadPoolExecutor(2) as pool:
        winner = pool.submit(register, Registry(mlflow_uri, checkpoint=slow), first)
        assert claimed.wait(30)
        loser = pool.submit(register, registry, second)
        time.sleep(0.5)
        assert not loser.done()
        go_on.set()
        assert loser.result(30) == winner.result(30)
    assert registry.versions("flights")[0].run_id == first


def test_a_repeated_call_leaves_one_version(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's HTTP layer repeats a call whose answer was lost; the second version is taken back."""
    run_id = started(registry)
    client = registry.connection.client
    create = client.create_model_version

    def twice(*arguments: object, **options: object) -> object:
        create(*arguments, **options)
        return create(*arguments, **options)

    monkeypatch.setattr(client, "create_model_version", twice)
    version = register(registry, run_id)
    assert registry.versions("flights") == (version,)
    assert version.number == 1


def test_a_failing_upload_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    """With no room for its files there is no version, no model and no logged model; once repaired, all is well."""
    run_id = started(registry)
    store = tmp_path / "mlartifacts"
    store.write_text("a file where MLflow needs a folder")
    with pytest.raises(RegistryError, match="mlartifacts"):
        register(registry, run_id)
    assert registry.versions("flights") == ()
    assert registry.models() == ()
    assert logged_models(registry) == []
    store.unlink()
    assert register(registry, run_id).number == 1


def test_a_deleted_version_is_made_again(registry: Registry, clock: Clock) -> None:
    """A version that a person deleted does not block its training for good."""
    register(registry, started(registry))
    registry.connection.client.delete_model_version("flights", "1")
    clock.ahead = 61
    assert register(registry, started(registry, "night-2")).number == 2


def test_a_target_that_is_no_variable(registry: Registry) -> None:
    """Found before anything is uploaded."""
    with pytest.raises(NetworkError, match="late_arrival"):
        registry.register(
            model="flights", network=make_network(), targets=["late_arrival"], run_id="none", training_key="k"
        )


def test_champion_and_challenger(registry: Registry) -> None:
    """Aliases give whole versions."""
    run_id = started(registry)
    first, second = register(registry, run_id), register(registry, run_id, "k2")
    assert registry.challenger("flights") is None
    registry.set_challenger("flights", 2)
    registry.promote("flights", 1, actor="eve", reason="first")
    assert (registry.champion("flights"), registry.challenger("flights")) == (first, second)
    with pytest.raises(VersionNotFound, match="no version 7; there are 2, 1"):
        registry.set_challenger("flights", 7)


def test_a_training_key_is_plain(registry: Registry) -> None:
    """It becomes part of a param's name; what MLflow would refuse there is refused at once."""
    with pytest.raises(RegistryError, match="made of letters"):
        register(registry, "none", "it's")
