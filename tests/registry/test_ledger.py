"""The ledger: nothing moves the champion without an entry, whatever dies or races."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_bench import Clock, Killed, add_versions, check_agreement

from bnpipe.errors import PromotionRefused, RegistryError, SettingsError, VersionNotFound
from bnpipe.registry import ANY, LedgerEntry, Registry, describe
from bnpipe.registry.entries import UNKNOWN_ACTOR, settled_outcome
from bnpipe.registry.ledger import EXPERIMENT, LEDGER_TAG


def moved(registry: Registry, to: int, **options: object) -> LedgerEntry:
    """Promote with the arguments that do not matter filled in."""
    return registry.promote("flights", to, **({"actor": "eve", "reason": "better"} | options))  # type: ignore[arg-type]


def alias(registry: Registry) -> int | None:
    """Where the champion is."""
    return registry.ledger.alias("flights")


def test_promotions_and_a_rollback_are_entered_in_order(registry: Registry, model: str) -> None:
    """Each move says from where to where, who, why, on what evidence and when."""
    first = registry.promote(model, 1, actor="eve", reason="first", evidence="runs:/1", expected=None)
    second = registry.promote(model, 3, actor="schedule", reason="+0.01 nats", evidence="runs:/3", expected=1)
    third = registry.rollback(model, to=1, actor="bob", reason="it got worse", expected=3)
    entries = check_agreement(registry)
    assert entries == (first, second, third)
    assert [(entry.source, entry.to, entry.kind) for entry in entries] == [
        (None, 1, "promotion"),
        (1, 3, "promotion"),
        (3, 1, "rollback"),
    ]
    assert (second.actor, second.reason, second.evidence) == ("schedule", "+0.01 nats", "runs:/3")
    assert abs((datetime.now(UTC) - second.time).total_seconds()) < 60
    champion = registry.champion(model)
    assert champion is not None
    assert champion.number == 1


def test_history_is_told_in_lines(registry: Registry, model: str) -> None:
    """`bnpipe history` prints one readable line an entry."""
    moved(registry, 1, reason="first", evidence="runs:/1")
    registry.connection.client.delete_registered_model_alias(model, "champion")
    registry.reconcile(model)
    registry.rollback(model, to=2, actor="bob", reason="none was left")
    first, second, third = (describe(entry) for entry in registry.history(model))
    assert first.endswith("UTC  promotion: no version -> version 1 by eve: first [runs:/1]")
    assert "by hand: version 1 -> no version by unknown (MLflow): champion alias deleted in MLflow" in second
    assert third.endswith("UTC  rollback: no version -> version 2 by bob: none was left")


def test_a_champion_other_than_expected_refuses(registry: Registry, model: str) -> None:
    """A promotion decided against a version that is no longer champion is refused and leaves no trace."""
    moved(registry, 1)
    moved(registry, 2)
    with pytest.raises(PromotionRefused, match="compared with version 1, but the champion is version 2"):
        moved(registry, 3, expected=1)
    with pytest.raises(PromotionRefused, match="compared with no version"):
        moved(registry, 3, expected=None)
    assert len(check_agreement(registry)) == 2


def test_promoting_the_champion_refuses(registry: Registry, model: str) -> None:
    """A second promotion of the champion is refused, naming the entry that did it."""
    moved(registry, 1)
    for actor in ("eve", "bob"):
        with pytest.raises(PromotionRefused, match=r"already is the champion of 'flights' \(entry 1\)"):
            moved(registry, 1, actor=actor)


def test_the_same_request_again_gives_the_same_entry(registry: Registry, model: str) -> None:
    """A retry after success is a success, by its key or by its evidence, while that is the last move."""
    first = moved(registry, 1, key="run-1")
    assert moved(registry, 1, key="run-1", expected=None) == first
    moved(registry, 2, key="run-2")
    assert registry.rollback(model, to=1, actor="eve", reason="worse", key="run-1").number == 3
    fourth = moved(registry, 4, evidence="runs:/4")
    assert moved(registry, 4, evidence="runs:/4", expected=1) == fourth
    assert len(check_agreement(registry)) == 4


def test_a_key_is_worth_nothing_once_the_champion_has_moved_on(registry: Registry, model: str) -> None:
    """A stale request is refused, or moves the champion in earnest; it is never told of a move that was undone."""
    moved(registry, 1, key="run-1")
    second = moved(registry, 2, key="run-2", expected=1)
    registry.connection.client.set_registered_model_alias(model, "champion", "3")
    with pytest.raises(PromotionRefused, match="compared with version 1, but the champion is version 3"):
        moved(registry, 2, key="run-2", expected=1)
    registry.connection.client.set_registered_model_alias(model, "champion", "1")
    again = moved(registry, 2, key="run-2", expected=1)
    assert again.number > second.number
    assert alias(registry) == 2
    assert [entry.to for entry in check_agreement(registry)] == [1, 2, 3, 1, 2]
    with pytest.raises(PromotionRefused, match="already is the champion"):
        moved(registry, 2, key="run-9")


def test_a_retry_sees_a_hand_that_moves_at_the_same_moment(
    registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the ledger and answering the retry the alias is read again."""
    moved(registry, 1)
    moved(registry, 2, key="run-2", expected=1)
    settle = type(registry.ledger).settle
    hands = iter(["3"])

    def settle_then_meddle(*arguments: object, **options: object) -> object:
        found = settle(*arguments, **options)  # type: ignore[arg-type]
        for to in hands:
            registry.connection.client.set_registered_model_alias(model, "champion", to)
        return found

    monkeypatch.setattr(type(registry.ledger), "settle", settle_then_meddle)
    with pytest.raises(PromotionRefused, match="but the champion is version 3"):
        moved(registry, 2, key="run-2", expected=1)
    assert [entry.to for entry in check_agreement(registry)] == [1, 2, 3]


