"""Answers of one version to encoded rows: pure functions of the network, the same bits whatever else is asked.

An answer holds, for each row, what was asked in JSON. Its bytes can be made again from the registered version (`bnpipe
audit`): floats are written by their shortest text that reads back as the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from bnpipe.data import Dataset
from bnpipe.errors import QuestionError, shorten
from bnpipe.inference import Engine
from bnpipe.schema import MISSING
from bnpipe.serving.cells import CellEncoder, Codes, Encoded, Row
from bnpipe.serving.questions import Kind
from bnpipe.serving.usual import DRAWN, usual_of

Floats = NDArray[np.float64]

_FEW: Final = 16
"""Rows up to which the size of an answer costs no time that counts."""
_MANY: Final = 256
"""Rows from which it is worth while to count those that are looked up."""
_WRITTEN: Final = 3e3
"""Cells in the time in which the answer of a row for a target is made and written, and as many for two states."""
_CALLED: Final = 1e5
"""Cells in the time of what is asked row by row."""
_ENCODER: Final = msgspec.json.Encoder()


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """What distinguishes questions of one kind; with the rows and the version it determines the answer.

    Parameters
    ----------
    targets : tuple of str
        Empty for likelihoods.
    interval, abstain_below : float, optional
    """

    targets: tuple[str, ...] = ()
    interval: float | None = None
    abstain_below: float | None = None


def answer_rows(engine: Engine, kind: Kind, options: Options, rows: Sequence[Row]) -> bytes:
    """Answer raw rows: what the service would have said, as JSON bytes."""
    encoded = CellEncoder(engine.network.schema).encode(rows)
    return encode_answers(with_unseen(kind, answer(engine, kind, options, encoded.codes), encoded))


def encode_answers(answers: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows' answers as JSON."""
    return _ENCODER.encode(answers)


def check_options(engine: Engine, options: Options) -> None:
    """Refuse targets the network does not have.

    Raises
    ------
    QuestionError
    """
    schema = engine.network.schema
    if strangers := [target for target in options.targets if target not in schema]:
        there = shorten(schema.names, limit=20)
        raise QuestionError(
            f"targets: no variable {shorten(map(repr, strangers))} in the network; there are {there}", at="targets"
        )


def answer(engine: Engine, kind: Kind, options: Options, codes: Codes) -> list[dict[str, Any]]:
    """Answer encoded rows.

    Parameters
    ----------
    engine : Engine
    kind : {"posterior", "predict", "explanation", "likelihood", "invocations"}
    options : Options
    codes : uint8 (variables, rows)

    Returns
    -------
    list of dict
        One for each row; of many rows perhaps structs, which are written alike.
    """
    if kind == "posterior":
        return _posterior(engine, options, codes)
    if kind == "predict":
        return _predict(engine, options, codes)
    if kind == "explanation":
        return _explanation(engine, options, codes)
    if kind == "likelihood":
        return _likelihood(engine, codes)
    return _invocations(engine, options, codes)


def with_unseen(kind: Kind, answers: list[dict[str, Any]], encoded: Encoded) -> list[dict[str, Any]]:
    """Say in each answer to MLflow's protocol how many cells were no state: the codes do not tell."""
    if kind == "invocations":
        for row, _, _ in encoded.unseen:
            answers[row]["unseen"] += 1
    return answers


def cells_touched(engine: Engine, kind: Kind, options: Options, codes: Codes) -> float:
    """Estimate what a question costs, in cells of messages: a core touches some two thousand million a second.

    What is done beside messages is counted as the cells that would take as long.
    """
    rows, cells, targets = int(codes.shape[1]), float(engine.cost.cells), options.targets
    if kind == "likelihood":
        return rows * (cells + _WRITTEN) + DRAWN * usual_of(engine).unknown(codes) * cells
    if rows < _FEW and kind != "explanation" and options.interval is None:
        return rows * (cells + _WRITTEN * len(targets))
    states = sum(engine.network.schema[target].cardinality for target in targets)
    written = _WRITTEN * (len(targets) + states / 2.0)
    if kind == "explanation":
        observed = float((codes != MISSING).sum())
        return (observed + 4 * rows) * (cells + written) + rows * _CALLED
    summed = rows if rows < _MANY else engine.count_messages(codes, targets)
    cost = summed * cells + rows * written
    if options.interval is not None:
        tables = sum(engine.network.cpd(node).table.size for node in engine.network.nodes)
        cost += rows * (states * (8.0 * cells + 500.0 * tables) + _CALLED)
    return cost


