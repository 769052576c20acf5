"""Records as a service would write them, of a small network with every sort of variable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest

from bnpipe.answers import AnswerRecord, FeedbackRecord
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def clinic() -> Network:
    """Bins with and without a state for nulls, states with and without `other`, truths; tables drawn with seed 3."""
    schema = Schema(
        (
            Variable("age", ("<40", "40..65", ">=65"), edges=(40.0, 65.0)),
            Variable("pressure", ("low", "high", "missing"), edges=(120.0,), missing="missing"),
            Variable("ward", ("1", "2", "elsewhere"), other="elsewhere"),
            Variable("smokes", ("true", "false")),
            Variable("back", ("no", "yes")),
        )
    )
    parents = {"age": (), "ward": ("age",), "pressure": ("age", "ward"), "smokes": (), "back": ("pressure", "smokes")}
    rng, tables = np.random.default_rng(3), {}
    for name, above in parents.items():
        weights = rng.random([schema[node].cardinality for node in (*above, name)])
        tables[name] = weights / weights.sum(axis=-1, keepdims=True)
    return Network(schema, parents, tables=tables)


def answer(number: int, rows: list[dict[str, Any]] | None = None, **changes: Any) -> AnswerRecord:
    """One answer; the number is in its id, its time and its text."""
    rows = [{"age": 40.5, "ward": 1, "smokes": True}] if rows is None else rows
    fields: dict[str, Any] = {
        "id": f"request-{number}",
        "at": NOON + timedelta(minutes=number),
        "model": "clinic",
        "version": 3,
        "content_hash": clinic().content_hash,
        "arm": "champion",
        "caller": "ward-3",
        "key": None,
        "kind": "posterior",
        "question": {"targets": ["back"]},
        "rows": rows,
        "answer": msgspec.json.encode([{"number": number, "row": place} for place in range(len(rows))]),
    }
    return AnswerRecord(**(fields | changes))


def feedback(request: str, row: int = 0, minutes: int = 60, **labels: str) -> FeedbackRecord:
    """What came of a row."""
    return FeedbackRecord(request, row, NOON + timedelta(minutes=minutes), "ward-3", "clinic", labels)


@pytest.fixture(scope="session")
def network() -> Network:
    """The clinic's network."""
    return clinic()