def test_promoting_back_without_a_key_is_a_new_move(registry: Registry, model: str) -> None:
    """Promote, roll back, promote: three entries, though the first and third ask for the same."""
    moved(registry, 1)
    moved(registry, 2)
    moved(registry, 1)
    assert [entry.to for entry in check_agreement(registry)] == [1, 2, 1]


def test_unknown_models_and_versions(registry: Registry, model: str) -> None:
    """What does not exist is named, with what there is; asking creates nothing."""
    with pytest.raises(VersionNotFound, match="no version 9; there are 5, 4, 3, 2, 1"):
        moved(registry, 9)
    for ask in (registry.history, registry.reconcile):
        with pytest.raises(VersionNotFound, match="nothing"):
            ask("nothing")
    assert registry.champion("nothing") is None
    assert registry.versions("nothing") == ()
    assert registry.models() == ("flights",)
    assert registry.history(model) == ()


def test_killed_between_claim_and_move(
    registry: Registry, dying: Callable[[str], Registry], clock: Clock, model: str
) -> None:
    """The orphan blocks others for the grace, then is void; the champion never moved."""
    moved(registry, 1)
    with pytest.raises(Killed):
        moved(dying("claimed"), 2)
    with pytest.raises(PromotionRefused, match=r"version 2 .* is being promoted by eve \(entry 2"):
        moved(registry, 3, actor="bob")
    waiting = registry.reconcile(model)
    assert not waiting.changed
    assert "being promoted" in waiting.warnings[0]
    assert alias(registry) == 1

    clock.ahead = 61
    found = registry.reconcile(model)
    assert [(entry.number, entry.outcome) for entry in found.voided] == [(2, "void")]
    assert not registry.reconcile(model).changed
    assert moved(registry, 3, expected=1).source == 1
    assert [entry.outcome for entry in check_agreement(registry)] == ["done", "void", "done"]


def test_killed_between_move_and_outcome(registry: Registry, dying: Callable[[str], Registry], model: str) -> None:
    """The move happened, so the next who looks closes it as done, without waiting."""
    with pytest.raises(Killed):
        moved(dying("moved"), 2)
    assert registry.history(model)[0].outcome == "open"
    assert [entry.number for entry in registry.reconcile(model).closed] == [1]
    assert not registry.reconcile(model).changed
    assert [entry.to for entry in check_agreement(registry)] == [2]


