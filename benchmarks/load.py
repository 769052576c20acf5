"""A load generator that costs little beside what it measures: precomputed bytes over kept connections, on uvloop.

A closed loop has so many clients, each of which asks again when it is answered. An open loop asks at a rate, whether or
not it is answered, and counts from when each request was due: a server that stalls cannot hide it by being asked less.
``python -m benchmarks.load`` serves a fixed answer, which shows what the generator itself takes.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

Address = tuple[str, int]
BROKEN: Final = 0
"""Status of a request whose connection ended without an answer, or could not be had."""

_LENGTH: Final = b"content-length: "
_ID: Final = b"x-request-id: "
_MOST: Final = 2000
"""Connections of an open loop; a request that finds none free is broken."""
_PATIENCE: Final = 30.0


@dataclass(frozen=True)
class Load:
    """What came of a load.

    Parameters
    ----------
    began, seconds : float64 (requests,)
        When each was sent (or, in an open loop, due), on the clock of ``time.monotonic``, and how long it took.
    status : int16 (requests,)
        HTTP status, :data:`BROKEN` where there was none.
    elapsed : float
        Seconds in all.
    ids : tuple of str
        What the service called the requests it answered with 200, if they were asked for.
    connections : int
        Opened.
    first_failure : bytes
        The first answer that was neither 200 nor 503.
    """

    began: NDArray[np.float64]
    seconds: NDArray[np.float64]
    status: NDArray[np.int16]
    elapsed: float
    ids: tuple[str, ...] = ()
    connections: int = 0
    first_failure: bytes = b""

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which were answered with 200."""
        return np.equal(self.status, 200)

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return float(self.good.sum()) / self.elapsed

    @property
    def by_status(self) -> dict[int, int]:
        """How many of each status."""
        return dict(sorted(Counter(self.status.tolist()).items()))

    def quantile(self, share: float, status: int = 200) -> float:
        """Seconds within which this share of the requests of one status was answered; NaN if there are none."""
        chosen = self.seconds[self.status == status]
        return float(np.quantile(chosen, share)) if chosen.size else float("nan")

    def between(self, first: float, last: float) -> Load:
        """Give the requests that began in [first, last), on the clock of ``time.monotonic``."""
        chosen = (self.began >= first) & (self.began < last)
        return Load(self.began[chosen], self.seconds[chosen], self.status[chosen], last - first)


def post(path: str, body: bytes, *, content_type: str = "application/json", headers: str = "") -> bytes:
    """Give the bytes of a request."""
    head = f"POST {path} HTTP/1.1\r\nHost: load\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{headers}\r\n".encode() + body


def run_load(load: Coroutine[Any, Any, Load]) -> Load:
    """Run :func:`closed_loop` or :func:`open_loop` on a uvloop of its own, without collections of garbage."""
    import uvloop

    gc.collect()
    gc.disable()
    try:
        return uvloop.run(load)
    finally:
        gc.enable()


async def closed_loop(
    address: Address,
    requests: Sequence[bytes],
    *,
    clients: int,
    seconds: float = float("inf"),
    count: int | None = None,
    ids: bool = False,
    until: Callable[[], bool] | None = None,
) -> Load:
    """Ask with so many clients at once; who loses a connection reconnects.

    Parameters
    ----------
    address, requests
    clients : int
    seconds, count : float, int
        When to end: after a time, or so many requests.
    ids : bool
        Whether to keep what the service called the requests it answered.
    until : callable, optional
        Goes on after `seconds` until this is true.
    """
    record = _Record(itertools.cycle(requests), ids)
    left = iter(range(count)) if count is not None else itertools.count()
    end = time.monotonic() + seconds

    async def client() -> None:
        connection = None
        for _ in left:
            if time.monotonic() >= end and (until is None or until()):
                break
            connection = await _ask(record, connection, address, time.monotonic())
        if connection is not None:
            connection.close()

    began = time.monotonic()
    await asyncio.gather(*[client() for _ in range(clients)])
    return record.load(time.monotonic() - began)


