"""Questions that come together are one call of the engine, and each gets the bits it would have got alone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registry_bench import make_network, make_rows
from serving_bench import Kept, make_service

from bnpipe.config.serving import BatchSpec
from bnpipe.errors import DeadlineExceeded
from bnpipe.serving.answering import Options, answer, encode_answers
from bnpipe.serving.batching import Batcher, EngineCall
from bnpipe.serving.cells import Codes
from bnpipe.serving.questions import KINDS, Kind
from bnpipe.serving.service import Service
from bnpipe.serving.versions import ServedVersion

OPTIONS: dict[Kind, Options] = {
    "posterior": Options(("late", "note")),
    "predict": Options(("late",), abstain_below=0.9),
    "explanation": Options(("late",)),
    "likelihood": Options(),
    "invocations": Options(("late",)),
}


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ServedVersion:
    """A version of a small network."""
    return make_service(tmp_path_factory.mktemp("cache"), [make_network()]).shelf.model("flights").version(1)


def rows(count: int, seed: int = 0) -> list[Codes]:
    """Rows with holes, one by one."""
    rng = np.random.default_rng(seed)
    codes = np.array([rng.integers(0, cards, count) for cards in (2, 3, 2, 2)], dtype=np.uint8)
    codes[rng.random(codes.shape) < 0.4] = 255
    return [codes[:, place : place + 1] for place in range(count)]


def run(batcher: Batcher, use: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run in a loop of its own."""

    async def bounded() -> Any:
        return await asyncio.wait_for(use(), 60)

    try:
        return asyncio.run(bounded())
    finally:
        batcher.close()


@pytest.mark.parametrize("kind", [*KINDS, "invocations"])
def test_together_is_as_alone(version: ServedVersion, kind: Kind) -> None:
    """Sixty questions at once make one call, whose parts are the bytes of sixty calls."""
    calls: list[EngineCall] = []
    batcher = Batcher(BatchSpec(), on_batch=calls.append)
    asked = rows(60)

    async def use() -> list[bytes]:
        end = time.monotonic() + 30
        every = [batcher.submit(version, kind, OPTIONS[kind], codes, deadline=end) for codes in asked]
        return [encode_answers(found.answers) for found in await asyncio.gather(*every)]

    found = run(batcher, use)
    alone = [encode_answers(answer(version.engine, kind, OPTIONS[kind], codes)) for codes in asked]
    assert found == alone
    assert (calls[0].rows, calls[0].questions, len(calls)) == (60, 60, 1)


def test_kinds_options_and_versions_are_kept_apart(version: ServedVersion) -> None:
    """What differs in anything but its rows is another call."""
    calls: list[EngineCall] = []
    batcher = Batcher(BatchSpec(), on_batch=calls.append)
    (one,) = rows(1)

    async def use() -> None:
        end = time.monotonic() + 30
        asked = [("posterior", Options(("late",))), ("posterior", Options(("note",))), ("predict", Options(("late",)))]
        await asyncio.gather(
            *(batcher.submit(version, kind, options, one, deadline=end) for kind, options in asked for _ in range(3))  # type: ignore[arg-type]
        )

    run(batcher, use)
    assert sorted(call.questions for call in calls) == [3, 3, 3]


def test_many_rows_are_asked_in_parts(version: ServedVersion) -> None:
    """No call has more rows than allowed; the answers are in order, and the same as in one call."""
    calls: list[EngineCall] = []
    batcher = Batcher(BatchSpec(rows=64), on_batch=calls.append)
    codes = np.concatenate(rows(1000), axis=1)
    options = Options(("late",))

    async def use() -> bytes:
        found = await batcher.submit(version, "explanation", options, codes, deadline=time.monotonic() + 50)
        assert (found.call.rows, found.call.questions) == (1000, 1)
        assert found.call.seconds == sum(call.seconds for call in calls)
        return encode_answers(found.answers)

    found = run(batcher, use)
    assert found == encode_answers(answer(version.engine, "explanation", options, codes))
    assert max(call.rows for call in calls) <= 64
    assert sum(call.rows for call in calls) == 1000


def slow(seconds: float) -> Any:
    """An engine that takes its time, in steps."""

    def ask(version: ServedVersion, kind: Kind, options: Options, codes: Codes) -> list[dict[str, Any]]:
        time.sleep(seconds)
        return [{}] * codes.shape[1]

    return ask