@pytest.mark.parametrize("key", ["", "scheduled__2026-01-05"])
@pytest.mark.parametrize("stage", ["claimed", "moved"])
def test_a_killed_promotion_is_retried_at_once(
    registry: Registry, dying: Callable[[str], Registry], model: str, stage: str, key: str
) -> None:
    """A retry needs no grace for what its own predecessor left open."""
    moved(registry, 1)
    with pytest.raises(Killed):
        moved(dying(stage), 2, key=key, evidence="runs:/2", expected=1)
    retried = moved(registry, 2, key=key, evidence="runs:/2", expected=1)
    assert (retried.to, retried.outcome) == (2, "done")
    entries = check_agreement(registry)
    assert [entry.to for entry in entries if entry.outcome == "done"] == [1, 2]
    assert len(entries) == (2 if stage == "moved" else 3)
    assert retried == entries[-1]


@pytest.mark.parametrize("stage", ["claimed", "moved"])
def test_a_killed_promotion_overtaken_by_hand_is_settled_by_its_retry(
    registry: Registry, dying: Callable[[str], Registry], model: str, stage: str
) -> None:
    """Without waiting: the entry is closed as overtaken, the hand's is entered, and the retry refused."""
    moved(registry, 1)
    with pytest.raises(Killed):
        moved(dying(stage), 2, key="run-2", expected=1)
    registry.connection.client.set_registered_model_alias(model, "champion", "3")
    with pytest.raises(PromotionRefused, match="but the champion is version 3"):
        moved(registry, 2, key="run-2", expected=1)
    assert [(entry.to, entry.outcome) for entry in check_agreement(registry)] == [
        (1, "done"),
        (2, "by hand"),
        (3, "done"),
    ]


def test_killed_and_overtaken_by_hand(
    registry: Registry, dying: Callable[[str], Registry], clock: Clock, model: str
) -> None:
    """An orphan whose alias went elsewhere is closed as overtaken, and the move by hand gets its own entry."""
    moved(registry, 1)
    with pytest.raises(Killed):
        moved(dying("claimed"), 2)
    registry.connection.client.set_registered_model_alias(model, "champion", "4")
    clock.ahead = 61
    found = registry.reconcile(model)
    assert [(entry.number, entry.outcome) for entry in found.voided] == [(2, "by hand")]
    assert [(entry.source, entry.to) for entry in found.by_hand] == [(1, 4)]
    check_agreement(registry)


