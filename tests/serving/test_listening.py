"""Connections of a worker, on a transport in memory: what is turned away, and how the next request fares after it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from bnpipe.serving.listening import Connection, Server
from bnpipe.serving.observing import Observer
from bnpipe.serving.shedding import Receive, Scope, Send, Shedding

POST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"
GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.sent, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        """Nothing comes by itself."""

    def resume_reading(self) -> None:
        """Nothing comes by itself."""

    @property
    def statuses(self) -> list[int]:
        return [int(part[:3]) for part in self.sent.split(b"HTTP/1.1 ")[1:]]


class Counter(Observer):
    shedded = 0

    def shed(self) -> None:
        self.shedded += 1


class Worker:
    """A server whose application answers when it is let."""

    def __init__(self, most: int) -> None:
        self.go = asyncio.Event()
        self.observer = Counter()
        self.app = Shedding(self.answer, most, self.observer)
        self.config = uvicorn.Config(self.app, http="httptools", ws="none", lifespan="off", log_config=None)
        self.config.load()
        self.state = ServerState()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        await self.go.wait()
        said = scope["method"].encode() + body
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(said))]},
        )
        await send({"type": "http.response.body", "body": said})

    def connect(self) -> tuple[Connection, Wire]:
        connection, wire = Connection(self.config, self.state, {}, self.app), Wire()
        connection.connection_made(wire)
        return connection, wire


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), 20))  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_is_too_much_is_turned_away_where_it_is_read() -> None:
    """Of questions that come in one turn those beyond the bound get 503 with Retry-After before any is answered."""

    async def test() -> None:
        worker = Worker(most=2)
        pairs = [worker.connect() for _ in range(5)]
        for connection, _ in pairs:
            connection.data_received(POST)
        assert [wire.statuses for _, wire in pairs] == [[], [], [503], [503], [503]]
        assert b"retry-after: 1\r\n" in pairs[2][1].sent
        worker.go.set()
        await settle()
        assert [wire.statuses for _, wire in pairs] == [[200], [200], [503], [503], [503]]
        assert worker.observer.shedded == 3
        assert not any(wire.closed for _, wire in pairs)

    run(test)


def test_a_refused_connection_goes_on() -> None:
    """After a refusal the same connection is answered, also if the refused body came in pieces."""

    async def test() -> None:
        worker = Worker(most=1)
        (busy, _), (other, wire) = worker.connect(), worker.connect()
        busy.data_received(POST)
        for piece in (POST[:30], POST[30:-3], POST[-3:-1]):
            other.data_received(piece)
            assert wire.statuses == []
        other.data_received(POST[-1:])
        assert wire.statuses == [503]
        worker.go.set()
        await settle()
        other.data_received(POST)
        await settle()
        assert wire.statuses == [503, 200]
        assert wire.sent.endswith(b"POSTbody")

    run(test)


def test_what_is_no_question_is_never_turned_away() -> None:
    """A GET, such as the health check, is answered however many questions are held."""

    async def test() -> None:
        worker = Worker(most=1)
        (busy, _), (other, wire) = worker.connect(), worker.connect()
        busy.data_received(POST)
        other.data_received(GET)
        worker.go.set()
        await settle()
        assert wire.statuses == [200]
        assert worker.observer.shedded == 0

    run(test)


def test_who_wants_no_more_is_closed() -> None:
    """A refused caller that asked for the end of its connection gets it."""

    async def test() -> None:
        worker = Worker(most=1)
        (busy, _), (other, wire) = worker.connect(), worker.connect()
        busy.data_received(POST)
        other.data_received(POST.replace(b"Host: h", b"Host: h\r\nConnection: close"))
        assert wire.statuses == [503]
        assert wire.closed
        worker.go.set()
        await settle()

    run(test)


def test_pipelined_questions_are_answered_in_order() -> None:
    """A second question on a connection whose first is under way waits; it is not refused before the first's answer."""

    async def test() -> None:
        worker = Worker(most=1)
        connection, wire = worker.connect()
        connection.data_received(POST + POST.replace(b"body", b"more"))
        await settle()
        assert wire.statuses == []
        worker.go.set()
        await settle()
        assert wire.statuses[0] == 200
        assert len(wire.statuses) == 2
        assert wire.sent.index(b"POSTbody") > 0

    run(test)


@pytest.mark.parametrize("old", [False, True])
def test_no_connection_is_kept_for_ever(old: bool) -> None:
    """A connection past its time ends with its next answer, which says so; a young one is kept."""

    async def test() -> None:
        worker = Worker(most=4)
        worker.go.set()
        connection, wire = worker.connect()
        if old:
            connection._end = asyncio.get_running_loop().time() - 1.0
        connection.data_received(POST)
        await settle()
        assert wire.statuses == [200]
        assert wire.closed == old
        assert (b"connection: close" in wire.sent) == old

    run(test)


