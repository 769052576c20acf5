"""A look for drift in one process, on a real MLflow: what it finds, decides, does, and survives."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from bnpipe import steps
from bnpipe.cli import main
from bnpipe.config import Overrides, Settings
from bnpipe.errors import DataError, RegistryUnavailable, SpecError
from bnpipe.registry import Registry

LEARNED = date(2026, 3, 1)
SINCE = date(2026, 3, 8)
TO = date(2026, 3, 15)
LONG_AFTER = date(2026, 3, 24)
VERBS = ("look_validate", "look_compare", "look_decide", "look_act", "look_report")


def registry() -> Registry:
    return Registry(Settings.from_environ().tracking_uri)


def train(clinic, at=LEARNED, **overrides):
    return steps.train(spec=clinic.spec, at=at, actor="ada", overrides=Overrides(**overrides))


def look(clinic, to=TO, **options):
    return steps.look(spec=clinic.spec, at=to, actor="ada", **options)


def begin(clinic, to=TO, key="day/1", **options):
    return steps.look_snapshot(spec=clinic.spec, at=to, run_key=key, actor="schedule", **options)


def run(found, *verbs):
    """Run some verbs; give what the last one answered."""
    answer = None
    for verb in verbs:
        answer = getattr(steps, verb)(found)
    return answer


def report_of(found):
    return steps.read_look(registry(), found.run_id)[1]


def days(since, to=date(2026, 4, 11)):
    return {str(since + timedelta(days=place)) for place in range((to - since).days)}


def treat_by_chance(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the drug to seven in ten, whatever their pressure: one CPD changes and no other."""
    rng = np.random.default_rng(len(frame))
    return frame.assign(treatment=np.where(rng.random(len(frame)) < 0.7, "drug", "rest"))


@pytest.fixture
def trained(trained_clinic):
    """A champion learned from 6 January until 15 February."""
    return trained_clinic("spring", train)


@pytest.fixture
def changed(trained):
    """From 8 March on the treatment no longer depends on the pressure."""
    trained.edit_rows(treat_by_chance, days(SINCE))
    return trained


@pytest.fixture
def bad_champion(trained_clinic):
    """A version whose graph lacks most arcs, promoted by hand on 10 March."""

    def promote(clinic):
        train(clinic)
        text = clinic.spec.read_text()
        start, end = text.index("structure:"), text.index("gates:")
        clinic.spec.write_text(text[:start] + "structure:\n  graph: {arcs: [[age, back]]}\n" + text[end:])
        train(clinic, at=date(2026, 3, 10), promotion="manual")
        clinic.spec.write_text(text)
        steps.promote_by_hand(model="clinic", version=2, actor="eve", reason="looks simple")

    return trained_clinic("bad", promote)


# What it finds


def test_a_calm_week(trained):
    """Nothing changed, so nothing is done; the MLflow run tells all of it, as a look and not as a training."""
    found, decision = look(trained)
    assert (decision.action, decision.alert) == ("nothing", False)
    tags = registry().run_tags(found.run_id)
    assert (tags["bnpipe.kind"], tags["bnpipe.action"], tags["bnpipe.champion"]) == ("drift", "nothing", "1")
    assert registry().run_status(found.run_id) == "FINISHED"
    assert set(registry().artifacts(found.run_id)) >= {
        "look.json",
        "validation.html",
        "drift.json",
        "decision.json",
        "report.html",
        "evidently.html",
    }
    metrics = registry().metrics(found.run_id)
    assert metrics["drift.flagged"] == 0
    assert metrics["drift.least_p"] > 0.0014
    assert all(metrics[f"seconds.{name}"] >= 0 for name in steps.LOOK_STEPS if name != "act")


def test_one_changed_distribution_is_named_and_dated(changed):
    """The node whose CPD changed is flagged, alone, since the day it changed; the spec only asks for advice."""
    found, decision = look(changed, to=LONG_AFTER)
    assert report_of(found).flagged == ("treatment",)
    assert (decision.action, decision.advised_only, decision.families) == ("refit", True, ("treatment",))
    assert abs((date.fromisoformat(decision.since) - SINCE).days) <= 1
    assert registry().metrics(found.run_id)["drift.effect.treatment"] > 0.2


