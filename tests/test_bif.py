"""BIF and pgmpy, in and out, read back by ourselves, pgmpy and pyAgrum."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.bif import read_bif
from bnpipe.data import Dataset
from bnpipe.errors import FormatError, NetworkError
from bnpipe.network import Network
from bnpipe.parameters import fit
from bnpipe.schema import Schema, Variable, bin_labels

# pyAgrum 3.3 reads BIF numbers in single precision, also those it wrote itself.
SINGLE = 1e-7

ODD_NAMES = [
    *(
        "<10",
        "10..20",
        "New York",
        ">=5",
        "Zürich",
        "東京",
        "a,b",
        "a;b",
        "{x}",
        "(y)",
        '"q"',
        "//",
        "/*",
        "*/",
        "|",
        "",
    ),
    *(" ", "\n", "table", "default", "TABLE", "variable", "property x", "1e5", "-3", "007", "0.5", "12+", "a=b", "%20"),
    *("new york", "New_York", "x", "X", "_", ".", "-", "lt_10", "nan", "Asy/Patch", "a'b", "\\", "no_such_state"),
]


def random_network(variables: list[tuple[str, list[str]]], seed: int = 0) -> Network:
    """Every variable has up to two parents before it; probabilities have all their digits, some are zero."""
    generator = np.random.default_rng(seed)
    schema = Schema(tuple(Variable(name, tuple(states)) for name, states in variables))
    parents, tables = {}, {}
    for place, variable in enumerate(schema):
        chosen = generator.permutation(place)[: generator.integers(0, 3)]
        parents[variable.name] = tuple(schema.names[index] for index in chosen)
        cards = [schema[parent].cardinality for parent in parents[variable.name]]
        table = generator.dirichlet(np.full(variable.cardinality, 0.3), size=cards or None)
        tables[variable.name] = table / table.sum(axis=-1, keepdims=True)
    return Network(schema, parents, tables=tables)


def read_by_pgmpy(path: Path) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Give each node's parents, by place, and table as pgmpy reads them, in the order of the file."""
    from pgmpy.readwrite import BIFReader

    reader = BIFReader(string=path.read_text(encoding="utf-8"))
    model = reader.get_model()
    assert model.check_model()
    place_of = {name: place for place, name in enumerate(reader.variable_names)}
    cpds = [model.get_cpds(name) for name in reader.variable_names]
    return [(tuple(place_of[p] for p in cpd.variables[1:]), np.moveaxis(np.asarray(cpd.values), 0, -1)) for cpd in cpds]


def read_by_pyagrum(path: Path) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Give each node's parents, by place, and table as pyAgrum reads them, in the order of the file."""
    import pyagrum

    model = pyagrum.loadBN(str(path))
    found = []
    for node in range(model.size()):
        table = model.cpt(node)  # named child first, but its array has the axes the other way round
        parents = tuple(model.idFromName(name) for name in reversed(table.names[1:]))
        found.append((parents, np.array(table.toarray())))
    return found


def assert_same_cpds(network: Network, found: list[tuple[tuple[int, ...], np.ndarray]], tolerance: float) -> None:
    """Compare by place, because names may have been made safe; a padded second state must be impossible."""
    assert len(found) == len(network.nodes)
    for node, (parents, table) in zip(network.nodes, found, strict=True):
        own = tuple(network.nodes.index(parent) for parent in network.parents[node])
        assert sorted(parents) == sorted(own)
        aligned = table.transpose([*(parents.index(parent) for parent in own), len(own)])
        expected = network.cpd(node).table
        real = aligned[tuple(slice(states) for states in expected.shape)]
        np.testing.assert_allclose(real, expected, rtol=0, atol=tolerance)
        assert aligned.shape == tuple(max(2, states) for states in expected.shape)


def assert_read_by_us_and_pyagrum(network: Network, path: Path) -> None:
    """Write; we read schema, graph and tables to the last bit, pyAgrum the same CPDs."""
    network.to_bif(path)
    again = Network.from_bif(path)
    assert again.schema == network.schema
    assert again.parents == network.parents
    for node in network.nodes:
        assert again.cpd(node).table.tobytes() == network.cpd(node).table.tobytes()
    assert_same_cpds(network, read_by_pyagrum(path), SINGLE)


