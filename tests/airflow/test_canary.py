"""The canary Dag: which specs have one, and whole steps run by ``dag.test()``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from canary_bench import Service
from shop_bench import SPEC, Run, load_dags

from bnpipe.config import load_spec
from bnpipe.steps.canary import canary_start

CANARY = "canary: {stages: [0.3, 0.6, 1.0], min_rows: 20, min_labels: 5}\n"
BERLIN = ZoneInfo("Europe/Berlin")


def test_only_a_spec_with_the_section_has_the_dag(models):
    """One task every hour, one run at a time, the stages in its text, owner and retries as everywhere."""
    (models / "alpha.yaml").write_text(SPEC.format(name="alpha") + CANARY)
    (models / "beta.yaml").write_text(SPEC.format(name="beta"))
    dags = load_dags()
    assert "bn_canary__beta" not in dags
    dag = dags["bn_canary__alpha"]
    assert [task.task_id for task in dag.tasks] == ["step"]
    assert (dag.timetable.expression, dag.max_active_runs, dag.catchup) == ("23 * * * *", 1, False)
    assert {"bnpipe", "canary", "alpha"} <= set(dag.tags)
    assert (dag.get_task("step").owner, dag.get_task("step").retries) == ("sales-team", 3)
    assert "30 % → 60 % → 100 %" in dag.doc_md


@pytest.fixture
def rolling(kept_shops, alerts, tmp_path, monkeypatch):
    """A shop whose version 2 is on its way, and the service that answers for it from tomorrow on."""
    nights = {"2026-02-02T02:00": {}, "2026-02-10T02:00": {"promotion": "manual"}}
    shop = kept_shops.give(monkeypatch, "rolling", more=CANARY, nights=nights)
    assert shop.registry.champion(shop.name).number == 1
    monkeypatch.setenv("BNPIPE_ANSWERS", str(tmp_path / "answers"))
    days = sorted((shop.rows / "shop").glob("day=*/*.parquet"))
    evidence = ("weather", "age", "basket")
    return shop, Service(tmp_path / "answers", days[30:], model=shop.name, evidence=evidence)


def step(shop, at: datetime) -> Run:
    """Run the Dag as of a moment."""
    return Run(shop.dag("canary").test(logical_date=at.astimezone(UTC)))


def tomorrow() -> datetime:
    """The next midnight in Berlin, after which a canary that begins now has whole days."""
    return datetime.combine(datetime.now(BERLIN).date() + timedelta(days=1), datetime.min.time(), BERLIN)


def test_hour_by_hour_to_the_next_stage(rolling, alerts):
    """Without a canary nothing happens; then it waits, goes on when proved, and people are told when it moves."""
    shop, service = rolling
    run = step(shop, tomorrow())
    assert (run.state, run.xcom("step")["action"]) == ("success", "none")
    canary_start(load_spec(shop.spec), 2, actor="eve", reason="try it")
    midnight, found = tomorrow(), {"action": "wait"}
    assert step(shop, midnight + timedelta(hours=1)).xcom("step")["action"] == "wait"
    assert alerts == []
    for _ in range(12):
        service.day(midnight)
        midnight += timedelta(days=1)
        found = step(shop, midnight + timedelta(minutes=23)).xcom("step")
        if found["action"] != "wait":
            break
    assert (found["action"], found["share"]) == ("advance", 0.6)
    entry = shop.registry.canary_entries(shop.name)[-1]
    assert entry.state.share == 0.6
    assert entry.key.startswith(f"bn_canary__{shop.name}/")
    assert entry.state.since == midnight + timedelta(minutes=23)
    [alert] = alerts
    assert alert["headline"] == f"{shop.name}: version 2 now answers 60 % of the requests"
    assert "log-loss on the same rows" in alert["reason"]


def test_a_challenger_that_fails_is_halted(rolling, alerts):
    """The run is a success, nobody is routed any more, and people are told why."""
    shop, service = rolling
    canary_start(load_spec(shop.spec), 2, actor="eve", reason="try it")
    service.day(tomorrow(), failing=True)
    run = step(shop, tomorrow() + timedelta(hours=14))
    assert (run.state, run.xcom("step")["action"]) == ("success", "halt")
    assert shop.registry.canary(shop.name) is None
    [alert] = alerts
    assert alert["headline"] == f"{shop.name}: the canary of version 2 was halted"
    assert "were not answered by it" in alert["reason"]
