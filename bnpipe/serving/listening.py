"""How a worker takes its share of the connections of a socket that all workers hold.

The socket is the supervisor's, and each worker accepts from it: connections that wait are nobody's yet, so none is lost
with a worker that dies, nor stuck in a queue of its own (as with SO_REUSEPORT) until its successor comes. But whoever
wakes first would take all there are, and kept connections stay where they are for hours. So a worker takes a few at a
time, an eighth of what it has, and hesitates the longer the more it has: the one with the fewest comes first. And no
connection is kept for ever: after a worker was away, its share comes back to it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from bnpipe.serving.shedding import RESPONSE, Shedding

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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        await super().startup(sockets=[])
        self._accepting = True
        self._wait()
        self.began()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, tell callers on kept connections to go elsewhere, then end the idle ones."""
        self._accepting = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.listening.fileno())
        self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
        end = loop.time() + min(_LINGER, self.config.timeout_graceful_shutdown or _LINGER)
        while self.server_state.connections and loop.time() < end and not self.force_exit:
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
        pause = 0.0
        for _ in range(most):
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
        self.shedding, self._turned_away = app, False
        self._end = self.loop.time() + _LIFETIME * random.uniform(0.5, 1.5)

    def on_headers_complete(self) -> None:
        """Begin to answer; the last time, say so."""
        free = self.cycle is None or self.cycle.response_complete
        full = len(self.tasks) >= self.shedding.most
        if full and free and not self.expect_100_continue and self.parser.get_method() == b"POST":
            self._turned_away = True
            return
        super().on_headers_complete()
        if self.loop.time() > self._end:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body; the question is woken when all is there, and before only if it is long."""
        if self._turned_away or self.cycle.response_complete:
            return
        self.cycle.body += body
        if len(self.cycle.body) > _PIECE:
            self.flow.pause_reading()
            self.cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Turn away now that the next request can be told from this one."""
        if not self._turned_away:
            super().on_message_complete()
            return
        self._turned_away = False
        self.shedding.observer.shed()
        self.transport.write(RESPONSE)
        if not self.parser.should_keep_alive():
            self.transport.close()
        self.on_response_complete()
