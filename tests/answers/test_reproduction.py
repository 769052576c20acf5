"""An answer asked for again is the same bit for bit: alone or in company, in one thread or two, in another process."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from answer_records import answer as record
from answer_records import clinic
from inference_cases import holes
from reference_networks import published, random_network, sample

import bnpipe
from bnpipe.answers import evidence_hash, reproduce
from bnpipe.config.serving import BatchSpec
from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, NetworkError
from bnpipe.inference import Engine
from bnpipe.network import Network
from bnpipe.serving.answering import Options, answer, answer_rows
from bnpipe.serving.batching import Batcher

SIZES = (1, 2, 7, 64, 1000)


def bits(tables, rows=slice(None)) -> list[bytes]:
    return [np.ascontiguousarray(table[rows]).tobytes() for table in tables.values()]


def learned(seed: int, *, rows: int = 400) -> Network:
    """A network fitted to days of rows, so that it has counts and intervals."""
    drawn = random_network(seed, 8 + seed, most_states=4)
    data = sample(drawn, rows, seed)
    days = np.arange(rows, dtype=np.int32) % 20
    days_of = Dataset(data.schema, data.codes, days, tuple(f"d{day:02}" for day in range(20)))
    return bnpipe.fit(days_of, drawn.parents, equivalent_sample_size=5.0)


@pytest.fixture(scope="module", params=["alarm", "dense", "zeros"])
def engine(request) -> Engine:
    """Networks with much and little to look up, and with impossible rows."""
    if request.param == "alarm":
        return bnpipe.compile(published("alarm"))
    return bnpipe.compile(random_network(5, 20, most_states=4, zeros=0.2 if request.param == "zeros" else 0.0))


@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_rows_bits_depend_on_nothing_but_the_row(engine, shortcut, share) -> None:
    """A request that shared its batch with others could not be made again."""
    codes, rng = holes(sample(engine.network, 3000, 1), share, 2).codes, np.random.default_rng(3)
    targets = engine.network.nodes[:3]
    whole = engine.posterior_codes(codes, targets, threads=2, shortcut=shortcut)
    assert bits(engine.posterior_codes(codes, targets, threads=1, shortcut=shortcut)) == bits(whole)
    for size in SIZES:
        for _ in range(4):
            rows = rng.integers(0, 3000, size)
            some = np.ascontiguousarray(codes[:, rows])
            assert bits(engine.posterior_codes(some, targets, threads=1, shortcut=shortcut)) == bits(whole, rows), size


def test_messages_do_not_depend_on_the_other_targets(engine) -> None:
    """What is remembered of one question could not serve another."""
    codes = holes(sample(engine.network, 300, 1), 0.5, 2).codes
    everything = engine.posterior_codes(codes, threads=1)
    for target in engine.network.nodes[:3]:
        assert bits(engine.posterior_codes(codes, [target], threads=1)) == [everything[target].tobytes()]


@pytest.mark.parametrize("seed", [1, 2, 4])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("posterior", Options()),
        ("predict", Options(abstain_below=0.5)),
        ("explanation", Options()),
        ("likelihood", None),
        ("invocations", Options()),
    ],
)
def test_an_answer_is_the_same_in_any_company(kind, options, seed) -> None:
    """What the service said to a row among others' rows is not what it says when asked again."""
    engine = bnpipe.compile(learned(seed))
    options = Options() if options is None else msgspec.structs.replace(options, targets=engine.network.nodes[:2])
    codes, rng = holes(sample(engine.network, 100, 9), (0.0, 0.3, 0.7)[seed % 3], 2).codes, np.random.default_rng(3)
    encode = msgspec.json.encode
    alone = [encode(answer(engine, kind, options, np.ascontiguousarray(codes[:, [row]]))) for row in range(100)]
    for size in (2, 7, 64):
        for _ in range(3):
            rows = rng.integers(0, 100, size)
            together = answer(engine, kind, options, np.ascontiguousarray(codes[:, rows]))
            assert [encode([one]) for one in together] == [alone[row] for row in rows], size


@pytest.mark.parametrize("options", [Options(), Options(interval=0.9)])
def test_a_request_answered_beside_others_is_the_same_asked_again(options) -> None:
    """Requests gathered into one batch would not be reproduced; the last bits of intervals depend on the batch."""
    engine = bnpipe.compile(learned(1))
    options = msgspec.structs.replace(options, targets=engine.network.nodes[:2])
    codes, rng = holes(sample(engine.network, 100, 9), 0.3, 2).codes, np.random.default_rng(3)
    requests = [np.ascontiguousarray(codes[:, rng.integers(0, 100, size)]) for size in 8 * (1, 2, 1, 5, 1)]
    version = SimpleNamespace(engine=engine)

    async def together():
        batcher, deadline = Batcher(BatchSpec()), time.monotonic() + 60.0
        try:
            asked = [batcher.submit(version, "posterior", options, one, deadline=deadline) for one in requests]
            return await asyncio.gather(*asked)
        finally:
            batcher.close()

    for found, request in zip(asyncio.run(together()), requests, strict=True):
        assert msgspec.json.encode(found.answers) == msgspec.json.encode(answer(engine, "posterior", options, request))


def ask(network, kind, question, rows) -> bytes:
    return answer_rows(bnpipe.compile(network), kind, msgspec.convert(question, Options), rows)


def asked(network: Network, rows, **changes):
    text = answer_rows(bnpipe.compile(network), "posterior", Options(targets=("back",)), rows)
    return record(1, rows, answer=text, question={"targets": ["back"]}, **changes)


ROWS = [{"age": 40.5, "ward": 1, "pressure": None}, {"smokes": True, "ward": "x"}, {}]


def test_a_record_is_reproduced_and_a_changed_digit_is_seen() -> None:
    """`bnpipe audit` would say `the same` of an answer that was changed in the log."""
    network = clinic()
    given = asked(network, ROWS)
    assert reproduce(given, Network.from_json(network.to_json()), ask).same
    text = given.answer.decode()
    digit = text.rindex("0.") + 17
    other = text[: digit - 1] + str((int(text[digit - 1]) + 1) % 10) + text[digit:]
    found = reproduce(msgspec.structs.replace(given, answer=other.encode()), network, ask)
    assert not found.same
    assert (found.expected.decode(), found.got.decode()) == (other, text)


def test_another_network_is_refused() -> None:
    """An answer would be called wrong because the registry holds another network under that version."""
    with pytest.raises(NetworkError, match="was answered by network"):
        reproduce(asked(clinic(), ROWS, content_hash="0" * 64), clinic(), ask)


def test_evidence_must_be_that_of_the_hash() -> None:
    """Somebody could pass other evidence off for what was sent."""
    whole = asked(clinic(), ROWS)
    kept = msgspec.structs.replace(whole, rows=None, evidence_hash=evidence_hash(ROWS))
    with pytest.raises(EvidenceError, match="only the hash"):
        reproduce(kept, clinic(), ask)
    with pytest.raises(EvidenceError, match="has the hash"):
        reproduce(kept, clinic(), ask, rows=[*ROWS[:2], {"age": 41}])
    assert reproduce(kept, clinic(), ask, rows=ROWS).same


def test_rows_changed_in_the_log_are_seen() -> None:
    """Evidence could be exchanged in the log together with its answer."""
    given = asked(clinic(), ROWS, evidence_hash=evidence_hash([{}]))
    with pytest.raises(EvidenceError, match="has the hash"):
        reproduce(given, clinic(), ask)
