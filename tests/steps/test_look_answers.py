"""The log of answers as live rows: a look at what was asked finds what a look at the rows themselves finds."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pandas as pd
import pytest

from bnpipe import steps
from bnpipe.answers import AnswerRecord, FeedbackRecord, Journal, compact
from bnpipe.config import Settings, load_spec
from bnpipe.network import Network
from bnpipe.registry import Registry
from bnpipe.steps.live import LookBench

TO = date(2026, 3, 15)
SINCE = date(2026, 3, 8)
FROM = date(2026, 2, 15)
EVIDENCE = ("season", "age", "pressure", "treatment")
BY_PATH = """
  source: {connection: answers, path: "answers/model=clinic/day=*/*.parquet"}"""
WITH_LABELS = """
  source:
    connection: answers
    sql: |
      SELECT answers.* EXCLUDE (back), coalesce(labels.back, answers.back) AS back
      FROM read_parquet('answers/model=clinic/day=*/*.parquet', union_by_name = true, hive_partitioning = false) answers
      LEFT JOIN (
        SELECT _request, _row, last(back ORDER BY _at) AS back
        FROM read_parquet('feedback/model=clinic/day=*/*.parquet', union_by_name = true, hive_partitioning = false)
        GROUP BY ALL
      ) labels USING (_request, _row)"""


@pytest.fixture
def trained(trained_clinic, monkeypatch):
    """A champion learned from 6 January until 15 February; `answers` is a connection."""
    clinic = trained_clinic("spring", lambda its: steps.train(spec=its.spec, at=date(2026, 3, 1), actor="ada"))
    monkeypatch.setenv("BNPIPE_CONN_ANSWERS", str(clinic.root / "audit"))
    return clinic


def treat_by_chance(frame: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(len(frame))
    return frame.assign(treatment=np.where(rng.random(len(frame)) < 0.7, "drug", "rest"))


def champion() -> Network:
    registry = Registry(Settings.from_environ().tracking_uri)
    return registry.load_network(registry.champion("clinic"))


def ask(clinic, *, leave_out: float = 0.0, labels: bool = True, shadow: bool = False) -> None:
    """Log a question and a label for each row of the live days; a share of them does not speak of the pressure."""
    network, rng = champion(), np.random.default_rng(1)
    with Journal(clinic.root / "audit" / "journal", "w") as journal:
        for day in pd.date_range(FROM, TO - timedelta(days=1)):
            file = next((clinic.root / "data" / "clinic" / f"day={day.date()}").glob("*.parquet"))
            for place, row in enumerate(pd.read_parquet(file, partitioning=None).to_dict("records")):
                at = row["admitted_at"].to_pydatetime().replace(tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
                cells = {name: None if pd.isna(row[name]) else row[name] for name in EVIDENCE}
                if rng.random() < leave_out:
                    del cells["pressure"]
                record = AnswerRecord(
                    id=f"{day.date()}/{place}", at=at, model="clinic", version=1, content_hash=network.content_hash,
                    arm="champion", caller="ward", key=None, kind="posterior", question={}, rows=[cells], answer=b"[0]",
                )  # fmt: skip
                journal.append([record])
                if shadow:
                    journal.append([msgspec.structs.replace(record, arm="shadow", version=2)])
                if labels:
                    late = at + timedelta(days=1)
                    journal.append([FeedbackRecord(record.id, 0, late, "ward", "clinic", {"back": row["back"]})])
    compact(
        clinic.root / "audit", lambda _, content_hash: network.schema if content_hash == network.content_hash else None
    )


def read_from(clinic, source: str) -> None:
    clinic.edit_spec("drift: {window: 7d, history: 21d}", f"drift:\n  window: 7d\n  history: 21d{source}")


def look(clinic):
    found, decision = steps.look(spec=clinic.spec, at=TO, actor="ada")
    return found, decision, steps.read_look(Registry(Settings.from_environ().tracking_uri), found.run_id)[1]


def days_since(day: date) -> set[str]:
    return {str(day + timedelta(days=place)) for place in range(40)}


def test_answers_with_labels_are_the_rows_they_were_made_of(trained) -> None:
    """Logged, compacted, joined and read back, rows would be others: every CPD would be tested on something else."""
    trained.edit_rows(treat_by_chance, days_since(SINCE))
    _, decision, of_rows = look(trained)
    ask(trained)
    read_from(trained, WITH_LABELS)
    _, of_log, report = look(trained)
    assert report.flagged == of_rows.flagged == ("treatment",)
    assert of_log.action == decision.action
    assert {name: (node.p, node.effect) for name, node in report.nodes.items()} == {
        name: (node.p, node.effect) for name, node in of_rows.nodes.items()
    }


def test_without_labels_the_target_is_unknown_and_all_else_is_tested(trained) -> None:
    """Before the labels come nothing could be watched; or shadows' answers would count as further rows."""
    trained.edit_rows(treat_by_chance, days_since(SINCE))
    ask(trained, labels=False, shadow=True)
    read_from(trained, BY_PATH)
    found, _, report = look(trained)
    assert report.flagged == ("treatment",)
    assert report.unknown == ("back",)
    assert LookBench(found).recipe.snapshot.rows == 60 * (TO - FROM).days


def test_what_was_not_asked_about_is_no_missing_value(trained) -> None:
    """A client that stops to send the pressure would look like a ward in which it is no longer measured."""
    ask(trained, leave_out=0.5, labels=False)
    read_from(trained, BY_PATH)
    found, _, report = look(trained)
    assert "pressure" not in report.flagged
    bench = LookBench(found)
    rows = bench.live_rows(bench.network.schema)
    share = (rows.column("pressure") == 255).mean()
    assert 0.45 < share < 0.55  # 1700 rows: 4 standard deviations


def test_a_spec_reads_back_its_live_source_and_keeps_its_training_key(trained) -> None:
    """A training would get another key for a key of the spec that it does not use."""
    before = load_spec(trained.spec)
    assert "source" not in msgspec.json.decode(before.resolved_json())["drift"]
    read_from(trained, BY_PATH)
    spec = load_spec(trained.spec)
    assert type(spec).from_resolved(spec.resolved_json()) == spec
    assert spec.live_query().columns == (*spec.variables, "_unobserved")
    assert spec.query() == before.query()
    assert Path(spec.live_query().path).suffix == ".parquet"
