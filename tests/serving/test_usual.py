"""How usual a row is among the rows a version learned from: from the registry to the answer, and back by an audit."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from registry_bench import make_network, make_rows
from serving_bench import TARGETS, Kept, ask, make_service, put_version, usual_in_training

import bnpipe
from bnpipe.alerts import Alert
from bnpipe.answers import AnswerRecord, Journal
from bnpipe.cli import main
from bnpipe.config.serving import ServingSpec
from bnpipe.data import Dataset
from bnpipe.errors import NotServed
from bnpipe.inference import TrainingLikelihoods
from bnpipe.registry import Registry
from bnpipe.schema import MISSING
from bnpipe.serving.access import Access
from bnpipe.serving.answering import Options, answer, cells_touched
from bnpipe.serving.follower import Follower
from bnpipe.serving.observing import Observer
from bnpipe.serving.service import Service
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.situation import VersionOnDisk, read_about, version_folder
from bnpipe.serving.usual import DRAWN, set_usual, usual_of
from bnpipe.serving.versions import load_version

WHOLE = {"rain": "no", "wind": 3, "late": False, "note": "on time"}
KNOWN = {name: value for name, value in WHOLE.items() if name not in TARGETS}
LESS = {"rain": "no", "late": True}


def bases(reply: dict[str, Any]) -> list[str]:
    return [row["relative_to"] for row in reply["answers"]]


# -- one version


def test_a_row_with_the_variables_of_training_is_held_against_its_rows(tmp_path: Path) -> None:
    """The share of rows at most as likely, whoever else is asked; other rows are held against drawn ones as before."""
    service = make_service(tmp_path / "new", trained=[usual_in_training()])
    before = make_service(tmp_path / "old")
    found = ask(service, "likelihood", [WHOLE, LESS, KNOWN, {}])
    assert bases(found) == ["training rows", "drawn rows", "training rows", "drawn rows"]
    assert found["relative_to"].keys() == {"training rows", "drawn rows"}
    old = ask(before, "likelihood", [WHOLE, LESS, KNOWN, {}])
    assert bases(old) == ["drawn rows"] * 4
    assert [found["answers"][place] for place in (1, 3)] == [old["answers"][place] for place in (1, 3)]
    for place, row in enumerate((WHOLE, KNOWN)):
        frame = make_rows()[list(row)]
        engine = bnpipe.compile(make_network())
        training = engine.log_likelihood(Dataset.from_pandas(frame, engine.network.schema.project(tuple(row))))
        its = found["answers"][2 * place]
        assert its["quantile"] == pytest.approx((training <= its["log_likelihood"] + 1e-9).mean(), abs=0.001)
        assert ask(service, "likelihood", [row])["answers"] == [its]


def test_only_sets_that_are_new_cost_drawn_rows() -> None:
    """What was measured in training is not computed again, nor charged for."""
    engine = bnpipe.compile(make_network())
    set_usual(engine, usual_in_training())
    codes = Dataset.from_pandas(make_rows(20), engine.network.schema).codes.copy()
    assert usual_of(engine).unknown(codes) == 0
    cost = cells_touched(engine, "likelihood", Options(), codes)
    codes[0, 3:] = MISSING
    assert usual_of(engine).unknown(codes) == 1
    dearer = cells_touched(engine, "likelihood", Options(), codes)
    assert dearer == pytest.approx(cost + DRAWN * engine.cost.cells)
    answer(engine, "likelihood", Options(), codes)
    assert cells_touched(engine, "likelihood", Options(), codes) == cost


def test_too_few_training_rows_are_none() -> None:
    """Of 150 rows a quantile would say little: drawn rows stand in."""
    engine = bnpipe.compile(make_network(150))
    set_usual(engine, usual_in_training(150))
    (found,) = answer(engine, "likelihood", Options(), np.zeros((4, 1), dtype=np.uint8))
    assert found["relative_to"] == "drawn rows"


def test_the_same_network_learned_from_other_rows_has_its_own_answers(tmp_path: Path) -> None:
    """Two versions of one network would share what is remembered of either, and no audit could explain it."""
    engine, odd = bnpipe.compile(make_network()), make_rows(2000)
    odd = odd[odd["note"] == "delay, >= 15 min"]
    patterns = [make_network().nodes]
    other = TrainingLikelihoods.measure(engine, Dataset.from_pandas(odd, engine.network.schema), patterns)
    service = make_service(tmp_path, [make_network()] * 3, trained=[usual_in_training(), other, None])
    answers = [ask(service, "likelihood", [WHOLE], version=number)["answers"][0] for number in (1, 2, 3, 1)]
    assert answers[0] == answers[3]
    assert len({row["quantile"] for row in answers}) == 3
    assert answers[2]["relative_to"] == "drawn rows"


@pytest.mark.parametrize("damage", ["half", "gone", "of another version", "a changed digit"])
def test_a_damaged_file_keeps_a_version_out(tmp_path: Path, damage: str) -> None:
    """Wrong quantiles are worse than those of drawn rows, and nobody could audit them."""
    trained, other = usual_in_training(), usual_in_training(300)
    about = put_version(tmp_path, "flights", 1, make_network(), trained=trained)
    file = version_folder(tmp_path, "flights", 1) / "likelihoods.json"
    text = file.read_text()
    if damage == "half":
        file.write_text(text[: len(text) // 2])
    elif damage == "gone":
        file.unlink()
    elif damage == "of another version":
        about = put_version(tmp_path, "flights", 1, make_network(), trained=other)
    else:
        file.write_text(text.replace('"rows": 400', '"rows": 401', 1))
    with pytest.raises(NotServed, match=r"flights version 1 is not taken into service: .*likelihoods"):
        load_version(file.parent, "flights", 1, about, clique_cells=2**22)


# -- from the registry to an answer, and back


@dataclass
class Bench:
    """A registry with a champion, who follows it, and a worker whose answers are logged."""

    registry: Registry
    folder: Path
    alerts: list[Alert] = field(default_factory=list)

    def register(self, key: str, trained: TrainingLikelihoods | None) -> int:
        """Register a version as a training does, and make it champion."""
        run = self.registry.start_run(model="flights", key=key)
        version = self.registry.register(
            model="flights", network=make_network(), targets=TARGETS, run_id=run, training_key=key, likelihoods=trained
        )
        self.registry.promote("flights", version.number, actor="eve", reason="test", key=key)
        return version.number

    def file(self, number: int) -> Path:
        """Where the registry keeps a version's likelihoods."""
        folder = self.registry.connection.client.get_model_version_download_uri("flights", str(number))
        return Path(folder.removeprefix("file://")) / "artifacts" / "likelihoods.json"

    def service(self, log: Kept | None = None) -> Service:
        """Start anew, and take over what the registry has."""
        cache, spec = self.folder / "cache", ServingSpec()
        Follower(self.registry, cache, spec, alert=self.alerts.append).poll()
        shelf = Shelf(cache, spec)
        shelf.refresh()
        return Service(spec, shelf, Access((), anonymous=True), log, Observer())

    def ask(self) -> AnswerRecord:
        """Ask, and log the answer where an audit looks for it."""
        kept = Kept()
        ask(self.service(kept), "likelihood", [WHOLE, LESS])
        with Journal(self.folder / "answers" / "journal", "w") as journal:
            journal.append(kept.records)
        (record,) = kept.answers
        return record


