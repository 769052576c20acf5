"""Fitting, merging and refitting."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnpipe.cpd import Prior
from bnpipe.data import Dataset
from bnpipe.errors import DataError, NetworkError, NoCountsError
from bnpipe.network import Network
from bnpipe.parameters import fit, log_likelihood_rows, merge, refit
from bnpipe.schema import MISSING, Schema, Variable

GRAPH = {"rain": (), "sprinkler": ("rain",), "wet": ("rain", "sprinkler")}


def sample(seed: int = 0, rows: int = 400, days: range = range(4), missing: float = 0.0) -> Dataset:
    """Draw rows of the wet lawn, by day, some cells missing at random."""
    generator = np.random.default_rng(seed)
    rain = generator.random(rows) < 0.3
    sprinkler = generator.random(rows) < np.where(rain, 0.1, 0.5)
    wet = generator.random(rows) < np.where(rain | sprinkler, 0.9, 0.05)
    frame = pd.DataFrame({"rain": rain, "sprinkler": sprinkler, "wet": wet}).astype(object)
    frame = frame.mask(generator.random(frame.shape) < missing)
    labels = [f"day {days[row * len(days) // rows]}" for row in range(rows)]
    schema = Schema(tuple(Variable(name, ("false", "true")) for name in frame))
    return Dataset.from_pandas(frame, schema, clusters=labels)


def pgmpy_cpds(data: Dataset, equivalent_sample_size: float) -> dict[str, np.ndarray]:
    """What pgmpy estimates on the same rows, the child's states last."""
    from pgmpy.models import DiscreteBayesianNetwork
    from pgmpy.parameter_estimator import DiscreteBayesianEstimator, DiscreteMLE

    model = DiscreteBayesianNetwork([(parent, node) for node, parents in GRAPH.items() for parent in parents])
    states = {variable.name: list(variable.states) for variable in data.schema}
    if equivalent_sample_size:
        options = {"prior_type": "BDeu", "equivalent_sample_size": equivalent_sample_size}
        estimator = DiscreteBayesianEstimator(state_names=states, **options)
    else:
        estimator = DiscreteMLE(state_names=states)
    estimated = estimator.fit(model, data.to_pandas()).parameters_
    tables = {}
    for cpd in estimated:
        axes = [cpd.variables.index(name) for name in (*GRAPH[cpd.variable], cpd.variable)]
        tables[cpd.variable] = np.transpose(cpd.values, axes)
    return tables


@pytest.mark.parametrize("equivalent_sample_size", [0.0, 10.0])
def test_fit_equals_pgmpy(equivalent_sample_size: float) -> None:
    """Maximum likelihood and BDeu posterior means are pgmpy's."""
    data = sample()
    network = fit(data, GRAPH, equivalent_sample_size)
    expected = pgmpy_cpds(data, equivalent_sample_size)
    for node in GRAPH:
        np.testing.assert_allclose(network.cpd(node).table, expected[node], atol=1e-12)


def test_each_family_uses_its_own_complete_rows() -> None:
    """A missing cell removes a row from the families it belongs to, from no other."""
    data = sample(missing=0.2)
    network = fit(data, GRAPH)
    frame = data.to_pandas()
    for node, parents in GRAPH.items():
        assert network.family_counts(node).rows == len(frame[[node, *parents]].dropna())


def test_counts_are_kept_by_cluster() -> None:
    """Cluster c of the network is cluster c of the data."""
    data = sample()
    network = fit(data, GRAPH)
    assert network.cluster_labels == data.cluster_labels
    for cluster, table in enumerate(network.family_counts("wet").per_cluster()):
        day = data.select(data.clusters == cluster)
        assert np.array_equal(table, fit(day, GRAPH).family_counts("wet").total())
    independent = Dataset(data.schema, data.codes)
    assert fit(independent, GRAPH).cluster_labels == ()
    assert np.array_equal(fit(independent, GRAPH).cpd("wet").table, network.cpd("wet").table)


@pytest.mark.parametrize(
    ("parents", "size", "message"),
    [
        ({"snow": ()}, 0.0, "unknown nodes snow"),
        ({"rain": ("snow",)}, 0.0, "rain: unknown parents snow"),
        ({"rain": ("rain",)}, 0.0, "rain: a parent is the node itself"),
        ({"rain": ("wet",), "wet": ("rain",)}, 0.0, "cycle"),
        ({"rain": "wet"}, 0.0, "rain: parents are a list"),
        ({}, -1.0, "equivalent sample size"),
        ({}, float("nan"), "equivalent sample size"),
    ],
)
def test_fit_refuses_what_is_no_network(parents: dict, size: float, message: str) -> None:
    """The node is named before any row is counted."""
    with pytest.raises(NetworkError, match=message):
        fit(sample(), parents, size)


