"""The load generator against servers that misbehave in known ways; the benchmark and the soak, small."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import results, soak
from benchmarks.load import BROKEN, Address, Load, closed_loop, open_loop, post, run_load, trivial_server
from benchmarks.service import TARGET, flights_network, json_rows, questions
from bnpipe.data import Dataset
from bnpipe.serving.cells import CellEncoder

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: %d\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nretry-after: 1\r\n\r\nbusy"
WRONG = b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 0\r\n\r\n"


@contextmanager
def server(answer: Callable[[int], bytes | None], *, pause: float = 0.0) -> Iterator[Address]:
    """Answer the nth request with these bytes, in two pieces; None ends the connection."""
    number, loop = iter(range(10**9)), asyncio.new_event_loop()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65536):
            assert head.startswith(b"POST /x HTTP/1.1\r\n")
            await asyncio.sleep(pause)
            said = answer(next(number))
            if said is None:
                break
            writer.write(said[:20])
            await asyncio.sleep(0)
            writer.write(said[20:])
            if b"connection: close" in said:
                break
        writer.close()

    async def run() -> None:
        there = await asyncio.start_server(handle, "127.0.0.1", 0)
        address.append(there.sockets[0].getsockname())
        begun.set()
        await stop.wait()
        there.close()

    stop, begun, address = asyncio.Event(), threading.Event(), list[Address]()
    thread = threading.Thread(target=asyncio.Runner(loop_factory=lambda: loop).run, args=(run(),))
    thread.start()
    begun.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


REQUEST = [post("/x", b"{}")]


def test_answers_are_counted_by_status() -> None:
    """Each answer counts once, under its status, with its id; the first that is neither good nor busy is kept."""
    with server(lambda n: (OK % n, BUSY, WRONG)[n % 3]) as address:
        load = run_load(closed_loop(address, REQUEST, clients=1, count=30, ids=True))
    assert load.by_status == {200: 10, 422: 10, 503: 10}
    assert load.ids == tuple(str(n) for n in range(0, 30, 3))
    assert load.connections == 1
    assert load.first_failure == WRONG
    assert load.good.sum() == 10
    assert math.isnan(load.quantile(0.5, status=404))


def test_a_lost_connection_is_one_broken_request() -> None:
    """A connection that ends without an answer breaks one request; the next has a new one."""
    with server(lambda n: None if n == 5 else OK % n) as address:
        load = run_load(closed_loop(address, REQUEST, clients=1, count=10))
    assert load.by_status == {BROKEN: 1, 200: 9}
    assert load.connections == 2


def test_a_closed_connection_is_no_failure() -> None:
    """After an answer with ``Connection: close`` the client comes again by another connection."""
    with server(lambda n: (OK % n).replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")) as address:
        load = run_load(closed_loop(address, REQUEST, clients=2, count=10))
    assert load.by_status == {200: 10}
    assert load.connections == 10


def test_nobody_there_is_broken() -> None:
    """Where nobody listens each request is broken, and the loop ends."""
    with server(lambda n: OK % n) as address:
        pass
    load = run_load(closed_loop(address, REQUEST, clients=2, count=6))
    assert load.by_status == {BROKEN: 6}


def test_a_closed_loop_has_so_many_clients() -> None:
    """Four clients of a server that takes 20 ms get at most 200 answers a second, and each waits 20 ms."""
    with server(lambda n: OK % n, pause=0.02) as address:
        load = run_load(closed_loop(address, REQUEST, clients=4, seconds=0.5))
    assert load.connections == 4
    assert 4 <= load.good.sum() <= 4 * 0.55 / 0.02 + 4
    assert load.seconds.min() >= 0.02
    assert load.between(load.began.min(), load.began.min() + 0.01).status.size == 4


def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    """A server that stops for half a second delays all that were due meanwhile, though each was asked only later."""
    stall = iter([0.5])

    def answer(n: int) -> bytes:
        if n == 20:
            time.sleep(next(stall))
        return OK % n

    with server(answer) as address:
        load = run_load(open_loop(address, REQUEST, rate=100.0, seconds=1.0))
    assert load.by_status == {200: 100}
    assert load.began.size == 100
    np.testing.assert_allclose(np.diff(np.sort(load.began)), 0.01, atol=1e-6)
    assert (load.seconds > 0.1).sum() >= 30  # 0.4 s of them waited longer than 0.1 s
    assert load.quantile(1.0) >= 0.45


def test_the_generator_is_no_bottleneck() -> None:
    """Against a server that does nothing it asks thousands of times a second; a service does not."""
    with trivial_server() as address:
        load = run_load(closed_loop(address, REQUEST, clients=8, seconds=1.0))
    assert set(load.by_status) == {200}
    assert load.per_second > 2000  # tens of thousands on an idle machine


def test_rows_are_read_as_they_were_drawn() -> None:
    """The rows sent are encoded as the codes they were made of, so the measured questions are those of the network."""
    network = flights_network(rows=2000)
    rows = json_rows(network, 300, seed=3)
    found = CellEncoder(network.schema).encode(rows)
    assert not found.unseen
    assert not found.unknown
    expected = json_rows_codes(network, 300, seed=3)
    np.testing.assert_array_equal(found.codes, expected)
    assert all(TARGET not in row for row in rows)
    few = json_rows(network, 300, seed=3, unobserved=0.3)
    assert 0.6 < sum(map(len, few)) / sum(map(len, rows)) < 0.8
    assert len(questions(rows, each=100)) == 3


def json_rows_codes(network, rows: int, seed: int) -> np.ndarray:
    from benchmarks.networks import sample

    drawn: Dataset = sample(network, rows, seed)
    codes = drawn.codes.copy()
    codes[network.schema.index(TARGET)] = 255
    return codes


def load_of(seconds: list[float], status: list[int], began: list[float] | None = None) -> Load:
    start = began or list(np.linspace(0.0, 10.0, len(seconds), endpoint=False))
    return Load(np.array(start), np.array(seconds), np.array(status, dtype=np.int16), 10.0)


def test_a_soak_is_judged() -> None:
    """Failures, slow swaps and growth are told from what was measured."""
    load = load_of([0.001] * 50 + [0.004] * 50, [200] * 99 + [503])
    swaps = (soak.Swap(2, 5.0, 5.5),)
    steady = [(float(at), 100.0) for at in range(10)]
    growing = [(float(at), 100.0 + 5 * at) for at in range(10)]
    soaked = soak.Soaked(load, swaps, (6.0, 7.0), {"worker-1": steady, "worker-2": growing}, "")
    assert soaked.failed == 1
    assert soaked.before.quantile(0.99) == pytest.approx(0.001)
    assert soaked.in_swaps.quantile(0.99) == pytest.approx(0.004)
    assert soaked.growth()["worker-1"] == (100.0, 100.0)
    assert soaked.grown() == ["worker-2"]
    failed, slower, grown = soak.result(soak.Plan(), soaked).targets
    assert (failed.verdict, slower.verdict, grown.verdict) == ("missed", "missed", "missed")


def test_versions_change_under_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 20 s three promotions, and a restart of MLflow's server, fail no request; no process grows."""
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    networks = [flights_network(seed, rows=5000) for seed in range(4)]
    soaked = soak.run(soak.Plan(seconds=20.0), tmp_path, networks)
    assert not soaked.failure
    assert [swap.version for swap in soaked.swaps] == [2, 3, 4]
    assert soaked.load.by_status == {200: soaked.load.status.size}, soaked.load.first_failure
    assert soaked.away[1] > soaked.away[0] > soaked.swaps[1].seen
    # The follower loads its Parquet library when the first journal is closed, which here is in the middle.
    assert not [name for name in soaked.grown() if name != "follower"]
    # The target is 3 times; other processes on the machine delay both.
    assert soaked.in_swaps.quantile(0.99) < max(8 * soaked.before.quantile(0.99), 0.25)


def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make bench ARGS=serving` asks both services, for one row and a thousand, and writes its section."""
    monkeypatch.setattr(command, "CACHE", tmp_path / "cache")
    command.main(["serving", "--tiny", "--page", str(tmp_path / "page.md")])
    result, _ = results.read_result(tmp_path / "cache" / "results" / "serving.json")
    assert all(len(row) == len(table.columns) for table in result.tables for row in table.rows)
    assert {target.verdict for target in result.targets} <= {"met", "missed"}
    shown = str(result.tables)
    assert "bnpipe serve" in shown
    assert "mlflow models serve" in shown
