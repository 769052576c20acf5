"""What the Dag files give: which Dags, which forms, how fast, and what happens to a broken spec."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from shop_bench import DRIFT, REPOSITORY, SPEC, Run, load_dag, load_dags

PARSE_LOOPS = 800
"""Parsing 50 models took 350 to 560 times as long as `LOOP`, on several machines, busy or not: 0.7 to 1.6 s."""
LOOP = "sum(number * number for number in range(40_000))"


def write(models, *names: str, more: str = "") -> None:
    """Put a spec of each name into the folder."""
    for name in names:
        (models / f"{name}.yaml").write_text(SPEC.format(name=name) + more)


def test_every_spec_gives_its_dags(models):
    """Two specs give two training and two release Dags, a drift Dag where one asks for it, and a registry Dag."""
    write(models, "alpha", more=DRIFT)
    write(models, "beta")
    assert set(load_dags()) == {
        "bn_drift__alpha",
        "bn_registry",
        "bn_release__alpha",
        "bn_release__beta",
        "bn_train__alpha",
        "bn_train__beta",
    }


def test_training_dag_is_what_the_spec_says(models):
    """Steps in order, cron in the spec's time zone with a day's interval, owner, tags, retries."""
    write(models, "alpha")
    dag = load_dags()["bn_train__alpha"]
    chain = ["snapshot", "validate", "learn", "audit", "fit", "evaluate", "register", "promote", "ask_for_approval"]
    assert [task.task_id for task in dag.topological_sort()] == chain
    assert dag.timetable.expression == "0 3 * * *"
    assert str(dag.timetable.timezone) == "Europe/Berlin"
    assert dag.timetable.interval == timedelta(days=1)
    assert not dag.catchup
    assert dag.max_active_runs > 1
    assert {"bnpipe", "train", "alpha"} <= set(dag.tags)
    assert {task.owner for task in dag.tasks} == {"sales-team"}
    assert {task.retries for task in dag.tasks} == {3}
    assert "Who comes back within a week." in dag.doc_md
    assert "rope: 0.5" in dag.doc_md


def test_forms_are_typed_and_mean_as_in_the_spec_when_left_blank(models):
    """Every field has a title; defaults validate; a wrong value is refused."""
    from airflow.sdk.exceptions import ParamValidationError

    write(models, "alpha")
    params = load_dags()["bn_train__alpha"].params
    params.validate()
    for name in params:
        param = params.get_param(name)
        assert param.schema["title"]
        assert param.value in (None, False)
    assert params.get_param("score").schema["enum"] == [None, "bic", "aic", "bdeu", "bds", "k2", "ll"]
    assert params.get_param("score").schema["values_display"] == {"null": "as in the spec: bic"}
    for name, wrong in {"score": "best", "max_parents": -1, "end": "yesterday", "promotion": "now"}.items():
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(wrong)


def test_form_offers_exactly_what_overrides_take(models):
    """A field of the form that Overrides does not know, or the reverse, would be ignored in silence."""
    from bnpipe.config import Overrides

    write(models, "alpha")
    assert set(load_dags()["bn_train__alpha"].params) == set(Overrides.model_fields)


def test_dags_survive_serialisation(models):
    """What the scheduler and the UI see is the serialised Dag: retry policy, params, watchers included."""
    from airflow.serialization.serialized_objects import DagSerialization

    write(models, "alpha", "beta", more=DRIFT)
    for dag in load_dags().values():
        text = json.dumps(DagSerialization.to_dict(dag))
        assert len(text) < 60_000
        DagSerialization.from_dict(json.loads(text))


def test_release_and_registry_dags_are_unpaused(models):
    """A request that queues in a paused Dag, or a watcher of one, would do nothing, unseen."""
    write(models, "alpha")
    dags = load_dags()
    assert dags["bn_release__alpha"].is_paused_upon_creation is False
    assert dags["bn_registry"].is_paused_upon_creation is False
    assert dags["bn_train__alpha"].is_paused_upon_creation is None


def test_registry_dag_runs_when_any_champion_moves(models):
    """The assets are joined by `or`, and their watchers share one poll."""
    from airflow.sdk import AssetAny

    write(models, "alpha", "beta")
    condition = load_dags()["bn_registry"].timetable.asset_condition
    assert isinstance(condition, AssetAny)
    triggers = [watcher.trigger for asset in condition.objects for watcher in asset.watchers]
    assert {trigger.model for trigger in triggers} == {"alpha", "beta"}
    assert len({trigger.shared_stream_key() for trigger in triggers}) == 1


def test_promotion_is_no_outlet_of_the_champion(models):
    """The watcher announces a promotion; an outlet would announce it twice."""
    write(models, "alpha", more=DRIFT)
    assert all(not task.outlets for dag in load_dags().values() for task in dag.tasks)


def test_broken_spec_raises_its_error_and_others_stand(models, airflow_db):
    """The Dag of a broken file fails with key and line; the Dags beside it are as they were."""
    write(models, "alpha")
    (models / "bad spec.yaml").write_text(
        (SPEC.format(name="bad") + DRIFT).replace("owner: sales-team", "ownr: sales-team")
    )
    dags = load_dags()
    assert {"bn_train__alpha", "bn_train__bad_spec", "bn_release__bad_spec"} <= set(dags)
    assert "ownr" in dags["bn_train__bad_spec"].doc_md
    assert not any(name.startswith("bn_drift__") for name in dags)
    run = Run(load_dag("bn_train__bad_spec").test())
    assert run.state == "failed"
    assert "ownr" in run.xcom("spec", "error")
    assert run.tries == {"spec": 1}


def test_unreadable_yaml_is_a_broken_spec(models):
    """Not even YAML: still only that file's Dag is affected."""
    write(models, "alpha")
    (models / "torn.yaml").write_text("name: [torn\n")
    assert {"bn_train__alpha", "bn_train__torn"} <= set(load_dags())


