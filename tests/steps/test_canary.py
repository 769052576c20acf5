"""A canary over the real chain: versions trained, answers logged as workers log them, labels that come later."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from canary_bench import SECTION, Service, add_section, flip, registry, spec_of, train

from bnpipe import steps
from bnpipe.cli import main
from bnpipe.errors import PromotionRefused
from bnpipe.steps.canary import CanaryStep, canary_halt, canary_start, canary_step, outcomes_of

SPRING, LATER = date(2026, 3, 1), date(2026, 3, 20)
BERLIN = ZoneInfo("Europe/Berlin")


class Season:
    """Days that pass: each is served by the canary of its moment, and looked at when it is over."""

    def __init__(self, clinic: Any, folder: Path, **options: Any) -> None:
        days = sorted((clinic.root / "data" / "clinic").glob("day=*/*.parquet"))
        self.clinic, self.service = clinic, Service(folder, days[50:], **options)
        tomorrow = datetime.now(BERLIN).date() + timedelta(days=1)
        self.midnight = datetime.combine(tomorrow, time(), BERLIN)

    def start(self, version: int, **options: Any) -> None:
        canary_start(spec_of(self.clinic), version, actor="eve", reason="try it", **options)

    def step(self, **options: Any) -> CanaryStep:
        return canary_step(
            spec_of(self.clinic), actor="schedule", answers=self.service.folder, now=self.midnight, **options
        )

    def until_moved(self, most: int = 24, **options: Any) -> tuple[CanaryStep, int]:
        """Serve and look day by day until something else than waiting comes of it."""
        for count in range(1, most + 1):
            self.service.day(self.midnight, **options)
            self.midnight += timedelta(days=1)
            found = self.step()
            if found.action != "wait":
                return found, count
        return found, most


@pytest.fixture
def season(trained_clinic: Any, tmp_path: Path) -> Season:
    """Version 1 is champion, version 2 of later days is not."""

    def begin(clinic: Any) -> None:
        add_section(clinic)
        train(clinic, SPRING)
        train(clinic, LATER, promotion="manual")

    return Season(trained_clinic("season", begin), tmp_path / "answers")


def test_as_good_as_the_champion_is_promoted(season: Season) -> None:
    """It waits, wins on the same rows, is promoted through the ledger with the figures, and the canary has ended."""
    assert season.step().action == "none"
    season.start(2)
    assert season.step().reason.startswith("stage: undecided, 0 matured clusters")
    found, days = season.until_moved()
    assert (found.action, found.version, found.share) == ("promote", 2, 1.0)
    assert days >= 4
    assert "back: log-loss on the same rows" in found.reason
    entry = registry().history("clinic")[-1]
    assert (entry.source, entry.to, entry.actor) == (1, 2, "schedule")
    assert entry.reason.startswith("canary: promoted: back: log-loss on the same rows, new minus old")
    assert registry().canary("clinic") is None
    assert registry().canary_entries("clinic")[-1].state.status == "promoted"
    assert season.step().action == "none"


def test_worse_is_halted(season: Season) -> None:
    """A version that learned yes for no passed its gates on its own rows; live rows halt it, the champion stays."""
    season.clinic.edit_rows(flip)
    assert train(season.clinic, date(2026, 3, 25), promotion="manual").version == 3
    season.start(3)
    found, _ = season.until_moved()
    assert (found.action, found.share) == ("halt", 0.0)
    assert "surely > 0.05" in found.reason
    assert registry().canary("clinic") is None
    champion = registry().champion("clinic")
    assert champion is not None
    assert champion.number == 1
    assert {"errors", "unseen", "latency", "pairs back", "arms back"} <= {verdict["gate"] for verdict in found.verdicts}


def test_a_shadow_is_judged_by_what_it_would_have_said(season: Season) -> None:
    """Nobody hears it; when it is proved it answers its first share. A worse one is halted before anybody has."""
    season.start(2, shadow=1.0)
    found, _ = season.until_moved()
    assert (found.action, found.share) == ("advance", 0.3)
    canary_halt("clinic", actor="eve", reason="enough")
    season.clinic.edit_rows(flip)
    train(season.clinic, date(2026, 3, 25), promotion="manual")
    season.service.folder = season.service.folder.with_name("answers-2")
    season.start(3, shadow=0.5)
    found, _ = season.until_moved()
    assert found.action == "halt"
    assert "pairs back: fail" in found.reason


def test_failing_is_halted_within_the_day(season: Season) -> None:
    """Answers of a fallback are nobody's: not a loss of the challenger's, but a failure of whom they were meant for."""
    season.start(2)
    season.service.day(season.midnight, failing=True)
    season.midnight += timedelta(hours=6)
    found = season.step()
    assert found.action == "halt"
    assert "of the challenger's" in found.reason
    assert "100.00%" in found.reason


def test_what_it_says_counts_beside_what_it_believes(season: Season) -> None:
    """Beliefs that are sound in the registry, and wrong when they reach the caller, halt by the arms."""

    def swapped(answer: bytes) -> bytes:
        return answer.replace(b'"no"', b'"?"').replace(b'"yes"', b'"no"').replace(b'"?"', b'"yes"')

    season.start(2)
    found, _ = season.until_moved(mangle=swapped)
    assert found.action == "halt"
    assert "arms back: fail" in found.reason
    assert "pairs" not in found.reason


def test_without_evidence_only_arms_are_compared(season: Season) -> None:
    """Where the log keeps hashes, there are no pairs, and it says so instead of passing."""
    season.service.keep = False
    season.start(2)
    for _ in range(5):
        season.service.day(season.midnight)
        season.midnight += timedelta(days=1)
    found = season.step()
    assert found.action == "wait"
    gates = {verdict["gate"]: verdict for verdict in found.verdicts}
    assert "known on 0 clusters" in gates["pairs back"]["reason"]
    assert gates["arms back"]["statistic"] is not None


def test_outcomes_are_what_was_logged(season: Season) -> None:
    """Rows by arm, log-loss by hand from the answers' bytes, clusters by the local day; others' answers left out."""
    season.start(2)
    state = registry().canary("clinic")
    assert state is not None
    season.service.day(season.midnight)
    spec = spec_of(season.clinic)
    from bnpipe.config.canary import canary_policy

    now = season.midnight + timedelta(days=1)
    (day,) = outcomes_of(registry(), spec, state, answers=season.service.folder, policy=canary_policy(spec), now=now)
    assert (day.start, day.end) == (season.midnight, now)
    assert day.champion.rows + day.challenger.rows == 120
    assert 20 < day.challenger.rows < 60
    assert day.pairs["back"].rows == 120
    from bnpipe.answers import labelled, rows

    table = labelled(season.service.folder, "clinic", state.began, now).to_pylist()
    answered = rows(season.service.folder, "clinic", state.began, now).to_pylist()
    assert len(table) == len(answered) == 120
    for arm, outcome in (("champion", day.champion), ("challenger", day.challenger)):
        import json

        mine = [row for row in table if row["_arm"] == arm]
        losses = [-np.log(json.loads(row["_answer"])["posterior"]["back"][row["back"]]) for row in mine]
        assert outcome.losses["back"].rows == len(mine) == outcome.rows
        assert outcome.losses["back"].mean == pytest.approx(np.mean(losses))
        assert outcome.errors == outcome.unseen == 0


def test_whoever_moves_the_champion_ends_it(season: Season) -> None:
    """Another champion halts it; the challenger promoted by a person ends it as promoted."""
    train(season.clinic, date(2026, 3, 25), promotion="manual")
    season.start(2)
    steps.promote_by_hand(model="clinic", version=3, actor="eve", reason="newer")
    found = season.step()
    assert (found.action, found.reason) == ("halt", "it was compared with champion 1, and version 3 is now")
    season.start(2)
    steps.promote_by_hand(model="clinic", version=2, actor="eve", reason="after all")
    assert season.step().action == "promote"
    assert registry().canary_entries("clinic")[-1].state.status == "promoted"
    assert len(registry().history("clinic")) == 3


def test_frozen_waits_and_barred_halts(season: Season) -> None:
    """A freeze holds the promotion back until it is over; a bar ends the canary."""
    season.start(2)
    registry().freeze("clinic", actor="eve", reason="audit week")
    found, _ = season.until_moved(most=9)
    assert found.action == "wait"
    assert "is frozen by eve" in found.reason
    registry().thaw("clinic", actor="eve")
    registry().bar(registry().version("clinic", 2), "wrong labels")
    found = season.step()
    assert found.action == "halt"
    assert found.reason.startswith("version 2 is barred: wrong labels")


def test_where_a_person_promotes_it_waits_for_one(season: Season) -> None:
    """With `promotion: approval` a canary that is proved goes on answering its share until somebody promotes it."""
    season.clinic.edit_spec("policy: auto", "policy: approval")
    season.start(2)
    found, _ = season.until_moved()
    assert (found.action, found.share, found.news) == ("await approval", 0.3, True)
    assert "bnpipe promote clinic 2" in found.reason
    again = season.step()
    assert (again.action, again.share, again.news) == ("await approval", 0.3, False)
    assert len(registry().canary_entries("clinic")) == 2
    steps.promote_by_hand(model="clinic", version=2, actor="eve", reason="yes")
    assert season.step().action == "promote"


def test_a_step_that_is_tried_again_tells_what_it_did(season: Season) -> None:
    """Its worker may have died before anybody was told; by another key there is nothing new."""
    season.start(2)
    season.service.day(season.midnight, failing=True)
    season.midnight += timedelta(days=1)
    first = season.step(key="run-1")
    again = season.step(key="run-1")
    assert (first.action, first.news) == (again.action, again.news) == ("halt", True)
    assert first.reason == again.reason
    assert season.step(key="run-2").action == "none"
    assert len(registry().canary_entries("clinic")) == 2


def test_before_the_first_training_there_is_nothing_to_look_at(clinic: Any, tmp_path: Path) -> None:
    """An hourly Dag of a model that is not registered yet does not fail."""
    found = Season(clinic, tmp_path).step()
    assert (found.action, found.news) == ("none", False)
    assert "clinic" in found.reason


def test_a_deleted_tag_halts(season: Season, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a person stopped in MLflow is entered by the next step."""
    season.start(2)
    registry().connection.client.delete_registered_model_tag("clinic", "bnpipe.canary")
    assert season.step().action == "none"  # within the grace a starter may be about to set it
    import time as clock

    later = clock.time() + 61
    monkeypatch.setattr("bnpipe.registry.ledger.time.time", lambda: later)
    monkeypatch.setattr("bnpipe.steps.canary._registry", lambda _: _later(later))
    found = season.step()
    assert (found.action, found.reason) == ("halt", "the tag bnpipe.canary was deleted in MLflow")


