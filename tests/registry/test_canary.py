"""The state of a canary: one story in the ledger, one copy in a tag, whoever dies or comes at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import pytest
from registry_bench import Clock, Killed, add_versions, check_agreement

from bnpipe.errors import PromotionRefused, RegistryError, VersionNotFound
from bnpipe.registry import Registry, describe_canary
from bnpipe.registry.canary import CANARY_TAG, CanaryEntry
from bnpipe.release.canary import CanaryDecision, CanaryPolicy, CanaryState

POLICY = CanaryPolicy()
GO = CanaryDecision("advance", "not worse")
WORSE = CanaryDecision("halt", "worse by 0.1")


@pytest.fixture
def reigning(registry: Registry, model: str) -> str:
    """Version 1 of five is champion."""
    registry.promote(model, 1, actor="eve", reason="first")
    return model


def start(registry: Registry, model: str, version: int = 2, **options: object) -> CanaryEntry:
    return registry.start_canary(model, version, policy=POLICY, actor="eve", reason="try it", **options)  # type: ignore[arg-type]


def go(registry: Registry, model: str, decision: CanaryDecision = GO, key: str = "", **options: object) -> CanaryEntry:
    state = options.get("state") or registry.open_canary(model)
    assert isinstance(state, CanaryState)
    return registry.move_canary(model, state, decision, policy=POLICY, actor="schedule", key=key)


def tag(registry: Registry, model: str) -> dict[str, object] | None:
    text = registry.connection.client.get_registered_model(model).tags.get(CANARY_TAG)
    return None if text is None else json.loads(text)


def agree(registry: Registry, model: str) -> None:
    """Tag and ledger say the same, and numbers have no gaps."""
    entries = registry.canary_entries(model)
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert tag(registry, model) == {"number": len(entries)} | entries[-1].state.to_dict()


def test_from_one_percent_to_its_end(registry: Registry, reigning: str) -> None:
    """Each stage is an entry with actor and reason; the tag follows; the champion moves by its own ledger only."""
    assert registry.canary(reigning) is None
    assert registry.canary_entries(reigning) == ()
    first = start(registry, reigning)
    assert registry.canary(reigning) == first.state
    assert (first.state.version, first.state.champion, first.state.share, first.actor) == (2, 1, 0.01, "eve")
    assert first.state.salt == f"{reigning}:2:1"
    shares = [go(registry, reigning).state.share for _ in range(2)]
    assert shares == [0.1, 0.5]
    assert registry.ledger.alias(reigning) == 1
    registry.promote(reigning, 2, actor="schedule", reason="not worse")
    ended = go(registry, reigning, CanaryDecision("promote", "not worse"))
    assert (ended.state.status, ended.state.share, ended.state.salt) == ("promoted", 1.0, first.state.salt)
    assert registry.canary(reigning) is None
    agree(registry, reigning)
    assert len(check_agreement(registry, reigning)) == 2
    told = [describe_canary(entry).split("UTC  ")[1] for entry in registry.canary_entries(reigning)]
    assert told == [
        "version 2 answers 0.01 of the requests, version 1 the rest, by eve: try it",
        "version 2 answers 0.1 of the requests, version 1 the rest, by schedule: not worse",
        "version 2 answers 0.5 of the requests, version 1 the rest, by schedule: not worse",
        "canary of version 2 promoted, by schedule: not worse",
    ]


def test_another_champion_ends_the_routing_at_once(registry: Registry, reigning: str) -> None:
    """Whoever moves the champion, a canary compared with the one before routes nobody; it is still to be halted."""
    state = start(registry, reigning).state
    registry.connection.client.set_registered_model_alias(reigning, "champion", "3")
    assert registry.canary(reigning) is None
    assert registry.open_canary(reigning) == state
    registry.connection.client.delete_registered_model_alias(reigning, "champion")
    assert registry.canary(reigning) is None
    assert registry.halt_canary(reigning, actor="eve", reason="?") is not None


def test_shadowing_comes_before_the_first_stage(registry: Registry, reigning: str) -> None:
    """A shadow gets no share of the answers until it goes on."""
    state = start(registry, reigning, shadow=0.5).state
    assert (state.mode, state.share, state.stage) == ("shadow", 0.5, -1)
    assert "shadows version 1 on 0.5" in describe_canary(registry.canary_entries(reigning)[-1])
    after = go(registry, reigning).state
    assert (after.mode, after.share, after.stage) == ("canary", 0.01, 0)


def test_a_halt_ends_it_and_another_may_begin(registry: Registry, reigning: str) -> None:
    """After a halt nobody is routed; the next canary has other keys; halting nothing is nothing."""
    one = start(registry, reigning)
    halted = go(registry, reigning, WORSE)
    assert (halted.state.status, halted.state.reason) == ("halted", "worse by 0.1")
    assert registry.canary(reigning) is None
    assert registry.halt_canary(reigning, actor="eve", reason="?") is None
    other = start(registry, reigning)
    assert other.state.salt != one.state.salt
    by_hand = registry.halt_canary(reigning, actor="eve", reason="complaints")
    assert by_hand is not None
    assert (by_hand.state.status, by_hand.actor, by_hand.state.reason) == ("halted", "eve", "complaints")
    agree(registry, reigning)


@pytest.mark.parametrize(
    ("prepare", "version", "said"),
    [
        (lambda registry, model: registry.freeze(model, actor="eve", reason="audit"), 2, "frozen by eve"),
        (lambda registry, model: registry.bar(registry.version(model, 2), "wrong labels"), 2, "barred: wrong labels"),
        (lambda registry, model: start(registry, model, 3), 2, "already has a canary of version 3"),
        (lambda registry, model: None, 1, "already is the champion"),
        (
            lambda registry, model: add_versions(registry.connection.uri, model, 1, **UNGATED),
            6,
            "never passed its gates",
        ),
    ],
)
def test_what_may_not_begin(
    registry: Registry, reigning: str, prepare: Callable[[Registry, str], None], version: int, said: str
) -> None:
    """Frozen, barred, ungated, the champion itself, or beside another: refused, and nothing is written."""
    prepare(registry, reigning)
    before = registry.canary_entries(reigning)
    with pytest.raises(PromotionRefused, match=said):
        start(registry, reigning, version)
    assert registry.canary_entries(reigning) == before


UNGATED = {"bnpipe.verdict": "fail"}


def test_no_model_no_version_no_champion(registry: Registry, model: str) -> None:
    """What is not there is named, and there is no canary of it."""
    with pytest.raises(PromotionRefused, match="no champion"):
        start(registry, model)
    with pytest.raises(VersionNotFound, match="no version 9"):
        start(registry, model, 9)
    with pytest.raises(VersionNotFound):
        registry.halt_canary("nothing", actor="eve", reason="?")
    assert registry.canary("nothing") is None


def test_frozen_or_barred_meanwhile_it_does_not_advance_but_may_be_halted(registry: Registry, reigning: str) -> None:
    """A freeze and a bar stop the next stage and never a halt."""
    start(registry, reigning)
    registry.freeze(reigning, actor="eve", reason="audit")
    with pytest.raises(PromotionRefused, match="frozen by eve"):
        go(registry, reigning)
    registry.thaw(reigning, actor="eve")
    registry.bar(registry.version(reigning, 2), "wrong labels")
    with pytest.raises(PromotionRefused, match="barred: wrong labels"):
        go(registry, reigning)
    registry.freeze(reigning, actor="eve", reason="audit")
    assert go(registry, reigning, WORSE).state.status == "halted"


def test_a_decision_about_another_state_is_refused(registry: Registry, reigning: str) -> None:
    """Who decided before somebody else moved the canary decides again."""
    stale = start(registry, reigning).state
    go(registry, reigning)
    with pytest.raises(PromotionRefused, match="decide again"):
        go(registry, reigning, state=stale)
    with pytest.raises(PromotionRefused, match="decide again"):
        go(registry, reigning, state=replace(stale, version=3))


def test_a_retry_is_the_same_change(registry: Registry, reigning: str) -> None:
    """With a key, start, step and halt happen once."""
    assert start(registry, reigning, key="run-1") == start(registry, reigning, key="run-1")
    one = go(registry, reigning, key="run-2")
    assert go(registry, reigning, key="run-2") == one
    halts = [registry.halt_canary(reigning, actor="eve", reason="no", key="run-3") for _ in range(2)]
    assert halts[0] == halts[1]
    assert len(registry.canary_entries(reigning)) == 3


def test_at_once_one_wins(mlflow_uri: str, registry: Registry, reigning: str) -> None:
    """Of four steps one makes the entry, the others are refused, and tag and ledger agree."""
    state = start(registry, reigning).state

    def step(number: int) -> str:
        try:
            return go(Registry(mlflow_uri), reigning, state=state, key=f"run-{number}").key
        except PromotionRefused:
            return ""

    with ThreadPoolExecutor(4) as pool:
        keys = [key for key in pool.map(step, range(4)) if key]
    assert len(keys) == 1
    assert registry.canary_entries(reigning)[-1].key == keys[0]
    assert len(registry.canary_entries(reigning)) == 2
    agree(registry, reigning)


def test_a_halt_among_steps_always_comes_through(mlflow_uri: str, registry: Registry, reigning: str) -> None:
    """A person's halt that meets a step at the same moment halts whatever state it finds."""
    state = start(registry, reigning).state

    def step() -> None:
        with suppress(PromotionRefused):
            go(Registry(mlflow_uri), reigning, state=state)

    with ThreadPoolExecutor(2) as pool:
        moving = pool.submit(step)
        halting = pool.submit(lambda: Registry(mlflow_uri).halt_canary(reigning, actor="eve", reason="stop"))
        moving.result()
        assert halting.result() is not None
    assert registry.canary(reigning) is None
    assert registry.canary_entries(reigning)[-1].state.status == "halted"
    agree(registry, reigning)


