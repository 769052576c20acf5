"""Quantiles of training rows' likelihoods: an aggregate that says what was usual, and damage that is told."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import bnpipe
from bnpipe.data import Dataset
from bnpipe.errors import FormatError
from bnpipe.inference import TrainingLikelihoods
from bnpipe.inference.likelihoods import LEAST, MOST, _evenly
from bnpipe.schema import MISSING, Schema, Variable

NAMES = tuple("tuvwxyz")
SCHEMA = Schema(tuple(Variable(name, ("a", "b", "c", "d")) for name in NAMES))
KNOWN = NAMES[1:]


def draw_rows(rows: int, seed: int = 4, missing: float = 0.0) -> Dataset:
    """A chain of seven variables of four states, whose rows hardly ever tie."""
    rng = np.random.default_rng(seed)
    tables = np.random.default_rng(40).dirichlet(np.ones(4), size=(7, 4))
    codes = np.zeros((7, rows), dtype=np.uint8)
    for place in range(7):
        ends = np.cumsum(tables[place][codes[place - 1] if place else 0], axis=-1).reshape(-1, 4)
        codes[place] = (rng.random(rows)[:, None] >= ends[:, :3]).sum(axis=1)
    codes[0][rng.random(rows) < missing] = MISSING
    return Dataset(SCHEMA, codes)


def fit(data: Dataset) -> bnpipe.Network:
    parents = {name: NAMES[place - 1 : place] if place else () for place, name in enumerate(NAMES)}
    return bnpipe.fit(data, parents)


def reduced(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """Rows of which only some variables are known."""
    codes = np.full_like(data.codes, MISSING)
    for name in names:
        codes[SCHEMA.index(name)] = data.column(name)
    return Dataset(SCHEMA, codes)


@pytest.mark.parametrize("names", [NAMES, KNOWN], ids=["all", "all but the target"])
def test_training_rows_are_uniform_among_themselves(names: tuple[str, ...]) -> None:
    """The greatest gap between the quantiles' distribution and the uniform one is the grid's 0.001 and what rows tie.

    Rows that are new to the network are uniform, too, but for chance: Kolmogorov and Smirnov's bound for 4 000 rows
    beside 20 000 at a level of 1e-4 (2.23 in their units), and as much as the fit flattered its own rows.
    """
    data = draw_rows(20_000)
    engine = bnpipe.compile(fit(data))
    (found,) = TrainingLikelihoods.measure(engine, data, [names]).patterns
    assert found.rows == 20_000
    own = engine.log_likelihood(reduced(data, names))
    ties = np.unique(np.round(own, 9), return_counts=True)[1].max() / len(own)
    assert ties < 0.03
    for likelihoods, allowed in (
        (own, 0.001 + ties),
        (
            engine.log_likelihood(reduced(draw_rows(4000, seed=5), names)),
            0.001 + ties + 2.23 * math.sqrt(1 / 4000 + 1 / 20_000),
        ),
    ):
        shares = np.sort(found.shares(likelihoods))
        steps = np.arange(1, len(shares) + 1) / len(shares)
        assert np.abs(shares - steps).max() <= allowed


def test_shares_count_rows_that_are_at_most_as_likely() -> None:
    """To 0.001, also where rows tie; never outside of [0, 1]; the last bits of another machine change nothing."""
    data = draw_rows(3000)
    engine = bnpipe.compile(fit(data))
    (found,) = TrainingLikelihoods.measure(engine, data, [NAMES[:2]]).patterns
    own = engine.log_likelihood(reduced(data, NAMES[:2]))
    assert len(np.unique(own)) <= 16, "rows tie"
    exact = np.array([(own <= value + 1e-12).mean() for value in own])
    assert np.abs(found.shares(own) - exact).max() <= 0.001
    np.testing.assert_allclose(found.shares(own * (1 + 1e-15)), found.shares(own * (1 - 1e-15)), rtol=0, atol=1e-12)
    ends = found.shares(np.array([-np.inf, own.min() - 1.0, own.max(), own.max() + 1.0]))
    assert ends.tolist() == [0.0, 0.0, 1.0, 1.0]
    asked = np.sort(np.random.default_rng(1).normal(own.mean(), 3.0, 500))
    assert (np.diff(found.shares(asked)) >= 0.0).all()
    assert [found.shares(asked[place : place + 1])[0] for place in (0, 7, 499)] == [
        found.shares(asked)[place] for place in (0, 7, 499)
    ], "bits depend on company"


def test_impossible_training_rows_are_the_least_likely() -> None:
    """A refit by maximum likelihood may meet rows that its unchanged families do not know."""
    data = draw_rows(1000)
    engine = bnpipe.compile(fit(data.select(data.column("z") != 3)))
    impossible = float(np.isneginf(engine.log_likelihood(data)).mean())
    assert 0.01 < impossible < 0.9
    made = TrainingLikelihoods.measure(engine, data, [NAMES])
    (found,) = TrainingLikelihoods.from_json(made.to_json()).patterns
    assert found.shares(np.array([-np.inf]))[0] == pytest.approx(impossible, abs=0.001)
    assert impossible - 0.001 <= found.shares(np.array([-1e9]))[0] <= impossible + 0.001


def test_sets_that_too_few_rows_have_are_left_out() -> None:
    """Rows that have the whole set count, whatever else they lack; sets that are the same are one; none is empty."""
    data = draw_rows(400, missing=0.6)
    engine = bnpipe.compile(fit(data))
    complete = int(data.complete.sum())
    assert complete < LEAST
    found = TrainingLikelihoods.measure(engine, data, [NAMES, KNOWN, reversed(KNOWN), ()])
    assert [(one.observed, one.rows) for one in found.patterns] == [(KNOWN, 400)]
    assert not TrainingLikelihoods.measure(engine, data.select(np.arange(LEAST - 1)), [KNOWN]).patterns


def test_many_rows_are_thinned_evenly_and_always_alike() -> None:
    """One of each of as many equal parts of the window, none twice."""
    rows = np.arange(5, 5 + 3 * MOST + 7)
    taken = _evenly(rows, MOST)
    assert len(np.unique(taken)) == MOST
    assert (np.abs((taken - 5) / len(rows) - np.arange(MOST) / MOST) <= 1.5 / MOST).all()
    assert len(np.unique(np.diff(taken))) > 3, "no period"
    np.testing.assert_array_equal(taken, _evenly(rows, MOST))
    np.testing.assert_array_equal(_evenly(rows[:MOST], MOST), rows[:MOST])


def test_they_are_written_bit_for_bit_and_hold_no_rows() -> None:
    """1001 numbers for each set, however many rows; a hash that tells one text from another."""
    data = draw_rows(5000)
    made = TrainingLikelihoods.measure(bnpipe.compile(fit(data)), data, [NAMES, KNOWN])
    again = TrainingLikelihoods.from_json(made.to_json())
    assert again.to_json() == made.to_json()
    assert again.hash == made.hash
    for one, its in zip(made.patterns, again.patterns, strict=True):
        np.testing.assert_array_equal(one.values, its.values)
        assert len(one.values) == 1001
    fewer = TrainingLikelihoods.measure(bnpipe.compile(fit(data)), data.select(np.arange(4000)), [NAMES])
    assert fewer.hash != made.hash
    assert json.loads(made.to_json()).keys() == {"format", "content_hash", "patterns"}


def test_damage_is_told() -> None:
    """Half a file, another file, and quantiles that are none."""
    data = draw_rows(300)
    good = TrainingLikelihoods.measure(bnpipe.compile(fit(data)), data, [NAMES]).to_json()
    fields = json.loads(good)
    (pattern,) = fields["patterns"]
    values = pattern["log_likelihoods"]
    for text in (
        good[:-40],
        "[]",
        "null",
        json.dumps(fields | {"patterns": 3}),
        json.dumps(fields | {"format": "x"}),
        *(
            json.dumps(fields | {"patterns": [pattern | {"log_likelihoods": wrong}]})
            for wrong in (values[1:], values[::-1], [*values[:-1], None], [*values[:-1], math.nan], ["x"], 1)
        ),
    ):
        with pytest.raises(FormatError, match="no likelihoods of training rows"):
            TrainingLikelihoods.from_json(text)
    with pytest.raises(FormatError, match="format 9"):
        TrainingLikelihoods.from_json(json.dumps(fields | {"format": 9}))
