"""The harness of the benchmarks on tiny inputs: every part runs, failures are shown, cells are resumed."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
import reference_networks

from benchmarks import __main__ as command
from benchmarks import cells, child, networks, report, results
from benchmarks.cells import CONTENDERS, Cell, Problem
from benchmarks.child import Outcome, run_child
from benchmarks.graphs import shd, skeleton_f1
from benchmarks.timing import Ratio, Timing, alternate, count, duration

USERS_OF_CHILD = ("agreement", "answering", "bootstrap", "cells", "drift", "fit", "learning", "order")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(cells, "OURS", tmp_path / "cache" / "quality")
    monkeypatch.setattr(cells, "PEERS", tmp_path / "cache" / "peers")


@pytest.fixture
def here(monkeypatch):
    """Children's work is done in this process, which spares the imports."""

    def run_here(task, arguments, **limits):
        module, _, function = task.partition(":")
        try:
            value = getattr(importlib.import_module(module), function)(**json.loads(json.dumps(arguments)))
        except (NotImplementedError, AttributeError) as error:
            return Outcome(None, f"failed: {error}")
        return Outcome(json.loads(json.dumps(value)))

    for name in USERS_OF_CHILD:
        monkeypatch.setattr(importlib.import_module(f"benchmarks.{name}"), "run_child", run_here)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("part", [part for part in command.PARTS if part != "serving"])  # tests/serving/test_load.py
def test_every_part_runs(part, tmp_path):
    """Each part measures all engines on tiny rows and writes a section whose rows fit its columns."""
    page = tmp_path / "page.md"
    command.main([part, "--tiny", "--page", str(page)])
    result, conditions = results.read_result(tmp_path / "cache" / "results" / f"{part}.json")
    cells_shown = " ".join(" ".join(row) for table in result.tables for row in table.rows)
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert all(engine in cells_shown + str(result.tables) for engine in command.ENGINES)
    assert "failed" not in cells_shown.replace("failed: pgmpy has no likelihood", "")
    assert {"bnpipe", "pgmpy", "pyagrum", "python"} <= set(conditions.versions)
    text = page.read_text(encoding="utf-8")
    assert text.count("## ") >= 2
    assert f"<!-- part: {part} -->" in text
    assert (page.parent / f"benchmarks-{part}.svg").exists() == bool(result.figure)


@pytest.mark.usefixtures("here")
def test_answers_are_compared(tmp_path):
    """The inference part finds the three engines' answers equal to 1e-9."""
    command.main(["inference", "--tiny", "--page", str(tmp_path / "page.md")])
    result, _ = results.read_result(tmp_path / "cache" / "results" / "inference.json")
    apart = [target for target in result.targets if "apart from" in target.work]
    assert len(apart) >= 6
    assert {target.verdict for target in apart} == {"met"}


def test_unknown_part_is_refused(capsys):
    """A part that does not exist is named with those that do."""
    with pytest.raises(SystemExit):
        command.main(["serch"])
    assert "search" in capsys.readouterr().err


def arguments(**changed):
    return {"engine": "bnpipe", "options": {}, "network": "alarm", "rows": 500, "seed": 1, "limit": 30.0} | changed


def test_child_gives_its_result():
    """Work in a process of its own gives its value and the processor time it took."""
    outcome = run_child("benchmarks.learning:learn_timed", arguments(network="asia", rows=100))
    assert outcome.failure == ""
    assert set(outcome.value["parents"]) == set(networks.published("asia").nodes)
    assert outcome.value["cpu_seconds"] > 0 < outcome.value["seconds"]


def test_slow_child_is_ended_and_shown():
    """A search that takes longer than its limit is ended and gives a lower bound."""
    outcome = run_child("benchmarks.learning:learn_timed", arguments(limit=0.001))
    assert (outcome.value, outcome.failure, outcome.bound) == (None, "> 0.001 s", 0.001)