@pytest.mark.parametrize("missing", [(), ("2026-03-14",)])
def test_a_refit_waits_until_it_can_be_proved(changed, missing):
    """A week after the change it would be held: it is told, with the day from which it will do; then it is begun.

    A day without rows proves nothing.
    """
    changed.edit_rows(lambda frame: frame.iloc[:0], set(missing))
    _, decision = look(changed, act=True)
    assert (decision.action, decision.alert) == ("nothing", True)
    proved = 5 - len(missing)
    assert f"a refit could be proved on {proved} clusters only, and 10 decide" in decision.reason
    ready = decision.reason.partition("the look of ")[2][:10]
    assert len(registry().versions("clinic")) == 1
    _, early = look(changed, to=date.fromisoformat(ready) - timedelta(days=1), act=True)
    assert early.action == "nothing"
    _, then = look(changed, to=date.fromisoformat(ready), act=True)
    assert then.action == "refit"
    assert registry().champion("clinic").number == 2


def test_rows_the_champion_learned_from_are_not_live(trained):
    """The live window begins where the champion's training days end, however long its history is to be."""
    trained.edit_spec("history: 21d", "history: 80d")
    look_ = begin(trained)
    recipe = json.loads(registry().read_text(look_.run_id, "look.json"))
    assert recipe["window"]["start"].startswith("2026-02-15")
    assert recipe["window"]["tested"].startswith("2026-03-08")


def test_days_before_the_champion_are_no_news(trained):
    """A look at days that the champion learned from says so, and alarms nobody."""
    _, decision = look(trained, to=date(2026, 2, 10))
    assert (decision.action, decision.alert) == ("nothing", False)
    assert "learned from rows until 2026-02-15" in decision.reason


def test_from_and_to_choose_the_days(changed):
    """A person's days are taken at their word."""
    found, _ = look(changed, start=date(2026, 3, 1), end=date(2026, 3, 6))
    report = report_of(found)
    assert (report.first_cluster, report.last_cluster, report.live_clusters) == ("2026-03-01", "2026-03-05", 5)
    assert report.flagged == ()
    with pytest.raises(DataError, match="earlier start"):
        look(changed, start=TO, end=TO)


def test_the_label_lag_ends_the_window_earlier(trained):
    """Days whose labels may still come are left out, as the spec says; other rows need no longer."""
    trained.edit_spec("history: 21d", "history: 21d, label_lag: 3d")
    found = steps.look_snapshot(
        spec=trained.spec, at=pd.Timestamp("2026-03-15T05:00Z").to_pydatetime(), run_key="d", actor="schedule"
    )
    assert registry().run_tags(found.run_id)["bnpipe.window_end"].startswith("2026-03-12")


def test_labels_that_never_come_leave_their_node_unknown(trained):
    """Without the target's column its CPD is unknown, and all others are compared."""
    trained.edit_rows(lambda frame: frame.drop(columns="back"), days(date(2026, 2, 1)))
    found, decision = look(trained)
    assert report_of(found).unknown == ("back",)
    assert decision.action == "nothing"


def test_a_spec_without_the_section_is_misuse(trained):
    """The error names the section that is missing."""
    trained.edit_spec("drift: {window: 7d, history: 21d}\n", "")
    with pytest.raises(SpecError, match="drift"):
        look(trained)


# What is held


def held(clinic, **options):
    """Look, expect to hold, and give the reason; nothing was compared and no version made."""
    found, decision = look(clinic, act=True, **options)
    assert (decision.action, decision.alert) == ("hold", True)
    assert report_of(found) is None
    assert "drift.json" not in registry().artifacts(found.run_id)
    assert registry().run_status(found.run_id) == "FINISHED"
    assert [version.number for version in registry().versions("clinic")] == [1]
    return decision.reason


