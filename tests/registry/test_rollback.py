"""Going back: to a version that will do, in one piece whatever dies or races, and for good."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from registry_bench import Clock, Killed, add_versions, check_agreement, make_network, remove_files

from bnpipe.errors import PromotionRefused, RegistryUnavailable, VersionNotFound
from bnpipe.registry import LedgerEntry, Registry, describe


@pytest.fixture
def reigns(registry: Registry, model: str) -> str:
    """A model whose versions 1, 2 and 3 have been champion, in this order."""
    for number in (1, 2, 3):
        registry.promote(model, number, actor="schedule", reason="better")
    return model


def back(registry: Registry, **options: object) -> LedgerEntry:
    """Roll back with the arguments that do not matter filled in."""
    return registry.rollback("flights", **({"actor": "eve", "reason": "worse"} | options))  # type: ignore[arg-type]


def barred(registry: Registry, *numbers: int) -> list[bool]:
    """Whether versions are barred."""
    return [registry.version("flights", number).barred is not None for number in numbers]


def test_back_to_the_version_before(registry: Registry, reigns: str) -> None:
    """The newest earlier champion reigns again, told plainly; the bad version says why and since when it is barred."""
    predecessor = registry.predecessor(reigns)
    assert predecessor is not None
    assert predecessor.number == 2
    entry = back(registry, reason="late given hour changed", evidence="runs:/1")
    assert (entry.source, entry.to, entry.kind, entry.outcome) == (3, 2, "rollback", "done")
    assert describe(entry).endswith("rollback: version 3 -> version 2 by eve: late given hour changed [runs:/1]")
    assert registry.version(reigns, 3).barred == (
        f"rolled back by eve: late given hour changed (since {entry.time:%Y-%m-%d %H:%M UTC})"
    )
    assert barred(registry, 1, 2) == [False, False]
    assert check_agreement(registry)[-1] == entry


def test_further_back_passes_over_what_was_rolled_back(registry: Registry, reigns: str) -> None:
    """A second rollback goes on to the champion before; the third finds nothing and says why, version by version."""
    assert [back(registry).to, back(registry).to] == [2, 1]
    assert registry.predecessor(reigns) is None
    with pytest.raises(
        PromotionRefused,
        match=r"to go back to from version 1: version 2: it is barred: rolled back by eve: worse .*3: it",
    ):
        back(registry)
    assert registry.ledger.alias(reigns) == 1
    assert barred(registry, 1, 2, 3) == [False, True, True]


def test_the_first_champion_has_no_predecessor(registry: Registry, model: str) -> None:
    """Nothing to go back to is a refusal; a model that does not exist has no predecessor and is not made."""
    registry.promote(model, 1, actor="eve", reason="first")
    assert registry.predecessor(model) is None
    with pytest.raises(PromotionRefused, match=r"no earlier champion to go back to from version 1$"):
        back(registry)
    assert registry.predecessor("nothing") is None
    with pytest.raises(VersionNotFound):
        registry.rollback("nothing", actor="eve", reason="worse")
    assert registry.models() == (model,)


def test_a_version_that_never_passed_is_passed_over(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """A champion by hand without a verdict, a deleted one and one without files are no predecessors."""
    add_versions(mlflow_uri, reigns, 1, **{"bnpipe.verdict": "fail"})
    for number in (6, 4, 5):
        registry.connection.client.set_registered_model_alias(reigns, "champion", str(number))
        registry.reconcile(reigns)
    registry.connection.client.delete_model_version(reigns, "4")
    remove_files(registry, reigns, 3)
    assert back(registry).to == 2
    check_agreement(registry)


def test_to_a_version_without_files_is_refused_before_the_alias_moves(registry: Registry, reigns: str) -> None:
    """Named, with what would do; force does not help; neither ledger, alias nor bars change."""
    remove_files(registry, reigns, 2)
    for force in (False, True):
        with pytest.raises(PromotionRefused, match=r"version 2: its files can't be loaded .*; version 1 would do"):
            back(registry, to=2, force=force)
    remove_files(registry, reigns, 1)
    with pytest.raises(PromotionRefused, match="no earlier champion would do"):
        back(registry, to=1)
    assert len(check_agreement(registry)) == 3
    assert registry.ledger.alias(reigns) == 3
    assert barred(registry, 3) == [False]


def test_to_a_version_whose_files_were_changed_is_refused(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """A network that is not the one the tags tell of is not served again."""
    add_versions(mlflow_uri, reigns, 1, **{"bnpipe.content_hash": make_network().content_hash})
    add_versions(mlflow_uri, reigns, 1, **{"bnpipe.content_hash": "0" * 64})
    with pytest.raises(PromotionRefused, match="another network than its tags say; version 2 or version 1 would do"):
        back(registry, to=7)
    assert back(registry, to=6).to == 6


def test_to_a_version_with_doubts_only_by_force(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """A barred version and one that never passed are refused, and taken when a person insists."""
    add_versions(mlflow_uri, reigns, 1, **{"bnpipe.verdict": "fail"})
    registry.bar(registry.version(reigns, 2), "labels were wrong")
    with pytest.raises(PromotionRefused, match=r"version 2: it is barred: labels were wrong \(since .*version 1 would"):
        back(registry, to=2)
    with pytest.raises(PromotionRefused, match="version 6: it never passed its gates"):
        back(registry, to=6)
    assert back(registry, to=2, force=True).to == 2
    assert back(registry, to=6, force=True).to == 6
    check_agreement(registry)


def test_unbarred_versions_may_come_back(registry: Registry, reigns: str) -> None:
    """A bar is lifted by a person, and reconciling does not put it back."""
    back(registry)
    with pytest.raises(PromotionRefused, match="version 3 of 'flights' was not promoted: it is barred: rolled back by"):
        registry.promote(reigns, 3, actor="schedule", reason="again")
    registry.unbar(registry.version(reigns, 3))
    registry.unbar(registry.version(reigns, 3))
    registry.reconcile(reigns)
    assert barred(registry, 3) == [False]
    assert registry.promote(reigns, 3, actor="schedule", reason="again").to == 3
    assert [entry.outcome for entry in check_agreement(registry)] == ["done"] * 4 + ["void", "done"]


def test_a_champion_other_than_expected_is_not_rolled_back(registry: Registry, reigns: str) -> None:
    """A rollback decided against version 2 does nothing to version 3, and bars nothing."""
    with pytest.raises(PromotionRefused, match="rolled back from version 2, but the champion is version 3"):
        back(registry, expected=2)
    with pytest.raises(PromotionRefused, match="version 3 already is the champion"):
        back(registry, to=3)
    assert len(check_agreement(registry)) == 3
    assert barred(registry, 1, 2, 3) == [False] * 3


def test_a_champion_set_by_hand_is_rolled_back(
    mlflow_uri: str, registry: Registry, reigns: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What was promoted in MLflow a moment ago is entered and warned of, taken back, and barred."""
    add_versions(mlflow_uri, reigns, 1, **{"bnpipe.verdict": "fail"})
    registry.connection.client.set_registered_model_alias(reigns, "champion", "6")
    predecessor = registry.predecessor(reigns)
    assert predecessor is not None
    assert predecessor.number == 3
    assert back(registry).to == 3
    assert [(entry.source, entry.to, entry.kind) for entry in check_agreement(registry)[-2:]] == [
        (3, 6, "by hand"),
        (6, 3, "rollback"),
    ]
    assert "set to version 6 in MLflow, but it never passed its gates" in caplog.text
    assert barred(registry, 3, 6) == [False, True]


