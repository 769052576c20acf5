"""`bnpipe audit`: from a request's id to the same bytes, by the registered version, or to a plain no."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from registry_bench import add_versions

import bnpipe
from bnpipe.answers import AnswerRecord, Journal, compact, evidence_hash, new_request_id
from bnpipe.cli import main
from bnpipe.registry import Registry
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.rules import marginal_answers

AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
ROWS = [{"rain": "yes", "wind": 3.0, "note": None}, {"wind": 9, "other": True}, {}]


@pytest.fixture
def registered(mlflow_uri, monkeypatch, tmp_path):
    """Where answers are logged, and the network of version 1."""
    add_versions(mlflow_uri, "flights", 1)
    monkeypatch.setenv("BNPIPE_ANSWERS", str(tmp_path / "audit"))
    registry = Registry(mlflow_uri)
    return tmp_path / "audit", registry.load_network(registry.version("flights", 1))


def record_of(network, kind="posterior", rows=ROWS, **changes) -> AnswerRecord:
    options = Options() if kind == "likelihood" else Options(targets=("late",))
    fields = {
        "id": new_request_id(AT), "at": AT, "model": "flights", "version": 1, "content_hash": network.content_hash,
        "arm": "champion", "caller": "gate 3", "key": "flight 4", "kind": kind,
        "question": msgspec.to_builtins(options), "rows": rows,
        "answer": answer_rows(bnpipe.compile(network), kind, options, rows),
    }  # fmt: skip
    return AnswerRecord(**(fields | changes))


def log(folder, *records, compacted=True) -> None:
    with Journal(folder / "journal", "w") as journal:
        journal.append(records)
    if compacted:
        compact(folder)


def test_what_was_answered_is_told_and_comes_out_the_same(registered, capsys) -> None:
    """The registered version gives other bits than the service gave, or another one is asked."""
    folder, network = registered
    records = [
        record_of(network, kind) for kind in ("posterior", "predict", "explanation", "likelihood", "invocations")
    ]
    log(folder, *records[:2])
    log(folder, *records[2:], compacted=False)
    for record in records:
        assert main(["audit", record.id]) == 0
        said = capsys.readouterr().out
        assert "again     the same, bit for bit" in said
        assert f"answer    {record.answer.decode()}" in said
        assert "when      2026-03-02 09:30:00.000000 UTC" in said
        assert "who       gate 3, key flight 4" in said
        assert (
            '\n          {"note":null,"rain":"yes","wind":3.0}\n' in said
            or '{"rain":"yes","wind":3.0,"note":null}' in said
        )


def test_a_fallback_to_the_marginal_comes_out_the_same(registered, capsys) -> None:
    """An answer given in need could not be justified later."""
    folder, network = registered
    engine = bnpipe.compile(network)
    marginals = {
        name: dict(zip(network.schema[name].states, table.tolist(), strict=True))
        for name, table in engine.marginals().items()
    }
    text = marginal_answers(engine, marginals, "posterior", Options(targets=("late",)), len(ROWS))
    question = {"targets": ["late"], "fallback": {"instead_of": 1, "reason": "x", "answered_by": "marginal"}}
    record = record_of(network, arm="fallback", question=question, answer=text)
    assert text != record_of(network).answer
    log(folder, record)
    assert main(["audit", record.id]) == 0
    assert 'fallback  {"answered_by":"marginal","instead_of":1' in capsys.readouterr().out


def test_a_changed_answer_another_network_or_none_is_said(registered, capsys) -> None:
    """A forged log would pass, or a version that was replaced."""
    folder, network = registered
    genuine = record_of(network)
    forged = record_of(network, answer=genuine.answer.replace(b"0.", b"0.1", 1))
    replaced = record_of(network, content_hash="0" * 64)
    deleted = record_of(network, version=7)
    log(folder, forged, replaced, deleted)
    for record, said in (
        (forged, f"NOT the same: {genuine.answer.decode()}"),
        (replaced, "NOT asked: request"),
        (deleted, "NOT asked: "),
    ):
        assert main(["audit", record.id]) == 1
        assert said in capsys.readouterr().out
    assert main(["audit", "nobody"]) == 1
    assert "no answer to a request or key 'nobody'" in capsys.readouterr().err


def test_answers_are_found_by_the_callers_own_key(registered, capsys) -> None:
    """Who knows only its order's number could prove nothing: ids are the service's."""
    folder, network = registered
    records = [
        record_of(network, id=new_request_id(at), at=at, key=key)
        for at, key in ((AT - timedelta(days=30), "order-4711"), (AT, "order-4711"), (AT, "order-4712"))
    ]
    log(folder, *records)
    assert main(["audit", "order-4711"]) == 0
    said = capsys.readouterr().out
    assert said.count("again     the same, bit for bit") == 1
    assert f"request   {records[1].id}" in said
    many = [record_of(network, id=new_request_id(AT + timedelta(hours=hour))) for hour in range(25)]
    log(folder, *many, compacted=False)
    assert main(["audit", "flight 4"]) == 0
    said = capsys.readouterr().out
    assert said.count("again     the same") == 20
    assert many[-1].id in said
    assert many[4].id not in said


def test_by_policy_the_evidence_is_brought_and_its_hash_checked(registered, capsys, tmp_path) -> None:
    """With only the hash kept nothing could be proved, or anything."""
    folder, network = registered
    record = record_of(network)
    log(folder, msgspec.structs.replace(record, rows=None, evidence_hash=evidence_hash(ROWS)))
    assert main(["audit", record.id]) == 1
    assert "give the evidence itself" in capsys.readouterr().out
    file = tmp_path / "rows.json"
    for held, code in (({"rows": ROWS, "targets": ["late"]}, 0), (ROWS, 0), (ROWS[:1], 1), ("rows", 2), ([[1]], 2)):
        file.write_bytes(msgspec.json.encode(held))
        assert main(["audit", record.id, "--evidence", str(file), "--answers", str(folder)]) == code
    assert "has the hash" in capsys.readouterr().out


def test_a_shadow_that_failed_is_told_and_no_fault_of_the_answer(registered, capsys) -> None:
    """Whoever asks what became of a request would not learn that its shadow failed, or take that for a forged log."""
    folder, network = registered
    record = record_of(network, seconds=0.00123, batch=4)
    reason = "it failed (RuntimeError)"
    shadow = msgspec.structs.replace(
        record, arm="shadow", answer=b"[null,null,null]", question=record.question | {"failed": reason}, seconds=None
    )
    log(folder, record, shadow)
    assert main(["audit", record.id]) == 0
    answered, failed = capsys.readouterr().out.split("\n\n")
    assert "took      1.23 ms, a call of the engine with 4 rows" in answered
    assert "again     the same" in answered
    assert failed.strip().endswith(f"answer    none: {reason}")


def test_a_shadow_is_audited_too(registered, capsys) -> None:
    """What the challenger would have said could not be checked."""
    folder, network = registered
    record = record_of(network)
    log(folder, record, msgspec.structs.replace(record, arm="shadow"))
    assert main(["audit", record.id]) == 0
    said = capsys.readouterr().out
    assert said.count("the same, bit for bit") == 2
    assert "as shadow" in said