def test_a_reconciler_killed_half_way(registry: Registry, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move by hand whose entry was claimed but not closed is closed by the next, even if moved on since."""
    moved(registry, 1)
    registry.connection.client.set_registered_model_alias(model, "champion", "4")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(registry.ledger), "_close", kill)
        with pytest.raises(Killed):
            registry.reconcile(model)
    registry.connection.client.set_registered_model_alias(model, "champion", "1")
    registry.reconcile(model)
    assert [(entry.source, entry.to) for entry in check_agreement(registry)] == [(None, 1), (1, 4), (4, 1)]


def test_moved_by_hand(registry: Registry, model: str) -> None:
    """A promotion in the MLflow UI is entered once, as an event and not an error."""
    moved(registry, 1)
    registry.connection.client.set_registered_model_alias(model, "champion", "3")
    found = registry.reconcile(model)
    (entry,) = found.by_hand
    assert (entry.source, entry.to, entry.actor, entry.kind, entry.outcome) == (1, 3, UNKNOWN_ACTOR, "by hand", "done")
    assert not found.warnings
    assert not registry.reconcile(model).changed
    check_agreement(registry)


def test_moved_by_hand_before_there_was_a_ledger(registry: Registry, model: str) -> None:
    """The first champion may have been set in MLflow too; a promotion enters that before its own."""
    registry.connection.client.set_registered_model_alias(model, "champion", "3")
    moved(registry, 4, expected=3)
    assert [(entry.source, entry.to, entry.kind) for entry in check_agreement(registry)] == [
        (None, 3, "by hand"),
        (3, 4, "promotion"),
    ]


def test_deleted_by_hand(registry: Registry, model: str) -> None:
    """An alias deleted in the UI is a move to no version, and says so."""
    moved(registry, 2)
    registry.connection.client.delete_registered_model_alias(model, "champion")
    found = registry.reconcile(model)
    assert [(entry.source, entry.to) for entry in found.by_hand] == [(2, None)]
    assert found.warnings == ("champion of 'flights' was removed in MLflow; it was version 2",)
    assert registry.champion(model) is None
    moved(registry, 2, expected=None)
    check_agreement(registry)


def test_the_champion_version_is_deleted(registry: Registry, model: str) -> None:
    """With its version MLflow deletes the alias: entered, and the version can't be promoted again."""
    moved(registry, 1)
    moved(registry, 2)
    registry.connection.client.delete_model_version(model, "2")
    found = registry.reconcile(model)
    assert [(entry.source, entry.to) for entry in found.by_hand] == [(2, None)]
    assert found.warnings == ("version 2 of 'flights', the champion, was deleted in MLflow; there is none now",)
    with pytest.raises(VersionNotFound):
        moved(registry, 2)
    registry.rollback(model, actor="eve", reason="it is gone", expected=None)
    check_agreement(registry)


def test_a_version_deleted_under_the_mover(mlflow_uri: str, registry: Registry, model: str) -> None:
    """A version that vanishes between claim and move leaves a void entry and the old champion."""

    def delete(stage: str) -> None:
        if stage == "claimed":
            registry.connection.client.delete_model_version(model, "2")

    moved(registry, 1)
    with pytest.raises(VersionNotFound):
        moved(Registry(mlflow_uri, checkpoint=delete), 2)
    assert [entry.outcome for entry in check_agreement(registry)] == ["done", "void"]


def test_moved_by_hand_under_the_mover(mlflow_uri: str, registry: Registry, model: str) -> None:
    """The mover re-reads the alias after its claim, refuses, and both things are in the ledger."""

    def interfere(stage: str) -> None:
        if stage == "claimed":
            registry.connection.client.set_registered_model_alias(model, "champion", "5")

    moved(registry, 1)
    with pytest.raises(PromotionRefused, match="somebody made version 5 the champion"):
        moved(Registry(mlflow_uri, checkpoint=interfere), 2)
    assert [(entry.source, entry.to) for entry in registry.reconcile(model).by_hand] == [(1, 5)]
    assert [entry.outcome for entry in check_agreement(registry)] == ["done", "void", "done"]


def test_moved_by_hand_to_the_same_version_under_the_mover(mlflow_uri: str, registry: Registry, model: str) -> None:
    """Two wishes for one version come true as one entry, if a reconciler has taken the hand for the mover."""

    def interfere(stage: str) -> None:
        if stage == "claimed":
            registry.connection.client.set_registered_model_alias(model, "champion", "2")
            assert len(registry.reconcile(model).closed) == 1

    assert moved(Registry(mlflow_uri, checkpoint=interfere), 2).outcome == "done"
    assert len(check_agreement(registry)) == 1


def test_a_live_mover_voided_under_its_feet(mlflow_uri: str, registry: Registry, clock: Clock, model: str) -> None:
    """A mover that slept through its grace enters its move again, under its own name."""

    def void(stage: str) -> None:
        if stage == "claimed":
            clock.ahead = 61
            assert [entry.number for entry in registry.reconcile(model).voided] == [2]

    moved(registry, 1)
    entry = moved(Registry(mlflow_uri, clock=clock, checkpoint=void), 2, actor="ann", reason="slow", expected=1)
    assert (entry.number, entry.source, entry.to, entry.actor, entry.kind) == (3, 1, 2, "ann", "promotion")
    assert [entry.outcome for entry in check_agreement(registry)] == ["done", "void", "done"]


def test_by_hand_to_what_never_passed(mlflow_uri: str, registry: Registry, model: str) -> None:
    """A version that failed its gates, has no verdict or is barred may be promoted by hand, with a warning."""
    add_versions(mlflow_uri, model, 1, **{"bnpipe.verdict": "fail"})
    add_versions(mlflow_uri, model, 1, **{"bnpipe.barred": "rolled back on 2026-01-05"})
    client = registry.connection.client
    client.set_registered_model_alias(model, "champion", "6")
    assert registry.reconcile(model).warnings == (
        "champion of 'flights' was set to version 6 in MLflow, but it never passed its gates",
    )
    client.set_registered_model_alias(model, "champion", "7")
    (warning,) = registry.reconcile(model).warnings
    assert warning.endswith("version 7 in MLflow, but it is barred: rolled back on 2026-01-05")


def test_renamed_in_mlflow(registry: Registry, model: str) -> None:
    """The ledger follows a renamed model, and a new model of the old name begins its own."""
    moved(registry, 1)
    registry.connection.client.rename_registered_model(model, "departures")
    registry.promote("departures", 2, actor="eve", reason="better", expected=1)
    assert [(entry.model, entry.to) for entry in check_agreement(registry, "departures")] == [
        ("departures", 1),
        ("departures", 2),
    ]
    add_versions(registry.connection.uri, model, 1)
    moved(registry, 1, expected=None)
    assert len(check_agreement(registry)) == 1
    assert registry.models() == ("departures", "flights")
    assert registry.champions() == {"departures": 2, "flights": 1}
    registry.connection.client.delete_registered_model_alias(model, "champion")
    assert registry.champions() == {"departures": 2, "flights": None}


def test_a_model_made_outside_bnpipe_is_adopted_once(mlflow_uri: str) -> None:
    """Many at once give a foreign model one ledger; its champion becomes the first entry."""
    registry = Registry(mlflow_uri)
    client = registry.connection.client
    client.create_registered_model("flights")
    client.create_model_version("flights", "file:///nowhere")
    client.set_registered_model_alias("flights", "champion", "1")
    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(lambda _: Registry(mlflow_uri).ledger.ensure("flights"), range(4)))
    assert len(set(ledgers)) == 1
    registry.reconcile("flights")
    assert [entry.kind for entry in check_agreement(registry)] == ["by hand"]


