"""The way of an answer: who answers, what happens when they fail, what is kept, and how that is told."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from registry_bench import make_network
from serving_bench import Kept, ask, make_service, over_http, reign, send

import bnpipe
from bnpipe.answers import evidence_hash, reproduce
from bnpipe.errors import DeadlineExceeded, EvidenceError, JournalError, NotServed, QuestionError, ServiceBusy
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable
from bnpipe.serving.access import ANONYMOUS, Caller
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.batching import EngineCall
from bnpipe.serving.observing import Observer
from bnpipe.serving.questions import KINDS, Kind
from bnpipe.serving.routing import Canary, choose_arm
from bnpipe.serving.service import Service
from bnpipe.serving.versions import ServedVersion

OLD, NEW = make_network(200), make_network(400)
ROW = {"rain": "yes"}
SECRET = "canary-" + "of-a-row"
BREAKER = {"of": 4, "failures": 0.5, "pause": 5.0}


def belief(network: Network, row: dict[str, Any], target: str = "late") -> list[float]:
    """Straight from the engine."""
    return [float(p) for p in bnpipe.compile(network).query(row, [target])[target]]


def told(reply: dict[str, Any], target: str = "late") -> list[float]:
    """The belief of a reply's first row."""
    return list(reply["answers"][0]["posterior"][target].values())


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        """Tell them."""
        return self.now


def break_version(service: Service, *numbers: int, error: Exception | None = None) -> list[int]:
    """Let the engines of versions fail; gives the versions called, as they are."""
    called: list[int] = []
    ask_engine = service.batcher.ask

    def ask_or_fail(version: ServedVersion, kind: Kind, options: Options, codes: Any) -> Any:
        called.append(version.number)
        if version.number in numbers:
            raise error or RuntimeError(SECRET)
        return ask_engine(version, kind, options, codes)

    service.batcher.ask = ask_or_fail
    return called


def test_the_champion_answers(tmp_path: Path) -> None:
    """With its own bits; absent cells are summed out, strange ones told, several rows in order."""
    service = make_service(tmp_path, [OLD, NEW])
    reply = ask(service, "posterior", [ROW, {"rain": "hail"}, {}], targets=["late", "note"])
    assert (reply["version"], reply["arm"], reply["model"]) == (2, "champion", "flights")
    assert told(reply) == belief(NEW, ROW)
    assert told(reply, "note") == belief(NEW, ROW, "note")
    assert reply["unseen"] == [{"row": 1, "variable": "rain", "value": "hail"}]
    assert reply["answers"][1] == reply["answers"][2]
    assert told(ask(service, "posterior", [ROW], version=1)) == belief(OLD, ROW)


def test_null_is_missing_and_absent_is_unobserved(tmp_path: Path) -> None:
    """A variable with a state for nulls tells the two apart."""
    schema = Schema((Variable("a", ("x", "gone"), missing="gone"), Variable("b", ("n", "y"))))
    tables = {"a": np.array([0.5, 0.5]), "b": np.array([[0.9, 0.1], [0.2, 0.8]])}
    network = Network(schema, {"a": (), "b": ("a",)}, tables=tables)
    service = make_service(tmp_path, [network], targets=("b",))
    reply = ask(service, "posterior", [{"a": None}, {}, {"a": "x"}])
    assert [row["posterior"]["b"]["y"] for row in reply["answers"]] == pytest.approx([0.8, 0.45, 0.1])


@pytest.mark.parametrize("kind", KINDS)
def test_impossible_evidence_is_said(tmp_path: Path, kind: Kind) -> None:
    """Late and on time can't be: null for what is not defined, the flag set, other rows unharmed."""
    service = make_service(tmp_path, [NEW])
    reply = ask(
        service,
        kind,
        [{"late": True, "note": "on time"}, ROW],
        **({} if kind == "likelihood" else {"targets": ["rain"]}),
    )
    first, second = reply["answers"]
    assert first["impossible"] is True
    assert second["impossible"] is False
    empty = {"posterior": "posterior", "predict": "prediction", "explanation": "targets"}
    if kind == "likelihood":
        assert first["log_likelihood"] is None
        assert first["quantile"] == 0.0
    else:
        assert first[empty[kind]] == {"rain": None}


