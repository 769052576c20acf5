"""What an answer was worth: from its own bytes, and from its evidence put to both versions again."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import bnpipe
from bnpipe.answers import AnswerRecord
from bnpipe.answers.columns import answers_table
from bnpipe.release.canary import CanaryPolicy, begin
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.steps.outcomes import LEAST, Log, comparable, encode, loss_of

SCHEMA = Schema(
    (
        Variable("note", ("none", "long"), missing="none"),
        Variable("age", ("(-inf, 40.0)", "[40.0, inf)"), edges=(40.0,)),
        Variable("late", ("no", "yes")),
    )
)


@pytest.mark.parametrize(
    ("answer", "loss"),
    [
        ({"posterior": {"late": {"no": 0.2, "yes": 0.8}}}, -math.log(0.8)),
        ({"posterior": {"late": {"no": 1.0, "yes": 0.0}}}, -math.log(LEAST)),
        ({"posterior": {"late": None}, "impossible": True}, math.nan),
        ({"posterior": {"other": {"yes": 1.0}}}, math.nan),
        ({"prediction": {"late": {"state": "yes", "probability": 0.7}}}, -math.log(0.7)),
        ({"prediction": {"late": {"state": "no", "probability": 0.7}}}, -math.log(0.3)),
        ({"prediction": {"late": {"state": None, "probability": 0.5, "abstained": True}}}, math.nan),
        ({"targets": {"late": {"belief": {"no": 0.4, "yes": 0.6}}}}, -math.log(0.6)),
        ({"log_likelihood": -3.0}, math.nan),
        ({}, math.nan),
    ],
)
def test_what_an_answer_said_of_what_came(answer: dict[str, Any], loss: float) -> None:
    """Each kind of answer has its log-loss when `yes` came, or says nothing of it."""
    assert loss_of(answer, "late", "yes") == pytest.approx(loss, nan_ok=True)


def test_what_was_left_out_is_not_what_is_missing() -> None:
    """A null may be a state; a cell that was never sent is unobserved."""
    data = encode([{"note": None, "age": 50}, {"age": 3.5}, {"note": "long", "age": None}], SCHEMA)
    assert data.column("note").tolist() == [0, MISSING, 1]
    assert data.column("age").tolist() == [1, 0, MISSING]
    assert data.column("late").tolist() == [MISSING] * 3


def test_only_targets_with_the_same_states_are_comparable() -> None:
    """Another set of states, or a target that one lacks, is left out."""
    other = Schema((SCHEMA["late"], Variable("note", ("none", "short", "long"))))
    assert comparable(SCHEMA, other, ["late", "note", "age"]) == ("late",)


def test_days_are_the_time_zones(tmp_path: Any) -> None:
    """A day of 23 hours ends at its own midnight, and rows around midnight belong to the right side of it."""
    frame = pd.DataFrame(
        {"note": ["none", "long"] * 4, "age": [30.0, 50.0] * 4, "late": ["no", "yes", "yes", "no"] * 2}
    )
    network = bnpipe.fit(bnpipe.Dataset.from_pandas(frame, SCHEMA), {"note": (), "age": (), "late": ("age",)})
    zone = ZoneInfo("Europe/Berlin")
    times = [datetime(2026, 3, 28, 23, 59, tzinfo=zone), datetime(2026, 3, 29, 0, 0, tzinfo=zone)]
    times += [datetime(2026, 3, 29, 23, 59, tzinfo=zone), datetime(2026, 3, 30, 0, 0, tzinfo=zone)]
    answers = pa.table(
        {
            "_at": pa.array([time.astimezone(UTC) for time in times], pa.timestamp("us", tz="UTC")),
            "_request": ["a", "b", "c", "d"],
            "_row": pa.array([0] * 4, pa.int32()),
            "_version": pa.array([1, 1, 2, 9], pa.int32()),
            "_arm": ["champion", "champion", "challenger", "pinned"],
            "_key": pa.array([None] * 4, pa.string()),
            "_question": ["{}"] * 4,
            "_evidence": ['{"age": 30.0}', '{"age": 30.0}', '{"age": 30.0, "note": "odd"}', "{}"],
            "_answer": ['{"posterior": {"late": {"no": 0.5, "yes": 0.5}}}'] * 4,
            "age": [30.0] * 4,
            "note": pa.array([None, None, "odd", None], pa.string()),
            "late": ["yes", "no", "yes", "no"],
        }
    )
    state = begin(version=2, champion=1, policy=CanaryPolicy(), now=times[0], salt="s")
    log = Log(state, CanaryPolicy(), {"champion": network, "challenger": network}, ("late",), "Europe/Berlin")
    first, second = log.outcomes(answers, answers)
    assert (first.end, second.start) == (datetime(2026, 3, 29, tzinfo=zone), datetime(2026, 3, 29, tzinfo=zone))
    assert (second.end.astimezone(UTC) - second.start.astimezone(UTC)).total_seconds() == 23 * 3600
    assert (first.champion.rows, second.champion.rows, second.challenger.rows) == (1, 1, 1)
    assert (second.champion.unseen, second.challenger.unseen) == (0, 1)
    assert second.champion.losses["late"].mean == pytest.approx(math.log(2))
    assert second.pairs["late"].rows == 2
    assert second.pairs["late"].mean == pytest.approx(0.0)
    hourly = Log(state, CanaryPolicy(cluster="hour"), log.networks, ("late",), "Europe/Berlin")
    assert [np.ptp([one.start.minute, one.end.minute]) for one in hourly.outcomes(answers, answers)] == [0, 0, 0]


NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def timed(*calls: dict[str, Any]) -> tuple[int, int]:
    """Log calls of one row each, as the fields say, and give how many could be compared and were slow."""
    frame = pd.DataFrame({"note": ["none", "long"] * 4, "age": [30.0, 50.0] * 4, "late": ["no", "yes"] * 4})
    network = bnpipe.fit(bnpipe.Dataset.from_pandas(frame, SCHEMA), {"note": (), "age": (), "late": ("age",)})
    version = {"champion": 1, "challenger": 2, "shadow": 2}
    records = [
        AnswerRecord(
            **{
                "id": f"r{number}", "at": NOON, "model": "m", "content_hash": "h", "caller": "c", "key": None,
                "kind": "posterior", "question": {"targets": ["late"]}, "rows": [{"age": 30.0}], "batch": 1,
                "answer": b'[{"posterior":{"late":{"no":0.5,"yes":0.5}}}]', "version": version[call["arm"]],
            } | call
        )
        for number, call in enumerate(calls)
    ]  # fmt: skip
    shadow = None if any(call["arm"] == "challenger" for call in calls) else 1.0
    state = begin(version=2, champion=1, policy=CanaryPolicy(), now=NOON, salt="s", shadow=shadow)
    log = Log(state, CanaryPolicy(), {"champion": network, "challenger": network}, ("late",), "UTC")
    table = answers_table(records)
    (day,) = log.outcomes(table, table.slice(0, 0))
    assert day.challenger.errors == sum("failed" in record.question for record in records)
    return day.challenger.timed, day.challenger.slow


CHAMPION = [{"arm": "champion", "seconds": 0.001 + 1e-6 * number} for number in range(20)]
"""The median is just above one millisecond; one of the champion's calls that is slow does not matter."""
TIMES = [{"arm": "challenger", "seconds": 0.0021 + 1e-6 * number} for number in range(5)]
FASTER = [{"arm": "challenger", "seconds": 0.0019}]


