"""A small shop whose Dags are run by ``dag.test()``: its rows, its spec, and what a run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

REPOSITORY = Path(__file__).resolve().parents[2]

SPEC = """\
name: {name}
owner: sales-team
description: Who comes back within a week.
source:
  connection: local
  path: "shop/day=*/*.parquet"
  timestamp: sold_at
  time_zone: Europe/Berlin
window: {{train: 20d, held_out: 12d}}
variables:
  weather: {{states: [dry, wet]}}
  age: {{edges: [40, 65], minimum: 0, maximum: 120}}
  basket: {{states: [small, large]}}
  back: {{states: ["no", "yes"]}}
targets:
  back: {{tolerance: 0.5}}
structure:
  max_parents: 2
  tiers: [[weather, age], [basket], [back]]
gates: {{min_rows: 200}}
promotion: {{policy: auto, rope: 0.5, min_clusters: 4}}
schedule: "0 3 * * *"
"""


DRIFT = """\
drift: {schedule: "30 6 * * *", window: 7d, history: 14d, actions: auto}
"""


def draw_day(day: date, rows: int, rng: np.random.Generator, *, fickle: bool = False) -> pd.DataFrame:
    """Draw the sales of one day; `fickle` customers with a large basket rarely come back."""
    weather = np.where(rng.random(rows) < 0.4, "wet", "dry")
    age = rng.integers(18, 95, rows)
    basket = np.where(rng.random(rows) < np.where(age >= 65, 0.2, 0.6), "large", "small")
    risk = 0.15 + 0.3 * (weather == "dry") + (-0.1 if fickle else 0.4) * (basket == "large")
    return pd.DataFrame(
        {
            "sold_at": pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(0, 24 * 60, rows)), unit="min"),
            "weather": weather,
            "age": age,
            "basket": basket,
            "back": np.where(rng.random(rows) < risk, "yes", "no"),
        }
    )


def draw_days(root: Path, *, fickle_from: date = date.max) -> Path:
    """Draw fifty days from 1 January 2026 with 40 rows each, with seed 11."""
    rng = np.random.default_rng(11)
    for offset in range(50):
        day = date(2026, 1, 1) + timedelta(days=offset)
        folder = root / f"day={day}"
        folder.mkdir(parents=True)
        draw_day(day, 40, rng, fickle=day >= fickle_from).to_parquet(folder / "part.parquet")
    return root


@dataclass(frozen=True)
class Shop:
    """One model with its own name, spec, rows, store and MLflow."""

    name: str
    root: Path
    spec: Path
    tracking_uri: str
    rows: Path

    def edit_spec(self, old: str, new: str) -> None:
        """Replace a part of the YAML that must be there."""
        text = self.spec.read_text()
        assert old in text
        self.spec.write_text(text.replace(old, new))

    def dag(self, kind: str = "train"):
        """Parse the real Dag files as Airflow does; give this model's Dag with retries that do not wait."""
        return load_dag(f"bn_{kind}__{self.name}")

    def run(self, at: str, conf: dict | None = None, dag=None, **options):
        """Run the training Dag as of a date; gives the run."""
        moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
        return Run((dag or self.dag()).test(logical_date=moment, run_conf=conf, **options))

    def look(self, at: str | None, conf: dict | None = None, dag=None, **options):
        """Run the drift Dag as of a date, or without one; gives the run."""
        moment = None if at is None else datetime.fromisoformat(at).replace(tzinfo=UTC)
        return Run((dag or self.dag("drift")).test(logical_date=moment, run_conf=conf, **options))

    def announce(self, client, header, monkeypatch, extra: dict):
        """Post an event of the live rows, let the scheduler's own code make the run, and run it."""
        from airflow.jobs.job import Job
        from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
        from airflow.models.dag import DagModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        dag_id = f"bn_drift__{self.name}"
        client.patch(f"/api/v2/dags/{dag_id}", headers=header, json={"is_paused": False})
        found = client.get("/api/v2/assets", headers=header, params={"uri_pattern": f"bnpipe://live/{self.name}"})
        [asset] = [one for one in found.json()["assets"] if one["name"] == f"live rows of {self.name}"]
        body = {"asset_id": asset["id"], "extra": extra}
        assert client.post("/api/v2/assets/events", headers=header, json=body).status_code == 200
        with create_session() as session:
            waiting, _ = DagModel.dags_needing_dagruns(session)
            mine = [model for model in waiting if model.dag_id == dag_id]
            scheduler = SchedulerJobRunner(Job())
            scheduler._create_dag_runs_asset_triggered(dag_models=mine, session=session)

        def the_one_that_was_made(*, dag, session, **_):
            made = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.state == "queued"))
            made.dag, made.state, made.start_date = dag, "running", made.run_after
            return made

        with monkeypatch.context() as patch:
            patch.setattr("airflow.models.dagrun.get_or_create_dagrun", the_one_that_was_made)
            return self.look(None)

    def trainings(self) -> list:
        """Give the runs of the training Dag that wait, oldest first."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        waiting = select(DagRun).where(DagRun.dag_id == f"bn_train__{self.name}", DagRun.state == "queued")
        with create_session() as session:
            return list(session.scalars(waiting.order_by(DagRun.id)))

    @property
    def registry(self):
        """The registry of this test."""
        from bnpipe.registry import Registry

        return Registry(self.tracking_uri)


class Run:
    """What a Dag run left in Airflow's database."""

    def __init__(self, dag_run) -> None:
        self.dag_run = dag_run

    @property
    def state(self) -> str:
        """State of the whole run."""
        return str(self.dag_run.state)

    @property
    def tasks(self) -> dict[str, str]:
        """State of each task."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return {ti.task_id: str(ti.state) for ti in self.dag_run.get_task_instances(session=session)}

    @property
    def tries(self) -> dict[str, int]:
        """How often each task was tried."""
        from airflow.utils.session import create_session

        with create_session() as session:
            return {ti.task_id: ti.try_number for ti in self.dag_run.get_task_instances(session=session)}

    def xcom(self, task: str, key: str = "return_value"):
        """Read an XCom."""
        from airflow.models.xcom import XComModel
        from airflow.utils.session import create_session
        from sqlalchemy import select

        query = select(XComModel.value).where(
            XComModel.dag_id == self.dag_run.dag_id,
            XComModel.run_id == self.dag_run.run_id,
            XComModel.task_id == task,
            XComModel.key == key,
        )
        with create_session() as session:
            return session.execute(query).scalar()


def load_dags():
    """Parse the repository's Dag files as the Dag processor does."""
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = REPOSITORY / "dags"
    bag = BundleDagBag(dag_folder=folder, bundle_path=folder, bundle_name="dags-folder")
    assert not bag.import_errors
    return bag.dags


def load_dag(dag_id: str):
    """Parse the Dag files and give one Dag, its retries without a pause."""
    dag = load_dags()[dag_id]
    for task in dag.tasks:
        task.retry_delay = timedelta(seconds=0.1)
        task.retry_exponential_backoff = 0
    return dag