def test_an_empty_window_is_held(trained):
    """Days without a single row, or that have not come yet, are a success that says which rows there are."""
    assert "2026-04-10" in held(trained, to=date(2026, 5, 30))
    trained.edit_rows(lambda frame: frame.iloc[:0], days(SINCE))
    assert "newest is of 2026-03-07" in held(trained)


def test_late_days_are_named(trained):
    """Rows that have not come yet are named beside the decision, and the rest of the week is compared."""
    trained.edit_rows(lambda frame: frame.iloc[:0], days(date(2026, 3, 13)))
    _, decision = look(trained)
    assert decision.action == "nothing"
    [late] = [verdict for verdict in decision.verdicts if verdict.gate == "late rows"]
    assert "2026-03-13, 2026-03-14" in late.reason


def test_half_of_the_columns_missing_is_held(trained):
    """A table that lost columns is no drift: it is named and nothing is learned."""
    trained.edit_rows(lambda frame: frame.drop(columns=["age", "season"]), days(date(2026, 2, 1)))
    assert "it is gone" in held(trained)


def test_a_changed_unit_is_held_and_not_learned(trained):
    """An age in months is bad data, however surely its distribution has changed."""
    trained.edit_rows(lambda frame: frame.assign(age=frame["age"] * 12), days(SINCE))
    assert "age" in held(trained)


def in_inches(frame: pd.DataFrame) -> pd.DataFrame:
    """Give the height in inches; so it is plausible in centimetres, too."""
    return frame.assign(height=(frame["height"] / 2.54).round(2))