async def open_loop(address: Address, requests: Sequence[bytes], *, rate: float, seconds: float) -> Load:
    """Ask at a rate for some seconds; latencies count from when a request was due."""
    record = _Record(itertools.cycle(requests), ids=False)
    free: list[_Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(due: float) -> None:
        connection = await _ask(record, free.pop() if free else None, address, due)
        if connection is not None:
            free.append(connection)

    began = time.monotonic()
    for number in range(round(rate * seconds)):
        due = began + number / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if len(tasks) >= _MOST:
            record.add(due, BROKEN)
            continue
        task = asyncio.get_running_loop().create_task(one(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    elapsed = time.monotonic() - began
    if tasks:
        await asyncio.wait(tasks, timeout=_PATIENCE)
    for connection in free:
        connection.close()
    return record.load(elapsed)


@dataclass(eq=False)
class _Record:
    """What is kept while a load runs."""

    requests: Iterator[bytes]
    ids: bool
    began: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    connections: int = 0
    first_failure: bytes = b""

    def add(self, began: float, status: int) -> None:
        self.began.append(began)
        self.seconds.append(time.monotonic() - began)
        self.status.append(status)

    def load(self, elapsed: float) -> Load:
        return Load(
            np.array(self.began),
            np.array(self.seconds),
            np.array(self.status, dtype=np.int16),
            elapsed,
            tuple(self.named),
            self.connections,
            self.first_failure,
        )


async def _ask(record: _Record, connection: _Connection | None, address: Address, due: float) -> _Connection | None:
    """Ask once; give the connection if it can be used again."""
    loop = asyncio.get_running_loop()
    if connection is None or connection.closed:
        try:
            _, made = await loop.create_connection(_Connection, *address)
        except OSError:
            record.add(due, BROKEN)
            await asyncio.sleep(0.01)  # nobody listens: not at full speed
            return None
        connection = made
        record.connections += 1
    answer = await connection.ask(next(record.requests))
    status = int(answer[9:12]) if answer else BROKEN
    record.add(due, status)
    if status == 200:
        if record.ids:
            record.named.append(_header(answer, _ID).decode())
    elif status not in (BROKEN, 503) and not record.first_failure:
        record.first_failure = answer
    return connection


class _Connection(asyncio.Protocol):
    """One kept connection, one request at a time."""

    def __init__(self) -> None:
        self.closed = False
        self._received = b""
        self._size = 0
        self._answer: asyncio.Future[bytes] | None = None

    def ask(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a request; its future holds the whole answer, nothing if the connection ends first."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        """End it."""
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not self._size:
            head = self._received.find(b"\r\n\r\n")
            if head < 0:
                return
            self._size = head + 4 + int(_header(self._received[: head + 2], _LENGTH) or 0)
            if b"connection: close" in self._received[:head].lower():
                self.closed = True
        if len(self._received) >= self._size:
            answer, self._received, self._size = self._received[: self._size], b"", 0
            self._finish(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._finish(b"")

    def _finish(self, answer: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


def _header(head: bytes, name: bytes) -> bytes:
    """Give a header's value, b'' if it is not there; servers write names in either case."""
    place = head.find(name)
    if place < 0:
        place = head.lower().find(name)
    return b"" if place < 0 else head[place + len(name) : head.find(b"\r\n", place)]


class _Fixed(asyncio.Protocol):
    """The server that does nothing: what is measured against it is the generator and the kernel."""

    ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-request-id: 0\r\n\r\n{}"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.ANSWER)


@contextmanager
def trivial_server() -> Iterator[Address]:
    """Serve a fixed answer from another process."""
    command = [sys.executable, "-m", "benchmarks.load"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield "127.0.0.1", int(process.stdout.readline())
        finally:
            process.terminate()


async def _serve_fixed() -> None:
    server = await asyncio.get_running_loop().create_server(_Fixed, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve_fixed())
