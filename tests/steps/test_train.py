"""The whole chain in one process, on a real MLflow."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path

import pytest

from bnpipe import steps
from bnpipe.config import Overrides, Settings
from bnpipe.errors import (
    EmptyWindowError,
    GateFailed,
    PromotionRefused,
    RegistryUnavailable,
    SourceError,
    SpecError,
    StoreError,
)
from bnpipe.registry import Registry

SPRING = date(2026, 3, 1)
LATER = date(2026, 3, 20)


def registry() -> Registry:
    return Registry(Settings.from_environ().tracking_uri)


def train(clinic, at=SPRING, **overrides):
    return steps.train(spec=clinic.spec, at=at, actor="ada", overrides=Overrides(**overrides))


def release_of(training):
    """The verdicts that the MLflow run of a training holds."""
    return steps.read_release(registry(), training.run_id).verdicts


def test_first_training_is_promoted_and_its_run_tells_everything(clinic):
    """The first version has only the absolute gates; the MLflow run holds what section 'Dags' of the issue lists."""
    training, outcome = train(clinic)
    assert (outcome.outcome, outcome.version, outcome.champion) == ("promoted", 1, None)
    champion = registry().champion("clinic")
    assert champion.number == 1
    assert champion.tags["bnpipe.training_key"] == training.key
    assert champion.tags["bnpipe.verdict"] == "pass"
    artifacts = set(registry().artifacts(training.run_id))
    assert artifacts >= {
        "training.json",
        "validation.json",
        "validation.html",
        "schema.json",
        "structure.json",
        "graph.svg",
        "graph.png",
        "audit.json",
        "evaluation.json",
        "verdicts/validation.json",
        "release.json",
        "report.html",
    }
    model = registry().connection.client.get_registered_model("clinic")
    assert "ward-3" in model.description
    assert "5 nodes" in registry().connection.client.get_model_version("clinic", "1").description
    params = registry().connection.client.get_run(training.run_id).data.params
    assert (params["score"], params["window_end"]) == ("bic", "2026-03-01")
    metrics = registry().metrics(training.run_id)
    assert metrics["rows.training"] == 40 * 60
    assert all(metrics[f"seconds.{name}"] >= 0 for name in steps.STEPS)
    [entry] = registry().history("clinic")
    assert (entry.actor, entry.source, entry.to, entry.outcome) == ("ada", None, 1, "done")


def test_learned_network_finds_the_arcs_the_rows_were_drawn_from(clinic):
    """Age and season lead to coming back, as in the network that the fixture draws from."""
    train(clinic)
    network = registry().load_network(registry().champion("clinic"))
    assert set(network.parents["back"]) >= {"age", "season"}
    assert "age" in network.parents["pressure"]


def test_same_training_twice_gives_one_version(clinic):
    """A date that is run again keeps its training key, although its first run was promoted meanwhile."""
    first, _ = train(clinic)
    second, outcome = train(clinic)
    assert first.key == second.key
    assert first.run_id != second.run_id
    assert outcome.outcome == "already champion"
    assert [version.number for version in registry().versions("clinic")] == [1]


def train_in_process(spec) -> str:
    """Train in another process, as a second Airflow worker would."""
    training, _ = steps.train(spec=spec, at=SPRING, actor="ada")
    return training.key


def test_two_at_once_give_one_version(clinic):
    """Two processes that train the same at the same time end with one version and one ledger entry."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        keys = set(pool.map(train_in_process, [clinic.spec, clinic.spec]))
    assert len(keys) == 1
    assert [version.number for version in registry().versions("clinic")] == [1]
    assert [entry.to for entry in registry().history("clinic") if entry.outcome == "done"] == [1]


