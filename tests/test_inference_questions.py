"""Soft evidence, explanations, interventions, single questions and families, against enumeration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_cases import (
    examples,
    holes,
    normalised,
    onto,
    random_evidence,
    random_likelihood,
    weights,
)
from reference_networks import joint, published, random_network, sample

from bnpipe.errors import EvidenceError
from bnpipe.inference import compile  # noqa: A004
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable

ROWS = 5
cases = given(
    seed=st.integers(0, 10**6),
    nodes=st.integers(1, 7),
    zeros=st.sampled_from([0.0, 0.3, 0.6]),
    arcs=st.sampled_from([0.0, 0.3, 0.8]),
    share=st.sampled_from([0.2, 0.6, 1.0]),
)
few = settings(max_examples=examples(60), deadline=None)


@cases
@few
def test_likelihoods_multiply_what_cells_say(seed: int, nodes: int, zeros: float, arcs: float, share: float):
    """Posteriors and likelihood under soft evidence are those of the weighted joint table; own cells do not count."""
    network = random_network(seed, nodes, zeros=zeros, arcs=arcs)
    table, engine = joint(network), compile(network)
    evidence, likelihood = random_evidence(network, ROWS, share, seed), random_likelihood(network, ROWS, seed)
    found = engine.posterior(evidence, likelihood=likelihood)
    total = engine.log_likelihood(evidence, likelihood=likelihood)
    for row, codes in enumerate(evidence.codes.T):
        with np.errstate(divide="ignore"):
            mass = np.log(weights(network, table, codes, likelihood, row).sum())
        np.testing.assert_allclose(total[row], mass, atol=1e-9)
        for place, node in enumerate(network.nodes):
            others = codes.copy()
            others[place] = MISSING
            expected = normalised(onto(weights(network, table, others, likelihood, row), [place]))
            np.testing.assert_allclose(found[node][row], expected, atol=1e-12)
    assert (found.impossible == np.any([np.isnan(found[node][:, 0]) for node in network.nodes], axis=0)).all()


@cases
@few
def test_explanations_are_the_largest_cells(seed: int, nodes: int, zeros: float, arcs: float, share: float):
    """The explanation attains the joint table's maximum under the evidence, and keeps every observed cell."""
    network = random_network(seed, nodes, zeros=zeros, arcs=arcs)
    table, engine = joint(network), compile(network)
    evidence, likelihood = random_evidence(network, ROWS, share, seed), random_likelihood(network, ROWS, seed)
    for soft in ({}, likelihood):
        found = engine.most_probable_explanation(evidence, likelihood=soft)
        for row, codes in enumerate(evidence.codes.T):
            product = weights(network, table, codes, soft, row)
            assert found.impossible[row] == (product.max() == 0)
            if found.impossible[row]:
                assert np.isneginf(found.log_probability[row])
                assert (found.codes[:, row] == MISSING).all()
            else:
                np.testing.assert_allclose(found.log_probability[row], np.log(product.max()), atol=1e-9)
                assert product[tuple(found.codes[:, row])] == pytest.approx(product.max(), rel=1e-12)


def test_of_equal_explanations_the_first_state_is_taken():
    """Where nothing decides, it is the first state, in every row, and the frame names it."""
    schema = Schema((Variable("a", ("x", "y")), Variable("b", ("u", "v", "w"))))
    tables = {"a": np.array([0.5, 0.5]), "b": np.full((2, 3), 1 / 3)}
    engine = compile(Network(schema, {"b": ("a",)}, tables=tables))
    found = engine.most_probable_explanation(pd.DataFrame({"b": [None, "w"]}))
    assert found.to_pandas().astype(object).to_numpy().tolist() == [["x", "u"], ["x", "w"]]
    np.testing.assert_allclose(np.exp(found.log_probability), 1 / 6)