@pytest.fixture
def bench(mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """No version yet."""
    monkeypatch.setenv("BNPIPE_ANSWERS", str(tmp_path / "answers"))
    return Bench(Registry(mlflow_uri), tmp_path)


def test_an_audit_finds_the_same_quantiles(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Bit for bit by the version's own likelihoods; without them, or with others, it says so and not "the same"."""
    number = bench.register("k1", usual_in_training())
    record = bench.ask()
    assert [row["relative_to"] for row in json.loads(record.answer)] == ["training rows", "drawn rows"]
    assert main(["audit", record.id]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out
    file = bench.file(number)
    text = file.read_text()
    file.write_text(usual_in_training(300).to_json())
    assert main(["audit", record.id]) == 1
    assert "NOT asked: the likelihoods of its training rows are of network" in capsys.readouterr().out
    fields = json.loads(text)
    values = fields["patterns"][0]["log_likelihoods"]
    fields["patterns"][0]["log_likelihoods"] = [value - 1.0 for value in values]
    file.write_text(json.dumps(fields))
    assert main(["audit", record.id]) == 1
    assert "NOT the same: " in capsys.readouterr().out
    file.unlink()
    assert main(["audit", record.id]) == 1
    said = capsys.readouterr().out
    assert f"NOT asked: request {record.id} was answered relative to training rows, whose likelihoods" in said
    assert "flights version 1 no longer has" in said


def test_a_version_without_likelihoods_is_served_and_audited(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of an older bnpipe, imported ones and those registered by hand go on as they did."""
    bench.register("k1", None)
    record = bench.ask()
    assert not bench.alerts
    assert [row["relative_to"] for row in json.loads(record.answer)] == ["drawn rows", "drawn rows"]
    assert main(["audit", record.id]) == 0
    assert "the same, bit for bit" in capsys.readouterr().out


def test_damage_in_the_registry_displaces_nobody(bench: Bench) -> None:
    """The version before goes on, and who is told reads what is wrong."""
    bench.register("k1", usual_in_training())
    assert bench.service().shelf.model("flights").champion is not None
    number = bench.register("k2", usual_in_training())
    file = bench.file(number)
    file.write_text(file.read_text()[:5000])
    model = bench.service().shelf.model("flights")
    assert model.champion is not None
    assert model.champion.number == 1
    (alert,) = bench.alerts
    assert "likelihoods.json of version 2 can't be read: no likelihoods of training rows" in alert.text


def test_what_an_older_bnpipe_brought_is_brought_again(bench: Bench) -> None:
    """It left the likelihoods in the registry: a cache that outlives the upgrade would hide them for ever."""
    bench.register("k1", usual_in_training())
    bench.service()
    folder = version_folder(bench.folder / "cache", "flights", 1)
    about = read_about(folder)
    assert about is not None
    assert about.likelihoods == usual_in_training().hash
    (folder / "likelihoods.json").unlink()
    fields = {name: value for name, value in msgspec.to_builtins(about).items() if name != "likelihoods"}
    (folder / "version.json").write_bytes(msgspec.json.encode(fields))
    old = load_version(folder, "flights", 1, msgspec.convert(fields, VersionOnDisk), clique_cells=2**22)
    assert old.about.likelihoods is None
    assert bases(ask(bench.service(), "likelihood", [WHOLE])) == ["training rows"]
    shutil.rmtree(folder.parent)
    assert bases(ask(bench.service(), "likelihood", [WHOLE])) == ["training rows"]