@pytest.mark.parametrize("verb", ["validate", "learn", "audit", "fit", "evaluate", "register", "promote"])
def test_a_step_killed_after_its_work_can_be_run_again(clinic, verb):
    """Each verb run twice leaves what it would leave run once."""
    training = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    for name in steps.STEPS[1:]:
        result = getattr(steps, name)(training)
        if name == verb:
            result = getattr(steps, name)(training)
    assert (result.outcome, result.version) == ("promoted", 1)
    assert [version.number for version in registry().versions("clinic")] == [1]
    assert [entry.to for entry in registry().history("clinic")] == [1]


def test_retried_snapshot_continues_the_same_mlflow_run(clinic):
    """One Airflow run has one MLflow run, however often its first task is retried."""
    first = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    again = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    assert first == again


def test_later_night_reuses_the_champions_bins_and_is_judged_against_it(clinic):
    """The second version has the schema of the first, and a verdict on the difference between them."""
    train(clinic)
    training, outcome = train(clinic, at=LATER)
    assert outcome.champion == 1
    assert outcome.outcome in ("promoted", "held")
    one, two = registry().versions("clinic")
    assert one.tags["bnpipe.schema_hash"] == two.tags["bnpipe.schema_hash"]
    verdicts = release_of(training)
    assert any(verdict.kind == "relative" for verdict in verdicts)


def test_relearn_schema_learns_the_bins_anew(clinic):
    """With --relearn-schema the quantiles are those of the new rows, and a person has to decide."""
    train(clinic)
    training, outcome = train(clinic, at=LATER, relearn_schema=True)
    one, two = registry().versions("clinic")
    assert one.tags["bnpipe.schema_hash"] != two.tags["bnpipe.schema_hash"]
    assert outcome.outcome == "await approval"
    verdicts = release_of(training)
    assert "incomparable" in {verdict.outcome for verdict in verdicts}


def test_backfill_never_replaces_a_newer_champion(clinic):
    """A window that ends earlier than the champion's is registered and superseded."""
    train(clinic, at=LATER)
    _, outcome = train(clinic, at=SPRING)
    assert outcome.outcome == "superseded"
    assert registry().champion("clinic").number == 1


@pytest.mark.parametrize(("policy", "expected"), [("approval", "await approval"), ("manual", "left to MLflow")])
def test_other_policies_leave_the_alias_alone(clinic, policy, expected):
    """Only `auto` moves the champion by itself; the version is the challenger."""
    _, outcome = train(clinic, promotion=policy)
    assert outcome.outcome == expected
    assert registry().champion("clinic") is None
    assert registry().challenger("clinic").number == 1


def test_approval_promotes_what_was_shown(clinic):
    """A person's approval moves the alias and is in the ledger under that person's name."""
    train(clinic, promotion="approval")
    outcome = steps.approve(model="clinic", version=1, compared_with=None, actor="grace", reason="looks right")
    assert outcome.outcome == "promoted"
    entry = registry().history("clinic")[-1]
    assert entry.actor == "grace"
    assert entry.reason == "looks right (first version, every absolute gate passed)"


def test_the_ledger_quotes_the_verdicts_that_the_approver_saw(clinic):
    """A version judged again against another champion is approved on the evidence of that later run."""
    train(clinic)
    first, _ = train(clinic, at=LATER, promotion="approval")
    again, outcome = train(clinic, at=LATER, promotion="approval")
    assert first.run_id != again.run_id
    steps.approve(
        model="clinic", version=2, compared_with=outcome.champion, actor="eve", reason="ok", run_id=outcome.run_id
    )
    entry = registry().history("clinic")[-1]
    assert entry.evidence == registry().run_url(again.run_id)
    assert "graph, d" in entry.reason


def test_approval_is_refused_when_the_champion_has_changed(clinic):
    """What was compared with no champion isn't promoted over one."""
    train(clinic, promotion="approval")
    steps.promote_by_hand(model="clinic", version=1, actor="ada", reason="first")
    train(clinic, at=LATER, promotion="approval")
    outcome = steps.approve(model="clinic", version=2, compared_with=None, actor="grace", reason="late")
    assert outcome.outcome == "held"
    assert registry().champion("clinic").number == 1


