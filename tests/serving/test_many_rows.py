"""Many rows are answered and written by ways of their own: the bytes must be those of each row asked alone."""

from __future__ import annotations

import numpy as np
import pytest
from reference_networks import published, sample

import bnpipe
from bnpipe.inference import Engine
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.serving.answering import Options, answer, encode_answers
from bnpipe.serving.cells import CellEncoder

ROWS = 300


def named(states: tuple[str, str], target: str) -> Engine:
    """Two variables; the target's second state is impossible where the first is in its second."""
    schema = Schema((Variable("cause", ("a", "b")), Variable(target, states)))
    tables = {"cause": np.array([0.3, 0.7]), target: np.array([[0.25, 0.75], [1.0, 0.0]])}
    return bnpipe.compile(Network(schema, {"cause": (), target: ("cause",)}, tables=tables))


def alone(engine: Engine, options: Options, codes: np.ndarray) -> bytes:
    rows = [
        encode_answers(answer(engine, "posterior", options, codes[:, [row]]))[1:-1] for row in range(codes.shape[1])
    ]
    return b"[" + b",".join(rows) + b"]"


@pytest.mark.parametrize(
    "states", [("no", "yes"), ("", "ümlaut 雪"), ('a "quote"', "back\\slash"), ("line\nfeed", "\x00")]
)
@pytest.mark.parametrize("target", ["effect", 'the "effect"'])
def test_names_of_all_kinds(states: tuple[str, str], target: str) -> None:
    """Whatever states and target are called, many rows are written as one by one."""
    engine, options = named(states, target), Options(targets=(target,))
    codes = np.random.default_rng(0).choice(np.array([0, 1, MISSING], dtype=np.uint8), (2, ROWS))
    assert encode_answers(answer(engine, "posterior", options, codes)) == alone(engine, options, codes)


@pytest.mark.parametrize("impossible", [False, True])
def test_impossible_rows_among_many(impossible: bool) -> None:
    """Rows of probability zero have no posterior, and the others around them keep theirs."""
    network = published("asia")
    engine, options = bnpipe.compile(network), Options(targets=("dysp",))
    codes = sample(network, ROWS, seed=1).codes.copy()
    codes[np.random.default_rng(2).random(codes.shape) < 0.2] = MISSING
    if impossible:
        codes[network.schema.index("either"), 7], codes[network.schema.index("lung"), 7] = 1, 0
    found = encode_answers(answer(engine, "posterior", options, codes))
    assert found == alone(engine, options, codes)
    assert (b'"impossible":true' in found) == impossible


def test_many_rows_are_encoded_as_one_by_one() -> None:
    """Numbers, nulls, gaps, words and odd cells of many rows have the codes, and the faults, of each row alone."""
    schema = Schema(
        (
            Variable("bins", ("low", "mid", "high", "none"), edges=(1.5, 3.0), missing="none"),
            Variable("plain", ("low", "high"), edges=(2.0,)),
            Variable("word", ("a", "b", "rest"), other="rest"),
            Variable("truth", ("False", "True")),
        )
    )
    kinds = {
        "numbers": ([1, 1.5, 2.99, 3, -1e300, 10**300], ["a", "b"]),
        "nulls and gaps": ([1.4, None, ..., 3.5, 7], ["a", None, ...]),
        "odd": ([2, "low", "none", "2.5", True, "?", 10**400, ...], ["a", "new", True, 3, ...]),
    }
    rng = np.random.default_rng(4)
    for numbers, words in kinds.values():
        rows = []
        for _ in range(ROWS):
            drawn = {
                "bins": numbers[rng.integers(len(numbers))],
                "plain": numbers[rng.integers(len(numbers))],
                "word": words[rng.integers(len(words))],
                "truth": [True, False][rng.integers(2)],
            }
            rows.append({name: value for name, value in drawn.items() if value is not ...})
        whole, one = CellEncoder(schema).encode(rows), [CellEncoder(schema).encode([row]) for row in rows]
        np.testing.assert_array_equal(whole.codes, np.concatenate([each.codes for each in one], axis=1))
        alone = [(place, name, value) for place, each in enumerate(one) for _, name, value in each.unseen]
        assert sorted(map(repr, whole.unseen)) == sorted(map(repr, alone))
        assert len(set(whole.codes[0].tolist())) > 2