@cases
@few
def test_interventions_cut_what_leads_into_them(seed: int, nodes: int, zeros: float, arcs: float, share: float):
    """After do(x = s) the joint table is the product without x's own CPD, at s."""
    network = random_network(seed, nodes, zeros=zeros, arcs=arcs)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(network.nodes, min(nodes, 2), replace=False).tolist()
    states = {node: int(rng.integers(network.schema[node].cardinality)) for node in chosen}
    tables = {}
    for node in network.nodes:
        tables[node] = network.cpd(node).table
        if node in states:
            tables[node] = np.broadcast_to(np.eye(tables[node].shape[-1])[states[node]], tables[node].shape)
    table = joint(Network(network.schema, network.parents, tables=tables))
    engine = compile(network).do({node: network.schema[node].states[state] for node, state in states.items()})
    assert all(engine.network.parents[node] == () for node in chosen)
    evidence = random_evidence(network, ROWS, share, seed)
    found = engine.posterior(evidence)
    for row, codes in enumerate(evidence.codes.T):
        for place, node in enumerate(network.nodes):
            others = codes.copy()
            others[place] = MISSING
            expected = normalised(onto(weights(network, table, others, {}, row), [place]))
            np.testing.assert_allclose(found[node][row], expected, atol=1e-12)


def test_seeing_is_not_doing():
    """Wet grass seen tells of rain; wet grass made by hand does not."""
    schema = Schema((Variable("rain", ("no", "yes")), Variable("wet", ("no", "yes"))))
    tables = {"rain": np.array([0.8, 0.2]), "wet": np.array([[0.9, 0.1], [0.1, 0.9]])}
    engine = compile(Network(schema, {"wet": ("rain",)}, tables=tables))
    assert engine.query({"wet": "yes"}, ["rain"])["rain"][1] == pytest.approx(0.18 / 0.26)
    assert engine.do({"wet": "yes"}).query({}, ["rain"])["rain"][1] == pytest.approx(0.2)
    with pytest.raises(EvidenceError, match=r"'snow'.*rain, wet"):
        engine.do({"snow": "yes"})
    with pytest.raises(EvidenceError, match=r"wet: no state 'damp'.*no, yes"):
        engine.do({"wet": "damp"})
    with pytest.raises(EvidenceError, match="wet: to intervene needs a state"):
        engine.do({"wet": None})


@cases
@few
def test_families_have_the_posteriors_of_the_joint_table(
    seed: int, nodes: int, zeros: float, arcs: float, share: float
):
    """P(parents, state | all evidence) and the log probability of the evidence are those by enumeration."""
    network = random_network(seed, nodes, zeros=zeros, arcs=arcs)
    table, engine = joint(network), compile(network)
    evidence, likelihood = random_evidence(network, ROWS, share, seed), random_likelihood(network, ROWS, seed)
    for soft in ({}, likelihood):
        found = engine.family_posteriors(evidence.codes, likelihood=soft)
        for row, codes in enumerate(evidence.codes.T):
            product = weights(network, table, codes, soft, row)
            with np.errstate(divide="ignore"):
                np.testing.assert_allclose(found.log_probability[row], np.log(product.sum()), atol=1e-9)
            for node in network.nodes:
                family = [network.nodes.index(name) for name in (*network.parents[node], node)]
                expected = normalised(onto(product, family)).ravel()
                np.testing.assert_allclose(found.tables[node][:, row], expected, atol=1e-12)


@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 6))
@few
def test_draws_of_cpds_answer_as_networks_of_their_own(seed: int, nodes: int):
    """Each draw's posterior is that of the network with the drawn CPDs."""
    network, rng = random_network(seed, nodes, zeros=0.3), np.random.default_rng(seed)
    drawn = network.nodes[:: 1 + seed % 2]
    tables = {}
    for node in drawn:
        shape = network.cpd(node).table.shape
        draws = rng.dirichlet(np.ones(shape[-1]), (3, int(np.prod(shape[:-1]))))
        tables[node] = draws.reshape(3, -1).T
    codes = random_evidence(network, 1, 0.6, seed).codes[:, 0]
    found = compile(network).posterior_of_draws(codes, network.nodes, tables)
    for draw in range(3):
        own = {node: network.cpd(node).table for node in network.nodes}
        own |= {node: tables[node][:, draw].reshape(own[node].shape) for node in drawn}
        expected = compile(Network(network.schema, network.parents, tables=own)).posterior_codes(codes)
        for node in network.nodes:
            np.testing.assert_allclose(found[node][draw], expected[node], atol=1e-12)


