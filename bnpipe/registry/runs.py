"""Training runs: one MLflow run for each run of Airflow or of the command line, found again by its key."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from bnpipe.errors import RegistryError, VersionNotFound, hide_secrets, shorten
from bnpipe.registry.client import Connection, quoted

RUN_KEY_TAG: Final = "bnpipe.run_key"
RUN_MODEL_TAG: Final = "bnpipe.model"
TRAINING: Final = {"mlflow.experimentKind": "custom_model_development"}  # else MLflow shows pages for chat bots first
BATCH: Final = 100  # params or tags in one request
DIGEST_LENGTH: Final = 36  # MLflow's limit
ENDINGS: Final = ("bnpipe.error", "bnpipe.outcome", "bnpipe.outcome_reason")  # tags that say how a run ended

_log = logging.getLogger(__name__)


class Runs:
    """What :class:`bnpipe.registry.Registry` does with MLflow runs."""

    connection: Connection

    def start_run(
        self,
        *,
        model: str,
        key: str,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, object] | None = None,
    ) -> str:
        """Start the MLflow run of `key`, or go on with it: a retry gets the run of the first attempt.

        A run that has *finished* is what the ledger quotes as evidence, and is not written again: an Airflow run that
        is cleared after its success gets another MLflow run, under ``key#2``.
        Tags are written again, and those that said how the first attempt ended are gone. Params are write-once in
        MLflow: the first attempt's stay, a difference is logged.
        Of two *simultaneous* starts with one key, which only a zombie and its retry can be, the later deletes its run;
        should MLflow's database show both too late, two runs remain and the older one is found from then on.

        Parameters
        ----------
        model : str
            Name of the network; its runs lie in the experiment ``bnpipe/NAME``.
        key : str
            An Airflow run id, or anything else that names this run for good.
        tags, params : mapping

        Returns
        -------
        str
            MLflow's run id.
        """
        call = self.connection.call
        experiment = self.connection.ensure_experiment(f"bnpipe/{model}", **TRAINING)
        run, key = self._unfinished(experiment, key)
        if run is None:
            identity = {RUN_KEY_TAG: key, RUN_MODEL_TAG: model}
            made = call("create_run", experiment, tags=identity, run_name=key)
            run = self._run_of_key(experiment, key) or made
            if run.info.run_id != made.info.run_id:
                call("delete_run", made.info.run_id)
        run_id = str(run.info.run_id)
        if run.info.status != "RUNNING":
            call("update_run", run_id, status="RUNNING")
        for ending in ENDINGS:
            if ending in run.data.tags:
                with suppress(VersionNotFound):
                    call("delete_tag", run_id, ending)
        self.log_tags(run_id, tags or {})
        self._log_params(run_id, {name: str(value) for name, value in (params or {}).items()}, run.data.params)
        return run_id

    def find_run(self, *, model: str, key: str) -> str | None:
        """Find the run of `key` that has not finished; None if there is none."""
        experiment = self.connection.ensure_experiment(f"bnpipe/{model}", **TRAINING)
        run, _ = self._unfinished(experiment, key)
        return None if run is None else str(run.info.run_id)

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log numbers under names; again under the same name: the later one is shown."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for batch in _batches([Metric(name, float(value), now, 0) for name, value in metrics.items()], 1000):
            self.connection.call("log_batch", run_id, metrics=batch)

    def log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags; a tag may be set again."""
        from mlflow.entities import RunTag

        for batch in _batches([RunTag(name, str(value)) for name, value in tags.items()], BATCH):
            self.connection.call("log_batch", run_id, tags=batch)

    def log_text(self, run_id: str, text: str, path: str) -> None:
        """Store a text as artifact `path` of a run, replacing an earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePosixPath(path).name
            local.write_text(text, encoding="utf-8")
            self._upload(run_id, local, path)

    def log_bytes(self, run_id: str, content: bytes, path: str) -> None:
        """Store bytes, as of a picture, as artifact `path` of a run, replacing an earlier one."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / PurePosixPath(path).name
            local.write_bytes(content)
            self._upload(run_id, local, path)

    def log_file(self, run_id: str, local: str | Path, path: str) -> None:
        """Store a local file as artifact `path` of a run; a `path` that ends in ``/`` is a folder."""
        local = _existing(Path(local))
        name = PurePosixPath(path).name
        if path.endswith("/") or local.name == name:
            self._upload(run_id, local, path + local.name if path.endswith("/") else path)
            return
        with tempfile.TemporaryDirectory() as folder:
            self._upload(run_id, Path(shutil.copy(local, Path(folder) / name)), path)

    def read_text(self, run_id: str, path: str) -> str:
        """Read a text artifact of a run.

        Raises
        ------
        RegistryError
            No such artifact.
        """
        self.connection.call("get_run", run_id)
        with tempfile.TemporaryDirectory() as folder, self.connection.patient():
            local = self.connection.call("download_artifacts", run_id, path, folder)
            return Path(local).read_text(encoding="utf-8")

    def artifacts(self, run_id: str) -> tuple[str, ...]:
        """List the paths of all artifacts of a run."""
        return tuple(sorted(self._walk(run_id, None)))

    def _walk(self, run_id: str, folder: str | None) -> Iterator[str]:
        for item in self.connection.call("list_artifacts", run_id, folder):
            if item.is_dir:
                yield from self._walk(run_id, item.path)
            else:
                yield str(item.path)

    def metrics(self, run_id: str) -> dict[str, float]:
        """Give the newest value of every metric of a run."""
        return dict(self.connection.call("get_run", run_id).data.metrics)

    def run_tags(self, run_id: str) -> dict[str, str]:
        """Give the tags of a run."""
        return dict(self.connection.call("get_run", run_id).data.tags)

    def tags_of_runs(self, *, model: str, having: str, newest: int = 100) -> tuple[dict[str, str], ...]:
        """Give the tags of those runs of a model that have a certain tag, the newest first."""
        experiment = self.connection.ensure_experiment(f"bnpipe/{model}", **TRAINING)
        found = self.connection.call(
            "search_runs",
            [experiment],
            filter_string=f"tags.`{having}` != ''",
            order_by=["attributes.start_time DESC"],
            max_results=newest,
        )
        return tuple(dict(run.data.tags) for run in found)

    def run_status(self, run_id: str) -> str:
        """Say whether a run is ``RUNNING``, ``FINISHED`` or ``FAILED``."""
        return str(self.connection.call("get_run", run_id).info.status)

    def finish_run(self, run_id: str, status: Literal["FINISHED", "FAILED"] = "FINISHED") -> None:
        """End a run."""
        self.connection.call("set_terminated", run_id, status=status)

    def run_url(self, run_id: str) -> str:
        """Give the address of a run's page; without a server, a text that names the run.

        ``BNPIPE_MLFLOW_URL`` is where people's browsers find MLflow, if that is not where this process does.
        """
        if not self.connection.remote:
            return f"runs:/{run_id}"
        experiment = self.connection.call("get_run", run_id).info.experiment_id
        base = os.environ.get("BNPIPE_MLFLOW_URL") or self.connection.shown
        return f"{base.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"

    def log_snapshot(self, run_id: str, name: str, uri: str, fingerprint: str, context: str = "training") -> None:
        """Record which rows a run used: where they lie and their fingerprint, never the rows.

        MLflow cuts digests at 36 characters and computes its own from a sample only; ours is the fingerprint's
        beginning, the whole of it is a tag of the dataset and part of its source.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = hide_secrets(uri, mark="")
        dataset = Dataset(name=name, digest=fingerprint[:DIGEST_LENGTH], source_type="bnpipe snapshot", source=source)
        tags = [InputTag("mlflow.data.context", context), InputTag("bnpipe.data_fingerprint", fingerprint)]
        self.connection.call("log_inputs", run_id, datasets=[DatasetInput(dataset, tags)])

    def _unfinished(self, experiment: str, key: str) -> tuple[Any, str]:
        """Give the run of the newest attempt, None if that has not begun or has finished, and the attempt's key."""
        run = self._run_of_key(experiment, key)
        while run is not None and run.info.status == "FINISHED":
            key = _next_attempt(key)
            run = self._run_of_key(experiment, key)
        return run, key

    def _run_of_key(self, experiment: str, key: str) -> Any:
        runs = self.connection.call(
            "search_runs",
            [experiment],
            filter_string=f"tags.`{RUN_KEY_TAG}` = {quoted(key)}",
            order_by=["attributes.start_time ASC", "attributes.run_id ASC"],
            max_results=1,
        )
        return runs[0] if runs else None

    def _log_params(self, run_id: str, params: Mapping[str, str], logged: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        changed = [name for name, value in params.items() if name in logged and logged[name] != value]
        if changed:
            _log.warning("run %s keeps its first params; this attempt differs in %s", run_id, shorten(changed))
        new = [Param(name, value) for name, value in params.items() if name not in logged]
        for batch in _batches(new, BATCH):
            self.connection.call("log_batch", run_id, params=batch)

    def _upload(self, run_id: str, local: Path, path: str) -> None:
        self.connection.call("get_run", run_id)  # a dead server is noticed here, before the patient part
        with self.connection.patient():
            folder = str(PurePosixPath(path).parent)
            self.connection.call("log_artifact", run_id, str(local), None if folder == "." else folder)


def _existing(local: Path) -> Path:
    if not local.is_file():
        raise RegistryError(f"can't log {local.name!r} to MLflow: no such file")
    return local


def _next_attempt(key: str) -> str:
    """Name the next attempt: ``night``, ``night#2``, ``night#3``."""
    first, mark, number = key.rpartition("#")
    return f"{first}#{int(number) + 1}" if mark and number.isdigit() else f"{key}#2"


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