def assert_read_by_all(network: Network, path: Path) -> None:
    """Have pgmpy read it too; it needs seconds for any file, so this is for few networks only."""
    assert_read_by_us_and_pyagrum(network, path)
    assert_same_cpds(network, read_by_pgmpy(path), 1e-12)


def test_plain_names_are_written_as_they_are(tmp_path: Path) -> None:
    """What every reader takes is not touched, and there is nothing for a property to restore."""
    network = random_network([("rain", ["no", "yes"]), ("wind.kn", ["a-b", "0", "12"]), ("_x", ["only", "other"])])
    assert_read_by_us_and_pyagrum(network, tmp_path / "plain.bif")
    text = (tmp_path / "plain.bif").read_text()
    assert "property" not in text
    assert "variable wind.kn {\n  type discrete [ 3 ] { a-b, 0, 12 };\n}" in text


def test_odd_states_and_nodes_are_read_by_all(tmp_path: Path) -> None:
    """Bins, blanks, unicode, keywords, punctuation, one state only, and names that collide when made safe."""
    nodes = [name or "empty" for name in ODD_NAMES]
    states = [ODD_NAMES[place : place + 1 + place % 4] for place in range(len(ODD_NAMES))]
    network = random_network([("all", ODD_NAMES), *zip(nodes, states, strict=True)])
    assert 1 in network.schema.cardinalities
    assert_read_by_all(network, tmp_path / "odd.bif")


def test_safe_names_can_be_guessed_and_do_not_collide() -> None:
    """A person who opens the file elsewhere still knows which bin is which; safe names win over made ones."""
    from bnpipe.bif import write_bif

    states = ("<10", "lt_10", "10..20", ">=20", "New York", "12+", "a.b")
    network = random_network([("wind", list(states)), ("Wind", ["x"]), ("timetable", ["x"])])
    tables = {node: network.cpd(node).table for node in network.nodes}
    text = write_bif(network.schema, network.parents, tables)
    assert "{ lt_10_2, lt_10, _10_to_20, ge_20, New_York, _12_plus, a.b }" in text
    assert "variable wind {" in text
    assert "variable Wind_2 {" in text  # pgmpy takes Wind and wind for one node
    assert "variable timetab {" in text  # pgmpy takes the table in it for a keyword


names = st.one_of(st.sampled_from(ODD_NAMES), st.text(max_size=5))


@given(
    st.lists(
        st.tuples(names.filter(bool), st.lists(names, min_size=1, max_size=4, unique=True)),
        min_size=1,
        max_size=5,
        unique_by=lambda variable: variable[0],
    ),
    st.integers(0, 1000),
)
def test_any_names_are_read_by_us_and_pyagrum(
    tmp_path_factory: pytest.TempPathFactory, variables: list[tuple[str, list[str]]], seed: int
) -> None:
    """Whatever the names, both find the same CPDs."""
    assert_read_by_us_and_pyagrum(random_network(variables, seed), tmp_path_factory.mktemp("bif") / "any.bif")


def test_bins_other_and_missing_come_back(tmp_path: Path) -> None:
    """A network from BIF still knows how to encode raw values."""
    schema = Schema(
        (
            Variable("wind", (*bin_labels((0.1, 1e300)), "none"), edges=(0.1, 1e300), missing="none"),
            Variable("sky", ("clear", "any other"), other="any other"),
            Variable("flat", bin_labels(()), edges=()),
        )
    )
    frame = pd.DataFrame({"wind": [0.0, 1.0, None], "sky": ["clear", "fog", "clear"], "flat": [1.0, 2.0, 3.0]})
    network = fit(Dataset.from_pandas(frame, schema), {"sky": ("wind",)})
    assert_read_by_all(network, tmp_path / "bins.bif")
    assert Network.from_bif(tmp_path / "bins.bif").schema["flat"].states == ("any",)