@pytest.mark.parametrize(
    ("kind", "more", "at"),
    [
        ("likelihood", {"targets": ["late"]}, "targets"),
        ("predict", {"interval": 0.9}, "interval"),
        ("posterior", {"abstain_below": 0.5}, "abstain_below"),
        ("explanation", {"targets": ["late", "gate"]}, "targets"),
    ],
)
def test_a_kind_has_its_own_options(tmp_path: Path, kind: Kind, more: dict[str, Any], at: str) -> None:
    """What a kind does not know is refused, not ignored."""
    service = make_service(tmp_path)
    with pytest.raises(QuestionError) as refused:
        ask(service, kind, [ROW], **more)
    assert refused.value.at == at


def test_an_imported_network_has_no_intervals(tmp_path: Path) -> None:
    """Asking for what only counts can tell is the caller's mistake, and no failure of the model."""
    tables = {node: NEW.cpd(node).table for node in NEW.nodes}
    service = make_service(tmp_path, [Network(NEW.schema, NEW.parents, tables=tables)])
    with pytest.raises(QuestionError, match="no counts"):
        ask(service, "posterior", [ROW], interval=0.9)


def test_unknown_variables_and_states_as_the_file_says(tmp_path: Path) -> None:
    """Refused with what was received and what is allowed, or ignored and told."""
    strict = make_service(tmp_path, models={"flights": {"unknown_states": "refuse"}})
    with pytest.raises(QuestionError, match=r"rows\[1\]: no variable 'gate'.*there are rain, wind, late, note"):
        ask(strict, "posterior", [ROW, {"gate": "B"}])
    with pytest.raises(QuestionError, match=r"rows\[0\].rain: got 'hail', which is no state.*there are no, yes"):
        ask(strict, "posterior", [{"rain": "hail"}])
    lax = make_service(tmp_path, defaults={"unknown_variables": "ignore"})
    reply = ask(lax, "posterior", [{**ROW, "gate": "B"}])
    assert reply["ignored"] == ["gate"]
    assert told(reply) == belief(NEW, ROW)


def test_a_version_that_is_not_here(tmp_path: Path) -> None:
    """404 says what there is and what to do; a model without a champion is busy, not missing."""
    service = make_service(tmp_path)
    with pytest.raises(NotServed, match=r"version 7 is not served.*a pin in the serving file.*there are 1"):
        ask(service, "posterior", [ROW], version=7)
    empty = make_service(tmp_path / "other")
    reign(tmp_path / "other", None, {}, faults={"3": "damaged"})
    assert empty.shelf.refresh()
    with pytest.raises(ServiceBusy, match="no champion to answer: damaged"):
        ask(empty, "posterior", [ROW])


# -- failures


