"""A worker: one process, one event loop, its own versions, its own journal; only the port is shared."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
import threading
import time
from typing import Final

from bnpipe.config import Settings
from bnpipe.config.serving import answers_folder, cache_folder
from bnpipe.errors import JournalError
from bnpipe.serving.access import Access
from bnpipe.serving.access_log import AccessLog
from bnpipe.serving.app import create_app
from bnpipe.serving.metrics import PrometheusObserver
from bnpipe.serving.process import read_order, set_up_logging, share_counters, tell_ready, when_parent_is_gone
from bnpipe.serving.service import Service
from bnpipe.serving.shelf import Shelf
from bnpipe.serving.tracing import make_tracing

_LOOK: Final = 0.25
"""Seconds between looks at the situation."""
_GARBAGE: Final = (50_000, 20, 100)
"""A question of 10 000 rows makes 40 000 objects and no garbage; to look through them all took 70 ms, often."""
_FIRST: Final = 30.0
"""Seconds that a worker waits for a first situation."""
_SWITCH: Final = 0.0005
"""Seconds a thread that loads a version may keep the interpreter from answering."""

_log = logging.getLogger(__name__)


def main() -> int:
    """Serve until told to stop."""
    import uvicorn

    from bnpipe.answers.journal import JOURNAL, Journal
    from bnpipe.serving.listening import Server

    order = read_order(sys.argv[1])
    spec, settings = order.spec, Settings.from_environ()
    set_up_logging(order.name)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.setswitchinterval(_SWITCH)
    shelf = Shelf(cache_folder(spec, settings), spec)
    _wait_for_first(shelf)
    folder = answers_folder(spec, settings) / JOURNAL
    journal = Journal(folder, order.name, fsync=spec.answers.fsync, later=True)
    share_counters(order.name)
    observer = PrometheusObserver()
    service = Service(spec, shelf, Access(spec.clients, anonymous=spec.open_to_all), journal, observer)
    app = create_app(
        service,
        metrics=observer.expose,
        tracing=make_tracing(spec.tracing, order.name),
        access_log=AccessLog(spec.log),
    )
    observer.watch(service, lambda: app.held)
    observer.start()
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(spec.drain),
    )
    listening = socket.socket(fileno=order.socket)
    listening.setblocking(False)
    server = Server(config, listening, app, alone=spec.workers == 1, began=lambda: tell_ready(sys.argv[1]))

    def stop() -> None:
        server.should_exit = True

    def watch() -> None:
        told = ""
        while not server.should_exit:
            try:
                journal.tick()
                told = ""
            except JournalError as error:
                if str(error) != told:
                    told = str(error)
                    _log.error("until this is mended, nothing can be logged: %s", error)
            time.sleep(1.0)

    threading.Thread(target=shelf.follow, args=(_LOOK,), daemon=True, name="shelf").start()
    threading.Thread(target=watch, daemon=True, name="watch").start()
    when_parent_is_gone(order, stop)
    gc.collect()
    gc.freeze()  # what was imported never becomes garbage: collections stay short
    gc.set_threshold(*_GARBAGE)
    with listening:
        server.run()
    shelf.stop()
    observer.stop()
    journal.close()
    return 0


def _wait_for_first(shelf: Shelf) -> None:
    """Take no connection before there is something to answer from, or the follower has given up on the registry."""
    end = time.monotonic() + _FIRST
    while not shelf.refresh() and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