def _posterior(engine: Engine, options: Options, codes: Codes) -> list[dict[str, Any]]:
    tables = engine.posterior_codes(codes, options.targets, threads=1, shortcut=True)
    if options.interval is None and (quick := _quick_answers(engine, tables)) is not None:
        return quick
    answers = posterior_answers(engine, tables)
    if options.interval is not None:
        rows = Dataset(engine.network.schema, codes)
        found = engine.posterior(rows, options.targets, interval=options.interval, threads=1).interval or {}
        for target, ends in found.items():
            states = engine.network.schema[target].states
            for place, one in enumerate(answers):
                one.setdefault("interval", {})[target] = (
                    None if one["impossible"] else dict(zip(states, ends[place].tolist(), strict=True))
                )
    return answers


def _quick_answers(engine: Engine, tables: Mapping[str, Floats]) -> list[Any] | None:
    """Make what is written as :func:`posterior_answers` are, five times as quickly, for one target of many rows.

    None if that can't be done.
    """
    if len(tables) != 1:
        return None
    ((target, table),) = tables.items()
    make = _shape(target, engine.network.schema[target].states)
    if make is None or len(table) < _MANY or np.isnan(table[:, 0]).any():
        return None
    return make(table.T.tolist())


@lru_cache(maxsize=256)
def _shape(target: str, states: tuple[str, ...]) -> Callable[[list[list[float]]], list[Any]] | None:
    """Give what makes answers of the states' probabilities; None if the names can't be those of a struct's fields."""
    fields = [f"state_{code}" for code in range(len(states))]
    try:
        belief = msgspec.defstruct(
            "Belief", [(field, float) for field in fields], rename=dict(zip(fields, states, strict=True)), gc=False
        )
        beliefs = msgspec.defstruct("Beliefs", [("target", belief)], rename={"target": target}, gc=False)
    except ValueError:  # quotes or backslashes in a name
        return None
    answer = msgspec.defstruct("Answer", [("posterior", beliefs), ("impossible", bool, False)], gc=False)
    return lambda columns: list(map(answer, map(beliefs, map(belief, *columns))))


