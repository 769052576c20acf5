"""Posteriors and likelihoods against brute force; every odd kind of evidence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_cases import PLAIN_PYTHON, examples, holes, random_evidence
from reference_networks import joint, published, random_network, sample

import bnpipe
from bnpipe.data import Dataset
from bnpipe.errors import EvidenceError, TooDenseError
from bnpipe.inference import Posterior, compile  # noqa: A004
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable


def brute_force(table: np.ndarray, codes: np.ndarray, target: int | None = None) -> np.ndarray:
    """Mass of a row's evidence by enumeration; over the states of `target`, whose own cell is ignored, if given."""
    index = tuple(
        slice(None) if code == MISSING or place == target else slice(code, code + 1) for place, code in enumerate(codes)
    )
    axes = tuple(axis for axis in range(table.ndim) if axis != target)
    return table[index].sum(axis=axes)


@given(
    seed=st.integers(0, 10**6),
    nodes=st.integers(1, 7),
    zeros=st.sampled_from([0.0, 0.3, 0.6]),
    arcs=st.sampled_from([0.0, 0.3, 0.8]),
    share=st.sampled_from([0.0, 0.2, 0.6, 1.0]),
)
@settings(max_examples=examples(120), deadline=None)
def test_answers_equal_enumeration(seed: int, nodes: int, zeros: float, arcs: float, share: float):
    """Posteriors, likelihoods and impossible rows are those of the joint table, with and without the short cut."""
    network = random_network(seed, nodes, zeros=zeros, arcs=arcs)
    table = joint(network)
    evidence = random_evidence(network, 12, share, seed)
    engine = compile(network)
    quick = engine.posterior(evidence, network.nodes)
    exact = engine.posterior(evidence, network.nodes, shortcut=False)
    masses = [
        np.stack([brute_force(table, row, place) for row in evidence.codes.T]) for place in range(len(network.nodes))
    ]
    for place, node in enumerate(network.nodes):
        mass = masses[place].sum(axis=1, keepdims=True)
        expected = np.divide(masses[place], mass, where=mass > 0, out=np.full_like(masses[place], np.nan))
        np.testing.assert_allclose(exact[node], expected, atol=1e-12)
        np.testing.assert_allclose(quick[node], exact[node], rtol=1e-9, atol=1e-12)
    impossible = np.any([mass.sum(axis=1) == 0 for mass in masses], axis=0)
    assert (exact.impossible == impossible).all()
    assert (quick.impossible == impossible).all()
    likelihood = np.array([brute_force(table, row) for row in evidence.codes.T])
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(engine.log_likelihood(evidence), np.log(likelihood), rtol=1e-9, atol=1e-12)
    for place, node in enumerate(network.nodes):
        axes = tuple(axis for axis in range(table.ndim) if axis != place)
        np.testing.assert_allclose(engine.marginals()[node], table.sum(axis=axes), atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_short_cut_equals_messages_on_a_fitted_network(share: float):
    """On a network with the zeros of maximum likelihood both ways agree to 1e-9, row for row."""
    data = sample(published("alarm"), 3000, seed=5)
    network = bnpipe.fit(data.select(np.arange(500)), published("alarm").parents)
    engine = compile(network)
    evidence = holes(data, share, seed=9)
    targets = ("HYPOVOLEMIA", "CATECHOL", "BP")
    quick, exact = engine.posterior(evidence, targets), engine.posterior(evidence, targets, shortcut=False)
    for target in targets:
        np.testing.assert_allclose(quick[target], exact[target], rtol=1e-9, atol=1e-12)
    assert (quick.impossible == exact.impossible).all()
    if share == 0.0:
        assert 0 < exact.impossible.sum() < 3000


def test_own_cell_of_a_target_is_ignored():
    """The posterior of a target is that given the other cells, also when its own cell is known or contradicts them."""
    network = published("asia")
    engine = compile(network)
    known = pd.DataFrame({"either": ["yes", "no", None], "lung": ["yes", "yes", "yes"]})
    unknown = pd.DataFrame({"lung": ["yes"] * 3})
    for shortcut in (True, False):
        found = engine.posterior(known, ["either"], shortcut=shortcut)
        expected = engine.posterior(unknown, ["either"], shortcut=shortcut)
        np.testing.assert_allclose(found["either"], expected["either"], atol=1e-12)
        assert not found.impossible.any()


def test_impossible_rows_do_not_disturb_the_others():
    """A row of probability zero is NaN, flagged, and -inf; its neighbours are answered."""
    engine = compile(published("asia"))
    frame = pd.DataFrame({"lung": ["yes", "yes", "no"], "either": ["yes", "no", None]})
    for shortcut in (True, False):
        found = engine.posterior(frame, ["smoke", "xray"], shortcut=shortcut)
        assert found.impossible.tolist() == [False, True, False]
        assert np.isnan(found["smoke"][1]).all()
        assert np.isnan(found["xray"][1]).all()
        assert np.isfinite(found["smoke"][[0, 2]]).all()
    assert np.isneginf(engine.log_likelihood(frame)).tolist() == [False, True, False]


def test_evidence_in_another_part_can_be_impossible_too():
    """In a network of two parts, an impossible cell in one makes the row impossible for targets of the other."""
    schema = Schema((Variable("a", ("x", "y")), Variable("b", ("x", "y")), Variable("c", ("x", "y"))))
    tables = {"a": np.array([1.0, 0.0]), "b": np.array([0.3, 0.7]), "c": np.array([[0.2, 0.8], [0.5, 0.5]])}
    engine = compile(Network(schema, {"c": ("b",)}, tables=tables))
    frame = pd.DataFrame({"a": ["y", "x", None], "b": ["x", "x", "y"]})
    for shortcut in (True, False):
        found = engine.posterior(frame, ["c"], shortcut=shortcut)
        assert found.impossible.tolist() == [True, False, False]
        np.testing.assert_allclose(found["c"][1:], [[0.2, 0.8], [0.5, 0.5]])


def test_absent_columns_unknown_states_and_nulls_are_missing():
    """All ways to say nothing say the same, and columns the network does not know are ignored."""
    network = published("asia")
    engine = compile(network)
    absent = pd.DataFrame({"smoke": ["yes", "no"]})
    said = absent.assign(lung=["maybe", None], xray=[np.nan, np.nan], colour=["red", "blue"])
    np.testing.assert_array_equal(
        engine.posterior(said, ["bronc"])["bronc"], engine.posterior(absent, ["bronc"])["bronc"]
    )
    np.testing.assert_array_equal(engine.log_likelihood(said), engine.log_likelihood(absent))


def test_nothing_observed_gives_the_marginals():
    """Rows of missing cells only, even without columns, get the prior; their likelihood is 1."""
    network = published("alarm")
    engine = compile(network)
    nothing = pd.DataFrame(index=range(3))
    found = engine.posterior(nothing, network.nodes)
    marginals = engine.marginals()
    for node in network.nodes:
        np.testing.assert_allclose(found[node], np.tile(marginals[node], (3, 1)), atol=1e-12)
    np.testing.assert_allclose(engine.log_likelihood(nothing), 0.0, atol=1e-7)  # as exactly as its rows sum to 1


def test_no_rows_give_no_answers():
    """An empty frame gives arrays of no rows, of the right width and type."""
    engine = compile(published("asia"))
    found = engine.posterior(pd.DataFrame({"smoke": pd.Series(dtype=str)}), ["lung"])
    assert found["lung"].shape == (0, 2)
    assert found["lung"].dtype == np.float64
    assert found.impossible.shape == (0,)
    assert engine.log_likelihood(pd.DataFrame()).shape == (0,)


def test_one_node_is_a_network():
    """A single node answers with its marginal, whatever its own cell."""
    schema = Schema((Variable("a", ("x", "y")),))
    engine = compile(Network(schema, {}, tables={"a": np.array([0.25, 0.75])}))
    found = engine.posterior(pd.DataFrame({"a": ["x", None]}), ["a"])
    np.testing.assert_allclose(found["a"], [[0.25, 0.75]] * 2)
    np.testing.assert_allclose(engine.log_likelihood(pd.DataFrame({"a": ["x", None]})), [np.log(0.25), 0.0])


def test_single_states_need_no_axis():
    """A hundred nodes of one state with a common child are answered, though no array has that many axes."""
    names = tuple(f"one{i}" for i in range(100))
    schema = Schema((*(Variable(name, ("only",)) for name in names), Variable("a", ("x", "y"))))
    data = Dataset(schema, np.array([[0, 0, 0]] * 100 + [[0, 1, 1]], dtype=np.uint8))
    network = bnpipe.fit(data, {"a": names[:20]})
    found = compile(network).posterior(pd.DataFrame(index=[0]), ["a", "one0"], shortcut=False)
    np.testing.assert_allclose(found["a"], [[1 / 3, 2 / 3]])
    np.testing.assert_allclose(found["one0"], [[1.0]])


def test_families_without_rows_are_uniform():
    """A parent configuration nobody saw gives the uniform distribution, not an error."""
    frame = pd.DataFrame({"a": pd.Categorical(["x", "x"], categories=["x", "y"]), "b": ["u", "v"]})
    network = bnpipe.fit(Dataset.from_pandas(frame), {"a": (), "b": ("a",)}, equivalent_sample_size=1.0)
    found = compile(network).posterior(pd.DataFrame({"a": ["y"]}), ["b"])
    np.testing.assert_allclose(found["b"], [[0.5, 0.5]])


def test_unknown_targets_and_foreign_evidence_are_named():
    """A target that is no node, evidence of another type or with other states are clear errors."""
    network = published("asia")
    engine = compile(network)
    with pytest.raises(EvidenceError, match=r"'lungs'.*asia, tub"):
        engine.posterior(pd.DataFrame({"smoke": ["yes"]}), ["lungs"])
    with pytest.raises(EvidenceError, match="dict"):
        engine.posterior({"smoke": "yes"}, ["lung"])
    other = Dataset.from_pandas(pd.DataFrame({"smoke": ["never", "often"]}))
    with pytest.raises(EvidenceError, match="smoke: the rows have states never, often"):
        engine.log_likelihood(other)


def test_a_dataset_of_fewer_variables_is_evidence():
    """Variables the rows do not know are missing, in whatever order the rest come."""
    network = published("asia")
    engine = compile(network)
    data = sample(network, 50, seed=1)
    part = data.project(["xray", "smoke"])
    expected = engine.posterior(data.to_pandas()[["smoke", "xray"]], ["lung"])
    np.testing.assert_array_equal(engine.posterior(part, ["lung"])["lung"], expected["lung"])


def test_too_dense_networks_are_refused_with_the_clique():
    """What would need too large a table is found when compiling, whatever the hopelessness."""
    network = published("asia")
    with pytest.raises(TooDenseError, match=r"8 cells over 3 variables .*of 7 allowed"):
        compile(network, max_clique_cells=7)
    names = [f"v{i}" for i in range(60)]
    schema = Schema(tuple(Variable(name, ("x", "y")) for name in names))
    rng = np.random.default_rng(0)
    parents = {name: tuple(rng.choice(names[:i], min(i, 4), replace=False)) for i, name in enumerate(names)}
    tables = {name: np.full([2] * (len(parents[name]) + 1), 0.5) for name in names}
    with pytest.raises(TooDenseError, match="v") as caught:
        compile(Network(schema, parents, tables=tables))
    assert len(str(caught.value)) < 400


def test_products_below_the_smallest_float_are_no_impossibility():
    """Four hundred unlikely leaves multiply to 1e-2400, and the posterior stands."""
    leaves = [f"leaf{i}" for i in range(400)]
    schema = Schema((Variable("root", ("x", "y")), *(Variable(leaf, ("x", "y")) for leaf in leaves)))
    tilted = np.array([[1e-6, 1 - 1e-6], [2e-6, 1 - 2e-6]])
    sharp = np.array([[1e-6, 1 - 1e-6], [0.5, 0.5]])
    tables = {"root": np.array([0.5, 0.5]), **dict.fromkeys(leaves[:200], tilted)}
    tables |= {leaf: sharp if i % 2 else sharp[::-1] for i, leaf in enumerate(leaves[200:])}
    engine = compile(Network(schema, dict.fromkeys(leaves, ("root",)), tables=tables))
    frame = pd.DataFrame({leaf: ["x"] for leaf in leaves} | {"leaf0": [None]})
    quick, exact = engine.posterior(frame, ["root"]), engine.posterior(frame, ["root"], shortcut=False)
    assert not exact.impossible.any()
    assert exact["root"][0, 0] == pytest.approx(2.0**-199, rel=1e-9)
    np.testing.assert_allclose(quick["root"], exact["root"], rtol=1e-9)
    expected = np.log(0.5) + 199 * np.log(2e-6) + 100 * np.log(1e-6) + 100 * np.log(0.5)
    assert engine.log_likelihood(frame)[0] == pytest.approx(expected, rel=1e-12)


def test_blocks_do_not_show():
    """Rows answered together or alone are answered alike."""
    network = published("child")
    engine = compile(network)
    data = holes(sample(network, 260 if PLAIN_PYTHON else 2500, seed=3), 0.5, seed=4)
    whole = engine.posterior(data, ["Disease", "Age"])
    for row in (0, 63, 64, data.rows - 1):
        alone = engine.posterior(data.select(np.array([row])), ["Disease", "Age"])
        for target in ("Disease", "Age"):
            np.testing.assert_allclose(alone[target][0], whole[target][row], rtol=1e-12)


def test_a_posterior_is_a_mapping_with_states():
    """Targets come in the order asked, once each, with the names of their states."""
    found = compile(published("asia")).posterior(pd.DataFrame(index=[0]), ["lung", "smoke", "lung"])
    assert isinstance(found, Posterior)
    assert list(found) == ["lung", "smoke"]
    assert found.states["lung"] == ("yes", "no")
    assert len(found) == 2


def test_long_chains_need_no_recursion():
    """Three thousand nodes in a row are compiled and answered."""
    names = [f"n{i}" for i in range(3000)]
    schema = Schema(tuple(Variable(name, ("x", "y")) for name in names))
    table = np.array([[0.9, 0.1], [0.2, 0.8]])
    tables = {name: table if i else table[0] for i, name in enumerate(names)}
    parents = {name: (names[i - 1],) if i else () for i, name in enumerate(names)}
    found = compile(Network(schema, parents, tables=tables)).posterior(pd.DataFrame({"n0": ["y"]}), ["n2999"])
    np.testing.assert_allclose(found["n2999"], [[2 / 3, 1 / 3]], atol=1e-12)