def test_a_failing_champion_is_replaced_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the previous version; after enough failures without asking it again; and back when it works."""
    clock = Clock()
    service = make_service(tmp_path, [OLD, NEW], previous=1, breaker=BREAKER, clock=clock, log=Kept())
    called = break_version(service, 2)
    for number in range(6):
        reply = ask(
            service,
            "posterior",
            [{"wind": number % 3 + 1}],
            key=str(number),
            targets=["late", "note", "rain"][: number % 3 + 1],
        )
        assert (reply["arm"], reply["version"]) == ("fallback", 1)
        assert reply["fallback"]["instead_of"] == 2
        assert reply["fallback"]["answered_by"] == "version 1"
        assert told(reply) == belief(OLD, {"wind": number % 3 + 1})
    assert called.count(2) == 4, "the breaker opened"
    champion = service.shelf.model("flights").version(2)
    assert service.breaker_state(champion) == "open"
    assert SECRET not in caplog.text + json.dumps(reply)
    assert "RuntimeError" in caplog.text
    records = service.log.answers  # type: ignore[union-attr]
    assert {record.arm for record in records} == {"fallback"}
    assert {record.version for record in records} == {1}
    service.batcher.ask = lambda version, kind, options, codes: [{"posterior": {"late": {"x": 1.0}}}]
    clock.now += 5.1
    assert ask(service, "posterior", [{"wind": 2, "rain": "no"}])["arm"] == "champion"
    assert service.breaker_state(champion) == "closed"


@pytest.mark.parametrize("kind", ["posterior", "predict"])
def test_when_all_fail_the_marginal_is_given_and_said(tmp_path: Path, kind: Kind) -> None:
    """It is what is believed when nothing is known; each row has it."""
    service = make_service(tmp_path, [OLD, NEW], previous=1)
    break_version(service, 1, 2)
    reply = ask(service, kind, [ROW, {}])
    assert (reply["arm"], reply["version"], reply["fallback"]["answered_by"]) == ("fallback", 2, "marginal")
    assert reply["answers"][0] == reply["answers"][1]
    marginal = belief(NEW, {})
    if kind == "posterior":
        assert told(reply) == marginal
    else:
        assert reply["answers"][0]["prediction"]["late"]["probability"] == max(marginal)
    found = send(service, "POST", "/invocations", json={"dataframe_records": [ROW]})
    assert found.json()["fallback"]["answered_by"] == "marginal"
    assert [found.json()["predictions"][0][f"late={state}"] for state in ("false", "true")] == marginal


@pytest.mark.parametrize("kind", ["explanation", "likelihood"])
def test_what_has_no_marginal_is_refused(tmp_path: Path, kind: Kind) -> None:
    """503 with a time to come again."""
    service = make_service(tmp_path, [NEW])
    break_version(service, 1)
    found = send(service, "POST", f"/v1/models/flights/{kind}", json={"rows": [ROW]})
    assert found.status_code == 503
    assert int(found.headers["retry-after"]) >= 1
    assert SECRET not in found.text


def test_nobody_who_wants_one_version_gets_another(tmp_path: Path) -> None:
    """A pinned caller is refused rather than answered by what it did not ask for; so is everybody without fallback."""
    service = make_service(tmp_path, [OLD, NEW], previous=1)
    break_version(service, 2)
    with pytest.raises(ServiceBusy, match="version 2 does not answer"):
        ask(service, "posterior", [ROW], version=2)
    plain = make_service(tmp_path, [OLD, NEW], previous=1, defaults={"fallback": False})
    break_version(plain, 2)
    with pytest.raises(ServiceBusy):
        ask(plain, "posterior", [ROW])


def test_deadlines_and_the_callers_mistakes_open_no_breaker(tmp_path: Path) -> None:
    """A queue that is too long, and questions that are wrong, say nothing of the model."""
    service = make_service(tmp_path, breaker={"of": 2, "failures": 0.5})

    async def late() -> None:
        body = json.dumps({"rows": [{}]}).encode()
        await service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock() - 100)

    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            asyncio.run(late())
        with pytest.raises(QuestionError):
            ask(service, "posterior", [ROW], targets=["gate"])
    assert service.breaker_state(service.shelf.model("flights").version(1)) == "closed"
    assert ask(service, "posterior", [ROW])["arm"] == "champion"


def test_slow_calls_open_it(tmp_path: Path) -> None:
    """What counts is the engine's time, not the queue's."""
    service = make_service(tmp_path, [OLD, NEW], previous=1, breaker={"of": 2, "failures": 1.0, "slow": 0.5})
    champion = service.shelf.model("flights").version(2)
    for _ in range(2):
        service._called(EngineCall(champion, "posterior", 1, 1, 0.7, None))
    reply = ask(service, "posterior", [ROW])
    assert (reply["arm"], reply["version"]) == ("fallback", 1)
    assert "rests after failures" in reply["fallback"]["reason"]


def test_cost_and_rows_are_limited(tmp_path: Path) -> None:
    """413 says how much it would be and how much may be; less of the same is answered."""
    service = make_service(tmp_path, limits={"rows": 5, "cost": 5e5})
    for rows, more in ((6, {}), (4, {"interval": 0.9, "targets": ["late", "note", "rain", "wind"]})):
        found = send(service, "POST", "/v1/models/flights/posterior", json={"rows": [ROW] * rows, **more})
        assert found.status_code == 413, found.text
        assert "allowed" in found.json()["detail"]
    assert len(ask(service, "posterior", [ROW] * 5)["answers"]) == 5


# -- remembered, logged


def test_answers_are_remembered_by_version_and_evidence(tmp_path: Path) -> None:
    """The same evidence asks the engine once, whatever the order of its cells; another version or option does not."""
    hits: list[bool] = []

    class Hits(Observer):
        def cached(self, *, hit: bool) -> None:
            hits.append(hit)

    service = make_service(tmp_path, [OLD, NEW], observer=Hits(), log=Kept())
    first = ask(service, "posterior", [{"rain": "yes", "wind": 3}])
    again = ask(service, "posterior", [{"wind": 3.0, "rain": "yes"}])
    assert first["answers"] == again["answers"]
    assert first["request_id"] != again["request_id"]
    ask(service, "posterior", [{"rain": "yes", "wind": 3}], version=1)
    ask(service, "predict", [{"rain": "yes", "wind": 3}])
    assert hits == [False, True, False, False]
    assert len(service.log.records) == 4, "what is remembered is logged as well"  # type: ignore[union-attr]
    none = make_service(tmp_path, [NEW], answers_cached=0)
    ask(none, "posterior", [ROW])
    assert len(none.remembered) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_answer_is_kept_so_that_it_can_be_made_again(tmp_path: Path, kind: Kind) -> None:
    """Who asked, what, of which version; the bytes come out the same from the network alone."""
    more: dict[str, Any] = {"posterior": {"interval": 0.8}, "predict": {"abstain_below": 0.9}}.get(kind, {})
    service = make_service(tmp_path, [NEW], log=Kept())
    rows = [{"rain": "hail", "wind": 3}, {"late": False}]
    reply = ask(service, kind, rows, caller=Caller("eve"), key="C-1", **more)
    (record,) = service.log.answers  # type: ignore[union-attr]
    assert (record.id, record.caller, record.key, record.kind) == (reply["request_id"], "eve", "C-1", kind)
    assert (record.version, record.arm, record.content_hash) == (1, "champion", NEW.content_hash)
    assert json.loads(record.answer) == reply["answers"]

    def again(network: Network, kind: Any, question: Any, rows: Any) -> bytes:
        return answer_rows(bnpipe.compile(network), kind, msgspec.convert(question, Options), rows)

    assert reproduce(record, NEW, again).same


def test_by_policy_only_a_hash_of_the_evidence_is_kept(tmp_path: Path) -> None:
    """Enough to prove what was asked about, not to know it."""
    service = make_service(tmp_path, log=Kept(), answers={"evidence": "hash"})
    ask(service, "posterior", [ROW])
    (record,) = service.log.answers  # type: ignore[union-attr]
    assert (record.rows, record.body) == (None, b"")
    assert record.evidence_hash == evidence_hash([ROW])


def test_no_answer_leaves_unlogged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log that can't be written to refuses answers and labels, if they are required; else it is an error line."""
    log = Kept(full=True)
    service = make_service(tmp_path, log=log)
    with pytest.raises(JournalError):
        ask(service, "posterior", [ROW])
    found = send(service, "POST", "/v1/models/flights/posterior", json={"rows": [ROW]})
    assert (found.status_code, found.headers["retry-after"]) == (503, "5")
    lax = make_service(tmp_path, log=log, answers={"required": False})
    assert ask(lax, "posterior", [ROW])["version"] == 1
    assert "could not be logged" in caplog.text