def posterior_answers(engine: Engine, tables: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Turn tables ``target -> (rows, states)`` into rows' answers; null where the evidence is impossible."""
    rows = len(next(iter(tables.values())))
    answers: list[dict[str, Any]] = [{"posterior": {}, "impossible": False} for _ in range(rows)]
    for target, table in tables.items():
        states = engine.network.schema[target].states
        for one, values in zip(answers, table.tolist(), strict=True):
            if values[0] == values[0]:
                one["posterior"][target] = dict(zip(states, values, strict=True))
            else:
                one["posterior"][target], one["impossible"] = None, True
    return answers


def _predict(engine: Engine, options: Options, codes: Codes) -> list[dict[str, Any]]:
    return predictions(engine, options, engine.posterior_codes(codes, options.targets, threads=1, shortcut=True))


def predictions(engine: Engine, options: Options, tables: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Turn tables into most probable states; null where it abstains or the evidence is impossible."""
    rows = len(next(iter(tables.values())))
    answers: list[dict[str, Any]] = [{"prediction": {}, "impossible": False} for _ in range(rows)]
    least = options.abstain_below or 0.0
    for target, table in tables.items():
        states = engine.network.schema[target].states
        for one, values in zip(answers, table.tolist(), strict=True):
            if values[0] != values[0]:
                one["prediction"][target], one["impossible"] = None, True
                continue
            probability = max(values)
            abstains = probability < least
            state = None if abstains else states[values.index(probability)]
            one["prediction"][target] = {"state": state, "probability": probability, "abstained": abstains}
    return answers


def _likelihood(engine: Engine, codes: Codes) -> list[dict[str, Any]]:
    rows = Dataset(engine.network.schema, codes)
    found = engine.log_likelihood(rows, threads=1)
    observed = (codes != MISSING).sum(axis=0).tolist()
    quantiles = usual_of(engine).quantiles(codes, found)
    return [
        {
            "log_likelihood": None if value == -np.inf else value,
            "observed": count,
            "quantile": quantile,
            "relative_to": basis,
            "impossible": value == -np.inf,
        }
        for value, count, (quantile, basis) in zip(found.tolist(), observed, quantiles, strict=True)
    ]


def _invocations(engine: Engine, options: Options, codes: Codes) -> list[dict[str, Any]]:
    """Ask as the version's pyfunc does, whose last bits depend on the rows that are asked together; these do not."""
    return invocation_answers(engine, engine.posterior_codes(codes, options.targets, threads=1, shortcut=True))


def invocation_answers(engine: Engine, tables: Mapping[str, Floats]) -> list[dict[str, Any]]:
    """Turn tables into rows of the frame that the version's pyfunc gives, with null for NaN."""
    rows = len(next(iter(tables.values())))
    answers: list[dict[str, Any]] = [{} for _ in range(rows)]
    impossible = [False] * rows
    for target, table in tables.items():
        states = engine.network.schema[target].states
        names = [f"{target}={state}" for state in states]
        for place, (one, values) in enumerate(zip(answers, table.tolist(), strict=True)):
            if known := values[0] == values[0]:
                one[target] = states[values.index(max(values))]
            else:
                one[target], impossible[place] = None, True
            one.update(zip(names, values if known else [None] * len(values), strict=True))
    for one, is_impossible in zip(answers, impossible, strict=True):
        one["impossible"], one["unseen"] = is_impossible, 0
    return answers


def _explanation(engine: Engine, options: Options, codes: Codes) -> list[dict[str, Any]]:
    """Leave out each observed variable in turn: what the belief would be without it (Kjaerulff & Madsen 2013, 5.3)."""
    schema = engine.network.schema
    best = engine.most_probable_explanation(Dataset(schema, codes), threads=1)
    answers = []
    for place in range(codes.shape[1]):
        row = codes[:, place]
        observed = np.flatnonzero(row != MISSING)
        without = np.repeat(row[:, None], observed.size + 2, axis=1)
        without[observed, np.arange(observed.size)] = MISSING
        without[observed, -1] = MISSING
        tables = engine.posterior_codes(without, options.targets, threads=1)
        impossible = bool(best.impossible[place])
        answers.append(
            {
                "targets": {target: _moved(engine, target, tables[target], observed) for target in options.targets},
                "most_probable_explanation": None
                if impossible
                else {v.name: v.states[best.codes[i, place]] for i, v in enumerate(schema)},
                "log_probability": None if impossible else float(best.log_probability[place]),
                "impossible": impossible,
            }
        )
    return answers


def _moved(engine: Engine, target: str, table: Floats, observed: NDArray[np.intp]) -> dict[str, Any] | None:
    """Compare the belief with that without each observed variable; `table` holds these, the belief, the marginal."""
    schema, (belief, prior) = engine.network.schema, table[-2:]
    if np.isnan(belief).any():
        return None
    states = schema[target].states
    moves = []
    for place, without in zip(observed.tolist(), table[:-2], strict=True):
        if schema.names[place] != target:
            change = belief - without
            moves.append(
                {
                    "variable": schema.names[place],
                    "without": dict(zip(states, without.tolist(), strict=True)),
                    "moved": float(np.abs(change).sum() / 2.0),
                }
            )
    moves.sort(key=lambda move: -move["moved"])
    return {
        "belief": dict(zip(states, belief.tolist(), strict=True)),
        "marginal": dict(zip(states, prior.tolist(), strict=True)),
        "evidence": moves,
    }