def test_child_out_of_processor_time_is_shown():
    """A child that uses up its processor time is ended and shown so."""
    outcome = run_child("timeit:repeat", {"stmt": "sum(range(10**6))", "number": 10**6}, cpu_seconds=1)
    assert outcome.failure == "> 1 s"


def test_hanging_child_is_ended():
    """A child that only waits is ended too."""
    outcome = run_child("timeit:repeat", {"stmt": "__import__('time').sleep(9)", "number": 1}, wall_seconds=1)
    assert outcome.failure == "> 1 s in all"


def test_failing_child_is_shown_shortened():
    """What a child failed of is shown, cut to one short line."""
    outcome = run_child("benchmarks.learning:learn_timed", arguments(engine="x" * 200))
    assert outcome.failure.startswith("failed: ModuleNotFoundError: No module named")
    assert len(outcome.failure) < 80


def test_engines_take_turns_and_failures_end_them():
    """Rounds alternate; who failed, or has used enough time, is not run again."""
    calls = []

    def job(name, outcome):
        return lambda: calls.append(name) or outcome

    jobs = {
        "quick": job("quick", Outcome({"seconds": 1.0})),
        "slow": job("slow", Outcome({"seconds": 70.0})),
        "broken": job("broken", Outcome(None, "failed: no")),
        "late": job("late", Outcome(None, "> 90 s", 90.0)),
    }
    timings = alternate(jobs, repeats=3, enough=60.0)
    assert calls == ["quick", "slow", "broken", "late", "quick", "quick"]
    assert [str(timing) for timing in timings.values()] == [
        "1.00 s (1.00 s to 1.00 s)",
        "70.0 s",
        "failed: no",
        "> 90 s",
    ]
    ratios = [str(Ratio.of(timing, timings["quick"])) for timing in timings.values()]
    assert ratios == ["1.00 ×", "70.0 ×", "–", "> 90.0 ×"]
    assert str(Ratio.of(timings["quick"], timings["broken"])) == "–"


def test_median_of_runs():
    """A timing is the median of its runs."""
    assert Timing.of([Outcome({"seconds": s}) for s in (3.0, 1.0, 9.0)]).median == 3.0


def test_numbers_are_short():
    """Durations and counts have three digits and a unit."""
    assert [duration(s) for s in (2e-7, 0.00123, 0.5, 1234.5)] == ["0.200 µs", "1.23 ms", "500 ms", "1\u202f234 s"]
    assert count(1_000_000) == "1\u202f000\u202f000"


@pytest.mark.parametrize(
    ("measured", "at_least", "bound", "verdict"),
    [
        (12.0, True, False, "met"),
        (8.0, True, False, "missed"),
        (8.0, True, True, "not decided"),
        (12.0, True, True, "met"),
        (8.0, False, False, "met"),
        (12.0, False, False, "missed"),
        (None, True, False, "not measured"),
    ],
)
def test_verdict_is_computed(measured, at_least, bound, verdict):
    """Whether a target is met follows from the number measured."""
    assert results.Target("work", 10.0, measured, "×", at_least, bound).verdict == verdict


def test_sections_are_replaced_one_by_one(tmp_path):
    """A part that is measured again replaces its own section and leaves the others, in the order of the parts."""
    page = tmp_path / "page.md"
    around = results.Conditions("2026-01-01", "2 cores", {"bnpipe": "1"}, 0.0)
    table = results.Table("Seconds", ("a", "b"), (("1", "x|y"),), "A note.")
    for part, text in (("second", "old"), ("first", "kept"), ("second", "new")):
        result = results.PartResult(part, part.title(), text, (table,))
        report.write_section(page, result, around, ("first", "second"))
    written = page.read_text(encoding="utf-8")
    assert written.count("\n## First\n") == written.count("\n## Second\n") == 1
    assert written.index("\n## First") < written.index("\n## Second\n")
    assert "old" not in written
    assert "kept" in written
    assert r"| 1 | x\|y |" in written


def test_busy_machine_is_told():
    """Seconds measured beside other work say so."""
    result = results.PartResult("search", "Search", "", ())
    calm, busy = (results.Conditions("2026-01-01", "", {}, load) for load in (0.1, 3.0))
    assert "Something else was running" not in report.section(result, calm)
    assert "Something else was running" in report.section(result, busy)


