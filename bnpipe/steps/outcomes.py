"""What became of both arms of a canary, cluster by cluster, from the log of answers and the labels that came later."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.evaluation.scores import Scorer, proper_network
from bnpipe.network import Network
from bnpipe.release.canary import ArmOutcome, CanaryPolicy, CanaryState, ClusterOutcome, Loss
from bnpipe.schema import MISSING, Schema

if TYPE_CHECKING:
    import pyarrow as pa

Arm: TypeAlias = Literal["champion", "challenger"]
Times: TypeAlias = tuple[int, int]
"""Calls of the engine that could be compared, and the slow ones of them."""

LEAST: Final = 1e-6
"""A served probability below this counts as this: what was called impossible and came costs 13.8 nats, not infinity."""
LIKE: Final = 10
"""Calls that the champion must have made for their median to be held against."""
_BOTH: Final[tuple[Arm, Arm]] = ("champion", "challenger")
_ALIKE: Final = ["start", "hour", "kind", "question", "size", "cells"]
"""What calls of the engine must have in common to be compared."""


@dataclass(frozen=True)
class Log:
    """The log of answers since a canary began, as it is needed to judge it.

    Parameters
    ----------
    state : CanaryState
    policy : CanaryPolicy
    networks : Mapping[str, Network]
        Of ``champion`` and ``challenger``.
    targets : sequence of str
        Those of which log-loss is taken, where both networks have them with the same states.
    time_zone : str
        Whose midnights part days.
    """

    state: CanaryState
    policy: CanaryPolicy
    networks: Mapping[Arm, Network]
    targets: Sequence[str]
    time_zone: str

    def outcomes(self, answers: pa.Table, labelled: pa.Table) -> tuple[ClusterOutcome, ...]:
        """Put together what became of each cluster.

        Parameters
        ----------
        answers : pyarrow.Table
            :func:`bnpipe.answers.rows` of all arms since the canary began.
        labelled : pyarrow.Table
            :func:`bnpipe.answers.labelled` of the same.
        """
        counts, times = self._counts(answers), self._times(answers)
        arms, pairs = self._losses(labelled)
        starts = sorted({start for start, _ in [*counts, *arms]} | set(pairs))
        return tuple(
            ClusterOutcome(
                start=start.to_pydatetime(),
                end=self._end(start).to_pydatetime(),
                champion=self._arm(counts, arms, start, "champion"),
                challenger=self._arm(counts, arms, start, "challenger", times.get(start, (0, 0))),
                pairs=pairs.get(start, {}),
            )
            for start in starts
        )

    @cached_property
    def comparable(self) -> tuple[str, ...]:
        """Targets that both networks have with the same states."""
        return comparable(self.networks["champion"].schema, self.networks["challenger"].schema, self.targets)

    # -- clusters

    def _starts(self, times: pa.ChunkedArray) -> pd.Series[Any]:
        at = times.to_pandas()
        found: pd.Series[Any] = at.dt.floor("h")
        return found if self.policy.cluster == "hour" else at.dt.tz_convert(self.time_zone).dt.normalize()

    def _end(self, start: pd.Timestamp) -> pd.Timestamp:
        if self.policy.cluster == "hour":
            return start + pd.Timedelta(hours=1)
        return (start + pd.DateOffset(days=1)).normalize()  # a day of 23 or 25 hours is one, too

    @staticmethod
    def _arm(
        counts: Mapping[tuple[pd.Timestamp, Arm], tuple[int, int, int]],
        losses: Mapping[tuple[pd.Timestamp, Arm], dict[str, Loss]],
        start: pd.Timestamp,
        arm: Arm,
        times: Times = (0, 0),
    ) -> ArmOutcome:
        rows, errors, unseen = counts.get((start, arm), (0, 0, 0))
        return ArmOutcome(rows, errors, unseen, *times, losses=losses.get((start, arm), {}))

    # -- who answered

    def _arms(self, table: pa.Table) -> NDArray[np.object_]:
        """Say for each row whose answer it is; '' where neither's: pinned callers, other versions, failures."""
        arms, versions = np.array(table["_arm"].to_pylist(), dtype=object), table["_version"].to_numpy()
        heard = "shadow" if self.state.mode == "shadow" else "challenger"
        found = np.full(len(arms), "", dtype=object)
        found[(arms == "champion") & (versions == self.state.champion)] = "champion"
        found[(arms == heard) & (versions == self.state.version) & ~_failed(table)] = "challenger"
        return found

    def _counts(self, table: pa.Table) -> dict[tuple[pd.Timestamp, Arm], tuple[int, int, int]]:
        """Count rows, failures and unseen values; fallbacks and silence are failures of whom was asked."""
        answered = self._arms(table)
        meant = self._meant(table)
        unseen = np.zeros(table.num_rows, dtype=np.bool_)
        for arm in _BOTH:
            mine = np.flatnonzero(answered == arm)
            unseen[mine] = _unseen(table.take(mine), self.networks[arm].schema)
        frame = pd.DataFrame({"start": self._starts(table["_at"]), "unseen": unseen})
        frame["arm"] = np.where(answered != "", answered, meant)
        frame["error"] = (answered == "") & (meant != "")
        found: dict[Any, tuple[int, int, int]] = {}
        for key, part in frame[frame["arm"] != ""].groupby(["start", "arm"]):
            found[key] = (len(part), int(part["error"].sum()), int(part["unseen"].sum()))
        return found

    def _meant(self, table: pa.Table) -> NDArray[np.object_]:
        """Say whom a request was meant for that a fallback answered, or nobody; '' for others, and other versions."""
        found = np.full(table.num_rows, "", dtype=object)
        numbers: dict[int | None, Arm] = {self.state.champion: "champion", self.state.version: "challenger"}
        for row in np.flatnonzero(np.array(table["_arm"].to_pylist(), dtype=object) == "fallback").tolist():
            asked = _decoded(table["_question"][row].as_py()) or {}
            found[row] = numbers.get((asked.get("fallback") or {}).get("instead_of"), "")
        if self.state.mode == "shadow":
            found[_failed(table) & (table["_version"].to_numpy() == self.state.version)] = "challenger"
        return found

    def _times(self, table: pa.Table) -> dict[pd.Timestamp, Times]:
        """Hold the challenger's calls of the engine against the champion's median of like ones within the hour.

        Alike are those with the same kind of question and options, about as many rows, and about as many cells known in
        the request. A call counts once, however many requests it answered: they have its time to the last bit.
        """
        if "_seconds" not in table.column_names:  # all from before answers were timed
            return {}
        known = sum(np.asarray(table[name].is_valid()) for name in table.column_names if not name.startswith("_"))
        frame = pd.DataFrame({name: table[f"_{name}"].to_pandas() for name in ("request", "seconds", "batch", "kind")})
        frame = frame.assign(question=table["_question"].to_pandas(), arm=self._arms(table), known=known)
        frame = frame.assign(start=self._starts(table["_at"]), hour=table["_at"].to_pandas().dt.floor("h"))
        frame = frame[(frame["arm"] != "") & frame["seconds"].notna()]
        frame["cells"] = _about(frame.groupby(["request", "arm"])["known"].transform("sum"))
        frame["size"] = _about(frame["batch"])
        calls = frame.drop_duplicates(["arm", "seconds", "batch", "kind"])
        champion, challenger = (calls[calls["arm"] == arm] for arm in _BOTH)
        usual = champion.groupby(_ALIKE)["seconds"].agg(["median", "size"]).rename(columns={"size": "calls"})
        pairs = challenger.join(usual[usual["calls"] >= LIKE], on=_ALIKE, how="inner")
        slow = pairs["seconds"] > self.policy.max_slowdown * pairs["median"]
        return {start: (len(part), int(part.sum())) for start, part in slow.groupby(pairs["start"])}

    # -- what it was worth

    def _losses(
        self, table: pa.Table
    ) -> tuple[dict[tuple[pd.Timestamp, Arm], dict[str, Loss]], dict[pd.Timestamp, dict[str, Loss]]]:
        """Take log-loss of each arm's answers, and its difference on the same rows."""
        answered = self._arms(table)
        table, answered = table.take(kept := np.flatnonzero(answered != "")), answered[kept]
        evidence = [_decoded(text) for text in table["_evidence"].to_pylist()]
        answers = [_decoded(text) or {} for text in table["_answer"].to_pylist()]
        starts = self._starts(table["_at"])
        rows = list(zip(table["_request"].to_pylist(), table["_row"].to_pylist(), strict=True))
        arms: dict[tuple[pd.Timestamp, Arm], dict[str, Loss]] = {}
        pairs: dict[pd.Timestamp, dict[str, Loss]] = {}
        for target in self.comparable:
            if target not in table.column_names:
                continue
            codes = self._labels(table, target, evidence, answers)
            states = self.networks["champion"].schema[target].states
            served = [
                math.nan if code == MISSING else loss_of(answer, target, states[code])
                for code, answer in zip(codes, answers, strict=True)
            ]
            frame = pd.DataFrame({"start": starts, "arm": answered, "row": rows, "loss": served})
            for key, loss in _means(frame, ["start", "arm"], "loss"):
                arms.setdefault(key, {})[target] = loss
            frame["gap"] = self._gaps(frame, target, codes, evidence)
            for (start,), loss in _means(frame, ["start"], "gap"):
                pairs.setdefault(start, {})[target] = loss
        return arms, pairs

    def _labels(
        self,
        table: pa.Table,
        target: str,
        evidence: Sequence[Mapping[str, Any] | None],
        answers: Sequence[Mapping[str, Any]],
    ) -> NDArray[np.uint8]:
        """Give codes of what came, `MISSING` where nobody told or the caller knew it when asking."""
        cells = table[target].to_pandas()
        codes, _ = self.networks["champion"].schema[target].encode(cells)
        known = np.array([row is not None and target in row for row in evidence], dtype=np.bool_)
        codes = np.array(codes)
        codes[cells.isna().to_numpy() | known] = MISSING
        return codes

    def _gaps(
        self, frame: pd.DataFrame, target: str, codes: NDArray[np.uint8], evidence: Sequence[Mapping[str, Any] | None]
    ) -> NDArray[np.float64]:
        """Give the challenger's log-loss less the champion's on the same row, NaN where only one is known.

        While shadowing both have answered, and that is what counts. Else both are asked again what was asked, under the
        Jeffreys prior as in every comparison before a promotion.
        """
        gaps = np.full(len(frame), np.nan)
        if self.state.mode == "shadow":
            champion = frame[frame["arm"] == "champion"].set_index("row")["loss"]
            champion = champion[~champion.index.duplicated()]
            shadows = frame["arm"] == "challenger"
            gaps[shadows] = frame.loc[shadows, "loss"].to_numpy() - frame.loc[shadows, "row"].map(champion).to_numpy()
            return gaps
        asked = np.flatnonzero((codes != MISSING) & np.array([row is not None for row in evidence], dtype=np.bool_))
        if not asked.size:
            return gaps
        rows = [evidence[place] or {} for place in asked.tolist()]
        old, new = (self._ask(arm, target, rows, codes[asked]) for arm in _BOTH)
        gaps[asked] = new - old
        return gaps

    def _ask(
        self, arm: Arm, target: str, rows: Sequence[Mapping[str, Any]], codes: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        scorer = self._scorers[arm]
        data = encode(rows, scorer.network.schema)
        table, _ = scorer.probabilities(data, target, [name for name in data.schema.names if name != target])
        with np.errstate(divide="ignore", invalid="ignore"):
            found: NDArray[np.float64] = -np.log(table[np.arange(len(codes)), codes])
        return found

    @cached_property
    def _scorers(self) -> dict[Arm, Scorer]:
        return {arm: Scorer(proper_network(self.networks[arm])) for arm in _BOTH}


def comparable(one: Schema, other: Schema, targets: Iterable[str]) -> tuple[str, ...]:
    """Name the targets that both schemas have with the same states: log-loss on others can't be compared."""
    known = (target for target in targets if target in one and target in other)
    return tuple(target for target in known if one[target].states == other[target].states)


def encode(rows: Sequence[Mapping[str, Any]], schema: Schema) -> Dataset:
    """Encode cells as they were sent: what was left out is unobserved, also where a null would be a state."""
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in schema.names}, copy=False
    )
    data = Dataset.from_pandas(frame, schema)
    codes = np.array(data.codes)
    for place, name in enumerate(schema.names):
        codes[place, [name not in row for row in rows]] = MISSING
    return Dataset(schema, codes)