@pytest.mark.parametrize("name", ["alarm", "asia", "child", "insurance", "hailfinder"])
def test_published_networks_read_as_pgmpy_reads_them(name: str, tmp_path: Path) -> None:
    """Files that others wrote give the same names and numbers, and what we write of them is read back."""
    import pgmpy.utils

    path = Path(pgmpy.utils.__file__).parent / "example_models" / f"{name}.bif.gz"
    network = Network.from_bif(path)
    plain = tmp_path / "plain.bif"
    plain.write_bytes(gzip.decompress(path.read_bytes()))
    assert Network.from_bif(plain).content_hash == network.content_hash
    assert_same_cpds(network, read_by_pgmpy(plain), 1e-15)
    assert_read_by_us_and_pyagrum(network, tmp_path / "ours.bif")


def test_the_dialects_of_bif_are_understood() -> None:
    """Comments, quotes, blanks in names, missing commas, defaults, tables, old headers, any order of blocks."""
    schema, parents, tables = read_bif(
        """
        // a comment with a "quote and a { brace
        network "my network" { property author = someone ; }
        probability ( "New York" | b, c ) { /* rows { follow }
            */ default 0.5 0.5;
            (on, x) 0.25 0.75;
        }
        variable b { type discrete[2] { on off }; property position = (1, 2); }
        variable c { type discrete [ 2 ] { "x", "y // z" }; }
        variable "New York" { type discrete [2] { very good, bad }; }
        probability ( c b ) { table 0.1 0.2 0.9 0.8; }
        probability ( b ) { table 3e-1, .7; }
        """
    )
    assert schema.names == ("b", "c", "New York")
    assert schema["New York"].states == ("very good", "bad")
    assert schema["c"].states == ("x", "y // z")
    assert parents == {"b": (), "c": ("b",), "New York": ("b", "c")}
    assert tables["b"].tolist() == [0.3, 0.7]
    assert tables["c"].tolist() == [[0.1, 0.9], [0.2, 0.8]]
    assert tables["New York"].tolist() == [[[0.25, 0.75], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]]


HEAD = "network n {\n}\nvariable a {\n  type discrete [ 2 ] { x, y };\n}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "declares no variable"),
        ('{"format": 1}', "line 1: expected network, variable or probability"),
        (HEAD, "no probabilities for a"),
        ("variable a {\n  type discrete [ 3 ] { x, y };\n}", "line 3: 3 states are announced but 2 are listed"),
        ("variable a {\n  type discrete [ 2 ] { x, x };\n}", "line 1: a: states given twice"),
        (HEAD + "variable a { }", "line 6: "),
        (HEAD + "probability ( a ) {\n  table 0.5, half;\n}", "line 7: a: could not convert"),
        (HEAD + "probability ( a ) {\n  table 0.5;\n}", "line 7: a: expected 2 finite probabilities, got 1"),
        (HEAD + "probability ( a ) {\n  table 0.5, nan;\n}", "line 7: a: expected 2 finite"),
        (HEAD + "probability ( a | b ) {\n  (x) 0.5, 0.5;\n}", "line 6: .* 'b' is no declared variable"),
        (HEAD + "probability ( a | a ) {\n  (x) 0.5, 0.5;\n}", "line 6: .* the node itself"),
        (HEAD + "probability ( a ) {\n}", "line 7: a: 1 configurations have no row"),
        (HEAD + "probability ( a ) {\n  table 0.5, 0.5;\n", "the file ends too early"),
        (HEAD + "probability ( a ) {\n  table 0.5, 0.5\n}\n", "ends too early"),
        (HEAD + 'probability ( "a ) {', "line 6: a quote is not closed"),
        (HEAD + "probability ( a ) { table 1, 0; }\nprobability ( a ) { table 1, 0; }", "line 7: .* given twice"),
    ],
)
def test_text_that_is_no_bif_is_told_by_line(text: str, message: str) -> None:
    """Every mistake is a FormatError that names the line."""
    with pytest.raises(FormatError, match=message):
        read_bif(text)


