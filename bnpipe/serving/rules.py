"""What the service decides about a question and its answer: pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np

from bnpipe.answers.records import Arm, time_of_id
from bnpipe.config.scalars import did_you_mean
from bnpipe.config.serving import LimitsSpec, ServedModelSpec
from bnpipe.errors import QuestionError, ServiceBusy, shorten
from bnpipe.inference import Engine
from bnpipe.schema import MISSING, Schema
from bnpipe.serving.access import Caller
from bnpipe.serving.answering import (
    Options,
    cells_touched,
    check_options,
    encode_answers,
    invocation_answers,
    posterior_answers,
    predictions,
)
from bnpipe.serving.cells import Cell, Codes, Encoded
from bnpipe.serving.questions import Kind, Question
from bnpipe.serving.routing import choose_arm
from bnpipe.serving.shelf import ServedModel
from bnpipe.serving.usual import BASIS
from bnpipe.serving.versions import ServedVersion

_TOLD: Final = 20
"""Cells that an answer names as unseen at most."""
_CUT: Final = 100
"""Characters of a value that an answer or an error tells."""

_SKEW: Final = timedelta(minutes=5)
"""Clocks of two machines may be apart."""
_AN_ID: Final = "0006453a7e3c10-5f2b8c1d9e4a7036"

_encode = msgspec.json.Encoder().encode


def choose_version(model: ServedModel, caller: Caller, asked: int | None, key: str) -> tuple[ServedVersion, Arm]:
    """Choose who answers: the version asked for, the caller's pin, the canary's arm, or the champion.

    Raises
    ------
    NotServed
        That version is not here.
    ServiceBusy
        There is no champion.
    """
    pinned = asked if asked is not None else caller.pins.get(model.name)
    if pinned is not None:
        return model.version(pinned), "pinned"
    if model.champion is None:
        raise ServiceBusy(f"{model.name} has no champion to answer: {model.why_idle}", retry_after=5.0)
    if model.canary is not None and choose_arm(key, model.canary) == "challenger":
        return model.version(model.canary.version), "challenger"
    return model.champion, "champion"


def marginal_answers(
    engine: Engine, marginals: Mapping[str, Mapping[str, float]], kind: Kind, options: Options, rows: int
) -> bytes:
    """Answer as if nothing were observed."""
    tables = {target: np.array([list(marginals[target].values())]) for target in options.targets}
    if kind == "predict":
        (one,) = predictions(engine, options, tables)
    elif kind == "invocations":
        (one,) = invocation_answers(engine, tables)
    else:
        (one,) = posterior_answers(engine, tables)
    return encode_answers([one] * rows)


def make_options(kind: Kind, question: Question, version: ServedVersion) -> Options:
    """Take from a question what its kind has.

    Raises
    ------
    QuestionError
        It has what its kind has not, or targets or intervals that the network does not have.
    """
    if kind == "likelihood":
        if question.targets:
            raise QuestionError("targets: a likelihood has none; leave them out", at="targets")
        options = Options()
    else:
        options = Options(targets=version.targets(question.targets))
    for name, its in (("interval", "posterior"), ("abstain_below", "predict")):
        value = getattr(question, name)
        if value is not None:
            if kind != its:
                raise QuestionError(f"{name}: only for {its}, this is {kind}", at=name)
            options = msgspec.structs.replace(options, **{name: value})
    check_options(version.engine, options)
    if options.interval is not None and not version.network.has_counts:
        raise QuestionError("interval: the network was imported and has no counts to make intervals of", at="interval")
    return options


def check_evidence(kind: Kind, encoded: Encoded, schema: Schema, spec: ServedModelSpec) -> None:
    """Refuse variables and values that the network does not have, where the spec says so; MLflow's protocol never does.

    Raises
    ------
    QuestionError
    """
    if kind == "invocations":
        return
    if encoded.unknown and spec.unknown_variables == "refuse":
        names = sorted({name for _, name in encoded.unknown})
        row, name = encoded.unknown[0]
        hint = did_you_mean(name[:_CUT], schema.names) or ";"
        raise QuestionError(
            f"rows[{row}]: no variable {shorten(map(repr, names))} in the network{hint} "
            f"there are {shorten(schema.names)}",
            at=f"rows[{row}].{name}"[:_CUT],
        )
    if encoded.unseen and spec.unknown_states == "refuse":
        row, name, value = encoded.unseen[0]
        more = f" (and {len(encoded.unseen) - 1} cells more)" if len(encoded.unseen) > 1 else ""
        raise QuestionError(
            f"rows[{row}].{name}: got {shorten([repr(_cut(value))])}, which is no state{more}; "
            f"there are {shorten(schema[name].states)}",
            at=f"rows[{row}].{name}"[:_CUT],
        )


def check_answered(request_id: str, now: datetime) -> None:
    """Refuse an id that no answer can have: one of another make than the service's own, or of a time to come.

    Raises
    ------
    QuestionError
    """
    made = time_of_id(request_id)
    if made is None:
        got = shorten([repr(request_id)])
        raise QuestionError(f"request_id: got {got}; it is in each reply, and is as {_AN_ID}", at="request_id")
    if made > now + _SKEW:
        raise QuestionError(
            f"request_id: {request_id} would have been answered on {made:%Y-%m-%d at %H:%M} UTC, which is to come",
            at="request_id",
        )


def check_labels(model: ServedModel, labels: Mapping[str, Cell], at: str) -> None:
    """Refuse labels that no version here takes: what turns out late may have been asked of the one before.

    Raises
    ------
    QuestionError
        As the champion, or the newest version, sees it.
    """
    refused: QuestionError | None = None
    for version in sorted(model.versions.values(), key=lambda one: (one is not model.champion, -one.number)):
        try:
            _check_labels(version, labels, at)
        except QuestionError as error:
            refused = refused or error
        else:
            return
    if refused is not None:
        raise refused


def _check_labels(version: ServedVersion, labels: Mapping[str, Cell], at: str) -> None:
    schema = version.network.schema
    for name, value in labels.items():
        if name not in schema:
            hint = did_you_mean(name[:_CUT], schema.names) or ";"
            there = shorten(schema.names)
            raise QuestionError(f"{at}: no variable {name[:60]!r} in the network{hint} there are {there}", at=at)
        if value is None:
            raise QuestionError(f"{at}.{name}: a label must have a value", at=f"{at}.{name}")
        if version.encoder.encode([{name: value}]).codes[schema.index(name), 0] == MISSING:
            states = shorten(schema[name].states)
            got = shorten([repr(_cut(value))])
            raise QuestionError(f"{at}.{name}: got {got}, which is no state; there are {states}", at=f"{at}.{name}")


def reply_body(
    request_id: str,
    model: str,
    kind: Kind,
    encoded: Encoded,
    *,
    by: ServedVersion,
    text: bytes,
    version: int,
    arm: Arm,
    fallback: Mapping[str, Any] | None,
) -> bytes:
    """Put the answers' JSON into that of the reply; MLflow's protocol knows only ``predictions``.

    Parameters
    ----------
    encoded, by
        The rows, and the version that they were encoded for; `version` may be another that stood in for it.
    """
    if kind == "invocations":
        head: dict[str, Any] = {}
    else:
        head = {"request_id": request_id, "model": model, "version": version, "arm": arm}
    if fallback is not None:
        head["fallback"] = fallback
    if kind == "invocations":
        start = _encode(head)[:-1] + b"," if head else b"{"
        return start + b'"predictions":' + text + b"}"
    if kind == "likelihood":
        head["relative_to"] = BASIS
    if encoded.unseen:
        head["unseen"] = [_unseen(by, *cell) for cell in encoded.unseen[:_TOLD]]
    if encoded.unknown:
        head["ignored"] = sorted({name[:_CUT] for _, name in encoded.unknown})[:_TOLD]
    return _encode(head)[:-1] + b',"answers":' + text + b"}"


def _unseen(version: ServedVersion, row: int, name: str, value: Cell) -> dict[str, Any]:
    """Name a cell whose value is no state, and why it made the evidence impossible, if it did."""
    told = {"row": row, "variable": name, "value": _cut(value)}
    other = version.network.schema[name].other
    if other is not None and version.marginals[name][other] == 0.0:
        told["hint"] = f"it counts as {other!r}, which has probability 0 here: no row of the training had it"
    return told


def _cut(value: Cell) -> Cell:
    return value[:_CUT] if isinstance(value, str) else value


def check_cost(version: ServedVersion, kind: Kind, options: Options, codes: Codes, limits: LimitsSpec) -> None:
    """Refuse what would take too long.

    Raises
    ------
    QuestionError
    """
    cost = cells_touched(version.engine, kind, options, codes)
    if cost > limits.cost:
        raise QuestionError(
            f"rows: {codes.shape[1]} rows of {version.model} would touch {cost:.2g} cells, "
            f"{limits.cost:.2g} are allowed; ask for less, or in parts",
            at="rows",
            too_large=True,
        )


def total_variation(given: bytes, shadow: bytes) -> float:
    """Total variation between two answers, mean over rows and targets."""
    parts = []
    for one, other in zip(msgspec.json.decode(given), msgspec.json.decode(shadow), strict=True):
        for target, belief in one["posterior"].items():
            its: Mapping[str, float] | None = other["posterior"].get(target)
            if belief is not None and its is not None and belief.keys() == its.keys():
                parts.append(sum(abs(belief[state] - its[state]) for state in belief) / 2.0)
    return float(np.mean(parts)) if parts else float("nan")
