"""How rows run: threads, blocks, numbers near the smallest float; and estimates by samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from inference_cases import PLAIN_PYTHON, holes, random_likelihood
from reference_networks import published, random_network, sample

from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError
from bnpipe.inference import compile, likelihood_weighting  # noqa: A004
from bnpipe.network import Network
from bnpipe.schema import Schema, Variable

ROWS = 150 if PLAIN_PYTHON else 5000


def bits(*arrays: np.ndarray) -> bytes:
    """All bits of some arrays."""
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)


def test_threads_change_no_bit():
    """One, two and eight threads give the same posteriors, likelihoods, explanations and samples, bit for bit."""
    network = published("asia")
    engine = compile(network)
    data = holes(sample(network, ROWS, seed=1), 0.6, seed=2)
    soft = random_likelihood(network, ROWS, seed=3)
    answers = set()
    for threads in (1, 2, 8):
        posterior = engine.posterior(data, likelihood=soft, threads=threads)
        plain = engine.posterior(data, threads=threads)
        best = engine.most_probable_explanation(data, threads=threads)
        guess = likelihood_weighting(network, data.select(np.arange(150)), samples=20, seed=4, threads=threads)
        answers.add(
            bits(
                *posterior.values(),
                *plain.values(),
                engine.log_likelihood(data, threads=threads),
                best.codes,
                best.log_probability,
                *guess.values(),
                *guess.standard_error.values(),
            )
        )
    assert len(answers) == 1


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 64, 65, 129])
def test_rows_at_the_edges_of_blocks(rows: int):
    """No number of rows makes a difference to any row, bit for bit."""
    network = published("asia")
    engine = compile(network)
    data = holes(sample(network, 130, seed=3), 0.5, seed=4)
    part = data.select(np.arange(rows))
    whole, some = engine.posterior(data, shortcut=False), engine.posterior(part, shortcut=False)
    best, some_best = engine.most_probable_explanation(data), engine.most_probable_explanation(part)
    for node in network.nodes:
        assert some[node].shape == (rows, 2)
        np.testing.assert_array_equal(some[node], whole[node][:rows])
    np.testing.assert_array_equal(some_best.codes, best.codes[:, :rows])
    np.testing.assert_array_equal(engine.log_likelihood(part), engine.log_likelihood(data)[:rows])


@pytest.mark.parametrize("network", [published("asia"), random_network(5, 9, zeros=0.3)], ids=["asia", "zeros"])
def test_looked_up_or_not_a_row_is_answered_alone(network: Network):
    """With the shortcut, too, no row's bits depend on the others, and they are what messages say to the last digits."""
    engine = compile(network)
    codes = holes(sample(network, 130, seed=5), 0.3, seed=6).codes
    for targets in (network.nodes[:1], network.nodes):
        whole = engine.posterior_codes(codes, targets, shortcut=True)
        plain = engine.posterior_codes(codes, targets)
        alone = [engine.posterior_codes(codes[:, row : row + 1], targets, shortcut=True) for row in range(130)]
        for target in targets:
            assert bits(whole[target]) == bits(*[one[target] for one in alone])
            np.testing.assert_allclose(whole[target], plain[target], rtol=1e-12, atol=1e-14)
    assert 0 < engine.count_messages(codes, network.nodes[:1]) < 130  # both ways were gone
    assert engine.count_messages(codes, ()) == 130


def many_leaves(count: int, least: float) -> Network:
    """A root of two states with many children that tell little, all unlikely."""
    leaves = [f"leaf{i}" for i in range(count)]
    schema = Schema((Variable("root", ("x", "y")), *(Variable(leaf, ("x", "y")) for leaf in leaves)))
    table = np.array([[least, 1 - least], [1.01 * least, 1 - 1.01 * least]])
    return Network(
        schema, dict.fromkeys(leaves, ("root",)), tables={"root": np.array([0.5, 0.5]), **dict.fromkeys(leaves, table)}
    )


def test_everything_stands_far_below_the_smallest_float():
    """Likelihood, families and explanation of 200 cells at 1e-6 each are right where their product is no float."""
    network = many_leaves(200, 1e-6)
    engine = compile(network)
    codes = np.zeros((201, 3), dtype=np.uint8)
    codes[0] = 255
    data = Dataset(network.schema, codes)
    ratio = 1.01**200
    mass = np.log(0.5) + 200 * np.log(1e-6) + np.log1p(ratio)
    np.testing.assert_allclose(engine.log_likelihood(data.select(np.arange(3))), mass, rtol=1e-12)
    families = engine.family_posteriors(codes)
    np.testing.assert_allclose(families.log_probability, mass, rtol=1e-12)
    np.testing.assert_allclose(families.tables["root"][:, 0], [1 / (1 + ratio), ratio / (1 + ratio)], rtol=1e-9)
    best = engine.most_probable_explanation(data)
    assert best.codes[0].tolist() == [1, 1, 1]
    np.testing.assert_allclose(best.log_probability, np.log(0.5) + 200 * np.log(1.01e-6), rtol=1e-12)