def test_the_ledger_tag_deleted_by_hand(registry: Registry, model: str) -> None:
    """The ledger is found again without its tag."""
    moved(registry, 1)
    registry.connection.client.delete_registered_model_tag(model, LEDGER_TAG)
    moved(registry, 2, expected=1)
    assert len(check_agreement(registry)) == 2


def test_the_ledger_run_deleted_by_hand(registry: Registry, model: str) -> None:
    """A ledger in MLflow's bin, alone or with its experiment, is taken out again."""
    moved(registry, 1)
    client = registry.connection.client
    client.delete_run(registry.ledger.find(model))
    moved(registry, 2, expected=1)
    client.delete_experiment(client.get_experiment_by_name(EXPERIMENT).experiment_id)
    moved(registry, 3, expected=2)
    assert len(check_agreement(registry)) == 3


def test_a_ledger_that_is_gone_says_so(registry: Registry, model: str) -> None:
    """A tag that points to no run is an error with a way out, not an empty history."""
    registry.connection.client.set_registered_model_tag(model, LEDGER_TAG, "0" * 32)
    with pytest.raises(RegistryError, match=r"delete the tag bnpipe\.ledger"):
        moved(registry, 1)


def test_long_and_strange_texts(registry: Registry, model: str) -> None:
    """Reasons of any length and alphabet are kept as far as a param can hold them."""
    entry = moved(registry, 1, reason="größer\n" + '"' * 20_000, evidence="模" * 20_000, actor="o'brien")
    (read,) = check_agreement(registry)
    assert read == entry
    assert read.reason.startswith("größer\n")
    assert read.reason.endswith("...")


def test_threads_race_for_one_champion(mlflow_uri: str, registry: Registry, model: str) -> None:
    """Of five promotions decided against the same champion exactly one wins."""

    def race(to: int) -> bool:
        try:
            moved(Registry(mlflow_uri), to, expected=None, actor=f"thread {to}")
        except PromotionRefused:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        won = list(pool.map(race, range(1, 6)))
    assert won.count(True) == 1
    done = [entry for entry in check_agreement(registry) if entry.outcome == "done"]
    assert [entry.to for entry in done] == [won.index(True) + 1]