@pytest.fixture
def measured(clinic):
    """Everybody's height is measured, to the centimetre."""

    def with_height(frame: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(int(frame["age"].sum()))
        return frame.assign(height=rng.normal(150, 25, len(frame)).clip(40, 200).round())

    clinic.edit_rows(with_height)
    clinic.edit_spec("  treatment: {", "  height: {edges: [80], minimum: 0, maximum: 300}\n  treatment: {")
    clinic.edit_spec("[[season, age],", "[[season, age, height],")
    return clinic


@pytest.mark.parametrize(("severity", "action"), [("critical", "hold"), ("warning", "nothing")])
def test_a_unit_within_the_bounds_is_held(measured, severity, action):
    """One day of seven in another unit, each value plausible: told with unit and day; the spec may ask for less."""
    measured.edit_spec("maximum: 300}", f"maximum: 300, range_severity: {severity}}}")
    train(measured)
    assert look(measured)[1].action == "nothing"
    measured.edit_rows(in_inches, {"2026-03-14"})
    _, decision = look(measured)
    [verdict] = [verdict for verdict in decision.verdicts if verdict.gate == "unit of height"]
    assert decision.action == action
    assert "from centimetres to inches (0.393701 x) on 1 days (2026-03-14)" in verdict.reason


def test_a_unit_is_told_by_what_a_refits_base_learned(measured):
    """In a refit's few days there may be few of all values; those of the version it refits count, too."""
    train(measured)
    few = date(2026, 2, 16)
    measured.edit_rows(lambda frame: frame.assign(height=150.0), days(few, LEARNED))
    _, outcome = train(measured, at=LEARNED, refit=("treatment",), since=few)
    registry().promote("clinic", outcome.version, actor="eve", reason="test")
    assert registry().champion("clinic").tags["bnpipe.refit_of"] == "1"
    measured.edit_rows(in_inches, {"2026-03-14"})
    _, decision = look(measured)
    assert decision.action == "hold"
    assert "centimetres to inches" in decision.reason


def test_too_few_rows_for_so_few_days_are_held(trained):
    """The rows that a training's window must have are asked for in proportion."""
    trained.edit_spec("gates:", "validation: {min_rows: 3000}\ngates:")
    assert look(trained)[1].action == "nothing"  # 420 rows, 388 asked for
    trained.edit_spec("min_rows: 3000", "min_rows: 3300")
    assert "rows" in held(trained)


def test_nothing_to_compare_with(clinic):
    """Before the first champion there is nothing to say; a champion whose alias was taken is told."""
    _, decision = look(clinic)
    assert (decision.action, decision.alert) == ("nothing", False)
    train(clinic)
    registry().connection.client.delete_registered_model_alias("clinic", "champion")
    assert "was removed in MLflow; it was version 1" in held(clinic)


def test_a_champion_that_bnpipe_did_not_make_is_told(trained):
    """Nobody knows what a version registered by hand was learned from."""
    client = registry().connection.client
    source = registry().version("clinic", 1)
    client.create_model_version("clinic", client.get_model_version("clinic", "1").source, run_id=source.run_id)
    client.set_registered_model_alias("clinic", "champion", "2")
    _, decision = look(trained)
    assert (decision.action, decision.alert) == ("hold", True)
    assert "not made by bnpipe" in decision.reason


# What is done


def test_advice_is_not_acted_on(changed):
    """With `actions: advise` the act says what was advised, and starts nothing."""
    acted = run(begin(changed, to=LONG_AFTER), *VERBS[:4])
    assert (acted.action, acted.done, acted.conf) == ("refit", False, None)


def test_a_refit_is_started_by_its_conf(changed):
    """With `actions: auto` the conf names families, first day, end and the version that is kept; each time the same."""
    changed.edit_spec("history: 21d", "history: 21d, actions: auto")
    found = begin(changed, to=LONG_AFTER)
    acted = run(found, *VERBS[:4])
    assert acted.done
    assert acted.conf["refit"] == ["treatment"]
    assert (acted.conf["end"], acted.conf["refit_of"]) == ("2026-03-24", 1)
    assert steps.look_act(found) == acted
    assert Overrides.of(acted.conf).refit == ("treatment",)


def test_a_new_arc_asks_for_a_new_graph(trained):
    """Where a treatment goes by the season from one day on, no refit can serve it: the graph is learned anew."""

    def by_season(frame: pd.DataFrame) -> pd.DataFrame:
        drug = np.random.default_rng(1).random(len(frame)) < np.where(frame["season"] == "cold", 0.9, 0.1)
        return frame.assign(treatment=np.where(drug, "drug", "rest"))

    trained.edit_rows(by_season, days(SINCE))
    found = begin(trained, to=date(2026, 4, 5), actions="auto")
    acted = run(found, *VERBS[:4])
    assert ("season", "treatment") in {(arc.parent, arc.child) for arc in report_of(found).added_arcs}
    assert (acted.action, set(acted.conf)) == ("relearn", {"reason", "end"})


def test_a_refit_changes_the_flagged_family_alone(changed):
    """Every other family is byte for byte the champion's; the run shows it and the version can be rebuilt."""
    look(changed, to=LONG_AFTER, act=True)
    one, two = registry().versions("clinic")
    before, after = registry().load_network(one), registry().load_network(two)
    assert after.schema == before.schema
    assert after.parents == before.parents
    same = [node for node in after.nodes if after.family_hash(node) == before.family_hash(node)]
    assert set(after.nodes) - set(same) == {"treatment"}
    families = json.loads(registry().read_text(two.run_id, "families.json"))
    assert [node for node, told in families.items() if not told["same"]] == ["treatment"]
    assert two.tags["bnpipe.refit_of"] == "1"
    assert steps.rebuild("clinic", 2).same


def test_a_refit_that_serves_the_change_is_promoted_and_ends_it(changed):
    """Learned from the first days since the change and proved on the rest, it wins, and the next look is calm."""
    look(changed, to=LONG_AFTER, act=True)
    assert registry().champion("clinic").number == 2
    share = registry().load_network(registry().champion("clinic")).cpd("treatment").table[..., 0]
    assert np.abs(share - 0.7).max() < 0.15
    registry().connection.client.delete_model_version("clinic", "1")
    assert steps.rebuild("clinic", 2).same  # the store keeps what it was made of
    _, decision = look(changed, to=date(2026, 3, 30), act=True)
    assert decision.action == "nothing"


def test_a_refit_of_a_version_learned_up_to_the_same_day(trained):
    """It is later than what it refits, though both windows end alike: it is judged, not superseded."""
    training, outcome = train(trained, refit=("treatment",), since=date(2026, 2, 16), end=LEARNED)
    verdicts = steps.read_release(registry(), training.run_id).verdicts
    assert "superseded" not in {verdict.outcome for verdict in verdicts}
    assert outcome.outcome in ("promoted", "held")


def test_a_refit_needs_the_variables_it_keeps(trained):
    """Where the spec has other variables by now there is nothing to keep, and the error says to train."""
    trained.edit_spec("edges: [40, 65]", "edges: [40, 70]")
    with pytest.raises(DataError, match="train instead"):
        train(trained, at=TO, refit=("treatment",), since=SINCE)


def test_another_look_waits_while_cooling_down(changed):
    """A day after a refit was begun the change is told and nothing is begun."""
    changed.edit_spec("policy: auto", "policy: manual")  # nobody promotes the refit, so the change stays
    look(changed, to=LONG_AFTER, act=True)
    _, decision = look(changed, to=LONG_AFTER + timedelta(days=1), act=True)
    assert (decision.action, decision.alert) == ("nothing", True)
    assert "the last action was 1 days ago" in decision.reason
    assert len(registry().versions("clinic")) == 2
    _, again = look(changed, to=LONG_AFTER, act=True)
    assert again.action == "refit"  # the look that acted does not stand in its own way
    assert len(registry().versions("clinic")) == 2


def test_nothing_is_begun_while_a_training_runs(changed):
    """The change is told; the training that runs may have learned it."""
    found = begin(changed, actions="auto")
    run(found, *VERBS[:2])
    decided = steps.look_decide(found, retrain_running=True)
    assert (decided.action, decided.alert) == ("nothing", True)


def test_a_frozen_model_is_only_advised(changed):
    """`bnpipe freeze` stands above `--act`."""
    registry().freeze("clinic", actor="ada", reason="audit")
    _, decision = look(changed, to=LONG_AFTER, act=True)
    assert (decision.action, decision.advised_only) == ("refit", True)
    assert len(registry().versions("clinic")) == 1


def test_a_bad_champion_is_rolled_back(bad_champion):
    """Ten days on which the predecessor was better by far: it is champion again, and the bad version is barred."""
    found, decision = look(bad_champion, to=date(2026, 3, 20), act=True)
    assert (decision.action, decision.to) == ("roll back", 1)
    assert registry().champion("clinic").number == 1
    assert registry().version("clinic", 2).barred is not None
    entry = registry().history("clinic")[-1]
    assert (entry.kind, entry.source, entry.to, entry.actor) == ("rollback", 2, 1, "ada")
    assert entry.evidence == registry().run_url(found.run_id)


def test_a_rollback_is_done_once(bad_champion):
    """The act run again, and the same look run again, leave one rollback in the ledger."""
    for key in ("day/1", "day/2"):
        found = begin(bad_champion, to=date(2026, 3, 20), key=key, actions="auto")
        if key == "day/1":
            run(found, *VERBS[:4])
            steps.look_act(found)
    assert [entry.kind for entry in registry().history("clinic")].count("rollback") == 1


# What it survives


def test_the_same_rows_give_the_same_look(changed):
    """One key, one report and one decision, however often and by whom it is asked."""
    first, one = look(changed)
    second, two = look(changed)
    assert first.key == second.key
    assert first.run_id != second.run_id
    assert one == two
    assert report_of(first).to_dict() == report_of(second).to_dict()


def test_verbs_killed_after_their_work_can_be_run_again(bad_champion):
    """Each verb run twice leaves what it would leave run once, and one look has one MLflow run."""
    found = begin(bad_champion, to=date(2026, 3, 20), actions="auto")
    assert begin(bad_champion, to=date(2026, 3, 20), actions="auto") == found
    for name in VERBS:
        assert run(found, name) == run(found, name)
    assert registry().champion("clinic").number == 1
    assert [entry.to for entry in registry().history("clinic")] == [1, 2, 1]


def test_mlflow_away_at_each_verb(bad_champion, monkeypatch):
    """The error can be retried, nothing is half done, and the same verb goes through once MLflow is back."""
    there, to = Settings.from_environ().tracking_uri, date(2026, 3, 20)

    def away(call):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        with pytest.raises(RegistryUnavailable) as caught:
            call()
        assert caught.value.retryable
        monkeypatch.setenv("MLFLOW_TRACKING_URI", there)

    away(lambda: begin(bad_champion, to=to, actions="auto"))
    found = begin(bad_champion, to=to, actions="auto")
    for name in VERBS:
        away(lambda name=name: run(found, name))
        if name != "look_act":
            assert registry().champion("clinic").number == (1 if name == "look_report" else 2)
        run(found, name)
    assert registry().run_status(found.run_id) == "FINISHED"
    assert [entry.to for entry in registry().history("clinic")] == [1, 2, 1]


@pytest.mark.parametrize("verb", ["look_compare", "look_act"])
def test_the_champion_deleted_between_two_verbs(bad_champion, verb):
    """The look goes on with what it froze, and does not move a champion that it was not compared with."""
    found = begin(bad_champion, to=date(2026, 3, 20), actions="auto")
    run(found, *VERBS[: VERBS.index(verb)])
    registry().connection.client.delete_model_version("clinic", "2")
    run(found, *VERBS[VERBS.index(verb) : 3])
    assert not steps.look_act(found).done
    steps.look_report(found)
    assert registry().champion("clinic") is None
    assert registry().run_status(found.run_id) == "FINISHED"


@pytest.mark.parametrize("hand", ["removed", "moved"])
def test_the_alias_changed_by_hand_before_the_act(changed, hand):
    """What was decided about one champion is not done to another; the act says so."""
    train(changed, at=date(2026, 3, 2), promotion="manual")
    found = begin(changed, to=LONG_AFTER, actions="auto")
    run(found, *VERBS[:3])
    client = registry().connection.client
    if hand == "removed":
        client.delete_registered_model_alias("clinic", "champion")
    else:
        client.set_registered_model_alias("clinic", "champion", "2")
    acted = steps.look_act(found)
    assert (acted.done, acted.conf) == (False, None)
    assert "nothing was done" in acted.reason
    assert ("no champion" if hand == "removed" else "version 2") in acted.reason


# The command line


def test_the_command_line_looks(changed, capsys):
    """It prints the table and the decision, and ends with 0 on a calm week, 1 on a changed one, 2 on misuse."""
    assert main(["drift", "clinic", "--to", "2026-03-08"]) == 0
    assert "0 of 5 CPDs changed" in capsys.readouterr().out
    assert main(["drift", "clinic", "--from", "2026-03-15", "--to", "2026-03-24"]) == 1
    out = capsys.readouterr().out
    assert "CHANGED" in out
    assert "refit (advice only)" in out
    assert main(["drift", "clinic", "--to", "2026-03-24", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["decision"]["families"] == ["treatment"]
    assert told["report"]["nodes"]["treatment"]["flagged"]
    assert main(["drift", "nothing"]) == 2


def test_the_command_line_acts(bad_champion, capsys):
    """With --act the rollback is done and said to be; misuse of a date is told as for trainings."""
    assert main(["drift", "clinic", "--to", "2026-03-20", "--act", "--reason", "looked odd"]) == 1
    assert "done: roll back" in capsys.readouterr().out
    assert registry().champion("clinic").number == 1
    assert main(["drift", "clinic", "--to", "2026-05-01"]) == 1
    assert "2026-04-11" in capsys.readouterr().err


def test_the_command_line_rolls_back_and_freezes(bad_champion, capsys):
    """A person's rollback and freeze are entered with their reasons."""
    assert main(["rollback", "clinic", "--reason", "worse"]) == 0
    assert "version 1" in capsys.readouterr().out
    assert registry().champion("clinic").number == 1
    assert main(["freeze", "clinic"]) == 2
    assert main(["freeze", "clinic", "--reason", "audit"]) == 0
    assert "audit" in capsys.readouterr().out
    assert main(["freeze", "clinic", "--off"]) == 0
    assert registry().frozen("clinic") is None