def test_tiny_likelihoods_do_not_vanish():
    """Soft evidence with ratios of 1e-300 in forty cells is followed, though its product is no float."""
    network = many_leaves(40, 0.2)
    likelihood = {f"leaf{i}": np.array([1.0, 1e-300]) if i % 2 else np.array([1e-300, 1.0]) for i in range(40)}
    frame = pd.DataFrame({f"leaf{i}": ["y" if i % 2 else "x"] for i in range(40)})
    found = compile(network).posterior(frame, ["root"], likelihood=likelihood)
    exact = compile(network).posterior(frame, ["root"])
    np.testing.assert_allclose(found["root"], exact["root"], rtol=1e-9)
    total = compile(network).log_likelihood(frame, likelihood=likelihood)
    np.testing.assert_allclose(total, compile(network).log_likelihood(frame) + 40 * np.log(1e-300), rtol=1e-12)


@pytest.mark.parametrize("name", ["asia", "alarm"])
def test_samples_agree_with_exact_answers(name: str):
    """Estimates lie within 4.8 standard errors where 400 samples are effective: 1 false alarm in 300 seeds."""
    network = published(name)
    rows, samples = (2, 300) if PLAIN_PYTHON else (10, 20_000)
    data = holes(sample(network, rows, seed=5), 0.8, seed=6)
    soft = {network.nodes[2]: np.linspace(0.5, 1.0, network.schema.cardinalities[2])}
    for likelihood in (None, soft):
        exact = compile(network).posterior(data, likelihood=likelihood)
        found = likelihood_weighting(network, data, samples=samples, seed=7, likelihood=likelihood)
        compared = 0
        for node in network.nodes:
            told = (exact[node] > 0.05) & (exact[node] < 0.95) & (found.effective_samples[node][:, None] > 400)
            compared += told.sum()
            error = np.abs(found[node] - exact[node])[told]
            assert (error < 4.8 * found.standard_error[node][told]).all()
        assert compared > 50 or PLAIN_PYTHON
        assert not found.unknown.any()


def test_standard_errors_are_those_of_repetition():
    """Over 200 seeds the mean squared error is the squared standard error, within 30 % (one false alarm in 370)."""
    network = published("asia")
    repeats = 40 if PLAIN_PYTHON else 200
    data, target = Dataset.from_pandas(pd.DataFrame({"xray": ["yes"], "smoke": ["no"]}), network.schema), "bronc"
    exact = compile(network).posterior(data, [target])[target]
    found = [likelihood_weighting(network, data, [target], samples=400, seed=seed) for seed in range(repeats)]
    squared = np.mean([(one[target] - exact) ** 2 for one in found], axis=0)[0, 0]
    stated = np.mean([one.standard_error[target] ** 2 for one in found], axis=0)[0, 0]
    assert abs(squared / stated - 1) < (0.7 if PLAIN_PYTHON else 0.3)


def test_no_weight_is_unknown_not_impossible():
    """Where no sample fits the evidence the row is NaN and unknown; other rows are answered."""
    schema = Schema((Variable("a", ("x", "y")), Variable("b", ("x", "y"))))
    tables = {"a": np.array([1.0, 0.0]), "b": np.array([[1.0, 0.0], [0.5, 0.5]])}
    network = Network(schema, {"b": ("a",)}, tables=tables)
    found = likelihood_weighting(network, pd.DataFrame({"b": ["y", "x"]}), ["a"], samples=50)
    assert found.unknown.tolist() == [True, False]
    assert not found.impossible.any()
    assert np.isnan(found["a"][0]).all()
    assert found["a"][1].tolist() == [1.0, 0.0]
    assert found.effective_samples["a"].tolist() == [0.0, 50.0]


def test_samplers_mistakes_are_refused():
    """No samples and unknown targets are clear errors."""
    network = published("asia")
    with pytest.raises(EvidenceError, match="at least 1 sample"):
        likelihood_weighting(network, pd.DataFrame(index=[0]), samples=0)
    with pytest.raises(EvidenceError, match="no target 'lungs'"):
        likelihood_weighting(network, pd.DataFrame(index=[0]), ["lungs"])
