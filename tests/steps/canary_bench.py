"""What the tests of canaries share: a service's log of answers, made as workers make it, on days to come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd

import bnpipe
from bnpipe import steps
from bnpipe.answers import AnswerRecord, FeedbackRecord, Journal
from bnpipe.config import Overrides, Settings
from bnpipe.network import Network
from bnpipe.registry import Registry
from bnpipe.serving.answering import Options, answer_rows
from bnpipe.serving.routing import Canary, choose_arm, is_shadowed

SECTION: Final = "canary: {stages: [0.3, 1.0], min_rows: 20, min_labels: 5, error: 0.2}\n"
EVIDENCE: Final = ("season", "age", "pressure", "treatment")


def registry() -> Registry:
    """The registry of the environment."""
    return Registry(Settings.from_environ().tracking_uri)


def spec_of(clinic: Any) -> Any:
    """The clinic's spec as it is now."""
    from bnpipe.config import load_spec

    return load_spec(clinic.spec)


def add_section(clinic: Any, section: str = SECTION) -> None:
    """Give the spec a section `canary`."""
    clinic.spec.write_text(clinic.spec.read_text() + section)


def train(clinic: Any, at: Any, **overrides: Any) -> Any:
    """Train a version."""
    return steps.train(spec=clinic.spec, at=at, actor="ada", overrides=Overrides(**overrides))[1]


def flip(frame: pd.DataFrame) -> pd.DataFrame:
    """Call yes no: a mistake in the labels that no gate sees."""
    return frame.assign(back=np.where(frame["back"] == "yes", "no", "yes"))


class Service:
    """Answers the rows of one day as the service does, and gets their labels a little later.

    Parameters
    ----------
    folder : Path
        Of the log.
    days : sequence of Path
        Rows that really came; two of them make a day here, and they come again and again.
    model : str
        Whose target is ``back``.
    evidence : sequence of str
        What is known when it is asked.
    keep : bool
        Whether the evidence is kept, or only its hash.
    """

    def __init__(
        self,
        folder: Path,
        days: Sequence[Path],
        *,
        model: str = "clinic",
        evidence: Sequence[str] = EVIDENCE,
        keep: bool = True,
    ) -> None:
        self.folder, self.model, self.evidence, self.keep = folder, model, evidence, keep
        self.days = [pd.read_parquet(path, partitioning=None) for path in days]
        self.served = self.passed = 0
        self.engines: dict[int, Any] = {}

    def day(self, start: datetime, *, failing: bool = False, mangle: Callable[[bytes], bytes] | None = None) -> None:
        """Serve a day that begins at `start`, by the canary of the moment; `failing`: the challenger never answers."""
        now = registry()
        champion = now.champion(self.model)
        assert champion is not None
        canary = Canary.of(now.canary(self.model))
        frame = pd.concat([self.days[(self.passed + half) % len(self.days)] for half in (0, 1)], ignore_index=True)
        self.passed += 2
        sent = [_cells(row) for row in frame[list(self.evidence)].to_dict("records")]
        records: list[AnswerRecord | FeedbackRecord] = []
        said = {champion.number: self._answers(champion.number, sent)}
        if canary is not None:
            said[canary.version] = self._answers(canary.version, sent)
        for place, cells in enumerate(sent):
            self.served += 1
            request, key = f"request-{self.served}", f"patient-{self.served}"
            at = start + timedelta(minutes=5 + 10 * place)
            arm = choose_arm(key, canary)
            fallback = arm == "challenger" and failing
            version = canary.version if canary is not None and arm == "challenger" else champion.number
            instead = {"instead_of": version, "reason": "it rests"} if fallback else None
            version = champion.number if fallback else version
            answer = said[version][place]
            if mangle is not None and arm == "challenger":
                answer = mangle(answer)
            record = self._record(request, at, version, "fallback" if fallback else arm, key, cells, answer)
            if instead is not None:
                record.question["fallback"] = instead
            records.append(record)
            if canary is not None and is_shadowed(key, canary):
                records.append(
                    self._record(request, at, canary.version, "shadow", key, cells, said[canary.version][place])
                )
            records.append(
                FeedbackRecord(
                    request, 0, at + timedelta(hours=1), "desk", self.model, {"back": str(frame["back"][place])}
                )
            )
        with Journal(self.folder / "journal", f"worker-{self.served}") as journal:
            journal.append(records)

    def _record(  # noqa: PLR0917
        self, request: str, at: datetime, version: int, arm: Any, key: str, cells: dict[str, Any], answer: bytes
    ) -> AnswerRecord:
        return AnswerRecord(
            id=request,
            at=at.astimezone(UTC),
            model=self.model,
            version=version,
            content_hash=self._network(version).content_hash,
            arm=arm,
            caller="desk",
            key=key,
            kind="posterior",
            question={"targets": ["back"]},
            rows=[cells] if self.keep else None,
            answer=b"[" + answer + b"]",
            evidence_hash="" if self.keep else "0" * 64,
        )

    def _network(self, version: int) -> Network:
        if version not in self.engines:
            now = registry()
            self.engines[version] = bnpipe.compile(now.load_network(now.version(self.model, version)))
        network: Network = self.engines[version].network
        return network

    def _answers(self, version: int, sent: list[dict[str, Any]]) -> list[bytes]:
        self._network(version)
        text = answer_rows(self.engines[version], "posterior", Options(targets=("back",)), sent)
        return [bytes(part) for part in msgspec.json.decode(text, type=list[msgspec.Raw])]


def _cells(row: dict[str, Any]) -> dict[str, Any]:
    """A null is sent as a null where a number is missing; numpy's numbers as Python's."""
    plain = {name: value.item() if hasattr(value, "item") else value for name, value in row.items()}
    return {name: None if value != value else value for name, value in plain.items()}  # noqa: PLR0124
