"""Versions in memory: taken when they are fit, swapped whole, never given up for a worse one."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from registry_bench import make_network
from serving_bench import put_version, reign

from bnpipe.config.serving import ServingSpec
from bnpipe.errors import NotServed
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.routing import Canary
from bnpipe.serving.shelf import ServedModel, Shelf
from bnpipe.serving.situation import ModelSituation, Situation, VersionOnDisk, version_folder, write_situation
from bnpipe.serving.versions import load_version


class Bench:
    """A cache folder with two versions, and a worker's shelf."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.about = {n: put_version(cache, "flights", n, make_network(100 * n)) for n in (1, 2)}
        self.start()

    def start(self, **spec: Any) -> None:
        """Start the worker anew."""
        self.shelf = Shelf(self.cache, ServingSpec.model_validate(spec))

    def stand(self, **champions: int | None) -> None:
        """Let the registry have models with these champions, of which those of flights are on the disk; and look."""
        there = {"flights": {str(n): about for n, about in self.about.items()}}
        models = {name: ModelSituation(n, versions=there.get(name, {})) for name, n in champions.items()}
        write_situation(self.cache, Situation(datetime.now(UTC), models))
        assert self.shelf.refresh()

    def reign(self, champion: int | None, *numbers: int, **more: Any) -> ServedModel:
        """Let somebody reign, and look."""
        reign(self.cache, champion, {n: self.about[n] for n in numbers}, **more)
        assert self.shelf.refresh()
        return self.shelf.model("flights")

    def damage(self, number: int, text: str = "{}") -> None:
        """Write over a version's file."""
        (version_folder(self.cache, "flights", number) / "network.json").write_text(text)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Nothing is loaded yet."""
    return Bench(tmp_path / "cache")


def test_a_swap_keeps_what_is_there(bench: Bench) -> None:
    """A version that stays is not loaded again; who holds the old one may go on asking it."""
    first = bench.reign(1, 1).champion
    assert first is not None
    model = bench.reign(2, 1, 2, previous=1)
    assert model.champion is not None
    assert (model.champion.number, model.previous) == (2, first)
    alone = bench.reign(2, 2)
    assert alone.previous is None
    assert answer_rows(first.engine, "posterior", Options(("late",)), [{}]).startswith(b'[{"posterior"')
    with pytest.raises(NotServed, match="version 1 is not served"):
        alone.version(1)


def test_nothing_new_is_nothing_done(bench: Bench) -> None:
    """The file is read only when it was replaced; a broken one changes nothing."""
    assert not bench.shelf.refresh()
    bench.reign(1, 1)
    assert not bench.shelf.refresh()
    (bench.cache / "situation.json").write_text("{")
    assert not bench.shelf.refresh()
    assert bench.shelf.model("flights").champion is not None


@pytest.mark.parametrize("text", ["", "{}", "[]", "0", '{"format": 99}', '{"format": 1, "schema": []}', "\x00" * 100])
def test_an_unfit_champion_displaces_nobody(bench: Bench, text: str) -> None:
    """Whatever stands in its file: the old one goes on, the fault is told, and loading is not tried for ever."""
    bench.reign(1, 1)
    bench.damage(2, text)
    model = bench.reign(2, 1, 2, previous=1)
    assert model.champion is not None
    assert model.champion.number == 1
    assert "not taken into service" in model.faults["2"]
    began = time.perf_counter()
    for _ in range(5):
        assert bench.reign(2, 1, 2, previous=1).champion is model.champion
    assert time.perf_counter() - began < 5


def test_a_restarted_worker_takes_the_predecessor(bench: Bench) -> None:
    """It has no old one in memory; the last good champion is on the disk."""
    bench.damage(2)
    model = bench.reign(2, 1, 2, previous=1)
    assert model.champion is not None
    assert model.champion.number == 1
    assert bench.shelf.ready


def test_a_mended_version_is_taken(bench: Bench) -> None:
    """The follower brought it again: other files, another try."""
    bench.reign(1, 1)
    good = (version_folder(bench.cache, "flights", 2) / "network.json").read_text()
    bench.damage(2)
    assert bench.reign(2, 1, 2).champion is not bench.shelf.model("flights").versions.get(2)
    time.sleep(0.01)
    bench.damage(2, good)
    model = bench.reign(2, 1, 2)
    assert model.champion is model.version(2)
    assert not model.faults


def test_a_canary_needs_its_version(bench: Bench) -> None:
    """While the challenger is unfit, nobody is sent to it."""
    canary = Canary(2, 0.5)
    assert bench.reign(1, 1, 2, canary=canary).canary == canary
    bench.start()
    bench.damage(2)
    assert bench.reign(1, 1, 2, canary=canary).canary is None


def test_the_challenger_is_known(bench: Bench) -> None:
    """Also one that answers nobody yet."""
    write_situation(bench.cache, Situation(datetime.now(UTC), {"flights": ModelSituation(1, challenger=2)}))
    assert bench.shelf.refresh()
    assert bench.shelf.model("flights").challenger == 2


def test_the_example_must_be_answered_as_recorded(bench: Bench) -> None:
    """The same to 1e-9, nulls where it was null; else the version is refused before anybody asked it."""
    about, folder = bench.about[1], version_folder(bench.cache, "flights", 1)

    def load(posterior: list[list[float | None]], rows: list[dict[str, Any]]) -> None:
        (folder / "example.json").write_text(json.dumps({"rows": rows, "posterior": {"late": posterior}}))
        load_version(folder, "flights", 1, about, clique_cells=2**22)

    rows: list[dict[str, Any]] = [{"rain": "yes", "wind": 2}]
    network = make_network(100)
    import bnpipe

    belief = bnpipe.compile(network).query(rows[0], ["late"])["late"].tolist()
    load([belief], rows)
    load([[belief[0] + 1e-12, belief[1]]], rows)
    for wrong in ([[belief[0] + 1e-6, belief[1]]], [belief[::-1]], [belief, belief], [[None, None]]):
        with pytest.raises(NotServed, match="not taken into service"):
            load(wrong, rows)
    (folder / "example.json").write_text("{")
    with pytest.raises(NotServed):
        load_version(folder, "flights", 1, about, clique_cells=2**22)


def test_other_files_and_cliques_are_refused(bench: Bench) -> None:
    """A network that is not the one announced, or that would cost too much."""
    folder = version_folder(bench.cache, "flights", 1)
    with pytest.raises(NotServed, match="its files hold network"):
        load_version(folder, "flights", 1, VersionOnDisk("0" * 64, ("late",)), clique_cells=2**22)
    with pytest.raises(NotServed, match="cells"):
        load_version(folder, "flights", 1, bench.about[1], clique_cells=2)
    with pytest.raises(NotServed):
        load_version(folder.with_name("9"), "flights", 9, bench.about[1], clique_cells=2**22)
    with pytest.raises(NotServed):
        load_version(folder, "flights", 1, VersionOnDisk(bench.about[1].content_hash, ("gate",)), clique_cells=2**22)


def test_readiness(bench: Bench) -> None:
    """At the start every champion of the registry must be in memory; without any there is nothing to be ready for."""
    assert not bench.shelf.ready
    bench.stand(flights=None)
    assert not bench.shelf.ready
    bench.stand(flights=1, trains=3)
    assert not bench.shelf.ready
    assert "no version is champion" in bench.shelf.idle()["trains"]
    bench.stand(flights=1)
    assert bench.shelf.ready


@pytest.mark.parametrize("trains", [None, 3], ids=["awaits approval", "is unfit"])
def test_a_new_model_takes_nobody_out(bench: Bench, trains: int | None) -> None:
    """A model that never had a champion here is no reason to send the others' callers away."""
    bench.stand(flights=1)
    bench.stand(flights=1, trains=trains)
    assert bench.shelf.ready
    assert list(bench.shelf.idle()) == ["trains"]
    if trains is None:
        bench.start()
        bench.stand(flights=1, trains=trains)
        assert bench.shelf.ready