PROBLEM = Problem("asia", 100, 1)


@pytest.fixture
def peer(monkeypatch):
    """pgmpy's cells are learned by a stub that counts its calls."""
    calls = []

    def run(task, arguments, *, cpu_seconds):
        calls.append(cpu_seconds)
        failed = Outcome(None, f"> {cpu_seconds:g} s")
        return failed if cpu_seconds < 10 else Outcome({"parents": {"asia": []}, "bic": -5.0})

    monkeypatch.setattr(cells, "run_child", run)
    return calls


def sweep(limit, contender=CONTENDERS[-1]):
    return list(cells.sweep([contender], [PROBLEM], cpu_limit=limit, seconds=60))


def test_cells_are_resumed(peer):
    """A cell that is there is not learned again."""
    assert len(sweep(20.0)) == 1
    assert sweep(20.0) == []
    assert peer == [20.0]
    assert cells.read_cell(CONTENDERS[-1], PROBLEM) == Cell(PROBLEM, {"asia": []}, -5.0, "", 20.0)


def test_cell_that_ran_out_is_learned_under_a_larger_limit(peer):
    """A cell that ran out of its limit is tried again only if it would get more."""
    assert "> 5 s" in sweep(5.0)[0]
    assert sweep(5.0) == []
    assert len(sweep(20.0)) == 1
    assert peer == [5.0, 20.0]


def test_cell_of_another_version_is_another(peer, monkeypatch):
    """A new version of an engine, and other options, make other cells."""
    sweep(20.0)
    monkeypatch.setattr(cells, "version", lambda _: "next")
    assert len(sweep(20.0)) == 1
    assert len(sweep(20.0, cells.Contender("pgmpy tabu", "pgmpy", {"tabu": 1}))) == 1
    assert len(peer) == 3


def test_sweep_keeps_to_its_time(peer):
    """No cell is begun when the seconds are over."""
    assert list(cells.sweep([CONTENDERS[-1]], [PROBLEM], cpu_limit=20.0, seconds=-1)) == []
    assert peer == []


def test_networks_are_those_of_pgmpy():
    """The networks read from the files are the ones pgmpy makes of them."""
    ours, theirs = networks.published("asia"), reference_networks.published("asia")
    assert ours.schema == theirs.schema
    assert all(np.array_equal(ours.cpd(node).table, theirs.cpd(node).table) for node in ours.nodes)


def test_rows_are_drawn_once(monkeypatch):
    """The same rows come from the file as were drawn, and the file is used the second time."""
    first = networks.kept_rows("asia", 50, 3)
    monkeypatch.setattr(networks, "sample", None)
    assert np.array_equal(networks.kept_rows("asia", 50, 3).codes, first.codes)


def test_exact_networks_sum_to_one():
    """Tables that decimals in a file leave at 1e-7 of a distribution are made distributions."""
    network = networks.exact("alarm")
    assert max(abs(network.cpd(node).table.sum(axis=-1) - 1).max() for node in network.nodes) < 1e-15


def test_wide_network_has_forty_variables():
    """The network of the memory target has the 40 variables it asks for."""
    assert len(networks.published(networks.ALARM_40).nodes) == 40


def test_distances_of_graphs():
    """Equivalent graphs are no distance apart; a missing arc costs one and half the recall."""
    chain, back = {"a": (), "b": ("a",), "c": ("b",)}, {"c": (), "b": ("c",), "a": ("b",)}
    assert (shd(chain, back), skeleton_f1(chain, back)) == (0, 1.0)
    assert shd(chain, {"a": (), "b": ("a",), "c": ()}) == 1
    assert skeleton_f1(chain, {"a": (), "b": ("a",), "c": ()}) == pytest.approx(2 / 3)


def test_limit_leaves_no_alarm():
    """A block that ends in time is not ended later."""
    import signal

    with child.limited(5.0):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
