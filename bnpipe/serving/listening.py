"""How a worker takes its share of the connections of a socket that all workers hold.

The socket is the supervisor's, and each worker accepts from it: connections that wait are nobody's yet, so none is lost
with a worker that dies, nor stuck in a queue of its own (as with SO_REUSEPORT) until its successor comes. But whoever
wakes first would take all there are, and kept connections stay where they are for hours. So a worker takes a few at a
time, an eighth of what it has, and hesitates the longer the more it has: the one with the fewest comes first. And no
connection is kept for ever: after a worker was away, its share comes back to it.

What a caller may hold before anybody has looked at its key is bounded: how many connections, how long one may be
without a whole header, and how much of one is read.
"""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import socket
from collections.abc import Callable
from typing import Any, Final

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from bnpipe.serving.shedding import RESPONSE, Shedding, farewell

_HESITATION: Final = 0.0003
"""Seconds, for each connection held."""
_LONGEST: Final = 0.003
_SHARE: Final = 8
"""Of the connections held, one in so many is taken at a time, so that thousands do not come one by one."""
_LATE: Final = 0.005
"""Seconds by which the event loop lags when there is too much to do: then all who wait are taken, to be turned away."""
_ALL: Final = 1000
_PIECE: Final = 1_000_000
"""Bytes of a body that are handed over at once; by pieces of 64 kB, as uvicorn does it, a thousand rows wait longer."""
_LIFETIME: Final = 60.0
"""Seconds after which a connection ends with its next answer; each has between half and one and a half of it."""
_NO_ROOM: Final = 0.5
"""Seconds until a worker that has no file descriptors left tries again."""
_LINGER: Final = 1.0
"""Seconds in which a stopping worker still answers on kept connections, with ``Connection: close``."""
_CONNECTIONS: Final = 4000
"""Of one worker, at most."""
_FILES: Final = 128
"""Files that connections leave to the rest of the worker, such as a journal, where few may be open."""
_HEADER: Final = 32_768
"""Bytes of a request's line and headers."""
_PATIENCE: Final = 10
"""Looks, about a second apart, at which a connection may be without a request's whole header."""
_TOO_LONG: Final = farewell(431, f"request line and headers have more than the {_HEADER} bytes allowed")
_TOO_SLOW: Final = farewell(408, f"no whole request came within {_PATIENCE} seconds")