def test_deadlines(version: ServedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits too long is told so at its deadline, not when the engine has finished; parts nobody waits for end."""
    monkeypatch.setattr("bnpipe.serving.batching._INLINE_CELLS", 0.0)
    calls: list[EngineCall] = []
    batcher = Batcher(BatchSpec(rows=8), ask=slow(0.2), on_batch=calls.append)
    codes = np.concatenate(rows(200), axis=1)

    async def use() -> tuple[float, float]:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="before its turn"):
            await batcher.submit(version, "posterior", Options(("late",)), codes[:, :1], deadline=began - 1)
        with pytest.raises(DeadlineExceeded, match="longer than the deadline"):
            await batcher.submit(version, "posterior", Options(("late",)), codes, deadline=began + 0.3)
        told = time.monotonic() - began
        await asyncio.sleep(1.0)
        return told, len(calls)

    told, made = run(batcher, use)
    assert 0.25 < told < 3.0
    assert made < 25, "200 rows in parts of 8"


def test_a_failure_is_everybodys_in_the_batch_and_nobody_elses(version: ServedVersion) -> None:
    """An engine that raises is told of, and the next call is made as if nothing had been."""
    calls: list[EngineCall] = []
    fails = [True]

    def ask(version: ServedVersion, kind: Kind, options: Options, codes: Codes) -> list[dict[str, Any]]:
        if fails.pop() if fails else False:
            raise RuntimeError("broken")
        return answer(version.engine, kind, options, codes)

    batcher = Batcher(BatchSpec(), ask=ask, on_batch=calls.append)

    async def use() -> list[Any]:
        end = time.monotonic() + 30
        first = [batcher.submit(version, "posterior", Options(("late",)), codes, deadline=end) for codes in rows(3)]
        found = await asyncio.gather(*first, return_exceptions=True)
        last = await batcher.submit(version, "posterior", Options(("late",)), rows(1)[0], deadline=end)
        return [*found, *last.answers]

    found = run(batcher, use)
    assert [type(one) for one in found] == [RuntimeError, RuntimeError, RuntimeError, dict]
    assert [call.error is None for call in calls] == [False, True]


def test_company_is_waited_for_only_under_load(version: ServedVersion) -> None:
    """With `wait`, a lone question is answered at once all the same."""
    batcher = Batcher(BatchSpec(wait=0.05))

    async def use() -> float:
        began = time.perf_counter()
        for _ in range(20):
            await batcher.submit(version, "posterior", Options(("late",)), rows(1)[0], deadline=time.monotonic() + 30)
        return time.perf_counter() - began

    assert run(batcher, use) < 20 * 0.05


def test_callers_who_have_gone_are_left_out(version: ServedVersion) -> None:
    """A cancelled question costs the engine nothing, and its neighbours keep their own answers."""
    calls: list[EngineCall] = []
    batcher = Batcher(BatchSpec(), on_batch=calls.append)
    asked = rows(5)

    async def use() -> list[Any]:
        end = time.monotonic() + 30
        tasks = [
            asyncio.create_task(batcher.submit(version, "posterior", Options(("late",)), codes, deadline=end))
            for codes in asked
        ]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(batcher, use)
    assert isinstance(found[1], asyncio.CancelledError)
    for place in (0, 2, 3, 4):
        assert found[place].answers == answer(version.engine, "posterior", Options(("late",)), asked[place])


def test_a_long_question_does_not_hold_up_short_ones(tmp_path: Path) -> None:
    """While 2000 rows with intervals are worked on, short questions are answered in between."""
    service: Service = make_service(tmp_path, log=Kept(), limits={"deadline": 60.0}, breaker={"slow": 60.0})
    table = make_rows(2000)[["rain", "wind"]].to_dict(orient="records")
    long = json.dumps({"rows": table, "interval": 0.9}).encode()
    caller = service.access.caller(None)

    async def one(body: bytes) -> float:
        began = time.perf_counter()
        await service.ask("posterior", "flights", body, caller, arrived=time.monotonic())
        return time.perf_counter() - began

    async def use() -> tuple[float, list[float]]:
        task = asyncio.create_task(one(long))
        short: list[float] = []
        while not task.done():
            body = json.dumps({"rows": [{"rain": "yes"}], "key": str(len(short)), "abstain_below": None}).encode()
            short.append(await one(body))
            await asyncio.sleep(0.002)
        return await task, short

    took, short = run(service.batcher, use)
    assert len(short) >= 20
    assert np.median(short) < took / 10, (took, max(short), len(short))
    print(took, np.median(short), max(short), len(short))
