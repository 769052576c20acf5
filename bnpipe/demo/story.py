"""What `bnpipe demo` does: a first champion of the flights, then a later night, by real Airflow runs."""

from __future__ import annotations

import os
import platform as platform_of
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnpipe.demo.airflow_client import RunState, TaskState
from bnpipe.demo.platform import Platform
from bnpipe.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

MODEL = "flights"
DAG = f"bn_train__{MODEL}"
FIRST, LATER = "2013-06-01", "2013-07-15"
RUN_TIMEOUT = 600.0
_MARKDOWN = """# What the demo measured

Written by `make demo ARGS="--once --record docs/demo.md"` on {shape}.
Seconds are wall-clock, each step a process of its own that pays for its imports; MB is the peak resident memory of that
process. Adding up all steps gives less than the run: the rest is Airflow starting nine processes.

```text
{printed}
```
"""


def run(*, home: Path, once: bool, console: Console, record: Path | None = None) -> int:
    """Lay out the flights, start everything, train twice over REST, say what happened, and stay up until Ctrl-C.

    Parameters
    ----------
    record : Path, optional
        Markdown file that gets what was printed, without login; ``docs/demo.md`` is made so.

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
            succeeded = _trained_before(platform, console) or _train_twice(platform, console)
            _tell(platform, console, env)
            console.print(f"\n[bold]{time.perf_counter() - started:.0f} s in all.[/bold]")
            if record is not None:
                record.write_text(_MARKDOWN.format(shape=_shape(), printed=console.export_text().rstrip()))
            if once:
                console.print(f"All of it lies in {home}; `make demo` shows it in Airflow and MLflow.", soft_wrap=True)
            else:
                _tell_addresses(platform, console)
                _stay_up(platform, console)
    except PlatformError as error:
        console.print(f"[red]{error}[/red]", markup=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped; everything it had started is stopped too")
        return 130
    return 0 if succeeded else 1


def _prepare_flights(home: Path, console: Console) -> None:
    from bnpipe.examples import flights

    started = time.perf_counter()
    with console.status("laying out the flights of 2013 …"):
        rows = flights.prepare(home / "data" / MODEL)
    console.print(f"{rows} departures from New York in 2013, one folder a day ({time.perf_counter() - started:.1f} s)")


def _trained_before(platform: Platform, console: Console) -> bool:
    """Whether an earlier demo in this folder came to its end: it would only do the same again."""
    from bnpipe.registry import Registry

    champion = Registry(platform.mlflow_url).champion(MODEL)
    if champion is None or champion.tags.get("bnpipe.end", "")[:10] < LATER:
        return False
    console.print(f"\nversion {champion.number} was trained by an earlier demo; delete {platform.home} to begin anew")
    return True


def _train_twice(platform: Platform, console: Console) -> bool:
    client = platform.client
    client.wait_for_dag(DAG)
    client.unpause(DAG)
    succeeded = True
    for end, why in ((FIRST, "the first champion"), (LATER, "a later night")):
        console.print(f"\n[bold]{DAG} as of {end}[/bold]: {why}")
        run_id = client.trigger(DAG, conf={"end": end, "reason": f"demo: {why}"})
        began = time.perf_counter()
        with console.status("queued …") as status:

            def follow(task: TaskState) -> None:
                if task.state in ("success", "failed", "upstream_failed", "up_for_retry"):
                    mark = "[green]✓[/green]" if task.state == "success" else f"[red]{task.state}[/red]"
                    console.print(f"  {mark} {task.task:<18} {task.seconds or 0.0:6.1f} s")
                elif task.state:
                    status.update(f"{task.task}: {task.state} …")

            ended = client.wait(DAG, run_id, timeout=RUN_TIMEOUT, progress=follow, check=platform.check)
        took = time.perf_counter() - began
        console.print(f"  {ended.state} after {took:.0f} s: {client.run_url(DAG, run_id)}", soft_wrap=True)
        succeeded &= _tell_outcome(client.xcom, ended, console)
    return succeeded


def _tell_outcome(xcom: Any, ended: RunState, console: Console) -> bool:
    if not ended.succeeded:
        failed = [task.task for task in ended.tasks if task.state == "failed"]
        reason = xcom(ended.dag, ended.run, failed[0], key="error") if failed else "no task failed"
        console.print(f"  [red]{', '.join(failed)}: {reason}[/red]")
        return False
    outcome = xcom(ended.dag, ended.run, "promote")
    console.print(f"  [bold]version {outcome['version']}: {outcome['outcome']}[/bold], {outcome['reason']}")
    return True


def _tell(platform: Platform, console: Console, env: Mapping[str, str]) -> None:
    """Print what the registry knows now, read back from MLflow and not from what this process remembers."""
    os.environ.update(env)
    from bnpipe.registry import Registry
    from bnpipe.steps import STEPS
    from bnpipe.steps.story import tell_costs, tell_history, tell_training

    registry = Registry(platform.mlflow_url)
    for made in registry.versions(MODEL):
        console.rule(f"{MODEL} version {made.number}, rows until {made.tags['bnpipe.end'][:10]}", align="left")
        tell_training(console, registry, made.run_id)
        tell_costs(console, registry, made.run_id, STEPS)
    console.rule("ledger", align="left")
    tell_history(console, registry.history(MODEL))


def _shape() -> str:
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("bnpipe", "apache-airflow", "mlflow", "pandas", "numpy")
    )
    return f"{os.cpu_count()} cores, Python {platform_of.python_version()}, {versions}"


def _tell_addresses(platform: Platform, console: Console) -> None:
    console.print(f"Airflow  {platform.airflow_url}   login {platform.username} / {platform.password}")
    console.print(f"MLflow   {platform.mlflow_url}/#/models/{MODEL}")


def _stay_up(platform: Platform, console: Console) -> None:
    console.print("Ctrl-C stops everything.")
    while True:
        platform.check()
        time.sleep(1.0)