def test_killed_before_the_tag_a_step_still_counts(
    registry: Registry, reigning: str, dying: Callable[[str], Registry]
) -> None:
    """Readers go by the entry; the retry, or the next change, mends the tag."""
    start(registry, reigning)
    with pytest.raises(Killed):
        go(dying("entered canary"), reigning, key="run-1")
    assert tag(registry, reigning) == {"number": 1} | registry.canary_entries(reigning)[0].state.to_dict()
    found = registry.canary(reigning)
    assert found is not None
    assert found.share == 0.1
    assert go(registry, reigning, key="run-1").number == 2
    agree(registry, reigning)


def test_killed_before_the_tag_a_halt_still_counts(
    registry: Registry, reigning: str, dying: Callable[[str], Registry]
) -> None:
    """The dangerous half: the tag still routes, the ledger says halted, and nobody is routed."""
    start(registry, reigning)
    with pytest.raises(Killed):
        dying("entered canary").halt_canary(reigning, actor="eve", reason="stop")
    assert (tag(registry, reigning) or {})["status"] == "running"
    assert registry.canary(reigning) is None


def test_killed_before_the_tag_a_start_has_started_nothing(
    registry: Registry, reigning: str, clock: Clock, dying: Callable[[str], Registry]
) -> None:
    """The same start carries on within the grace; another waits, and begins anew after it."""
    with pytest.raises(Killed):
        start(dying("entered canary"), reigning, key="run-1")
    assert registry.canary(reigning) is None
    assert registry.stopped_by_hand(reigning) is None  # it may be about to set the tag
    with pytest.raises(PromotionRefused, match="already has a canary"):
        start(registry, reigning, 3)
    assert start(registry, reigning, key="run-1").number == 1
    assert registry.canary(reigning) is not None
    registry.halt_canary(reigning, actor="eve", reason="no")
    with pytest.raises(Killed):
        start(dying("entered canary"), reigning)
    registry.connection.client.delete_registered_model_tag(reigning, CANARY_TAG)
    clock.ahead = 61.0
    assert start(registry, reigning, 3).state.version == 3
    assert [entry.state.status for entry in registry.canary_entries(reigning)[-3:]] == ["running", "halted", "running"]
    agree(registry, reigning)