def loss_of(answer: Mapping[str, Any], target: str, state: str) -> float:
    """Give −ln of the probability that an answer gave to what came, nats; NaN where it says nothing of it.

    A prediction tells one probability only: of its state, or of its being wrong.
    """
    belief = (answer.get("posterior") or {}).get(target)
    if belief is None:
        belief = ((answer.get("targets") or {}).get(target) or {}).get("belief")
    if belief is not None:
        return -math.log(max(float(belief.get(state, 0.0)), LEAST))
    said = (answer.get("prediction") or {}).get(target)
    if not said or said.get("state") is None:
        return math.nan
    probability = float(said["probability"])
    return -math.log(max(probability if said["state"] == state else 1.0 - probability, LEAST))


def _means(frame: pd.DataFrame, by: list[str], value: str) -> Iterator[tuple[Any, Loss]]:
    known = frame[np.isfinite(frame[value])]
    for key, part in known.groupby(by):
        yield key, Loss(len(part), float(part[value].mean()))


def _unseen(table: pa.Table, schema: Schema) -> NDArray[np.bool_]:
    """Mask rows with a value that is no state."""
    found = np.zeros(table.num_rows, dtype=np.bool_)
    for variable in schema:
        if variable.name in table.column_names and table.num_rows:
            found |= variable.encode(table[variable.name].to_pandas())[1]
    return found


def _failed(table: pa.Table) -> NDArray[np.bool_]:
    """Mask rows of shadows that answered nothing."""
    told = ['"failed":' in text and "failed" in _decoded(text) for text in table["_question"].to_pylist()]
    return np.array(told, dtype=np.bool_)


def _about(counts: pd.Series[Any]) -> pd.Series[Any]:
    """Put counts into classes: each up to 8 has its own, then they are a fifth apart."""
    found: pd.Series[Any] = (4.0 * np.log2(1.0 + counts)).round()
    return found


def _decoded(text: str | None) -> Any:
    import msgspec

    return None if text is None else msgspec.json.decode(text)
