"""What people do in MLflow: every state a watcher saw is entered, and what is gone is told apart."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from registry_bench import Clock, Killed, add_versions, check_agreement

from bnpipe.errors import VersionNotFound
from bnpipe.registry import Registry, Sighting
from bnpipe.registry.ledger import LEDGER_TAG

SECOND = timedelta(seconds=1)


def now(clock: Clock) -> datetime:
    """The registries' time."""
    return datetime.fromtimestamp(clock(), UTC)


def by_hand(registry: Registry, *numbers: int | None) -> None:
    """Set the alias in MLflow to one version after the other; None removes it."""
    client = registry.connection.client
    for number in numbers:
        if number is None:
            client.delete_registered_model_alias("flights", "champion")
        else:
            client.set_registered_model_alias("flights", "champion", str(number))


def seen(start: datetime, *numbers: int | None, step: timedelta = SECOND) -> list[Sighting]:
    """What a watcher reports of a champion that was at the first number and then at each of the others."""
    return [Sighting("flights", to, before, start + step * n) for n, (before, to) in enumerate(pairwise(numbers))]


def moves(registry: Registry) -> list[tuple[int | None, int | None, str]]:
    """The ledger, which agrees with the alias, in short."""
    return [(entry.source, entry.to, entry.kind) for entry in check_agreement(registry) if entry.outcome == "done"]


@pytest.fixture
def champion(registry: Registry, clock: Clock, model: str) -> str:
    """A model of whose version 1 bnpipe made the champion some two minutes ago."""
    registry.promote(model, 1, actor="eve", reason="first")
    clock.ahead = 120
    return model


def test_states_seen_in_between_are_entered(registry: Registry, clock: Clock, champion: str) -> None:
    """Three moves before anybody reconciled are three entries, at the times they were seen, in whatever order told."""
    by_hand(registry, 2, None, 3)
    sightings = seen(now(clock), 1, 2, None, 3)
    found = registry.reconcile(champion, sightings[::-1])
    assert moves(registry)[1:] == [(1, 2, "by hand"), (2, None, "by hand"), (None, 3, "by hand")]
    assert [entry.time for entry in found.by_hand] == [sighting.time for sighting in sightings]
    assert not registry.reconcile(champion, sightings).changed


def test_a_move_that_was_taken_back_was_a_move(
    mlflow_uri: str, registry: Registry, clock: Clock, champion: str
) -> None:
    """A barred version that reigned for a minute is in the ledger and warned of, though the alias is back."""
    add_versions(mlflow_uri, champion, 1, **{"bnpipe.barred": "it was wrong"})
    by_hand(registry, 6, 1)
    found = registry.reconcile(champion, seen(now(clock), 1, 6, 1))
    assert moves(registry)[1:] == [(1, 6, "by hand"), (6, 1, "by hand")]
    assert found.warnings == ("champion of 'flights' was set to version 6 in MLflow, but it is barred: it was wrong",)


def test_taken_back_and_seen_only_there(registry: Registry, clock: Clock, champion: str) -> None:
    """If the watcher has not yet seen the way back, it is entered from the alias; seen later, it is not again."""
    by_hand(registry, 2, 1)
    sightings = seen(now(clock), 1, 2, 1)
    registry.reconcile(champion, sightings[:1])
    assert moves(registry)[1:] == [(1, 2, "by hand"), (2, 1, "by hand")]
    assert not registry.reconcile(champion, sightings[1:]).changed


def test_our_own_moves_are_no_moves_by_hand(registry: Registry, clock: Clock, champion: str) -> None:
    """The watcher sees promotions and rollbacks, too, some late and some twice: none is entered again."""
    registry.promote(champion, 2, actor="eve", reason="better")
    sightings = seen(now(clock), 1, 2)
    registry.rollback(champion, actor="eve", reason="worse")
    sightings += seen(now(clock) + SECOND, 1, 2, 1)  # the alias is set a moment after the claim
    for _ in range(2):
        assert not registry.reconcile(champion, sightings).changed
    clock.ahead += 600
    assert not registry.reconcile(champion, sightings).changed
    assert moves(registry) == [(None, 1, "promotion"), (1, 2, "promotion"), (2, 1, "rollback")]


def test_a_hand_after_our_own_move(registry: Registry, clock: Clock, champion: str) -> None:
    """A promotion, settled by its mover, between two moves by hand keeps its place."""
    by_hand(registry, 2)
    sightings = seen(now(clock), 1, 2)
    registry.promote(champion, 3, actor="eve", reason="better")
    sightings += seen(now(clock) + 90 * SECOND, 2, 3, 4, 5)
    by_hand(registry, 4, 5)
    clock.ahead += 120
    registry.reconcile(champion, sightings)
    assert moves(registry)[1:] == [(1, 2, "by hand"), (2, 3, "promotion"), (3, 4, "by hand"), (4, 5, "by hand")]