def test_rows_that_name_no_state_are_told_by_line() -> None:
    """A misspelt state in a row names node, state and parent."""
    text = HEAD + "variable b {\n  type discrete [ 1 ] { u };\n}\nprobability ( a ) { table 1, 0; }\n"
    with pytest.raises(FormatError, match="line 12: b: 'z' is no state of a"):
        read_bif(text + "probability ( b | a ) {\n  (x) 1.0;\n  (z) 1.0;\n}")
    with pytest.raises(FormatError, match="b: 1 parents but 2 states"):
        read_bif(text + "probability ( b | a ) {\n  (x, y) 1.0;\n}")


def test_a_file_that_is_no_bif_is_named(tmp_path: Path) -> None:
    """Binary, badly gzipped and foreign files name their path; a cycle is no network."""
    for name, content in (("a.bif", b"\x80\x81"), ("b.bif.gz", b"network"), ("c.bif", b"<xml/>")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(FormatError, match=name):
            Network.from_bif(tmp_path / name)
    (tmp_path / "d.bif").write_text(
        "variable a { type discrete [1] { x }; }\nvariable b { type discrete [1] { y }; }\n"
        "probability ( a | b ) { (y) 1; }\nprobability ( b | a ) { (x) 1; }\n"
    )
    with pytest.raises(NetworkError, match="cycle"):
        Network.from_bif(tmp_path / "d.bif")


def test_pgmpy_and_back_is_the_same_network() -> None:
    """States, graph and CPDs survive; pgmpy's own check passes."""
    network = random_network([(name or "e", ODD_NAMES[i : i + 3]) for i, name in enumerate(ODD_NAMES[:12])], seed=3)
    model = network.to_pgmpy()
    assert model.check_model()
    again = Network.from_pgmpy(model)
    assert again.content_hash == network.content_hash


def test_to_pgmpy_answers_queries_by_name() -> None:
    """The table lies the way pgmpy expects: P(child = yes | parents) is what we stored."""
    network = random_network([("a", ["x", "y"]), ("b", ["u", "v", "w"]), ("c", ["no", "yes"])], seed=5)
    model = network.to_pgmpy()
    for node in network.nodes:
        cpd = model.get_cpds(node)
        for place in np.ndindex(*network.cpd(node).table.shape):
            family = (*network.parents[node], node)
            states = {name: network.schema[name].states[code] for name, code in zip(family, place, strict=True)}
            assert cpd.get_value(**states) == network.cpd(node).table[place]


def test_from_pgmpy_aligns_states_by_name() -> None:
    """A CPD may list its parent's states in another order, or not name them at all."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork([("a", "b"), ("b", 3)])
    root = TabularCPD("a", 2, [[0.2], [0.8]], state_names={"a": ["x", "y"]})
    turned = [[0.1, 0.6], [0.9, 0.4]]
    child = TabularCPD("b", 2, turned, ["a"], [2], {"b": [True, False], "a": ["y", "x"]})
    last = TabularCPD(3, 2, [[0.3, 0.5], [0.7, 0.5]], ["b"], [2])
    model.add_cpds(root, child, last)
    network = Network.from_pgmpy(model)
    assert network.nodes == ("a", "b", "3")
    assert network.schema["b"].states == ("true", "false")
    assert network.cpd("b").table.tolist() == [[0.6, 0.4], [0.1, 0.9]]
    assert network.cpd("3").table.tolist() == [[0.3, 0.7], [0.5, 0.5]]


def test_from_pgmpy_refuses_what_does_not_fit() -> None:
    """No CPD, or another set of states for the parent."""
    from pgmpy.factors.discrete import TabularCPD
    from pgmpy.models import DiscreteBayesianNetwork

    model = DiscreteBayesianNetwork([("a", "b")])
    model.add_cpds(TabularCPD("a", 2, [[0.2], [0.8]], state_names={"a": ["x", "y"]}))
    with pytest.raises(NetworkError, match="no CPD for b"):
        Network.from_pgmpy(model)
    model.add_cpds(TabularCPD("b", 2, [[0.1, 0.6], [0.9, 0.4]], ["a"], [2], {"b": ["u", "v"], "a": ["x", "z"]}))
    with pytest.raises(NetworkError, match="b: knows a by other states"):
        Network.from_pgmpy(model)