@pytest.mark.parametrize(
    ("calls", "found"),
    [
        ([*CHAMPION, *TIMES, *FASTER], (6, 5)),
        ([*CHAMPION, *({**one, "arm": "shadow"} for one in TIMES)], (5, 5)),
        ([*CHAMPION[:9], *TIMES], (0, 0)),
        ([*CHAMPION[:19], {"arm": "champion", "seconds": 9.0}, *TIMES], (5, 5)),
        ([*CHAMPION, *({**one, "seconds": None, "batch": 0} for one in TIMES)], (0, 0)),
        ([*CHAMPION, *({**one, "seconds": 0.0021} for one in TIMES)], (1, 1)),
        ([*CHAMPION, *({**one, "batch": 3} for one in TIMES)], (0, 0)),
        ([*CHAMPION, *({**one, "kind": "predict"} for one in TIMES)], (0, 0)),
        ([*CHAMPION, *({**one, "question": {"targets": ["note"]}} for one in TIMES)], (0, 0)),
        ([*CHAMPION, *({**one, "rows": [{"age": 3, "note": "none"}]} for one in TIMES)], (0, 0)),
        ([*CHAMPION, *({**one, "at": NOON + timedelta(hours=1)} for one in TIMES)], (0, 0)),
        (
            [*CHAMPION, {"arm": "shadow", "answer": b"[null]", "seconds": None, "question": {"failed": "it failed"}}],
            (0, 0),
        ),
    ],
    ids=[
        "canary",
        "shadow",
        "few",
        "robust",
        "remembered",
        "one-call",
        "batch",
        "kind",
        "question",
        "cells",
        "hour",
        "failed",
    ],
)
def test_calls_are_compared_with_like_ones(calls: list[dict[str, Any]], found: tuple[int, int]) -> None:
    """What differs in anything but the version would make an equal version look slow, or a slow one equal."""
    assert timed(*calls) == found
