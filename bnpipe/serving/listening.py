"""How a worker takes its share of the connections of a socket that all workers hold.

The socket is the supervisor's, and each worker accepts from it: connections that wait are nobody's yet, so none is lost
with a worker that dies, nor stuck in a queue of its own (as with SO_REUSEPORT) until its successor comes. But whoever
wakes first would take all there are, and kept connections stay where they are for hours. So a worker takes one at a
time, and hesitates the longer the more it has: the one with the fewest comes first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

import uvicorn

_HESITATION: Final = 0.0003
"""Seconds, for each connection held."""
_LONGEST: Final = 0.01
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
        held = 0 if self.alone else len(self.server_state.connections)
        if not held:
            self._accept()
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.listening.fileno())
        loop.call_later(min(held * _HESITATION, _LONGEST), self._accept_late)

    def _accept_late(self) -> None:
        if self._accepting:
            self._accept()
            self._wait()

    def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            connection, _ = self.listening.accept()
        except (BlockingIOError, ConnectionAbortedError):  # another worker was quicker, or the caller has gone
            return
        except OSError as error:
            _log.error("no connection can be accepted: %s", error.strerror)
            loop.remove_reader(self.listening.fileno())
            loop.call_later(_NO_ROOM, self._wait)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    def _protocol(self) -> asyncio.Protocol:
        made: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = made(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