def _later(seconds: float) -> Any:
    from bnpipe.config import Settings
    from bnpipe.registry import Registry

    return Registry(Settings.from_environ().tracking_uri, clock=lambda: seconds)


def test_versions_without_a_target_in_common_do_not_begin(season: Season) -> None:
    """Where states differ answers can't be compared, and it is said before a request is routed."""
    season.clinic.edit_spec('back: {states: ["no", "yes"]}', 'back: {states: ["no", "yes", maybe]}')
    found = train(season.clinic, date(2026, 3, 25), promotion="manual")
    with pytest.raises(PromotionRefused, match="no target with the same states"):
        season.start(found.version)


def test_from_the_terminal(season: Season, capsys: pytest.CaptureFixture[str]) -> None:
    """Start, status, step and halt; what is refused ends with 1."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["canary", "clinic", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    assert run("status") == (0, "clinic: there never was a canary\n", "")
    code, out, _ = run("start", "2", "--reason", "try it", "--shadow")
    assert (code, "version 2 shadows version 1" in out) == (0, True)
    code, _, err = run("start", "2", "--reason", "again")
    assert (code, "already has a canary" in err) == (1, True)
    code, out, _ = run("step", "--answers", str(season.service.folder))
    assert code == 0
    assert "wait" in out
    code, out, _ = run("halt", "--reason", "complaints")
    assert code == 0
    assert "halted" in out
    code, out, _ = run("halt", "--reason", "complaints")
    assert (code, out) == (0, "clinic: no canary is running\n")
    code, out, _ = run("status")
    assert (code, len(out.splitlines())) == (0, 2)


def test_a_winner_begins_its_canary_instead_of_reigning(clinic: Any) -> None:
    """With the section a training's winner earns its traffic; while it does, later winners wait; the first has nobody
    to be compared with and reigns at once.
    """
    add_section(clinic, SECTION.replace("{", "{shadow: 0.5, ", 1))
    assert train(clinic, SPRING).outcome == "promoted"
    found = train(clinic, LATER)
    assert (found.outcome, found.version) == ("canary", 2)
    assert found.reason.startswith("its canary began with 0.5 of the requests: won over the champion")
    state = registry().canary("clinic")
    assert state is not None
    assert (state.version, state.champion, state.mode, state.share) == (2, 1, "shadow", 0.5)
    assert registry().canary_entries("clinic")[-1].actor == "ada"
    later = train(clinic, date(2026, 3, 25))
    assert later.outcome == "held"
    assert "already has a canary of version 2" in later.reason
    assert len(registry().history("clinic")) == 1