def test_threads_race_without_expectation(mlflow_uri: str, registry: Registry, model: str) -> None:
    """Whoever does not mind the present champion is entered in some order, each with the right `from`."""

    def keep_trying(to: int) -> None:
        mine = Registry(mlflow_uri)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                moved(mine, to, expected=ANY, actor=f"thread {to}")
                return
            except PromotionRefused:
                time.sleep(0.02)
        raise AssertionError("never got a turn")

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(keep_trying, range(1, 6)))
    done = [entry for entry in check_agreement(registry) if entry.outcome == "done"]
    assert sorted(entry.to or 0 for entry in done) == [1, 2, 3, 4, 5]


PROMOTER = """
    import sys
    from bnpipe.errors import PromotionRefused
    from bnpipe.registry import Registry
    registry = Registry(sys.argv[1])
    registry.versions("flights")
    print("ready", flush=True)
    sys.stdin.readline()
    for to in map(int, sys.argv[2:]):
        champion = registry.champion("flights")
        try:
            entry = registry.promote("flights", to, actor="p", reason="r", expected=champion and champion.number)
            print("won", entry.number, entry.to, flush=True)
        except PromotionRefused as error:
            print("lost", flush=True)
"""


def test_processes_race(mlflow_uri: str, registry: Registry, model: str, repository: object) -> None:
    """Promoters in two processes and a hand in the UI: one winner an entry, and ledger and alias agree."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PROMOTER), mlflow_uri, *sequence],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=str(repository),
        )
        for sequence in ("123415", "341523")
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        registry.connection.client.set_registered_model_alias(model, "champion", "2")
        lines = [line.split() for racer in racers for line in racer.communicate(timeout=120)[0].splitlines()]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert all(racer.returncode == 0 for racer in racers)
    assert len(lines) == 12
    registry.reconcile(model)
    entries = {entry.number: entry for entry in check_agreement(registry)}
    won = [(int(number), int(to)) for kind, *rest in lines if kind == "won" for number, to in [rest]]
    assert len({number for number, _ in won}) == len(won) > 0
    assert all((entries[number].to, entries[number].outcome) == (to, "done") for number, to in won)


def test_a_long_ledger_is_quick(registry: Registry, model: str) -> None:
    """1500 moves, that is 3000 params, are read and added to in less than 3 seconds."""
    moved(registry, 1)
    run_id = registry.ledger.find(model)
    claim = registry.ledger.params(run_id)["000001.claim"]
    params = [(run_id, f"{number:06d}.outcome", "void") for number in range(2, 1501)]
    params += [(run_id, f"{number:06d}.claim", claim + " " * 300) for number in range(2, 1501)]
    with closing(sqlite3.connect(registry.connection.uri.removeprefix("sqlite:///"))) as database, database:
        database.executemany("INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?)", params)
    began = time.process_time()
    assert moved(registry, 2, expected=1).number == 1501
    assert time.process_time() - began < 3
    assert len(registry.history(model)) == 1501


def test_no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MLFLOW_TRACKING_URI nothing is written into the working directory: an error says what to set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingsError, match="MLFLOW_TRACKING_URI"):
        Registry()


versions = st.none() | st.integers(1, 3)


@given(
    source=versions,
    to=versions,
    alias=versions,
    age=st.floats(-600, 600),
    kind=st.sampled_from(["promotion", "by hand"]),
)
def test_how_orphans_are_settled(source: int | None, to: int | None, alias: int | None, age: float, kind: str) -> None:
    """Alias at `to`: done. Else nothing within the grace; then at `from`: void, elsewhere: by hand."""
    entry = LedgerEntry(1, "m", source, to, "a", "r", "", datetime.fromtimestamp(10_000, UTC), "open", kind)  # type: ignore[arg-type]
    outcome = settled_outcome(entry, alias, now=10_000 + age)
    if alias == to or kind == "by hand":
        assert outcome == "done"
    elif age < 60:
        assert outcome == "open"
    else:
        assert outcome == ("void" if alias == source else "by hand")