def test_labels_are_kept(tmp_path: Path) -> None:
    """As states, one or many; a wrong one refuses the whole list, and says which."""
    service = make_service(tmp_path, log=Kept())

    def give(*labels: dict[str, Any]) -> int:
        every = [{"model": "flights", "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036", "labels": one} for one in labels]
        return send(service, "POST", "/v1/feedback", json=every if len(every) > 1 else every[0]).status_code

    assert give({"late": True}) == 202
    assert give({"late": False, "wind": 3.0}, {"note": "on time"}) == 202
    assert [record.labels for record in service.log.feedback] == [  # type: ignore[union-attr]
        {"late": "true"},
        {"late": "false", "wind": "3"},
        {"note": "on time"},
    ]
    for wrong in ({"late": "perhaps"}, {"gate": "B"}, {"late": None}, {}):
        assert give({"late": True}, wrong) == 422
    assert len(service.log.feedback) == 3  # type: ignore[union-attr]
    unlogged = make_service(tmp_path)
    body = {"model": "flights", "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036", "labels": {"late": True}}
    assert send(unlogged, "POST", "/v1/feedback", json=body).status_code == 503


# -- canary and shadow


def test_a_canary_gets_its_keys(tmp_path: Path) -> None:
    """Each key always the same arm, as `choose_arm` says; pinned callers and versions asked for are not routed."""
    canary = Canary(2, 0.5, salt="s")
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=canary, log=Kept())
    arms = {}
    for number in range(40):
        reply = ask(service, "posterior", [ROW], key=f"customer {number}")
        arms[number] = reply["arm"]
        assert reply["arm"] == choose_arm(f"customer {number}", canary)
        assert told(reply) == belief(NEW if reply["arm"] == "challenger" else OLD, ROW)
    assert set(arms.values()) == {"champion", "challenger"}
    everyone = make_service(tmp_path, [OLD, NEW], champion=1, canary=Canary(2, 1.0))
    assert ask(everyone, "posterior", [ROW])["arm"] == "challenger"
    assert ask(everyone, "posterior", [ROW], caller=Caller("old", pins={"flights": 1}))["arm"] == "pinned"