_log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """Uvicorn's server on a shared socket.

    Parameters
    ----------
    config : uvicorn.Config
    listening : socket
        Non-blocking; stays the caller's.
    alone : bool
        Whether there is no other worker, so no reason to hesitate.
    app : Shedding
        The same as the config's.
    began : callable
        Called when connections are accepted.
    """

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, app: Shedding, *, alone: bool, began: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.listening, self.app, self.alone, self.began = listening, app, alone, began
        self._accepting = False
        self._arriving: set[asyncio.Task[Any]] = set()
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        few = files != resource.RLIM_INFINITY and files < _CONNECTIONS + _FILES
        self._most = max(files - _FILES, files // 2, 1) if few else _CONNECTIONS

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=[])
        self._accepting = True
        self._wait()
        self.began()

    async def on_tick(self, counter: int) -> bool:
        """Look after connections, once a second; by ticks, so that callers do not pay for a process that was halted."""
        if counter % 10 == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.grow_older()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept those who wait and no more, tell callers to go elsewhere next time, then end the idle connections.

        The socket is closed at once: if no other process holds it, later callers are refused instead of waiting.
        """
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.listening.fileno())
        self._take(self._most, loop.time())
        self._accepting = False
        loop.remove_reader(self.listening.fileno())
        self.listening.close()
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        end = loop.time() + min(_LINGER, self.config.timeout_graceful_shutdown or _LINGER)
        while (self.server_state.connections or self._arriving) and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        await super().shutdown(sockets=[])

    def _wait(self) -> None:
        if self._accepting:
            asyncio.get_running_loop().add_reader(self.listening.fileno(), self._incoming)

    def _incoming(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.listening.fileno())
        held = 0 if self.alone else len(self.server_state.connections)
        if held:
            due = loop.time() + min(held * _HESITATION, _LONGEST)
            loop.call_at(due, self._take, 1 + held // _SHARE, due)
        else:
            self._take(_ALL if self.alone else 1, loop.time())

    def _take(self, most: int, due: float) -> None:
        """Accept up to so many connections, then wait for others."""
        if not self._accepting:
            return
        if asyncio.get_running_loop().time() > due + _LATE:
            most = _ALL
        room = self._most - len(self.server_state.connections) - len(self._arriving)
        pause = 0.0
        if room <= 0:
            _log.error("%d connections are held, which is all there may be; others wait", self._most)
            pause = _NO_ROOM
        for _ in range(min(most, room)):
            try:
                connection, _ = self.listening.accept()
            except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the caller has gone
                break
            except OSError as error:
                _log.error("no connection can be accepted: %s", error.strerror)
                pause = _NO_ROOM
                break
            self._receive(connection)
        if pause:
            asyncio.get_running_loop().call_later(pause, self._wait)
        else:
            self._wait()

    def _receive(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _protocol(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state, self.app)


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, but not for ever; questions beyond what may be held are turned away where they are read.

    The check of :class:`Shedding` comes too late for those that arrive in one turn of the event loop: by then each has
    a task, and those that are accepted wait until the others have had their turn.
    """

    def __init__(
        self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any], app: Shedding
    ) -> None:
        super().__init__(config, server_state, app_state)
        self.shedding, self._turned_away, self._changing = app, False, False
        self._end = self.loop.time() + _LIFETIME * random.uniform(0.5, 1.5)
        self._age: int | None = 0  # looks without a whole header; None: there is one, or nothing was begun
        self._unused = 0  # bytes since the last that were of some use

    def data_received(self, data: bytes) -> None:
        """Read what came. A wish for another protocol, such as h2c, is passed over, as RFC 9110 (7.8) allows."""
        self._unused += len(data)
        try:
            while True:
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as wish:
                    if not self._changing:  # CONNECT
                        break
                    data = self._unchanged() + data[wish.args[0] :]
        except httptools.HttpParserError:
            if self._unused <= _HEADER:
                self.logger.warning("Invalid HTTP request received.")
                self.send_400_response("Invalid HTTP request received.")
                return
        if self._unused > _HEADER:
            self.logger.warning("Too long a header received.")
            self._dismiss(_TOO_LONG)

    def _unchanged(self) -> bytes:
        """Write the request's line and headers without the wish for another protocol, and take a parser for them."""
        head = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        kept = [b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser, self._changing = httptools.HttpRequestParser(self), False
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([head, *kept, b"\r\n"])

    def _dismiss(self, text: bytes) -> None:
        if text and self._idle and not self.transport.is_closing():
            self.transport.write(text)
        self.transport.close()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def grow_older(self) -> None:
        """Close the connection if it has been without a request's whole header for too long."""
        if self._age is None:
            return
        self._age = self._age + 1 if self._idle else 0
        if self._age > _PATIENCE:
            self._dismiss(_TOO_SLOW if self.scope is not None else b"")  # None: not a byte came

    def on_message_begin(self) -> None:
        """Begin to wait for a header."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        if self._age is None:
            self._age = 0

    def on_headers_complete(self) -> None:
        """Begin to answer; the last time, say so."""
        method = self.parser.get_method()
        if self.parser.should_upgrade() and method != b"CONNECT":
            self._changing = True
            return
        if self._unused > _HEADER:  # perhaps for its body only
            if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > _HEADER:
                raise ValueError("too long")  # ends the parser
            self._unused = 0
        self._unset_keepalive_if_required()
        full = len(self.tasks) >= self.shedding.most
        if full and self._idle and not self.expect_100_continue and method == b"POST":
            self._turned_away = True
            return
        self._age = None
        super().on_headers_complete()
        if self.loop.time() > self._end:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body; the question is woken when all is there, and before only if it is long."""
        self._unused = 0
        if self._turned_away or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > _PIECE:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Turn away now that the next request can be told from this one."""
        if self._changing:
            return
        self._unused = 0
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away, self._age = False, None
        self.shedding.observer.shed()
        self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()
        self.on_response_complete()
