"""How a YAML file becomes values: text stays text, lines are kept, nothing that is no file passes."""

from __future__ import annotations

import copy
import random
import textwrap

import pytest
import yaml
from claims_spec import GOOD

from bnpipe.config import load_spec
from bnpipe.config.yaml_lines import YamlError, read
from bnpipe.errors import SpecError


def plain(text):
    """Read with every scalar as text, null as None."""
    return read(textwrap.dedent(text), verbatim=lambda path: False, typed=lambda path: False)


@pytest.mark.parametrize(
    "state", ["no", "NO", "yes", "on", "off", "01", "1_000", "1e3", "2013-12-31", "~", "null", "true", "12:30"]
)
def test_states_are_the_text_as_written(write, state):
    """No state is read as a boolean, number, date or null."""
    spec = load_spec(write(GOOD.replace("[SE, DK]", f"[SE, {state}]")))
    assert spec.variables["region"].states == ("SE", state)


def test_quoted_states_are_what_is_between_the_quotes(write):
    """Quotes are YAML's, not the state's."""
    spec = load_spec(write(GOOD.replace("[SE, DK]", '["SE", \'01\', "a: b"]')))
    assert spec.variables["region"].states == ("SE", "01", "a: b")


def test_names_of_variables_may_be_yaml_booleans(write):
    """A variable called ``on`` is called on, in every place."""
    text = GOOD.replace("  hour:", "  on:") + "structure: {required: [[on, size]], tiers: [[on], [size]]}\n"
    spec = load_spec(write(text))
    assert list(spec.variables)[1] == "on"
    assert spec.structure.required == (("on", "size"),)


def test_keys_without_a_value_count_as_left_out(write):
    """``gates:`` with everything below it commented out is no mistake, nor is ``size:`` among the targets."""
    spec = load_spec(write(GOOD.replace("  size: {tolerance: 0.002}", "  size:") + "gates:\nschedule: null\n"))
    assert spec.gates.min_rows == 100
    assert spec.targets["size"].tolerance == 0.01


def test_arguments_of_expectations_have_types(write):
    """There ``true`` and numbers are what they look like, and ``no`` still is text."""
    kwargs = "{column: size, value_set: [no, 1, 1.5, true, null, 'x'], mostly: 1e-1}"
    text = GOOD + f"validation: {{expectations: [{{type: expect_column_values_to_be_in_set, kwargs: {kwargs}}}]}}\n"
    (expectation,) = load_spec(write(text)).validation.expectations
    assert expectation.kwargs == {"column": "size", "value_set": ["no", 1, 1.5, True, None, "x"], "mostly": 0.1}


def test_lines_are_those_of_the_keys():
    """Entries of mappings have their key's line, items of lists their own."""
    document = plain("""\
        a:
          b:
            - x
            - y
        c: {d: 1}
        """)
    assert [document.line(path) for path in [("a",), ("a", "b"), ("a", "b", 1), ("c", "d"), ("c", "e")]] == [
        1,
        2,
        4,
        5,
        5,
    ]


def test_anchors_and_merges_work():
    """``*name`` and ``<<`` save writing, as in any YAML; keys written win over merged ones."""
    document = plain("""\
        base: &base {missing: state, edges: [1]}
        a: *base
        b: {<<: *base, edges: [2]}
        """)
    assert document.value["a"] == {"missing": "state", "edges": ["1"]}
    assert document.value["b"] == {"missing": "state", "edges": ["2"]}


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "a: &a [x,x,x,x,x,x,x,x]\n"
        + "\n".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 8)}]" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
        ),
    ],
    ids=["in a list", "in a mapping", "billion laughs"],
)
def test_aliases_without_end_are_refused(text):
    """A file of a few bytes can't eat the memory."""
    with pytest.raises(YamlError, match="without end"):
        plain(text)


def test_a_key_written_twice_is_told_with_both_lines(mistakes):
    """YAML would silently take the last."""
    assert mistakes(GOOD + "owner: you\n") == ["claims.yaml:12: owner: key written twice, first on line 2; keep one"]