def test_a_failing_challenger_falls_back_to_the_champion(tmp_path: Path) -> None:
    """And the answer counts for no arm."""
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=Canary(2, 1.0), log=Kept())
    break_version(service, 2)
    reply = ask(service, "posterior", [ROW])
    assert (reply["arm"], reply["version"], reply["fallback"]["instead_of"]) == ("fallback", 1, 2)
    assert told(reply) == belief(OLD, ROW)


@pytest.mark.parametrize("fails", [False, True])
def test_a_shadow_is_asked_and_not_heard(tmp_path: Path, fails: bool) -> None:
    """Its answer, or why there is none, is logged under the same id; the caller has the champion's in any case."""
    distances: list[float] = []

    class Watcher(Observer):
        def shadow(self, model: str, version: int, *, apart: float) -> None:
            distances.append(apart)

    canary = Canary(2, 0.0, 1.0)
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=canary, log=Kept(), observer=Watcher())
    if fails:
        break_version(service, 2)

    async def use() -> dict[str, Any]:
        body = json.dumps({"rows": [ROW]}).encode()
        reply = await service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock())
        await service.drain()
        return dict(json.loads(reply.body))

    reply = asyncio.run(use())
    assert reply["arm"] == "champion"
    records = service.log.answers  # type: ignore[union-attr]
    assert [record.arm for record in records] == ["champion", "shadow"]
    assert [record.failed for record in records] == ["", "it failed (RuntimeError)" if fails else ""]
    assert (records[1].answer == b"[null]") == fails
    assert SECRET not in str(records)
    assert len({record.id for record in records}) == 1
    expected = abs(belief(OLD, ROW)[0] - belief(NEW, ROW)[0])
    assert distances == ([] if fails else [pytest.approx(expected)])


def test_a_shadow_that_is_never_asked_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is counted, and nothing is logged of it: the others under way are not its fault."""
    spared: list[str] = []

    class Watcher(Observer):
        def unshadowed(self, model: str) -> None:
            spared.append(model)

    monkeypatch.setattr("bnpipe.serving.service._SHADOWS", 0)
    canary = Canary(2, 0.0, 1.0)
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=canary, log=Kept(), observer=Watcher())
    ask(service, "posterior", [ROW])
    assert spared == ["flights"]
    assert [record.arm for record in service.log.answers] == ["champion"]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ServiceBusy("it rests"), "it rests"),
        (DeadlineExceeded("too late"), "too late"),
        (EvidenceError(f"no state {SECRET}"), "it failed (EvidenceError)"),
    ],
    ids=["busy", "late", "evidence"],
)
def test_why_a_shadow_failed_holds_nothing_of_a_row(tmp_path: Path, error: Exception, said: str) -> None:
    """Words of errors that may name a value stay out of the log, which may keep only hashes."""
    canary = Canary(2, 0.0, 1.0)
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=canary, log=Kept(), answers={"evidence": "hash"})
    break_version(service, 2, error=error)

    async def use() -> None:
        body = json.dumps({"rows": [ROW, {}]}).encode()
        await service.ask("predict", "flights", body, ANONYMOUS, arrived=service.clock())
        await service.drain()

    asyncio.run(use())
    shadow = service.log.answers[1]  # type: ignore[union-attr]
    assert (shadow.failed, shadow.answer, shadow.row_answers()) == (said, b"[null,null]", ["null", "null"])
    assert SECRET not in str(shadow)


@pytest.mark.parametrize(
    ("canary", "arms"),
    [(Canary(2, 0.0, 1.0), ["champion", "shadow"]), (Canary(2, 1.0), ["challenger"])],
    ids=["shadow", "canary"],
)
def test_answers_are_timed_unless_they_were_remembered(tmp_path: Path, canary: Canary, arms: list[str]) -> None:
    """By the engine's call they came from, the same for each arm, and with the rows that were in it."""
    service = make_service(tmp_path, [OLD, NEW], champion=1, canary=canary, log=Kept())
    ask_engine = service.batcher.ask

    def slow(version: ServedVersion, *question: Any) -> Any:
        time.sleep(0.03 * version.number)
        return ask_engine(version, *question)

    service.batcher.ask = slow

    async def use() -> None:
        body = json.dumps({"rows": [ROW, {}]}).encode()
        for together in (3, 1):
            every = [
                service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock()) for _ in range(together)
            ]
            await asyncio.gather(*every)
            await service.drain()

    asyncio.run(use())
    records = service.log.answers  # type: ignore[union-attr]
    for arm in arms:
        mine = [record for record in records if record.arm == arm]
        assert [record.batch for record in mine] == [6, 6, 6, 0]
        assert all(record.seconds >= (0.03 if arm == "champion" else 0.06) for record in mine[:3])
        assert len({record.seconds for record in mine[:3]}) == 1
        assert mine[3].seconds is None


