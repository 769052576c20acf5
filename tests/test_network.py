"""The network as a value: checked, immutable, hashed, saved bit for bit."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.cpd import Prior
from bnpipe.data import Dataset
from bnpipe.errors import FormatError, NetworkError, NoCountsError
from bnpipe.graph import topological_order
from bnpipe.network import FORMAT, Network
from bnpipe.parameters import fit
from bnpipe.schema import Schema, Variable, bin_labels

GOLDEN = Path(__file__).parent / "golden"
GRAPH = {"late": ("rain", "wind"), "rain": ("wind",)}


def flights(equivalent_sample_size: float = 0.0) -> Network:
    """Three variables over three days; one configuration was never seen."""
    schema = Schema(
        (
            Variable("late", ("false", "true")),
            Variable("rain", ("no", "yes", "New York é", "none"), other="New York é", missing="none"),
            Variable("wind", bin_labels((5.0, 10.5)), edges=(5.0, 10.5)),
        )
    )
    frame = pd.DataFrame(
        {
            "late": [False, True, False, True, True, None, False, False],
            "rain": ["no", "yes", "no", "hail", None, "no", "no", "yes"],
            "wind": [1.0, 7.0, 5.0, 20.0, 3.0, 4.0, 10.5, 8.0],
            "day": ["2013-01-01"] * 3 + ["2013-01-02"] * 2 + ["2013-01-03"] * 3,
        }
    )
    return fit(Dataset.from_pandas(frame, schema, clusters="day"), GRAPH, equivalent_sample_size)


def imported() -> Network:
    """The same CPDs without the counts."""
    network = flights(1.0)
    return Network(network.schema, network.parents, tables={node: network.cpd(node).table for node in network.nodes})


NETWORKS = {"counts": flights, "prior": lambda: flights(10.0), "tables": imported}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Network:
    """A network with counts, with a prior, and an imported one."""
    return NETWORKS[request.param]()


def test_graph_is_told_by_nodes_arcs_and_order() -> None:
    """Nodes follow the schema, the order puts parents first, parameters count the free cells."""
    network = flights()
    assert network.nodes == ("late", "rain", "wind")
    assert network.arcs == (("rain", "late"), ("wind", "late"), ("wind", "rain"))
    assert network.order == ("wind", "rain", "late")
    assert network.parameters == 12 * 1 + 3 * 3 + 2
    assert network.parents["wind"] == ()


def test_cpds_are_shares_of_counts_and_unseen_rows_are_uniform_and_flagged() -> None:
    """Maximum likelihood divides counts; where there are none the row is uniform and says so."""
    network = flights()
    rain = network.cpd("rain")
    assert rain.parents == ("wind",)
    assert rain.table.tolist() == [[2 / 3, 0, 0, 1 / 3], [1 / 3, 2 / 3, 0, 0], [0.5, 0, 0.5, 0]]
    assert not rain.unseen.any()
    late = network.cpd("late")
    assert late.table.shape == (4, 3, 2)
    assert late.unseen[1].tolist() == [True, False, True]
    assert late.table[1, 0].tolist() == [0.5, 0.5]
    assert network.cpd("wind").unseen.shape == ()
    assert network.cpd("late") is late


def test_a_cpd_is_an_array_and_a_frame() -> None:
    """The table is what numpy sees; the frame labels it."""
    cpd = flights().cpd("rain")
    assert np.asarray(cpd) is cpd.table
    assert np.array(cpd, dtype=np.float32).dtype == np.float32
    frame = cpd.to_frame()
    assert frame.columns.tolist() == list(cpd.states)
    assert frame.loc[("<5",), "no"].item() == pytest.approx(2 / 3)
    assert flights().cpd("wind").to_frame().shape == (1, 3)


@pytest.mark.parametrize(
    ("prior", "first"),
    [(Prior(), [2 / 3, 0, 0, 1 / 3]), (Prior("jeffreys"), [2.5, 0.5, 0.5, 1.5]), (Prior("bdeu", 12.0), [3, 1, 1, 2])],
)
def test_priors_are_other_views_of_the_same_counts(prior: Prior, first: list[float]) -> None:
    """Pseudo-counts are added to every cell; without rows every prior is uniform."""
    network = flights().with_prior(prior)
    np.testing.assert_allclose(network.cpd("rain").table[0], np.array(first) / sum(first), rtol=1e-15)
    assert (network.cpd("late").table[network.cpd("late").unseen] == 0.5).all()
    assert network.with_prior(Prior()).content_hash == flights().content_hash


@pytest.mark.parametrize(
    ("kind", "size"),
    [("bdeu", 0.0), ("bdeu", -1.0), ("bdeu", float("inf")), ("none", 1.0), ("jeffreys", 1.0), ("x", 0)],
)
def test_impossible_priors_are_refused(kind: str, size: float) -> None:
    """Only BDeu has a sample size, and it is positive."""
    with pytest.raises(NetworkError, match="prior"):
        Prior(kind, size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parents": {"rain": ("snow",)}}, "rain: unknown parents snow"),
        ({"parents": {"snow": ()}}, "unknown nodes snow"),
        ({"parents": {"rain": ("wind", "wind")}}, "rain: a parent .* named twice"),
        ({"parents": {"rain": ("late",), "late": ("wind",), "wind": ("rain",)}}, "cycle: .*(late|rain|wind) -> "),
        ({"parents": {"rain": ()}}, r"late: table has shape \(4, 3, 2\), expected \(2,\)"),
        ({"tables": None}, "either counts or tables"),
        ({"counts": {}}, "either counts or tables"),
        ({"tables": {}}, "missing or too many: late, rain, wind"),
    ],
)
def test_what_is_no_network_is_refused(changes: dict, message: str) -> None:
    """The error names the node and the shape or arc that is wrong."""
    base = imported()
    fields = {"schema": base.schema, "parents": base.parents, "tables": base.tables, **changes}
    with pytest.raises(NetworkError, match=message):
        Network(**fields)


@pytest.mark.parametrize(
    ("row", "message"),
    [([0.5, 0.2, 0.2], "sums to 1"), ([1.5, -0.5, 0.0], "not negative"), ([np.nan, 0.5, 0.5], "finite")],
)
def test_tables_that_are_no_distributions_are_refused(row: list[float], message: str) -> None:
    """Sums, signs and NaN are checked, and the node is named."""
    base = imported()
    with pytest.raises(NetworkError, match=f"wind: .*{message}"):
        Network(base.schema, base.parents, tables={**base.tables, "wind": np.array(row)})


def test_counts_must_fit_clusters_and_shape() -> None:
    """Counts over three clusters need three labels."""
    network = flights()
    with pytest.raises(NetworkError, match=r"late: counts have shape \(3, 12, 2\), expected \(1, 12, 2\)"):
        Network(network.schema, network.parents, counts=network.counts)


def test_cycles_are_named_arc_by_arc() -> None:
    """The message walks the cycle in the direction of its arcs."""
    with pytest.raises(NetworkError, match=r"cycle: (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)"):
        topological_order({"a": ("c",), "b": ("a",), "c": ("b",), "d": ("a",)})


def test_nothing_can_be_changed(network: Network) -> None:
    """Fields, mappings and arrays are read-only."""
    with pytest.raises(AttributeError):
        network.prior = Prior()  # type: ignore[misc]
    for mapping in (network.parents, network.counts, network.tables):
        if mapping is not None:
            with pytest.raises(TypeError):
                mapping["late"] = ()  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        network.cpd("wind").table[0] = 1.0


def test_pickle_and_copy_give_the_same_network(network: Network) -> None:
    """Networks travel between processes."""
    for again in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):  # noqa: S301
        assert again.content_hash == network.content_hash
        assert again.order == network.order
        with pytest.raises(TypeError):
            again.parents["late"] = ()


def test_unknown_nodes_and_missing_counts_are_named() -> None:
    """Asking for what is not there tells what there is."""
    with pytest.raises(NetworkError, match="no node 'snow'; there are late, rain, wind"):
        flights().cpd("snow")
    with pytest.raises(NoCountsError, match="late"):
        imported().family_counts("late")
    with pytest.raises(NoCountsError, match="prior"):
        imported().with_prior(Prior("jeffreys"))
    assert flights().has_counts
    assert not imported().has_counts


def test_content_hash_sees_everything_and_structure_hash_the_graph() -> None:
    """Prior, clusters, counts and kind change the content; the order of parents changes no structure."""
    base = flights()
    renamed = Network(base.schema, base.parents, base.counts, prior=base.prior, cluster_labels=("a", "b", "c"))
    others = [flights(1.0), renamed, imported(), base.with_prior(Prior("jeffreys"))]
    assert len({network.content_hash for network in [base, *others]}) == 5
    assert len({network.structure_hash for network in [base, *others]}) == 1
    turned = Network(base.schema, {**GRAPH, "late": ("wind", "rain")}, base.counts, cluster_labels=base.cluster_labels)
    assert turned.structure_hash == base.structure_hash
    assert turned.content_hash != base.content_hash


def test_family_hash_is_that_of_one_cpd_alone() -> None:
    """Clusters without rows do not matter, other families neither; the prior does."""
    base = flights()
    places = np.array([0, 2, 3])
    counts = {node: table.place(places, 4) for node, table in base.counts.items()}
    wider = Network(base.schema, base.parents, counts, cluster_labels=("2013-01-01", "x", "2013-01-02", "2013-01-03"))
    assert [wider.family_hash(node) for node in wider.nodes] == [base.family_hash(node) for node in base.nodes]
    assert wider.content_hash != base.content_hash
    assert flights(1.0).family_hash("rain") != base.family_hash("rain")
    assert len({network.family_hash("rain") for network in (base, imported())}) == 2


def test_save_and_load_bit_for_bit(network: Network, tmp_path: Path) -> None:
    """The same hash, the same CPDs to the last bit, the same bytes of the file."""
    network.save(tmp_path / "network.json")
    again = Network.load(tmp_path / "network.json")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "network.json").read_bytes()
    assert again.content_hash == network.content_hash
    assert again.schema == network.schema
    assert again.parents == network.parents
    assert again.prior == network.prior
    for node in network.nodes:
        assert again.cpd(node).table.tobytes() == network.cpd(node).table.tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.json", "network.json"]


def test_the_file_can_be_read_by_a_person(network: Network) -> None:
    """Schema, parents, prior and clusters stand in plain text."""
    fields = json.loads(network.to_json())
    assert fields["format"] == FORMAT
    assert fields["parents"] == {node: list(parents) for node, parents in network.parents.items()}
    assert fields["prior"]["kind"] == network.prior.kind
    assert fields["cluster_labels"] == list(network.cluster_labels)
    assert "New York é" in network.to_json()


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Any names, up to five variables, any acyclic graph, counts of a few rows or tables, any prior."""
    text = st.text(max_size=6)
    names = draw(st.lists(text.filter(bool), min_size=1, max_size=5, unique=True))
    schema = Schema(
        tuple(Variable(name, tuple(draw(st.lists(text, min_size=1, max_size=4, unique=True)))) for name in names)
    )
    parents = {
        name: tuple(draw(st.sets(st.sampled_from(names[:i] or [name]), max_size=3)) - {name})
        for i, name in enumerate(names)
    }
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows = draw(st.integers(0, 20))
    codes = np.stack([generator.integers(0, cardinality, rows) for cardinality in schema.cardinalities])
    labels = tuple(draw(st.lists(text, max_size=3, unique=True)))
    clusters = generator.integers(0, len(labels), rows) if labels else None
    data = Dataset(schema, codes.astype(np.uint8), clusters, labels)
    network = fit(data, parents, draw(st.sampled_from([0.0, 0.1, 7.3])))
    if draw(st.booleans()):
        return network
    return Network(schema, parents, tables={node: network.cpd(node).table for node in network.nodes})


