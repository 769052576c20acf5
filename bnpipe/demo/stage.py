"""What every chapter of the demo works with: the platform, the terminal, and runs that are started and followed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnpipe.demo.airflow_client import AirflowClient, RunState, TaskState
from bnpipe.demo.platform import Platform
from bnpipe.errors import PlatformError

if TYPE_CHECKING:
    from rich.console import Console

    from bnpipe.registry import Registry

MODEL = "flights"
TRAIN, DRIFT = f"bn_train__{MODEL}", f"bn_drift__{MODEL}"
RUN_TIMEOUT = 600.0


@dataclass(frozen=True)
class Stage:
    """Where the demo plays.

    Parameters
    ----------
    platform : Platform
        Started.
    console : Console
        What people see.
    feed : Path
        Folder of the flights that Airflow reads.
    """

    platform: Platform
    console: Console
    feed: Path

    @cached_property
    def client(self) -> AirflowClient:
        """Airflow, as its administrator."""
        return self.platform.client

    @cached_property
    def registry(self) -> Registry:
        """MLflow."""
        from bnpipe.registry import Registry

        return Registry(self.platform.mlflow_url)

    def run(self, dag: str, conf: Mapping[str, Any]) -> RunState:
        """Start a run over REST and follow it to its end."""
        return self.follow(dag, self.client.trigger(dag, conf=conf))

    def follow(self, dag: str, run: str) -> RunState:
        """Show a run's tasks as they end, and its address.

        Raises
        ------
        PlatformError
            It failed: which task, and why.
        """
        began = time.perf_counter()
        with self.console.status("queued …") as status:

            def show(task: TaskState) -> None:
                if task.state in ("success", "failed", "upstream_failed", "up_for_retry"):
                    mark = "[green]✓[/green]" if task.state == "success" else f"[red]{task.state}[/red]"
                    self.console.print(f"  {mark} {task.task:<18} {task.seconds or 0.0:6.1f} s")
                elif task.state:
                    status.update(f"{task.task}: {task.state} …")

            ended = self.client.wait(dag, run, timeout=RUN_TIMEOUT, progress=show, check=self.platform.check)
        took = time.perf_counter() - began
        self.console.print(f"  {ended.state} after {took:.0f} s: {self.client.run_url(dag, run)}", soft_wrap=True)
        if not ended.succeeded:
            failed = [task.task for task in ended.tasks if task.state == "failed"]
            reason = self.client.xcom(dag, run, failed[0], key="error") if failed else "no task failed"
            raise PlatformError(f"{dag} {run}: {', '.join(failed)}: {reason}")
        return ended

    def tell_outcome(self, ended: RunState) -> int:
        """Say how a training ended, and give its version."""
        outcome = self.client.xcom(ended.dag, ended.run, "promote")
        said = f"  [bold]version {outcome['version']}: {outcome['outcome']}[/bold], {outcome['reason']}"
        self.console.print(said, soft_wrap=True)
        return int(outcome["version"])
