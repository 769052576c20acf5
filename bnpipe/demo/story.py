"""What `bnpipe demo` does: a first champion of the flights, then a later night, by real Airflow runs."""

from __future__ import annotations

import os
import platform as platform_of
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from bnpipe.demo.chapters import tell_story
from bnpipe.demo.platform import Platform
from bnpipe.demo.stage import MODEL, TRAIN, Stage
from bnpipe.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

FIRST, LATER = "2013-06-01", "2013-07-15"
_MARKDOWN = """# What the demo measured

Written by `make demo ARGS="{arguments} --record docs/demo.md"` on {shape}.
Seconds are wall-clock, each step a process of its own that pays for its imports; MB is the peak resident memory of that
process. Adding up all steps gives less than the run: the rest is Airflow starting a process for each task, and whatever
else the load average (of the last quarter of an hour) says was running.

```text
{printed}
```
"""


def run(*, home: Path, once: bool, console: Console, record: Path | None = None, story: bool = False) -> int:
    """Lay out the flights, start everything, train twice over REST, say what happened, and stay up until Ctrl-C.

    Parameters
    ----------
    home : Path
        Where everything is kept.
    once : bool
        End after the work.
    console : Console
        Where to say it.
    record : Path, optional
        Markdown file that gets what was printed, without login; ``docs/demo.md`` is made so.
    story : bool
        Go on after the second training: :mod:`bnpipe.demo.chapters`.

    Returns
    -------
    int
        0, or 1 when a run did not succeed.
    """
    started = time.perf_counter()
    console.record = record is not None
    root = Path.cwd()
    home = home.resolve()
    _prepare_flights(home, console)
    env = {
        "BNPIPE_MODELS": str(root / "config" / "models"),
        "BNPIPE_DATA": str(home / "data"),
        "BNPIPE_STORE": str(home / "store"),
    }
    try:
        platform = Platform(home, dags=root / "dags", plugins=root / "plugins", env=env)
        with console.status("starting MLflow and Airflow …"):
            platform.start(lambda line: console.print(f"  {line}", style="dim"))
        with platform:
            os.environ.update(env)
            stage = Stage(platform, console, home / "data" / MODEL)
            succeeded = _play(stage, story=story)
            console.print(f"\n[bold]{time.perf_counter() - started:.0f} s in all.[/bold]")
            if record is not None:
                printed = console.export_text().rstrip()
                arguments = "--story --once" if story else "--once"
                record.write_text(_MARKDOWN.format(arguments=arguments, shape=_shape(), printed=printed))
            if once:
                console.print(f"All of it lies in {home}; `make demo` shows it in Airflow and MLflow.", soft_wrap=True)
            else:
                _tell_addresses(platform, console)
                _stay_up(platform, console)
    except PlatformError as error:
        console.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; everything it had started is stopped too")
        return 130
    return 0 if succeeded else 1


def _play(stage: Stage, *, story: bool) -> bool:
    """Do and tell all of it; whether it came to its end. What failed is told, and can be looked at in Airflow."""
    try:
        if not _trained_before(stage):
            _train_twice(stage)
        _tell(stage)
        if story:
            tell_story(stage)
        _tell_ledger(stage)
    except PlatformError as error:
        stage.console.print(str(error), style="red", markup=False)
        return False
    return True


def _prepare_flights(home: Path, console: Console) -> None:
    from bnpipe.examples import flights

    started = time.perf_counter()
    with console.status("laying out the flights of 2013 …"):
        rows = flights.prepare(home / "data" / MODEL)
    console.print(f"{rows} departures from New York in 2013, one folder a day ({time.perf_counter() - started:.1f} s)")


def _trained_before(stage: Stage) -> bool:
    """Whether an earlier demo in this folder came to its end: it would only do the same again."""
    champion, home = stage.registry.champion(MODEL), stage.platform.home
    if champion is None or champion.tags.get("bnpipe.end", "")[:10] < LATER:
        return False
    stage.console.print(f"\nversion {champion.number} was trained by an earlier demo; delete {home} to begin anew")
    return True


def _train_twice(stage: Stage) -> None:
    stage.client.wait_for_dag(TRAIN)
    stage.client.unpause(TRAIN)
    for end, why in ((FIRST, "the first champion"), (LATER, "a later night")):
        stage.console.print(f"\n[bold]{TRAIN} as of {end}[/bold]: {why}")
        stage.tell_outcome(stage.run(TRAIN, {"end": end, "reason": f"demo: {why}"}))


def _tell(stage: Stage) -> None:
    """Print what the registry knows now, read back from MLflow and not from what this process remembers."""
    from bnpipe.steps import STEPS
    from bnpipe.steps.story import tell_costs, tell_training

    console, registry = stage.console, stage.registry
    for made in registry.versions(MODEL):
        console.rule(f"{MODEL} version {made.number}, rows until {made.tags['bnpipe.end'][:10]}", align="left")
        tell_training(console, registry, made.run_id)
        tell_costs(console, registry, made.run_id, STEPS)


def _tell_ledger(stage: Stage) -> None:
    from bnpipe.steps.story import tell_history

    stage.console.rule("ledger", align="left")
    tell_history(stage.console, stage.registry.history(MODEL))


def _shape() -> str:
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("bnpipe", "apache-airflow", "mlflow", "pandas", "numpy")
    )
    load = os.getloadavg()[2]
    return f"{os.cpu_count()} cores (load average {load:.1f}), Python {platform_of.python_version()}, {versions}"


def _tell_addresses(platform: Platform, console: Console) -> None:
    console.print(f"Airflow  {platform.airflow_url}   login {platform.username} / {platform.password}")
    console.print(f"MLflow   {platform.mlflow_url}/#/models/{MODEL}")


def _stay_up(platform: Platform, console: Console) -> None:
    console.print("Ctrl-C stops everything.")
    while True:
        platform.check()
        time.sleep(1.0)