def test_expert_graph_is_taken_as_it_is(clinic):
    """A graph drawn in the spec is fitted, not learned."""
    text = clinic.spec.read_text()
    start = text.index("structure:")
    end = text.index("gates:")
    clinic.spec.write_text(text[:start] + "structure:\n  graph: {arcs: [[age, back], [season, back]]}\n" + text[end:])
    train(clinic)
    network = registry().load_network(registry().champion("clinic"))
    assert set(network.arcs) == {("age", "back"), ("season", "back")}


# What goes wrong: each with a clear error, and nothing half registered.


def nothing_registered() -> bool:
    """Neither a version nor even the model is in MLflow."""
    return "clinic" not in registry().models() and not registry().versions("clinic")


def test_broken_yaml(clinic):
    """Broken YAML is a SpecError with the line."""
    clinic.spec.write_text("name: clinic\nsource: [unclosed\n")
    with pytest.raises(SpecError, match=r"clinic.yaml:\d"):
        train(clinic)


def test_column_gone(clinic):
    """A column that went away is named, with those that are there."""
    clinic.edit_rows(lambda frame: frame.drop(columns="treatment"))
    with pytest.raises(SourceError, match="treatment"):
        train(clinic)
    assert nothing_registered()


def test_column_of_another_type(clinic):
    """Numbers that arrive as text stop the run."""
    clinic.edit_rows(lambda frame: frame.assign(age=frame["age"].map(lambda age: f"{age} years")))
    with pytest.raises(GateFailed, match="age"):
        train(clinic)
    assert nothing_registered()


def test_unknown_state(clinic):
    """A state the spec does not know is a failed validation that names it."""
    clinic.edit_rows(lambda frame: frame.assign(treatment=frame["treatment"].replace("rest", "surgery")))
    with pytest.raises(GateFailed, match="treatment"):
        train(clinic)
    assert nothing_registered()


def test_empty_window(clinic):
    """A window without rows names itself and says which rows there are."""
    with pytest.raises(EmptyWindowError, match="2025"):
        train(clinic, at=date(2025, 6, 1))
    assert nothing_registered()


def test_constant_variable_is_learned_without_arcs(clinic):
    """A variable that never changed has no arcs; the run goes on and says so."""
    clinic.edit_rows(lambda frame: frame.assign(treatment="drug"))
    train(clinic)
    network = registry().load_network(registry().versions("clinic")[0])
    assert not network.parents["treatment"]
    assert all("treatment" not in parents for parents in network.parents.values())


def test_constant_target_stops_the_run(clinic):
    """There is nothing to learn of a target that has one value in the whole window."""
    clinic.edit_rows(lambda frame: frame.assign(back="no"))
    with pytest.raises(GateFailed, match="back"):
        train(clinic)
    assert nothing_registered()


def test_failing_gate_ends_the_run_with_its_reason(clinic):
    """An absolute gate that says no: no version, and the MLflow run is FAILED with the reason."""
    clinic.edit_spec("gates: {min_rows: 200}", "gates: {min_rows: 100000}")
    training = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    for name in ("validate", "learn", "audit", "fit"):
        getattr(steps, name)(training)
    with pytest.raises(GateFailed, match="min_rows"):
        steps.evaluate(training)
    assert nothing_registered()
    assert registry().run_status(training.run_id) == "FAILED"
    assert "min_rows" in registry().run_tags(training.run_id)["bnpipe.error"]
    assert "report.html" in registry().artifacts(training.run_id)


