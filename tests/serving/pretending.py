"""A real supervisor whose workers only pretend: some die before they are ready, as the serving file says.

``python pretending.py FILE`` runs it; a child is told its order instead. `drain` in the file is what a worker is told:
5 to come up, other values to die at once.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

COMES_UP = 5.0


def pretend(order_file: str) -> None:
    """Be a follower, or a worker."""
    import json

    order = json.loads(Path(order_file).read_bytes())
    if order["socket"] >= 0:
        if json.loads(order["spec_json"])["drain"] != COMES_UP:
            sys.exit(3)
        Path(order_file).with_suffix(".ready").touch()
    while os.getppid() == order["supervisor"]:
        signal.sigtimedwait([], 0.5)


def supervise(file: Path) -> int:
    """Run the supervisor."""
    from bnpipe.config.serving import load_serving
    from bnpipe.serving import server

    plain = server._Child
    server._Child = lambda name, _, *more: plain(name, "pretending", *more)  # type: ignore[assignment,misc]
    return server.run(load_serving(file), lambda: load_serving(file))


if __name__ == "__main__":
    if sys.argv[1].endswith(".json"):
        pretend(sys.argv[1])
    else:
        sys.exit(supervise(Path(sys.argv[1])))