def test_a_champion_whose_alias_was_removed_is_not_the_predecessor(registry: Registry, reigns: str) -> None:
    """A person took version 3 away: going back means version 2, and nobody is barred for it."""
    registry.connection.client.delete_registered_model_alias(reigns, "champion")
    assert back(registry).to == 2
    assert barred(registry, 1, 2, 3) == [False] * 3
    check_agreement(registry)


def test_a_rolled_back_version_that_is_deleted_needs_no_bar(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """A version that vanishes while it is rolled back ends the rollback as usual."""

    def delete(stage: str) -> None:
        if stage == "moved":
            registry.connection.client.delete_model_version(reigns, "3")

    assert back(Registry(mlflow_uri, checkpoint=delete)).to == 2
    check_agreement(registry)


@pytest.mark.parametrize("options", [{"key": "drift-1"}, {"evidence": "runs:/1"}])
@pytest.mark.parametrize("stage", ["claimed", "moved", "barred"])
def test_a_killed_rollback_is_retried_at_once(
    registry: Registry, dying: Callable[[str], Registry], reigns: str, stage: str, options: dict[str, str]
) -> None:
    """The retry goes exactly as far back as the first attempt wanted, once, and the bad version is barred."""
    with pytest.raises(Killed):
        back(dying(stage), **options)
    assert barred(registry, 3) == [stage == "barred"]
    entries = [back(registry, **options) for _ in range(2)]
    assert entries[0] == entries[1]
    assert [(entry.source, entry.to) for entry in check_agreement(registry) if entry.outcome == "done"][3:] == [(3, 2)]
    assert barred(registry, 1, 2, 3) == [False, False, True]


@pytest.mark.parametrize("stage", ["claimed", "moved", "barred"])
def test_a_killed_rollback_is_reconciled(
    registry: Registry, dying: Callable[[str], Registry], clock: Clock, reigns: str, stage: str
) -> None:
    """Not moved: void after the grace, and nothing barred. Moved: done at once, and barred if it was not yet."""
    with pytest.raises(Killed):
        back(dying(stage))
    if stage == "claimed":
        with pytest.raises(PromotionRefused, match="'flights' is being rolled back to version 2 by eve"):
            registry.promote(reigns, 4, actor="schedule", reason="better")
        clock.ahead = 61
    found = registry.reconcile(reigns)
    assert [entry.outcome for entry in (*found.closed, *found.voided)] == ["void" if stage == "claimed" else "done"]
    assert registry.ledger.alias(reigns) == (3 if stage == "claimed" else 2)
    check_agreement(registry)
    assert barred(registry, 2, 3) == [False, stage != "claimed"]
    assert not registry.reconcile(reigns).changed


@pytest.mark.parametrize("stage", ["moved", "barred"])
def test_a_reconciler_killed_at_a_killed_rollback(
    registry: Registry, dying: Callable[[str], Registry], reigns: str, stage: str
) -> None:
    """Whoever comes next still bars before the entry is done."""
    with pytest.raises(Killed):
        back(dying(stage))
    with pytest.raises(Killed):
        dying("barred").reconcile(reigns)
    assert registry.history(reigns)[-1].outcome == "open"
    registry.reconcile(reigns)
    check_agreement(registry)
    assert barred(registry, 3) == [True]


def test_a_key_is_worth_nothing_once_the_champion_has_moved_on(registry: Registry, reigns: str) -> None:
    """The same key after another promotion is a rollback of that one."""
    back(registry, key="drift-1")
    registry.promote(reigns, 4, actor="eve", reason="better")
    assert (back(registry, key="drift-1").source, registry.ledger.alias(reigns)) == (4, 2)
    check_agreement(registry)


@pytest.mark.parametrize("stage", ["claimed", "moved"])
def test_a_rollback_during_a_promotion(mlflow_uri: str, registry: Registry, reigns: str, stage: str) -> None:
    """Before the alias moves the rollback is refused; after it the new champion is what is rolled back."""
    refused: list[str] = []

    def interfere(reached: str) -> None:
        if reached == stage:
            try:
                back(registry)
            except PromotionRefused as refusal:
                refused.append(str(refusal))

    entry = Registry(mlflow_uri, checkpoint=interfere).promote(reigns, 4, actor="schedule", reason="better", expected=3)
    assert entry.outcome == "done"
    done = [(entry.source, entry.to, entry.kind) for entry in check_agreement(registry)[3:]]
    if stage == "claimed":
        assert "version 4 of 'flights' is being promoted by schedule" in refused[0]
        assert done == [(3, 4, "promotion")]
    else:
        assert done == [(3, 4, "promotion"), (4, 3, "rollback")]
    assert barred(registry, 3, 4) == [False, stage == "moved"]


@pytest.mark.parametrize("stage", ["claimed", "moved", "barred"])
def test_a_promotion_during_a_rollback(mlflow_uri: str, registry: Registry, reigns: str, stage: str) -> None:
    """A promotion decided against the version that is being rolled back is refused."""
    refused: list[str] = []

    def interfere(reached: str) -> None:
        if reached == stage and not refused:
            with pytest.raises(PromotionRefused) as caught:
                registry.promote(reigns, 4, actor="schedule", reason="better", expected=3)
            refused.append(str(caught.value))

    assert back(Registry(mlflow_uri, checkpoint=interfere)).to == 2
    assert len(refused) == 1
    assert [entry.to for entry in check_agreement(registry)] == [1, 2, 3, 2]
    assert barred(registry, 3) == [True]


def test_a_stale_promotion_of_what_was_rolled_back(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """Version 3, barred between a promotion's check and its claim, is not promoted, whatever was expected."""
    back(registry)
    registry.unbar(registry.version(reigns, 3))

    def bar(stage: str) -> None:
        if stage == "claimed":
            registry.bar(registry.version(reigns, 3), "again")

    with pytest.raises(PromotionRefused, match="it is barred: again"):
        Registry(mlflow_uri, checkpoint=bar).promote(reigns, 3, actor="schedule", reason="better", expected=2)
    assert [entry.outcome for entry in check_agreement(registry)] == ["done"] * 4 + ["void"]


def test_a_hand_moves_the_champion_under_a_rollback(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """The hand wins, the rollback is refused and bars nothing."""

    def interfere(stage: str) -> None:
        if stage == "claimed":
            registry.connection.client.set_registered_model_alias(reigns, "champion", "5")

    with pytest.raises(PromotionRefused, match="somebody made version 5 the champion"):
        back(Registry(mlflow_uri, checkpoint=interfere))
    registry.reconcile(reigns)
    check_agreement(registry)
    assert barred(registry, 2, 3, 5) == [False] * 3


def test_a_rollback_voided_under_its_feet(mlflow_uri: str, registry: Registry, clock: Clock, reigns: str) -> None:
    """A mover that slept through its grace enters its rollback again, under its own name, and bars."""

    def void(stage: str) -> None:
        if stage == "claimed":
            clock.ahead = 61
            assert [entry.number for entry in registry.reconcile(reigns).voided] == [4]

    entry = back(Registry(mlflow_uri, clock=clock, checkpoint=void))
    assert (entry.number, entry.source, entry.to, entry.kind) == (5, 3, 2, "rollback")
    check_agreement(registry)
    assert barred(registry, 3) == [True]


def test_threads_roll_back_at_once(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """Of four rollbacks of one champion exactly one is carried out: the champion goes back one step, not four."""

    def race(number: int) -> bool:
        try:
            back(Registry(mlflow_uri), key=f"drift-{number}", expected=3)
        except PromotionRefused:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, range(4)))
    registry.reconcile(reigns)
    assert won.count(True) == 1
    assert [entry.to for entry in check_agreement(registry) if entry.outcome == "done"] == [1, 2, 3, 2]
    assert barred(registry, 1, 2, 3) == [False, False, True]


MOVER = """
    import os, sys
    from bnpipe.errors import PromotionRefused
    from bnpipe.registry import Registry
    uri, name, stage = sys.argv[1:]
    def die(reached):
        if reached == stage:
            os._exit(9)
    registry = Registry(uri, checkpoint=die)
    registry.versions("flights")
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        if name == "promoter":
            registry.promote("flights", 4, actor=name, reason="better", expected=3)
        else:
            registry.rollback("flights", actor=name, reason="worse", expected=3, key=name)
        print("won", flush=True)
    except PromotionRefused:
        print("lost", flush=True)
"""


def run_movers(uri: str, repository: Path, *movers: tuple[str, str]) -> list[tuple[int, str]]:
    """Start processes, let them go at the same moment; give exit codes and what each said."""
    command = [sys.executable, "-c", textwrap.dedent(MOVER), uri]
    racers = [
        subprocess.Popen(
            [*command, *mover], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=str(repository)
        )
        for mover in movers
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        said = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    return [(racer.returncode, words) for racer, words in zip(racers, said, strict=True)]


def test_processes_race_to_roll_back_and_to_promote(
    mlflow_uri: str, registry: Registry, reigns: str, repository: Path
) -> None:
    """Two rollbacks and a promotion decided against one champion: one of the three happens, whole."""
    found = run_movers(mlflow_uri, repository, ("first", ""), ("second", ""), ("promoter", ""))
    assert [code for code, _ in found] == [0, 0, 0]
    assert sorted(words for _, words in found) == ["lost", "lost", "won"]
    registry.reconcile(reigns)
    champion = 4 if found[2][1] == "won" else 2
    assert [entry.to for entry in check_agreement(registry) if entry.outcome == "done"] == [1, 2, 3, champion]
    assert barred(registry, 3, 4) == [champion == 2, False]


@pytest.mark.parametrize("stage", ["claimed", "moved", "barred"])
def test_a_process_killed_at_its_rollback(
    registry: Registry, clock: Clock, reigns: str, repository: Path, stage: str
) -> None:
    """A process that is gone for good leaves nothing that reconciling does not mend."""
    [(code, _)] = run_movers(registry.connection.uri, repository, ("first", stage))
    assert code == 9
    clock.ahead = 61
    registry.reconcile(reigns)
    moved = stage != "claimed"
    assert registry.ledger.alias(reigns) == (2 if moved else 3)
    check_agreement(registry)
    assert barred(registry, 3) == [moved]


def test_mlflow_away_is_no_verdict(mlflow_uri: str, registry: Registry, reigns: str) -> None:
    """Files that can't be read because nobody answers are not gone: the error is retryable and nothing moved."""
    away = Registry("http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable):
        back(away)
    with pytest.raises(RegistryUnavailable):
        away.predecessor(reigns)
    assert time.monotonic() - began < 60
    assert len(check_agreement(registry)) == 3