def test_mlflow_down_before_the_run(clinic, monkeypatch):
    """Without MLflow nothing starts; the error can be retried."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryUnavailable) as caught:
        train(clinic)
    assert caught.value.retryable


@pytest.mark.parametrize("verb", ["learn", "evaluate", "register", "promote"])
def test_mlflow_down_in_the_middle(clinic, monkeypatch, verb):
    """MLflow going away in a step gives a retryable error; the same step goes through once it is back."""
    training = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    there = Settings.from_environ().tracking_uri
    for name in steps.STEPS[1:]:
        if name == verb:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
            with pytest.raises(RegistryUnavailable):
                getattr(steps, name)(training)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", there)
        result = getattr(steps, name)(training)
    assert (result.outcome, result.version) == ("promoted", 1)


def test_store_not_writable(clinic, monkeypatch, tmp_path):
    """A store that can't be written is named before anything is registered."""
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("BNPIPE_STORE", str(blocked / "store"))
    with pytest.raises(StoreError, match="blocked"):
        train(clinic)
    assert nothing_registered()


def test_steps_ask_for_the_step_before_them(clinic):
    """A step whose input is missing names the step that makes it."""
    training = steps.snapshot(spec=clinic.spec, at=SPRING, run_key="nightly/1", actor="schedule")
    with pytest.raises(StoreError, match="`learn`"):
        steps.fit(training)


def test_promotions_by_threads_leave_one_champion(clinic):
    """Two approvals of two versions at once: one wins, the alias and the ledger agree."""
    train(clinic, promotion="approval")
    train(clinic, at=LATER, promotion="approval")

    def approve(version: int) -> str:
        return steps.promote_by_hand(model="clinic", version=version, actor=f"user {version}", reason="race").outcome

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(approve, version) for version in (1, 2)]
    outcomes = [future.exception() or future.result() for future in results]
    assert "promoted" in outcomes
    done = [entry for entry in registry().history("clinic") if entry.outcome == "done"]
    assert registry().champion("clinic").number == done[-1].to


# What review found: each of these once promoted, lost or hid something.


def move_by_hand(version: int | None) -> None:
    """Do in MLflow's UI what a person may do."""
    client = registry().connection.client
    if version is None:
        client.delete_registered_model_alias("clinic", "champion")
    else:
        client.set_registered_model_alias("clinic", "champion", str(version))


def test_a_cleared_promotion_does_not_claim_what_a_person_undid(clinic):
    """The promote step run again after a person moved the champion elsewhere tells where it really is."""
    train(clinic, promotion="auto")
    training, _ = train(clinic, at=LATER, promotion="manual")
    assert steps.promote_by_hand(model="clinic", version=2, actor="ada", reason="try").outcome == "promoted"
    move_by_hand(1)
    outcome = steps.promote(training)
    assert registry().champion("clinic").number == 1
    assert outcome.outcome != "promoted"


def test_no_one_follows_a_removed_champion_unasked(clinic):
    """After the alias was taken away neither a later window nor a backfill is promoted as if it were the first."""
    train(clinic)
    move_by_hand(None)
    _, later = train(clinic, at=LATER)
    assert later.outcome in ("await approval", "held")
    _, earlier = train(clinic, at=date(2026, 2, 25))
    assert earlier.outcome == "superseded"
    assert registry().champion("clinic") is None


def test_a_barred_version_is_not_promoted(clinic):
    """Neither by running its date again nor by an approval; by hand only with --force."""
    train(clinic, promotion="manual")
    registry().connection.client.set_model_version_tag("clinic", "1", "bnpipe.barred", "rolled back")
    training = steps.snapshot(
        spec=clinic.spec, at=SPRING, run_key="again", actor="ada", overrides=Overrides(promotion="manual")
    )
    for name in steps.STEPS[1:-1]:
        getattr(steps, name)(training)
    assert steps.promote(training).outcome == "held"
    assert steps.approve(model="clinic", version=1, compared_with=None, actor="eve", reason="?").outcome == "held"
    with pytest.raises(PromotionRefused, match="barred"):
        steps.promote_by_hand(model="clinic", version=1, actor="eve", reason="?")
    assert registry().champion("clinic") is None