def test_what_the_serving_file_misspells_is_told_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Models and pins that the registry does not have take nobody out; while it is away nothing is said of them."""
    clients = [{"name": "desk", "key_sha256": "0" * 64, "pins": {"fligths": 1, "flights": 1}}]
    bench.start(models={"flights": {}, "flihgts": {}}, clients=clients)
    write_situation(bench.cache, Situation(datetime.now(UTC), {}, "it does not answer"))
    bench.shelf.refresh()
    assert not bench.shelf.ready
    assert not bench.shelf.warnings()
    for _ in range(2):
        bench.stand(flights=1)
    assert bench.shelf.ready
    assert bench.shelf.warnings() == {
        "flihgts": ("models: flihgts: the registry has no such model, did you mean 'flights'?",),
        "fligths": ("clients: desk: pins: fligths is not served, did you mean 'flights'?",),
    }
    assert caplog.text.count("flihgts") == 1
    assert caplog.text.count("fligths") == 1


def test_it_follows_in_a_thread(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is logged, and the next one is made."""
    looks: list[int] = []
    refresh = bench.shelf.refresh

    def look() -> bool:
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("unforeseen")
        return refresh()

    bench.shelf.refresh = look  # type: ignore[method-assign]
    reign(bench.cache, 1, {1: bench.about[1]})
    thread = threading.Thread(target=bench.shelf.follow, args=(0.01,))
    thread.start()
    end = time.monotonic() + 20
    while not bench.shelf.ready and time.monotonic() < end:
        time.sleep(0.01)
    bench.shelf.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert bench.shelf.ready
    assert "what was served stays" in caplog.text
