"""The whole chain in one process: `bnpipe train`, and what a scheduler calls when a task died."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import date, datetime
from pathlib import Path
from uuid import uuid4

from bnpipe.config import ModelSpec, Overrides, Settings
from bnpipe.errors import BnpipeError
from bnpipe.registry import Registry
from bnpipe.steps import chain
from bnpipe.steps.promotion import Outcome, promote
from bnpipe.steps.proof import evaluate
from bnpipe.steps.training import Bench, Training, close_failed


def train(
    *,
    spec: Path | ModelSpec,
    at: datetime | date,
    actor: str,
    overrides: Overrides | None = None,
    around: Callable[[str], AbstractContextManager[object]] = lambda step: nullcontext(),
) -> tuple[Training, Outcome]:
    """Run every step of a training, one after the other.

    Parameters
    ----------
    around : callable
        Gives, for the name of a step, a context in which it runs; the command line shows progress with it.

    Raises
    ------
    BnpipeError
        As the steps do; see :mod:`bnpipe.steps.chain`.
    """
    with around("snapshot"):
        training = chain.snapshot(spec=spec, at=at, run_key=f"terminal/{uuid4()}", actor=actor, overrides=overrides)
    try:
        for verb in (chain.validate, chain.learn, chain.audit, chain.fit, evaluate, chain.register):
            with around(verb.__name__):
                verb(training)
        with around("promote"):
            return training, promote(training)
    except BaseException as error:  # also Ctrl-C: nobody comes back to this run
        registry = Bench(training).registry
        close_failed(registry, training.run_id, f"{type(error).__name__}: {error}")
        with suppress(BnpipeError):  # MLflow may be what is missing
            error.add_note(f"what there is of it: MLflow run {registry.run_url(training.run_id)}")
        raise


def fail_run_of(*, model: str, run_key: str, reason: str, settings: Settings | None = None) -> None:
    """Mark the MLflow run of an Airflow run as failed, where not even the snapshot came through; nothing if none is."""
    registry = Registry((settings or Settings.from_environ()).tracking_uri)
    run_id = registry.find_run(model=model, key=run_key)
    if run_id is not None:
        close_failed(registry, run_id, reason)