@given(networks())
def test_any_network_survives_json_and_pickle(network: Network) -> None:
    """Whatever the names and numbers, what comes back is the same network."""
    for again in (Network.from_json(network.to_json()), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert again.content_hash == network.content_hash
        assert again.to_json() == network.to_json()


@pytest.mark.parametrize("name", ["network_format_1", "network_format_1_imported"])
def test_files_of_format_1_are_read_for_ever(name: str) -> None:
    """Every older format keeps a golden file: a version in a registry must load years later."""
    network = Network.load(GOLDEN / f"{name}.json")
    expected = {"network_format_1": flights(10.0), "network_format_1_imported": imported()}[name]
    assert (
        network.content_hash
        == expected.content_hash
        == json.loads((GOLDEN / f"{name}.json").read_text())["content_hash"]
    )
    for node in expected.nodes:
        assert network.cpd(node).table.tobytes() == expected.cpd(node).table.tobytes()


def test_a_newer_format_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """The message names the file and both formats."""
    path = tmp_path / "network.json"
    path.write_text(json.dumps({**json.loads(flights().to_json()), "format": FORMAT + 1, "surprise": {}}))
    with pytest.raises(FormatError, match=r"network\.json: format 2 .* newer bnpipe; this one reads up to 1: upgrade"):
        Network.load(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"format": "1"}', '{"format": true}', '{"format": 0}', '{"format": 1}', "null"]
)
def test_text_that_is_no_network_is_a_format_error(text: str) -> None:
    """Nothing but FormatError leaves `from_json`."""
    with pytest.raises(FormatError):
        Network.from_json(text)


