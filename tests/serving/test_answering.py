"""Answers are functions of the network, and say of usual rows that they are."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_bench import make_network, make_rows

import bnpipe
from bnpipe.data import Dataset
from bnpipe.inference import Engine
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.serving.answering import Options, answer, answer_rows, cells_touched
from bnpipe.serving.questions import KINDS, Kind
from bnpipe.serving.usual import DRAWN, draw, usual_of

NETWORK = make_network()
ENGINE = bnpipe.compile(NETWORK)


def rows_of(count: int, seed: int = 1, missing: float = 0.4) -> Any:
    """Codes with holes."""
    codes = draw(NETWORK, count, seed)
    codes[np.random.default_rng(seed).random(codes.shape) < missing] = MISSING
    return codes


def one(kind: Kind, options: Options, row: dict[str, Any], engine: Engine = ENGINE) -> dict[str, Any]:
    """Answer one row, by way of JSON."""
    return dict(json.loads(answer_rows(engine, kind, options, [row]))[0])


def test_posteriors_are_the_engines() -> None:
    """Each belief equals what the engine says of the frame, to the last bit, intervals too."""
    frame = make_rows(50)[["rain", "wind"]]
    expected = ENGINE.posterior(frame, targets=["late"], interval=0.9)
    rows = frame.to_dict(orient="records")
    found = json.loads(answer_rows(ENGINE, "posterior", Options(("late",), interval=0.9), rows))
    tables = ENGINE.posterior_codes(Dataset.from_pandas(frame, schema=NETWORK.schema).codes, ["late"])
    assert [list(row["posterior"]["late"].values()) for row in found] == tables["late"].tolist()
    assert expected.interval is not None
    assert [list(row["interval"]["late"].values()) for row in found] == expected.interval["late"].tolist()


def test_predictions_abstain_below_the_threshold() -> None:
    """The most probable state, or none where its probability is too low; the probability is told either way."""
    sure, unsure = {"rain": "no"}, {}
    for row, abstained in ((sure, False), (unsure, True)):
        found = one("predict", Options(("late",), abstain_below=0.9), row)["prediction"]["late"]
        belief = one("posterior", Options(("late",)), row)["posterior"]["late"]
        assert found["probability"] == max(belief.values())
        assert found["abstained"] is abstained
        assert found["state"] == (None if abstained else max(belief, key=belief.__getitem__))


def test_explanations_say_what_each_cell_did() -> None:
    """Leaving a cell out gives the belief without it; the cell that moves it most comes first; the rest is named."""
    row = {"rain": "yes", "wind": 1}
    found = one("explanation", Options(("late",)), row)
    late = found["targets"]["late"]
    assert late["belief"] == one("posterior", Options(("late",)), row)["posterior"]["late"]
    assert late["marginal"] == one("posterior", Options(("late",)), {})["posterior"]["late"]
    assert [move["variable"] for move in late["evidence"]] == ["rain", "wind"]
    for move in late["evidence"]:
        rest = {name: value for name, value in row.items() if name != move["variable"]}
        assert move["without"] == one("posterior", Options(("late",)), rest)["posterior"]["late"]
        moved = sum(abs(late["belief"][state] - move["without"][state]) for state in late["belief"]) / 2
        assert move["moved"] == pytest.approx(moved)
    assert late["evidence"][0]["moved"] >= late["evidence"][1]["moved"]
    best = found["most_probable_explanation"]
    assert best["rain"] == "yes"
    assert best["wind"] == "1"
    alone = one("likelihood", Options(), best)["log_likelihood"]
    assert found["log_probability"] == pytest.approx(alone)
    for rain_late in (("late", "true"), ("late", "false")):
        other = {**best, rain_late[0]: rain_late[1]}
        value = one("likelihood", Options(), other)["log_likelihood"]
        assert value is None or value <= alone + 1e-12


@pytest.mark.parametrize("kind", [*KINDS, "invocations"])
def test_bits_do_not_depend_on_company(kind: Kind) -> None:
    """A row has the same answer alone, among 7 and among 500 others."""
    options = Options() if kind == "likelihood" else Options(("late", "note"))
    codes = rows_of(500)
    every = answer(ENGINE, kind, options, codes)
    for place in (0, 1, 77, 499):
        assert answer(ENGINE, kind, options, codes[:, place : place + 1]) == [every[place]]
    assert answer(ENGINE, kind, options, codes[:, 100:107]) == every[100:107]


# -- how usual a row is


def test_drawn_rows_follow_the_network() -> None:
    """Frequencies of families among drawn rows are the CPDs (chi-square, 40 cells; fails by chance once in 1e4)."""
    codes = draw(NETWORK, 20_000, 5)
    np.testing.assert_array_equal(codes, draw(NETWORK, 20_000, 5))
    statistic, degrees = 0.0, 0
    for place, node in enumerate(NETWORK.nodes):
        table = NETWORK.cpd(node).table
        cells = np.zeros(table.shape)
        np.add.at(cells, (*(codes[NETWORK.nodes.index(parent)] for parent in NETWORK.parents[node]), codes[place]), 1.0)
        expected = cells.sum(axis=-1, keepdims=True) * table
        seen = expected > 0
        assert not cells[~seen].any(), "what is impossible is never drawn"
        statistic += float((((cells - expected) ** 2)[seen] / expected[seen]).sum())
        degrees += int(seen.sum() - (cells.sum(axis=-1) > 0).sum())
    assert statistic < degrees + 3.72 * (2 * degrees) ** 0.5 + 9


def test_quantiles_of_the_networks_own_rows_are_uniform() -> None:
    """Among rows with the same cells observed, at most a share q has a quantile below q (+4 standard errors, 1e-4)."""
    schema = Schema(tuple(Variable(name, ("a", "b", "c", "d")) for name in "uvwxyz"))
    rng = np.random.default_rng(8)
    tables = {name: rng.dirichlet(np.ones(4)) for name in "uvwxyz"}
    engine = bnpipe.compile(Network(schema, {}, tables=tables))
    for hidden in (0, 2):
        codes = draw(engine.network, 4000, 99)
        codes[:hidden] = MISSING
        found = np.array([row["quantile"] for row in answer(engine, "likelihood", Options(), codes)])
        for q in (0.01, 0.05, 0.1, 0.5, 0.9):
            spread = (q * (1 - q) * (1 / 4000 + 1 / DRAWN)) ** 0.5
            assert (found < q).mean() <= q + 4 * spread
            assert (found <= q + 0.05).mean() >= q - 4 * spread


def test_like_is_compared_with_like() -> None:
    """A row with one ordinary cell is not unusual because fuller rows have lower likelihoods, nor the reverse."""
    few = one("likelihood", Options(), {"rain": "no"})
    assert few["observed"] == 1
    assert few["quantile"] > 0.4
    rare = one("likelihood", Options(), {"rain": "no", "wind": 3, "late": True})
    usual = one("likelihood", Options(), {"rain": "no", "wind": 1, "late": False})
    assert rare["quantile"] < usual["quantile"]
    assert one("likelihood", Options(), {}) == {
        "log_likelihood": 0.0,
        "observed": 0,
        "quantile": 1.0,
        "relative_to": "drawn rows",
        "impossible": False,
    }


def test_patterns_are_made_once_and_counted() -> None:
    """A question's cost counts the sets of observed variables that are new to it, and only then."""
    engine = bnpipe.compile(NETWORK)
    codes = rows_of(300)
    before = cells_touched(engine, "likelihood", Options(), codes)
    assert usual_of(engine).unknown(codes) == len({tuple(row) for row in (codes != MISSING).T.tolist()})
    answer(engine, "likelihood", Options(), codes)
    assert usual_of(engine).unknown(codes) == 0
    assert cells_touched(engine, "likelihood", Options(), codes) < before


