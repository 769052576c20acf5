"""Fill the peers' cells of search quality, which takes hours: ``python -m benchmarks.sweep pyagrum pgmpy``.

It can be stopped and started again; what is done is kept.
"""

from __future__ import annotations

import argparse
import logging
import math
import signal
import sys

from benchmarks.cells import CONTENDERS, NETWORKS, problems, sweep

_log = logging.getLogger("benchmarks.sweep")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--cpu-limit", type=float, default=900.0, help="seconds of processor time of one cell")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the child at work is ended too
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    contenders = [contender for contender in CONTENDERS if contender.engine in chosen.engines]
    for line in sweep(contenders, problems(chosen.networks), cpu_limit=chosen.cpu_limit, seconds=math.inf):
        _log.info(line)


if __name__ == "__main__":
    main()