def test_fit_names_the_node_whose_table_is_too_large() -> None:
    """Too many parents are told by node, not by a crash of memory."""
    states = tuple(map(str, range(200)))
    schema = Schema(tuple(Variable(name, states) for name in "abcde"))
    data = Dataset(schema, np.zeros((5, 3), dtype=np.uint8))
    with pytest.raises(NetworkError, match=r"e: a table of 5 variables"):
        fit(data, {"e": ("a", "b", "c", "d")})


def test_merge_of_parts_is_the_fit_of_the_whole() -> None:
    """Days overlap or not, the merged network is that of all rows, bit for bit."""
    data = sample()
    whole = fit(data, GRAPH, 5.0)
    generator = np.random.default_rng(1)
    owner = generator.integers(0, 3, data.rows)
    parts = [fit(data.select(owner == part), GRAPH, 5.0) for part in range(3)]
    assert merge(parts).content_hash == whole.content_hash
    days = [fit(sample(seed=day, days=range(day, day + 1)), GRAPH) for day in (2, 0, 1)]
    assert merge(days).cluster_labels == ("day 0", "day 1", "day 2")
    plain = Dataset(data.schema, data.codes)
    halves = [fit(plain.select(owner == 0), GRAPH), fit(plain.select(owner > 0), GRAPH)]
    assert merge(halves).content_hash == fit(plain, GRAPH).content_hash


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(0, 120), max_size=9), st.booleans())
def test_counts_of_chunks_add_up_to_the_fit_of_the_whole(seed: int, cuts: list[int], clustered: bool) -> None:
    """Datasets given one by one make the network of all rows, bit for bit, wherever they were cut."""
    data = sample(seed, rows=120, missing=0.1)
    data = data if clustered else Dataset(data.schema, data.codes)
    parts = []
    for first, last in itertools.pairwise([0, *sorted(cuts), 120]):
        part = data.select(np.arange(first, last))
        if clustered and part.rows:  # a chunk knows only the labels it has met
            days, members = np.unique(part.clusters, return_inverse=True)
            part = Dataset(data.schema, part.codes, members, tuple(data.cluster_labels[day] for day in days))
        parts.append(part)
    assert fit(iter(parts), GRAPH, 3.0).content_hash == fit(data, GRAPH, 3.0).content_hash
    with pytest.raises(NetworkError, match="no networks"):
        fit([], GRAPH)


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_the_number_of_threads_changes_nothing(threads: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share out families, so counts are the same bit for bit, and the same as numpy's."""
    data = sample(missing=0.1)
    monkeypatch.setattr("bnpipe.parameters.compiled_pays", lambda rows, families: False)
    expected = fit(data, GRAPH).content_hash
    monkeypatch.setattr("bnpipe.parameters.compiled_pays", lambda rows, families: True)
    assert fit(data, GRAPH, threads=threads).content_hash == expected


@pytest.mark.parametrize("compiled", [False, True])
def test_every_node_tells_the_rows_it_was_counted_on(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell missing in one column takes its row from the families that column is in; the network knows how many."""
    monkeypatch.setattr("bnpipe.parameters.compiled_pays", lambda rows, families: compiled)
    schema = Schema(tuple(Variable(name, ("false", "true")) for name in GRAPH))
    codes = np.zeros((3, 10), dtype=np.uint8)
    codes[1, :4] = MISSING
    codes[2, 3:5] = MISSING
    network = fit(Dataset(schema, codes), GRAPH)
    assert {node: network.family_counts(node).rows for node in GRAPH} == {"rain": 10, "sprinkler": 6, "wet": 5}
    codes[1] = MISSING
    network = fit(Dataset(schema, codes), GRAPH)
    assert {node: network.family_counts(node).rows for node in GRAPH} == {"rain": 10, "sprinkler": 0, "wet": 0}
    assert network.cpd("wet").table.tolist() == [[[0.5, 0.5]] * 2] * 2


def test_merge_refuses_networks_that_differ() -> None:
    """Another graph, prior, schema or kind can't be added."""
    data = sample()
    base = fit(data, GRAPH)
    imported = Network(data.schema, GRAPH, tables={node: base.cpd(node).table for node in GRAPH})
    others = {
        "graphs": fit(data, {}),
        "priors": base.with_prior(Prior("jeffreys")),
        "schemas": fit(data.project(["wet"]), {}),
        "without clusters": fit(Dataset(data.schema, data.codes), GRAPH),
    }
    for message, other in others.items():
        with pytest.raises(NetworkError, match=message):
            merge([base, other])
    with pytest.raises(NetworkError, match="no networks"):
        merge([])
    with pytest.raises(NoCountsError):
        merge([imported, imported])


def test_refit_changes_only_the_named_families() -> None:
    """Every other family keeps its hash and CPD though the clusters grow around its own."""
    old, new = sample(seed=0, days=range(5, 9)), sample(seed=1, days=range(2, 7))
    network = fit(old, GRAPH, 5.0)
    again = refit(network, new, ["wet"])
    assert again.cluster_labels == tuple(f"day {day}" for day in range(2, 9))
    for node in ("rain", "sprinkler"):
        assert again.family_hash(node) == network.family_hash(node)
        assert np.array_equal(again.cpd(node).table, network.cpd(node).table)
    fresh = fit(new, GRAPH, 5.0)
    assert again.family_hash("wet") == fresh.family_hash("wet") != network.family_hash("wet")
    assert np.array_equal(again.cpd("wet").table, fresh.cpd("wet").table)


def test_refit_keeps_some_old_rows_as_a_prior() -> None:
    """Where there are new rows ten old ones stay, in their proportions; where there are none, all do."""
    old, new = sample(days=range(4)), sample(1, rows=300, days=range(4, 6))
    first = new.schema.index("rain")
    new = new.select(new.codes[first] == 0)  # no new row has the other state of the parent
    network = fit(old, {"wet": ("rain",)})
    again = refit(network, new, ["wet"], old_rows=10)
    before, now = network.family_counts("wet").total(), again.family_counts("wet").total()
    fresh = fit(new, {"wet": ("rain",)}).family_counts("wet").total()
    kept = now[0] - fresh[0]
    assert 10 <= kept.sum() < 10 + before.shape[1]
    assert (np.abs(kept / 10 - before[0] / before[0].sum()) <= 0.1).all()
    assert ((kept > 0) == (before[0] > 0)).all()
    assert (now[1:] == before[1:]).all()
    assert again.family_hash("rain") == network.family_hash("rain")


def test_refit_counts_no_row_twice() -> None:
    """Old rows of clusters that are counted anew do not stay."""
    data = sample()
    again = refit(fit(data, {"wet": ("rain",)}), data, ["wet"], old_rows=10)
    assert (again.family_counts("wet").total() == fit(data, {"wet": ("rain",)}).family_counts("wet").total()).all()


def test_refit_refuses_what_does_not_belong_together() -> None:
    """Unknown nodes, another schema, clusters on one side only."""
    data = sample()
    network = fit(data, GRAPH)
    with pytest.raises(NetworkError, match="no nodes snow"):
        refit(network, data, ["snow"])
    with pytest.raises(NetworkError, match="own schema"):
        refit(network, data.project(["wet"]), ["wet"])
    with pytest.raises(NetworkError, match="in neither"):
        refit(network, Dataset(data.schema, data.codes), ["wet"])


def test_log_likelihood_rows_sums_the_logs_of_the_joint() -> None:
    """Look-up gives the logarithm of the product of all CPDs, and probabilities of all rows sum to one."""
    network = fit(sample(), GRAPH, 1.0)
    rows = pd.DataFrame(itertools.product(["false", "true"], repeat=3), columns=list(GRAPH))
    data = Dataset.from_pandas(rows, network.schema)
    scores = log_likelihood_rows(network, data)
    for score, (rain, sprinkler, wet) in zip(scores, data.codes.T, strict=True):
        joint = network.cpd("rain").table[rain] * network.cpd("sprinkler").table[rain, sprinkler]
        assert score == pytest.approx(np.log(joint * network.cpd("wet").table[rain, sprinkler, wet]), rel=1e-12)
    assert np.exp(scores).sum() == pytest.approx(1.0, rel=1e-12)


def test_log_likelihood_of_impossible_and_incomplete_rows() -> None:
    """Impossible is -inf, a missing cell NaN, another schema an error."""
    schema = Schema((Variable("a", ("x", "y")), Variable("b", ("u", "v"))))
    seen = Dataset.from_pandas(pd.DataFrame({"a": ["x", "x"], "b": ["u", "u"]}), schema)
    network = fit(seen, {"b": ("a",)})
    asked = Dataset.from_pandas(pd.DataFrame({"a": ["x", "x", "x"], "b": ["u", "v", None]}), schema)
    assert log_likelihood_rows(network, asked)[:2].tolist() == [0.0, -np.inf]
    assert np.isnan(log_likelihood_rows(network, asked)[2])
    with pytest.raises(DataError, match="another schema"):
        log_likelihood_rows(network, asked.project(["a"]))