def test_broken_file_named_like_another_model_hides_nothing(models):
    """A file alpha.yaml that is broken does not replace the Dag of a model that calls itself alpha."""
    (models / "first.yaml").write_text(SPEC.format(name="alpha"))
    (models / "alpha.yaml").write_text("name: 5\n")
    assert {"bn_train__alpha", "bn_train__alpha.broken"} <= set(load_dags())


def test_parsing_fifty_models_is_quick_and_imports_nothing_heavy(models):
    """The Dag processor reads these files again and again; the budget is a second or so for 50 models."""
    write(models, *(f"model{number}" for number in range(50)), more=DRIFT)
    script = (
        f"""
LOOP = {LOOP!r}
"""
        """
import json, sys, time, timeit
import airflow.sdk
from airflow.dag_processing.dagbag import BundleDagBag
folder = sys.argv[1]
loops = []
def loop():  # in processor time: other tests may run beside this one
    return timeit.timeit(LOOP, number=40, timer=time.process_time) / 40
for _ in range(3):
    before, started = loop(), time.process_time()
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
    loops.append((time.process_time() - started) / ((before + loop()) / 2))
assert not bag.import_errors, bag.import_errors
print("RESULT" + json.dumps({"loops": min(loops), "dags": len(bag.dags), "modules": list(sys.modules)}))
"""
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(REPOSITORY / "dags")],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(done.stdout.split("RESULT")[1])
    assert result["dags"] == 151
    assert result["loops"] < PARSE_LOOPS, result["loops"]
    heavy = {"mlflow", "great_expectations", "pgmpy", "duckdb", "sklearn", "scipy", "evidently", "matplotlib", "pandas"}
    assert not heavy & set(result["modules"])


def test_missing_models_folder_is_an_import_error(models, monkeypatch):
    """Airflow shows it on its home page; the message says which variable to set."""
    from airflow.dag_processing.dagbag import BundleDagBag

    monkeypatch.setenv("BNPIPE_MODELS", str(models / "nowhere"))
    folder = REPOSITORY / "dags"
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
    assert len(bag.import_errors) == 5
    assert all("BNPIPE_MODELS" in text for text in bag.import_errors.values())


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_poll_interval_that_is_none_is_said(monkeypatch, text):
    """A watcher that never waits would drown the registry."""
    from bnpipe.airflow.registry import poll_seconds
    from bnpipe.errors import SettingsError

    monkeypatch.setenv("BNPIPE_POLL_SECONDS", text)
    with pytest.raises(SettingsError, match="BNPIPE_POLL_SECONDS"):
        poll_seconds()
    monkeypatch.delenv("BNPIPE_POLL_SECONDS")
    assert poll_seconds() == 5.0
