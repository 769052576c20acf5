"""``python -m benchmarks [PART …]``: measure, print, and write the sections of docs/benchmarks.md."""

from __future__ import annotations

import argparse
import importlib
import logging
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.machine import BUSY, conditions
from benchmarks.networks import CACHE
from benchmarks.report import PAGE, show, write_section
from benchmarks.results import write_result

PARTS: Final = {
    "search": "seconds of hill climbing",
    "quality": "the scores and graphs reached",
    "inference": "posteriors, likelihood, most probable explanation",
    "agreement": "the same answers on every published network",
    "fit": "conditional distributions of a given graph",
    "bootstrap": "arc strength by 200 bootstraps",
    "drift": "live rows compared with a network",
    "scaling": "cost against rows, variables and threads",
    "order": "what the order of columns changes",
    "serving": "the service beside that of MLflow",
}
ENGINES: Final = ("bnpipe", "pyagrum", "pgmpy")


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    console = Console(width=None if Console().is_terminal else 180)
    for part in chosen.parts or PARTS:
        before = conditions()
        if before.load > BUSY:
            console.print(f"[yellow]Others keep {before.load} cores busy: seconds will be too long.[/yellow]")
        started = time.monotonic()
        module = importlib.import_module(f"benchmarks.{part}")
        plan: Any = module.TINY if chosen.tiny else module.PLAN
        result = module.run(plan, tuple(chosen.engines))
        show(result, console)
        console.print(f"{part}: {time.monotonic() - started:.0f} s")
        write_result(CACHE / "results" / f"{part}.json", result, before)
        write_section(chosen.page, result, before, tuple(PARTS))


def _parser() -> argparse.ArgumentParser:
    about = "\n".join(f"  {part:10} {what}" for part, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=f"parts, all if none is named:\n{about}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("parts", nargs="*", metavar="PART", type=_part, help="what to measure")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES, help="whom to measure")
    parser.add_argument("--tiny", action="store_true", help="small inputs, to see that everything runs")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/benchmarks.md)")
    return parser


def _part(name: str) -> str:
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"no part {name!r}; there are {', '.join(PARTS)}")
    return name


if __name__ == "__main__":
    main()