def test_what_a_mover_entered_is_warned_of_all_the_same(
    mlflow_uri: str, registry: Registry, clock: Clock, champion: str
) -> None:
    """A promotion right after a move by hand enters that move; who brings the sighting still gets the warning."""
    add_versions(mlflow_uri, champion, 1, **{"bnpipe.verdict": "fail"})
    by_hand(registry, 6)
    sightings = seen(now(clock), 1, 6)
    registry.promote(champion, 2, actor="schedule", reason="better")
    found = registry.reconcile(champion, sightings)
    assert not found.changed
    assert found.warnings == ("champion of 'flights' was set to version 6 in MLflow, but it never passed its gates",)


def test_sightings_wait_for_a_promotion_under_way(
    registry: Registry, dying: Callable[[str], Registry], clock: Clock, champion: str
) -> None:
    """What was seen is entered once the orphan before it is closed."""
    with pytest.raises(Killed):
        dying("claimed").promote(champion, 2, actor="eve", reason="better")
    by_hand(registry, 3, 4)
    sightings = seen(now(clock), 1, 3, 4)
    assert "being promoted" in registry.reconcile(champion, sightings).warnings[0]
    clock.ahead += 61
    registry.reconcile(champion, sightings)
    assert moves(registry)[1:] == [(1, 3, "by hand"), (3, 4, "by hand")]


def test_a_hand_right_after_our_own_move_is_warned_of_once(registry: Registry, clock: Clock, model: str) -> None:
    """Within the grace of a promotion a move by hand is entered as it is found, with one warning."""
    registry.promote(model, 1, actor="eve", reason="first")
    by_hand(registry, None)
    found = registry.reconcile(model, seen(now(clock), 1, None))
    assert moves(registry)[1:] == [(1, None, "by hand")]
    assert found.warnings == ("champion of 'flights' was removed in MLflow; it was version 1",)
    assert registry.reconcile(model, seen(now(clock), 1, None)).warnings == ()


def test_many_sightings_are_entered_at_once(registry: Registry, clock: Clock, champion: str) -> None:
    """Someone plays with the alias all night: thirty moves are thirty entries."""
    by_hand(registry, 2, 1)
    registry.reconcile(champion, seen(now(clock), *[1, 2] * 15, 1))
    assert len(moves(registry)) == 31


def test_sightings_of_other_models_are_not_ours(registry: Registry, clock: Clock, champion: str) -> None:
    """One run of the registry Dag brings what was seen of all models."""
    assert not registry.reconcile(champion, [Sighting("other", 2, 1, now(clock))]).changed


def test_a_model_that_lost_its_ledger_tag_has_not_lost_its_champion(
    registry: Registry, clock: Clock, champion: str
) -> None:
    """The watcher no longer finds the model; its ledger does not say that the alias was removed."""
    registry.connection.client.delete_registered_model_tag(champion, LEDGER_TAG)
    assert not registry.reconcile(champion, [Sighting(champion, None, 1, now(clock), missing=True)]).changed
    assert registry.champions() == {champion: 1}


def test_renamed_or_deleted_models_are_told_apart(registry: Registry, champion: str) -> None:
    """The error says under what name the model is found, that it was deleted, or that it never was."""
    client = registry.connection.client
    client.rename_registered_model(champion, "departures")
    with pytest.raises(VersionNotFound, match="'flights' was renamed to 'departures' in MLflow, so 'flights' has no"):
        registry.reconcile(champion)
    assert not registry.reconcile("departures").changed
    client.delete_registered_model("departures")
    with pytest.raises(VersionNotFound, match="'flights' was deleted in MLflow with all its versions"):
        registry.reconcile(champion)
    with pytest.raises(VersionNotFound, match="has no registered model 'nothing'"):
        registry.reconcile("nothing")


def test_why_there_is_no_champion(registry: Registry, champion: str) -> None:
    """Alias removed, version deleted, model renamed, model deleted; '' for a model that never had one."""
    client = registry.connection.client
    assert registry.vacancy("nothing") == ""
    client.create_registered_model("by somebody else")
    assert registry.vacancy("by somebody else") == ""
    client.delete_registered_model_alias(champion, "champion")
    assert registry.vacancy(champion) == "champion of 'flights' was removed in MLflow; it was version 1"
    client.delete_model_version(champion, "1")
    assert registry.vacancy(champion).startswith("version 1 of 'flights', the champion, was deleted in MLflow")
    client.rename_registered_model(champion, "departures")
    assert registry.vacancy(champion).startswith("'flights' was renamed to 'departures' in MLflow")
    client.delete_registered_model("departures")
    assert registry.vacancy(champion).startswith("'flights' was deleted in MLflow with all its versions")


def test_a_champion_by_hand_that_is_deleted_before_anybody_looked(
    registry: Registry, clock: Clock, champion: str
) -> None:
    """Its reign and its end are entered, and the warnings say that it is gone."""
    by_hand(registry, 2)
    registry.connection.client.delete_model_version(champion, "2")
    found = registry.reconcile(champion, seen(now(clock), 1, 2, None))
    assert moves(registry)[1:] == [(1, 2, "by hand"), (2, None, "by hand")]
    assert found.warnings == (
        "champion of 'flights' was set to version 2 in MLflow, but that version has been deleted since",
        "version 2 of 'flights', the champion, was deleted in MLflow; there is none now",
    )
