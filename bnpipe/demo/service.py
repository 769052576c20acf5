"""The service in the demo: `bnpipe serve` beside Airflow and MLflow, asked about real flights all the while."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Self

from bnpipe.demo.stage import MODEL, Stage
from bnpipe.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

PAUSE: Final = 0.01
"""Seconds between questions: a hundred a second."""
READY: Final = 60.0
SWAPPED: Final = 60.0
_SHOWN: Final = ("bnpipe_version_in_use{", "bnpipe_swaps_total{")


@dataclass(eq=False)
class ServiceAtWork:
    """A running service and a stream of questions; stops both when left.

    Parameters
    ----------
    stage : Stage
    days : pair of date
        ``[start, end)``: whose flights are asked about, again and again.
    seconds : mapping of int to list of float
        How long the answers of each version took.
    latest : (int, float), optional
        The version that answers now, and since when, on ``time.monotonic``'s clock.
    failed : list of str
        Questions that got no answer, and what they got.
    """

    stage: Stage
    days: tuple[date, date]
    seconds: dict[int, list[float]] = field(default_factory=dict)
    latest: tuple[int, float] | None = None
    failed: list[str] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> Self:
        """Start the service and the stream.

        Raises
        ------
        PlatformError
            It did not become ready.
        """
        self.url = self.stage.platform.start_service()
        began = time.monotonic()
        while not self._ready():
            self.stage.platform.check()
            if time.monotonic() - began > READY:
                raise PlatformError(f"{self.url}/ready did not say yes within {READY:.0f} s; see run/serve.log")
            time.sleep(0.2)
        self.stage.console.print(f"  bnpipe serve answers at {self.url} after {time.monotonic() - began:.1f} s")
        self._bodies = cycle(question_bodies(self.stage, *self.days))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True, name="flights")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the stream; the service is the platform's to stop."""
        self._stop.set()
        self._thread.join()

    def tell_swap(self, version: int, *, since: float) -> None:
        """Wait until `version` answers; print after how long, who answered how quickly, and what the metrics say.

        Parameters
        ----------
        version : int
            The new champion.
        since : float
            On ``time.monotonic``'s clock: when it was made champion.

        Raises
        ------
        PlatformError
            It still does not answer after `SWAPPED` seconds.
        """
        while self.latest is None or self.latest[0] != version:
            self.stage.platform.check()
            if time.monotonic() - since > SWAPPED:
                raise PlatformError(f"version {version} does not answer {SWAPPED:.0f} s after it became champion")
            time.sleep(0.05)
        after = max(self.latest[1] - since, 0.0)
        self.stage.console.print(f"  the service answers by version {version}, {after:.1f} s after the alias moved")
        time.sleep(1.0)  # the metrics are brought together a few times a second
        for number, took in sorted(self.seconds.items()):
            ordered = sorted(took)
            p50, p99 = (1000 * ordered[int(share * (len(ordered) - 1))] for share in (0.5, 0.99))
            asked = f"{len(ordered)} questions about single flights so far"
            self.stage.console.print(f"  version {number} answered {asked}, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        lost = f"{len(self.failed)} failed, the first: {self.failed[0]}" if self.failed else "none failed"
        self.stage.console.print(f"  {lost}; its metrics:", soft_wrap=True)
        for line in self._metrics():
            self.stage.console.print(f"    {line}", style="dim", markup=False, soft_wrap=True, highlight=False)

    def _metrics(self) -> Iterator[str]:
        for line in self._get("/metrics").splitlines():
            if line.startswith(_SHOWN) and f'model="{MODEL}"' in line and 'role="challenger"' not in line:
                yield line

    def _ready(self) -> bool:
        try:
            self._get("/ready")
        except (OSError, PlatformError):
            return False
        return True

    def _get(self, path: str) -> str:
        connection = self._connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise PlatformError(f"{self.url}{path}: {answer.status} {body[:200]}")
        return body

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=10.0)

    def _ask_on(self) -> None:
        connection, path = self._connect(), f"/v1/models/{MODEL}/posterior"
        while not self._stop.wait(PAUSE):
            began = time.perf_counter()
            try:
                connection.request("POST", path, next(self._bodies), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
            except OSError as error:
                self.failed.append(repr(error))
                connection.close()
                continue
            took = time.perf_counter() - began
            if answer.status != 200:
                self.failed.append(f"{answer.status} {body[:200]!r}")
                continue
            version = int(json.loads(body)["version"])
            self.seconds.setdefault(version, []).append(took)
            if self.latest is None or self.latest[0] != version:
                self.latest = (version, time.monotonic())


def question_bodies(stage: Stage, start: date, end: date) -> list[bytes]:
    """Make a question of each flight that left in ``[start, end)``: all that is known of it but the targets."""
    import pandas as pd

    from bnpipe.config import Settings, load_spec

    spec = load_spec(Settings.from_environ().models / f"{MODEL}.yaml")
    columns = {variable: column for variable, column in spec.columns.items() if variable not in spec.targets}
    days = (start + timedelta(days=place) for place in range((end - start).days))
    frame = pd.concat(pd.read_parquet(stage.feed / f"day={day}" / "part.parquet") for day in days)
    return [json.dumps({"rows": [row]}).encode() for row in _rows(frame, columns)]


def _rows(frame: pd.DataFrame, columns: dict[str, str]) -> Sequence[dict[str, Any]]:
    """Give rows with plain values; nulls stay, since to some variables they are a state."""
    import pandas as pd

    plain = frame[list(dict.fromkeys(columns.values()))].to_dict(orient="records")
    return [
        {variable: None if pd.isna(row[column]) else row[column] for variable, column in columns.items()}
        for row in plain
    ]