def test_what_is_usual_goes_with_its_engine() -> None:
    """A version that is replaced leaves nothing behind."""
    engine = bnpipe.compile(NETWORK)
    one("likelihood", Options(), {"rain": "no"}, engine)
    gone = weakref.ref(usual_of(engine))
    del engine
    gc.collect()
    assert gone() is None


@given(st.integers(1, 50), st.sampled_from([*KINDS, "invocations"]), st.booleans())
@settings(max_examples=30)
def test_costs_grow_with_rows(rows: int, kind: Kind, interval: bool) -> None:
    """More rows never cost less, and nothing is free."""
    options = Options() if kind == "likelihood" else Options(("late",))
    if kind == "posterior" and interval:
        options = Options(("late",), interval=0.9)
    codes = rows_of(rows + 1)
    less, more = (cells_touched(ENGINE, kind, options, codes[:, :count]) for count in (rows, rows + 1))
    assert 0.0 < less <= more


def test_large_answers_cost_what_writing_them_takes() -> None:
    """Thousands of rows of hundreds of states are no cheap question, however small the network's messages."""
    schema = Schema((Variable("wide", tuple(f"s{n}" for n in range(200))),))
    engine = bnpipe.compile(Network(schema, {}, tables={"wide": np.full(200, 1 / 200)}))
    codes = np.full((1, 10_000), MISSING, dtype=np.uint8)
    assert cells_touched(engine, "posterior", Options(("wide",)), codes) > 2e9
    assert cells_touched(engine, "posterior", Options(("wide",)), codes[:, :1]) < 1e4