def test_long_bodies_come_whole() -> None:
    """A body of several megabytes in many pieces arrives as it was sent, in pieces of a bounded size."""

    async def test() -> None:
        worker, body = Worker(most=1), bytes(range(256)) * 10_000
        worker.go.set()
        connection, wire = worker.connect()
        connection.data_received(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body))
        for first in range(0, len(body), 60_000):
            connection.data_received(body[first : first + 60_000])
            await settle()
            assert len(connection.cycle.body) < 1_100_000
        await settle()
        assert wire.statuses == [200]
        assert wire.sent.endswith(b"POST" + body)

    run(test)


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("cut", [0, 30, 60, len(POST) - 4, len(POST) - 2])
def test_a_wish_for_another_protocol_is_passed_over(cut: int) -> None:
    """Java's client asks for HTTP/2 with its first request, whose body is read however it comes; so is what follows."""

    async def test() -> None:
        worker = Worker(most=4)
        worker.go.set()
        connection, wire = worker.connect()
        wish = POST.replace(b"Host: h\r\n", b"Host: h\r\n" + H2C)
        cut_there = cut + len(wish) - len(POST) if cut else 0
        for piece in filter(None, (wish[:cut_there], wish[cut_there:])):
            connection.data_received(piece)
            await settle()
        assert wire.statuses == [200]
        assert wire.sent.endswith(b"POSTbody")
        connection.data_received(POST.replace(b"body", b"more") + wish + GET)
        await settle()
        assert wire.statuses == [200] * 4
        assert wire.sent.endswith(b"GET")
        assert wire.sent.count(b"POSTbody") == 2
        assert not wire.closed

    run(test)


@pytest.mark.parametrize("whole", [False, True])
def test_a_header_may_not_be_long(whole: bool) -> None:
    """Beyond 32 kB it is refused and read no further, after a first request too; a body may be long as before."""

    async def test() -> None:
        worker = Worker(most=4)
        worker.go.set()
        connection, wire = worker.connect()
        connection.data_received(POST.replace(b"Length: 4", b"Length: 100000") + b"x" * 99_996)
        await settle()
        long = GET[:-2] + b"X: " + b"x" * 33_000 + (b"\r\n\r\n" if whole else b"")
        pieces = [long] if whole else [long[first : first + 1000] for first in range(0, len(long), 1000)]
        for piece in pieces:
            connection.data_received(piece)
        await settle()
        assert wire.statuses == [200, 431]
        assert b"application/problem+json" in wire.sent
        assert wire.closed

    run(test)


def test_what_follows_a_body_may_not_be_long() -> None:
    """Trailers that never end would be kept, all of them."""

    async def test() -> None:
        worker = Worker(most=4)
        connection, wire = worker.connect()
        connection.data_received(
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nX: "
        )
        for _ in range(33):
            assert not wire.closed
            connection.data_received(b"x" * 1000)
        assert wire.closed
        connection.connection_lost(None)
        worker.go.set()
        await settle()

    run(test)


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(b"", []), (GET[:9], [408]), (GET + GET[:9], [200, 408]), (GET + b"\r\n", [200]), (POST[:-1], [])],
    ids=["silent", "half", "half of the second", "between", "half a body"],
)
def test_a_header_must_come(sent: bytes, statuses: list[int]) -> None:
    """Who connects and is silent, or stops in a header, is let go; who has been answered, or sends a body, is not."""

    async def test() -> None:
        worker = Worker(most=4)
        worker.go.set()
        connection, wire = worker.connect()
        if sent:
            connection.data_received(sent)
        for _ in range(11):
            assert not wire.closed
            await settle()
            connection.grow_older()
        assert wire.statuses == statuses
        assert wire.closed == (sent in (b"", GET[:9], GET + GET[:9]))
        connection.connection_lost(None)
        await settle()

    run(test)


def test_a_header_may_wait_for_an_answer() -> None:
    """Half a request behind one that is under way is no reason to close; a refused one whose body never comes is."""

    async def test() -> None:
        worker = Worker(most=1)
        (busy, wire), (other, refused) = worker.connect(), worker.connect()
        busy.data_received(POST + POST[:20])
        other.data_received(POST[:-1])
        for _ in range(11):
            busy.grow_older()
            other.grow_older()
        assert not wire.closed
        assert (refused.statuses, refused.closed) == ([408], True)
        worker.go.set()
        await settle()
        busy.data_received(POST[20:])
        await settle()
        assert wire.statuses == [200, 200]

    run(test)


def test_connections_are_bounded_and_a_stop_takes_those_who_wait() -> None:
    """Beyond the bound callers wait until one ends; at a stop who waits is answered, and who comes later is refused."""

    async def test() -> None:
        worker, begun = Worker(most=4), asyncio.Event()
        worker.go.set()
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        address = listening.getsockname()
        server = Server(worker.config, listening, worker.app, alone=True, began=begun.set)
        server._most = 2
        running = asyncio.create_task(server.serve())
        await begun.wait()

        writers = []

        async def ask() -> asyncio.StreamReader:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET)
            writers.append(writer)
            return reader

        async def status(reader: asyncio.StreamReader) -> bytes:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            return head.split(b" ")[1] + (b" close" if b"connection: close" in head else b"")

        assert [await status(await ask()) for _ in range(2)] == [b"200", b"200"]
        third = await ask()
        await asyncio.sleep(0.1)
        assert len(server.server_state.connections) == 2
        writers[0].close()
        assert await status(third) == b"200"

        server._most = 100
        asyncio.get_running_loop().remove_reader(listening.fileno())  # as if it was busy when this one came
        late = await ask()
        server.should_exit = True
        assert await status(late) == b"200 close"
        assert not running.done()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        await running
        for writer in writers:
            writer.close()

    run(test)