# -- under strain


def test_too_many_at_once_are_turned_away_at_once(tmp_path: Path) -> None:
    """Beyond `limits.waiting` 503 with Retry-After; those that were let in are answered; GETs always are."""
    service = make_service(tmp_path, limits={"waiting": 3, "deadline": 30.0})
    inner = service.ask

    async def slow(*arguments: Any, **more: Any) -> Any:
        await asyncio.sleep(0.3)
        return await inner(*arguments, **more)

    service.ask = slow  # type: ignore[method-assign]

    async def use(client: Any) -> tuple[list[int], list[float], int]:
        async def one() -> tuple[int, float]:
            began = time.monotonic()
            found = await client.post("/v1/models/flights/posterior", json={"rows": [{}]})
            assert found.status_code == 200 or found.headers["retry-after"] == "1"
            return found.status_code, time.monotonic() - began

        tasks = [asyncio.create_task(one()) for _ in range(10)]
        await asyncio.sleep(0.1)
        health = (await client.get("/health")).status_code
        found = await asyncio.gather(*tasks)
        again, _ = await one()
        return [*(status for status, _ in found), again], [took for status, took in found if status == 503], health

    statuses, refused, health = over_http(service, use)
    assert sorted(statuses) == [200] * 4 + [503] * 7
    assert statuses[-1] == 200, "there is room again"
    assert max(refused) < 0.3
    assert health == 200


def test_a_body_that_never_comes_is_given_up(tmp_path: Path) -> None:
    """Slow senders can't hold places: 408 at the deadline."""
    service = make_service(tmp_path, limits={"deadline": 0.2})

    async def dribble() -> Any:
        yield b'{"rows": '
        await asyncio.sleep(30)

    async def use(client: Any) -> int:
        headers = {"content-type": "application/json"}
        found = await client.post("/v1/models/flights/posterior", content=dribble(), headers=headers)
        return int(found.status_code)

    began = time.monotonic()
    assert over_http(service, use) == 408
    assert time.monotonic() - began < 10


def test_a_swap_loses_nobody(tmp_path: Path) -> None:
    """A question that has chosen its version is answered by it, even if another reigns before the engine is asked."""
    service = make_service(tmp_path, [OLD, NEW], champion=1)
    held = service.shelf.model("flights")

    async def use() -> list[dict[str, Any]]:
        body = json.dumps({"rows": [ROW]}).encode()
        task = asyncio.create_task(service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock()))
        await asyncio.sleep(0)
        service.shelf.models = {"flights": type(held)("flights", held.version(2), versions={2: held.version(2)})}
        after = await service.ask("posterior", "flights", body, ANONYMOUS, arrived=service.clock())
        return [json.loads((await task).body), json.loads(after.body)]

    before, after = asyncio.run(use())
    assert (before["version"], told(before)) == (1, belief(OLD, ROW))
    assert (after["version"], told(after)) == (2, belief(NEW, ROW))


def test_an_unforeseen_error_is_a_problem_document(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """500 without a word of what was in the row, there or in the log."""
    service = make_service(tmp_path)

    def broken(*_: Any, **__: Any) -> Any:
        raise KeyError(SECRET)

    service.shelf.model = broken  # type: ignore[method-assign]
    caplog.set_level(logging.DEBUG)
    found = send(service, "POST", "/v1/models/flights/posterior", json={"rows": [ROW]})
    assert found.status_code == 500
    assert found.json()["title"] == "Failed"
    assert SECRET not in found.text + caplog.text
    assert "KeyError" in caplog.text
