"""Rolling back by hand and freezing, over the real chain."""

from __future__ import annotations

from datetime import date

import pytest

from bnpipe import steps
from bnpipe.config import Overrides, Settings
from bnpipe.errors import PromotionRefused, VersionNotFound
from bnpipe.registry import Registry

SPRING = date(2026, 3, 1)
LATER = date(2026, 3, 20)


def registry() -> Registry:
    return Registry(Settings.from_environ().tracking_uri)


def train(clinic, at=SPRING, **overrides):
    return steps.train(spec=clinic.spec, at=at, actor="ada", overrides=Overrides(**overrides))[1]


@pytest.fixture
def reigns(trained_clinic):
    """Version 1 has been champion, version 2 is."""

    def reign(clinic):
        train(clinic)
        train(clinic, at=LATER, promotion="manual")
        steps.promote_by_hand(model="clinic", version=2, actor="ada", reason="newer")

    return trained_clinic("reigns", reign)


def test_back_by_hand(reigns):
    """The version before is champion, the ledger links to the bad version's run, and that version stays down."""
    bad = registry().champion("clinic")
    outcome = steps.rollback(model="clinic", actor="eve", reason="complaints")
    assert (outcome.outcome, outcome.version, outcome.champion) == ("rolled back", 1, 2)
    entry = registry().history("clinic")[-1]
    assert (entry.kind, entry.actor, entry.reason) == ("rollback", "eve", "complaints")
    assert entry.evidence == registry().run_url(bad.run_id)
    with pytest.raises(PromotionRefused, match="barred: rolled back by eve: complaints"):
        steps.promote_by_hand(model="clinic", version=2, actor="eve", reason="?")
    twin = train(clinic=reigns, at=LATER)  # by its spec another training, by its content the same network
    assert (twin.outcome, twin.version) == ("held", 3)
    assert "is the same network as 2, which is barred: rolled back by eve" in twin.reason
    forced = steps.promote_by_hand(model="clinic", version=2, actor="eve", reason="it was fine", force=True)
    assert forced.outcome == "promoted"


def test_the_same_command_twice_goes_back_once(reigns):
    """A person who repeats the command after a crash is told that it was done."""
    steps.rollback(model="clinic", actor="eve", reason="complaints")
    again = steps.rollback(model="clinic", actor="eve", reason="complaints")
    assert (again.outcome, again.version, again.champion) == ("already rolled back", 1, 2)
    assert len(registry().history("clinic")) == 3
    with pytest.raises(PromotionRefused, match="no earlier champion"):
        steps.rollback(model="clinic", actor="eve", reason="worse still")


def test_to_what_has_doubts_only_by_force(reigns):
    """A version that is barred is refused, and taken with force; one that is not there is named."""
    registry().bar(registry().version("clinic", 1), "labels were wrong")
    with pytest.raises(PromotionRefused, match="barred: labels were wrong"):
        steps.rollback(model="clinic", to=1, actor="eve", reason="complaints")
    with pytest.raises(VersionNotFound, match="no version 9; there are 2, 1"):
        steps.rollback(model="clinic", to=9, actor="eve", reason="complaints")
    assert steps.rollback(model="clinic", to=1, actor="eve", reason="complaints", force=True).version == 1


def test_a_frozen_model_is_not_promoted_by_itself(clinic):
    """The night's winner becomes challenger and waits; a person, or the night after the thaw, may promote it."""
    train(clinic, promotion="manual")
    registry().freeze("clinic", actor="eve", reason="audit week")
    outcome = train(clinic, at=date(2026, 3, 10))
    assert outcome.outcome == "held"
    assert outcome.reason.startswith("clinic is frozen by eve since")
    assert outcome.reason.endswith(": audit week")
    assert registry().champion("clinic") is None
    assert registry().challenger("clinic").number == outcome.version
    registry().thaw("clinic", actor="eve")
    assert train(clinic, at=LATER).outcome == "promoted"


def test_a_model_that_vanishes_does_not_stop_the_others(clinic):
    """Reconciling all models with what a watcher saw warns of the one that is gone."""
    from datetime import UTC, datetime

    from bnpipe.registry import Sighting

    train(clinic)
    gone = Sighting("ward", None, 1, datetime.now(UTC), missing=True)
    found = steps.reconcile(sightings=[gone])
    assert [warning for one in found for warning in one.warnings] == [
        f"MLflow at {registry().connection.shown} has no registered model 'ward'"
    ]
    with pytest.raises(VersionNotFound):
        steps.reconcile("ward")