def spoil_counts(fields: dict) -> None:
    """Another count, well-formed."""
    other = json.loads(Network.from_json(json.dumps(fields)).to_json())
    packed = other["counts"]["wind"]["counts"]
    fields["counts"]["wind"]["counts"] = packed[:10] + ("A" if packed[10] != "A" else "B") + packed[11:]


DAMAGES: list[Callable[[dict], object]] = [
    lambda fields: fields.pop("schema"),
    lambda fields: fields.pop("counts"),
    lambda fields: fields.pop("content_hash"),
    lambda fields: fields.update(content_hash="0"),
    lambda fields: fields.update(parents={"late": ["late"]}),
    lambda fields: fields.update(parents=[]),
    lambda fields: fields.update(prior={"kind": "x", "equivalent_sample_size": 0}),
    lambda fields: fields.update(prior={"strength": 1}),
    lambda fields: fields.update(cluster_labels=["a"]),
    lambda fields: fields.update(cluster_labels=["a", "b", "c"]),
    lambda fields: fields["counts"].pop("wind"),
    lambda fields: fields["counts"]["wind"].update(shape=[1, 1, 2]),
    lambda fields: fields["counts"]["wind"].update(steps="AAAA"),
    lambda fields: fields["schema"]["variables"][0].update(states=["a", "a"]),
    lambda fields: fields["schema"]["variables"].reverse(),
    spoil_counts,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_format_errors(damage: Callable[[dict], object]) -> None:
    """Any change is found, by its form or by the content hash."""
    fields = json.loads(flights().to_json())
    damage(fields)
    with pytest.raises(FormatError, match="damaged"):
        Network.from_json(json.dumps(fields))


@given(st.integers(0, 10**6), st.sampled_from(["cut", "swap"]))
def test_cut_or_swapped_text_is_never_read_as_another_network(place: int, how: str) -> None:
    """A truncated download or a flipped character is a FormatError, or changed nothing that counts."""
    text = flights().to_json()
    place %= len(text) - 2
    damaged = text[:place] if how == "cut" else text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    try:
        network = Network.from_json(damaged)
    except FormatError:
        return
    assert network.content_hash == flights().content_hash


def test_bytes_that_are_no_text_are_a_format_error(tmp_path: Path) -> None:
    """A gzipped or binary file is named."""
    (tmp_path / "network.json").write_bytes(b"\x80\x81")
    with pytest.raises(FormatError, match=r"network\.json: .*UTF-8"):
        Network.load(tmp_path / "network.json")