def test_a_slow_writer_leaves_no_older_state(mlflow_uri: str, registry: Registry, reigning: str) -> None:
    """Who sets the tag after somebody else's later entry reads again and sets the later one."""
    state = start(registry, reigning).state
    calls = []

    def overtaken(stage: str) -> None:
        if stage == "tagged canary" and not calls:
            calls.append(stage)
            registry.halt_canary(reigning, actor="eve", reason="stop")
            registry.connection.client.set_registered_model_tag(reigning, CANARY_TAG, "{}")  # ours comes through late

    go(Registry(mlflow_uri, checkpoint=overtaken), reigning, state=state)
    assert calls
    agree(registry, reigning)
    assert registry.canary(reigning) is None


def test_a_deleted_tag_is_a_halt_by_hand(registry: Registry, reigning: str, clock: Clock) -> None:
    """Whoever deletes the tag in MLflow stops the canary at once; the ledger is told at the next step."""
    state = start(registry, reigning).state
    registry.connection.client.delete_registered_model_tag(reigning, CANARY_TAG)
    assert registry.canary(reigning) is None
    go(registry, reigning, state=state)  # decided before: entered, and yet nobody is routed again
    assert tag(registry, reigning) is None
    clock.ahead = 61.0
    stopped = registry.stopped_by_hand(reigning)
    assert stopped is not None
    assert (stopped.actor, stopped.state.status) == ("unknown (MLflow)", "halted")
    assert "deleted in MLflow" in stopped.state.reason
    assert registry.stopped_by_hand(reigning) is None


def test_a_tag_changed_by_hand_changes_nothing(registry: Registry, reigning: str) -> None:
    """The ledger decides; a share written into the tag is passed over and overwritten by the next change."""
    start(registry, reigning)
    registry.connection.client.set_registered_model_tag(reigning, CANARY_TAG, '{"share": 1.0}')
    found = registry.canary(reigning)
    assert found is not None
    assert found.share == 0.01
    go(registry, reigning)
    agree(registry, reigning)


def test_a_strange_entry_is_named(registry: Registry, reigning: str) -> None:
    """A param written by somebody else is an error that names the entry."""
    start(registry, reigning)
    registry.connection.client.log_param(registry.ledger.find(reigning), "canary.000002", "{}")
    with pytest.raises(RegistryError, match="canary entry 2 of the ledger of 'flights'"):
        registry.canary(reigning)
