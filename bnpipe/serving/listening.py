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

_HESITATION: Final = 0.0003
"""Seconds, for each connection held."""
_LONGEST: Final = 0.003
_SHARE: Final = 8
"""Of the connections held, one in so many is taken at a time, so that thousands do not come one by one."""
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
    began : callable
        Called when connections are accepted.
    """

    def __init__(
        self, config: uvicorn.Config, listening: socket.socket, *, alone: bool, began: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.listening, self.alone, self.began = listening, alone, began
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
            loop.call_later(min(held * _HESITATION, _LONGEST), self._take, 1 + held // _SHARE)
        else:
            self._take(_SHARE if self.alone else 1)

    def _take(self, most: int) -> None:
        """Accept up to so many connections, then wait for others."""
        if not self._accepting:
            return
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
        return _Connection(self.config, self.server_state, self.lifespan.state)


class _Connection(HttpToolsProtocol):
    """Uvicorn's connection, but not for ever."""

    def __init__(self, config: uvicorn.Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self._end = self.loop.time() + _LIFETIME * random.uniform(0.5, 1.5)

    def on_headers_complete(self) -> None:
        """Begin to answer; the last time, say so."""
        super().on_headers_complete()
        if self.loop.time() > self._end:
            self.cycle.keep_alive = False