def test_draws_of_another_shape_are_refused():
    """A drawn table must have a line for each cell."""
    engine = compile(published("asia"))
    with pytest.raises(EvidenceError, match=r"lung: draws .*\(4, 5\), got \(3, 5\)"):
        engine.posterior_of_draws(np.full(8, MISSING, dtype=np.uint8), ["xray"], {"lung": np.ones((3, 5))})


def test_one_question_is_a_frame_of_one_row():
    """Questions from a dict or from codes give what a frame gives, soft evidence and one-row tables included."""
    network = published("child")
    engine = compile(network)
    data = holes(sample(network, 4, seed=7), 0.5, seed=8)
    likelihood = {"Age": np.array([0.2, 0.5, 0.9])}
    for row, cells in enumerate(data.to_pandas().to_dict("records")):
        frame = pd.DataFrame([cells])
        expected = engine.posterior(frame, shortcut=False)
        asked, coded = engine.query(cells), engine.posterior_codes(data.codes[:, row])
        softly = engine.query(cells, ["Disease", "Age"], likelihood=likelihood)
        expected_softly = engine.posterior(frame, ["Disease", "Age"], likelihood=likelihood)
        for node in network.nodes:
            np.testing.assert_array_equal(asked[node], expected[node][0])
            np.testing.assert_array_equal(coded[node], expected[node][0])
        for node in softly:
            np.testing.assert_array_equal(softly[node], expected_softly[node][0])
    many = engine.posterior_codes(data.codes, ["Disease"])
    assert many["Disease"].shape == (4, 6)


def test_questions_with_mistakes_are_refused():
    """Unknown variables, states and targets, and codes that are none, are named with what there is."""
    engine = compile(published("asia"))
    with pytest.raises(EvidenceError, match=r"'smokes'.*asia, tub"):
        engine.query({"smokes": "yes"})
    with pytest.raises(EvidenceError, match=r"smoke: no state 'perhaps'; there are yes, no"):
        engine.query({"smoke": "perhaps"})
    with pytest.raises(EvidenceError, match="no target 'lungs'"):
        engine.query({"smoke": "yes"}, ["lungs"])
    with pytest.raises(EvidenceError, match=r"uint8 \(8,\) or \(8, rows\), got int64 \(8,\)"):
        engine.posterior_codes(np.zeros(8, dtype=np.int64))
    with pytest.raises(EvidenceError, match=r"asia: code 2 is no state; there are 2"):
        engine.posterior_codes(np.full(8, 2, dtype=np.uint8))


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"snow": [1, 1]}, "no variable 'snow'"),
        ({"smoke": [1, 1, 1]}, r"smoke: .*\(2,\) or \(1, 2\), got \(3,\)"),
        ({"smoke": [1, -1]}, "smoke: .*not negative"),
        ({"smoke": [1, np.inf]}, "smoke: .*finite"),
        ({"smoke": ["a", "b"]}, "smoke: .*numbers"),
    ],
)
def test_likelihoods_that_are_none_are_refused(likelihood: dict[str, list[float]], message: str):
    """Unknown variables, wrong shapes and values that are no likelihoods are clear errors."""
    engine = compile(published("asia"))
    with pytest.raises(EvidenceError, match=message):
        engine.posterior(pd.DataFrame(index=[0]), ["lung"], likelihood=likelihood)


def test_a_likelihood_of_zeros_makes_the_row_impossible():
    """All states excluded by soft evidence is impossible evidence, in that row only."""
    engine = compile(published("asia"))
    likelihood = {"smoke": np.array([[0.0, 0.0], [1.0, 0.0]])}
    found = engine.posterior(pd.DataFrame(index=[0, 1]), ["smoke", "xray"], likelihood=likelihood)
    assert found.impossible.tolist() == [True, False]
    np.testing.assert_allclose(found["smoke"][1], [1.0, 0.0])
    assert engine.log_likelihood(pd.DataFrame(index=[0, 1]), likelihood=likelihood)[0] == -np.inf