def test_tags_are_refused(mistakes):
    """Nothing in a spec makes Python objects."""
    (mistake,) = mistakes(GOOD.replace("owner: me", "owner: !!python/name:os.system me"))
    assert "claims.yaml:2: owner: the tag !!python/name:os.system has no meaning here" in mistake


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\n  owner: y\n", "claims.yaml:2: column 8: not YAML: mapping values are not allowed"),
        ("name: [a, b\nowner: me\n", "claims.yaml:2: column 6: not YAML: did not find expected ',' or ']'"),
        ("name:\n\t- x\n", "indent with spaces"),
        ("name: x\n---\nname: y\n", "claims.yaml:2: column 1: not YAML: but found another document"),
        ("", "claims.yaml: the file is empty"),
        ("# only a comment\n", "claims.yaml: the file is empty"),
        ("- name: x\n", "claims.yaml:1: the file must hold `key: value` lines, it holds a list"),
        ("just words\n", "it holds a single value"),
        ("name: a\0b\n", "claims.yaml: binary, not text"),
        ("name: a\x07b\n", "not allowed in YAML"),
    ],
)
def test_what_is_no_yaml_is_told_with_line_and_column(mistakes, text, expected):
    """One short message, no traceback."""
    (mistake,) = mistakes(text)
    assert expected in mistake


def test_files_that_are_not_there_or_no_text(tmp_path, write):
    """A missing file names its neighbour, a folder and another encoding say what they are."""
    path = write(GOOD)
    with pytest.raises(SpecError, match=r"no such file; did you mean .*claims\.yaml"):
        load_spec(path.with_name("claim.yaml"))
    with pytest.raises(SpecError, match="no such file; check the path"):
        load_spec(tmp_path / "nowhere" / "x.yaml")
    with pytest.raises(SpecError, match="this is a folder"):
        load_spec(tmp_path)
    path.write_bytes("name: x\nowner: Jürgen".encode("latin-1"))
    with pytest.raises(SpecError, match=r"claims\.yaml:2: not UTF-8 text"):
        load_spec(path)
    path.write_bytes(b"a" * 3_000_000)
    with pytest.raises(SpecError, match="3 MB is no spec"):
        load_spec(path)


def test_a_byte_order_mark_is_no_mistake(write):
    """Editors on Windows write one."""
    assert load_spec(write("\ufeff" + GOOD)).name == "claims"


@pytest.mark.parametrize("text", ["a: " + "[" * 300 + "]" * 300, "[" * 900_000, "- " * 300_000])
def test_a_bottomless_file_is_refused(mistakes, text):
    """It would overflow the stack of the parser, and take the dag processor with it."""
    (mistake,) = mistakes(text)
    assert "nested too deeply for a spec" in mistake


def test_no_value_in_any_place_breaks_the_checks(mistakes, write):
    """Two hundred values where they do not belong, drawn with a seed: problems or a spec, never another error."""
    draw = random.Random(4)
    extra = """
        structure: {tiers: [[hour], [size]], required: [[hour, size]], forbidden: [[size, hour]]}
        validation: {expectations: [{type: expect_column_to_exist, kwargs: {column: hour}}]}
        parameters: {estimator: mle}
        gates: {min_rows: 1}
        """
    whole = yaml.safe_load(GOOD + textwrap.dedent(extra))
    values = [
        None,
        "x",
        "-1",
        [],
        {},
        ["a"],
        [["a", "b"]],
        [[["a"]]],
        {"a": "1"},
        {"states": ["a"]},
        [None],
        {"a": {"b": []}},
    ]
    for _ in range(200):
        spec = copy.deepcopy(whole)
        place = spec
        while True:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.3:
                break
            place = place[key]
        place[key] = draw.choice(values)
        text = yaml.safe_dump(spec, sort_keys=False)
        if not [mistake for mistake in mistakes(text) if "warning:" not in mistake]:
            load_spec(write(text))