def test_an_older_backfill_does_not_cancel_a_pending_approval(clinic):
    """The challenger of the later window stays, and its approval goes through."""
    train(clinic)
    train(clinic, at=LATER, promotion="approval")
    train(clinic, at=date(2026, 3, 10), promotion="approval")
    assert registry().challenger("clinic").number == 2
    assert steps.approve(model="clinic", version=2, compared_with=1, actor="eve", reason="fine").outcome == "promoted"


def test_a_champion_that_bnpipe_did_not_make_is_left_to_a_person(clinic):
    """A version registered by hand has nothing to compare with; the night goes through and asks."""
    train(clinic)
    client = registry().connection.client
    source = registry().version("clinic", 1)
    client.create_model_version("clinic", client.get_model_version("clinic", "1").source, run_id=source.run_id)
    move_by_hand(2)
    training, outcome = train(clinic, at=LATER)
    assert outcome.outcome == "await approval"
    assert {verdict.outcome for verdict in release_of(training) if verdict.kind == "relative"} == {"incomparable"}


def test_no_row_of_the_source_is_in_mlflow(clinic):
    """The input example is made from the network's most frequent states, not from a customer's row."""
    import mlflow

    training, _ = train(clinic)
    names = [name for name in registry().artifacts(training.run_id) if name.endswith((".parquet", ".csv"))]
    assert names == []
    example = mlflow.pyfunc.load_model("models:/clinic/1").input_example
    assert len(example) == 1
    assert "back" not in example


def test_an_interrupted_training_is_not_left_running(clinic, monkeypatch):
    """Ctrl-C in the middle ends the MLflow run as failed."""
    from bnpipe.steps import chain

    def interrupt(training):
        raise KeyboardInterrupt

    monkeypatch.setattr(chain, "fit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(clinic)
    [run] = registry().connection.client.search_runs(
        [registry().connection.client.get_experiment_by_name("bnpipe/clinic").experiment_id]
    )
    assert run.info.status == "FAILED"


def test_a_snapshot_given_up_is_marked_as_failed(clinic):
    """An Airflow run whose source stayed away has an MLflow run that says so."""
    run_id = registry().start_run(model="clinic", key="nightly/9", tags={}, params={})
    steps.fail_run_of(model="clinic", run_key="nightly/9", reason="snapshot: the source did not answer")
    assert registry().run_status(run_id) == "FAILED"
    steps.fail_run_of(model="clinic", run_key="nightly/10", reason="there is no such run, and no error")


def test_a_version_knows_what_was_usual_in_its_training(clinic):
    """Likelihoods of whole training rows and of those without the target are registered with it, but no rows."""
    import numpy as np

    import bnpipe
    from bnpipe.schema import MISSING
    from bnpipe.steps.training import Bench

    training, _ = train(clinic)
    champion = registry().champion("clinic")
    likelihoods, network = registry().load_likelihoods(champion), registry().load_network(champion)
    assert likelihoods.content_hash == network.content_hash
    rows, engine = Bench(training).training_rows(), bnpipe.compile(network)
    known = tuple(name for name in network.nodes if name != "back")
    assert [(one.observed, one.rows) for one in likelihoods.patterns] == [(network.nodes, 2400), (known, 2400)]
    for one in likelihoods.patterns:
        codes = np.where([[name in one.observed] for name in network.nodes], rows.codes, np.uint8(MISSING))
        its = engine.log_likelihood(bnpipe.Dataset(network.schema, codes))
        exact = np.array([(its <= value + 1e-9).mean() for value in its])
        assert np.abs(one.shares(its) - exact).max() <= 0.001
    assert len(likelihoods.to_json()) < 60_000
    [kept] = Path(Settings.from_environ().store).rglob("likelihoods.json")
    kept.unlink()  # as an older bnpipe left it: its steps can be cleared and run again
    assert steps.register(training).version == champion.number
