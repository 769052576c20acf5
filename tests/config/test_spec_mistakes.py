"""Every mistake in a spec, told by line and key with what to do."""

from __future__ import annotations

import pytest
from claims_spec import GOOD

from bnpipe.config import load_all, load_spec
from bnpipe.errors import SettingsError, SpecError


def test_a_correct_spec_has_no_mistakes(mistakes):
    """Not even a warning."""
    assert mistakes(GOOD) == []


ONE_KEY = [
    ("owner: me", "ownr: me", "2: ownr: unknown key; did you mean `owner`?"),
    ("owner: me", "owner: me\nfoo: 1", "3: foo: unknown key; allowed are name, owner, description"),
    ("owner: me\n", "", "1: owner: this key is required"),
    ("name: claims", "name: Big Claims", "1: name: got 'Big Claims'; a name has small letters, digits, _ and -"),
    ("timestamp: at, ", "", "3: source.timestamp: this key is required"),
    ("timestamp: at", "timestamp: at, sql: SELECT 1", "3: source.sql: give either `path` or `sql`"),
    ('path: "claims/*.parquet", ', "", "3: source.sql: give either `path` or `sql`"),
    (
        "Europe/Berlin",
        "Europe/Berln",
        "3: source.time_zone: unknown time zone 'Europe/Berln', did you mean 'Europe/Berlin'?",
    ),
    ("Europe/Berlin", "../etc", "3: source.time_zone: unknown time zone '../etc'; give an IANA name"),
    ("timestamp: at", "timestamp: at, lag: 1 day", "3: source.lag: got '1 day'; write days as 90d"),
    (
        "timestamp: at",
        "timestamp: at, until: 31.12.2013",
        "3: source.until: got '31.12.2013'; write a date as 2013-12-31",
    ),
    ("timestamp: at", "timestamp: at, until: 2013-02-30", "3: source.until: there is no day '2013-02-30'"),
    ("90d", "0d", "4: window.train: got '0"),
    ("90d", "three months", "4: window.train: got 'three months'; write days as 90d"),
    ("[SE, DK]", "SE", "6: variables.region.states: got 'SE'; write a list: [a, b]"),
    ("[SE, DK]", "[]", "6: variables.region.states: got an empty list"),
    ("[SE, DK]", "[SE, DK, SE]", "6: variables.region.states: state 'SE' is listed twice; keep one"),
    ("[SE, DK]", f"[{', '.join(f's{n}' for n in range(255))}]", "6: variables.region: 256 states, at most 255"),
    ("other: other", "othr: other", "6: variables.region.othr: unknown key; did you mean `other`?"),
    ("[6, 12, 18]", "[6, 18, 12]", "7: variables.hour.edges: bins overlap: edge 12 comes after edge 18"),
    ("[6, 12, 18]", "[6, 6, 18]", "7: variables.hour.edges: the edge 6 is written twice"),
    ("[6, 12, 18]", "[6, noon]", "7: variables.hour.edges[1]: got 'noon'; write a number"),
    ("[6, 12, 18]", "[6, .inf]", "7: variables.hour.edges[1]: got '.inf'; write a number"),
    ("[6, 12, 18]", "[6, nan]", "7: variables.hour.edges[1]: got 'nan'; write a finite number"),
    ("[6, 12, 18]", "[6, 12], labels: [a, b]", "7: variables.hour.labels: 2 labels for 3 bins (2 edges)"),
    ("[6, 12, 18]", "[6], labels: [a, a]", "7: variables.hour.labels: labels must differ"),
    ("[6, 12, 18]", "[6], minimum: 6", "7: variables.hour: edge 6 is not above minimum 6"),
    ("[6, 12, 18]", "[6], maximum: 5", "7: variables.hour: edge 6 is above maximum 5"),
    ("[6, 12, 18]", "[6], minimum: 9, maximum: 7", "7: variables.hour.maximum: maximum 7 is not above minimum 9"),
    ("[6, 12, 18]", "[6], labels: [a, missing], missing: state", "missing_state 'missing' is also a label"),
    (
        "[6, 12, 18]",
        "[6], quantiles: 2",
        "7: variables.hour: got a mapping (edges, quantiles); a variable needs exactly one",
    ),
    ("{edges: [6, 12, 18]}", "{}", "7: variables.hour: got an empty mapping; a variable needs exactly one of the keys"),
    (
        "{edges: [6, 12, 18]}",
        "[6, 12]",
        "7: variables.hour: got a list (6, 12); a variable needs exactly one of the keys",
    ),
    ("quantiles: 4", "quantiles: 1", "8: variables.premium.quantiles: got '1'"),
    ("quantiles: 4", "quantiles: 2.5", "8: variables.premium.quantiles: got '2.5'; write a whole number"),
    ("quantiles: 4", "quantiles: 4, missing: stat", "got 'stat'; allowed are drop, state, did you mean state?"),
    ("quantiles: 4", "quantiles: 4, max_missing: 5", "8: variables.premium.max_missing: got '5'"),
    ("  hour:", "  hour of day:", "variables.hour of day: got 'hour of day'; a variable's name starts with a letter"),
    ("  hour:", "  Size:", "differs from 'Size' only by capitals; SQL can't; rename one"),
    ("  size: {tol", "  sise: {tol", "11: targets.sise: no variable is named 'sise', did you mean 'size'?"),
    ("tolerance: 0.002", "tolerance: -1", "11: targets.size.tolerance: got '-1'"),
    ("  size: {tolerance: 0.002}\n", "", "10: targets: this key is required"),
    ("targets:\n  size: {tolerance: 0.002}", "targets: [size]", "10: targets: got a list (size); write a mapping"),
]


@pytest.mark.parametrize(("old", "new", "expected"), ONE_KEY, ids=[expected[:40] for *_, expected in ONE_KEY])
def test_one_wrong_key_gives_one_message(mistakes, old, new, expected):
    """With the line, the key, what was received and what to do."""
    assert old in GOOD
    (mistake,) = mistakes(GOOD.replace(old, new, 1))
    assert expected in mistake


MORE_KEYS = [
    (
        "structure: {score: bik}",
        "structure.score: got 'bik'; allowed are bic, aic, bdeu, bds, k2, ll, did you mean bic?",
    ),
    ("structure: {max_parents: -1}", "structure.max_parents: got '-1'"),
    (
        "structure: {required: [[a, size]]}",
        "structure.required[0]: arc a -> size: no variable is named 'a'; there are region",
    ),
    ("structure: {required: [[hours, size]]}", "arc hours -> size: no variable is named 'hours', did you mean 'hour'?"),
    ("structure: {forbidden: [[hour, sze]]}", "structure.forbidden[0]: arc hour -> sze: no variable is named 'sze'"),
    ("structure: {forbidden: [[[hour], sze]]}", "structure.forbidden[0]: arc hour -> sze: no variable is named 'sze'"),
    ("structure: {required: [[size]]}", "structure.required[0][1]: an arc is [parent, child]"),
    (
        "structure: {required: [[size, hour, region]]}",
        "structure.required[0]: got a list (size, hour, region); an arc is",
    ),
    ("structure: {required: [hour]}", "structure.required[0]: got 'hour'; write a list"),
    (
        "structure: {required: [[size, size]]}",
        "structure.required[0]: required arc size -> size goes from a variable to itself",
    ),
    (
        "structure: {tiers: [[hour], [sizes]]}",
        "structure.tiers[1][0]: no variable is named 'sizes', did you mean 'size'?",
    ),
    ("structure: {tiers: [[hour], [size, hour]]}", "hour stands 2 times; name it once; keep one"),
    (
        "structure: {required: [[size, hour]], tiers: [[hour], [size]]}",
        "structure.required[0]: required arc size -> hour goes back in time: hour is in an earlier tier than size",
    ),
    (
        "structure: {required: [[hour, size]], forbidden: [[hour, size]]}",
        "structure.required[0]: arc hour -> size is both required and forbidden; remove one of the two",
    ),
    (
        "structure: {required: [[hour, size], [premium, hour], [size, premium]]}",
        "required arcs make a cycle: ",
    ),
    (
        "structure: {max_parents: 1, required: [[hour, size], [premium, size]]}",
        "size has 2 required parents, more than max_parents = 1; raise max_parents or require fewer",
    ),
    ("structure: {graph: {}}", "structure.graph.bif: give either `arcs` or `bif`"),
    ("structure: {score: bic, graph: {arcs: [[hour, size]]}}", "structure.score: contradicts `graph`"),
    (
        "structure: {graph: {arcs: [[hour, sise]]}}",
        "structure.graph.arcs[0]: arc hour -> sise: no variable is named 'sise'",
    ),
    ("structure: {graph: {arcs: [[hour, size], [size, hour]]}}", "arcs make a cycle: "),
    (
        "structure: {tiers: [[size], [hour]], graph: {arcs: [[hour, size]]}}",
        "structure.graph.arcs[0]: arc hour -> size goes back",
    ),
    ("structure: {graph: {bif: no.bif}}", "structure.graph.bif: can't read the BIF file"),
    ("structure: {graph: {bif: a.bif, arcs: [[hour, size]]}}", "structure.graph.bif: `arcs` says the graph already"),
    (
        "parameters: {estimator: bayse}",
        "parameters.estimator: got 'bayse'; allowed are mle, bayes, did you mean bayes?",
    ),
    ("parameters: {estimator: bayes, equivalent_sample_size: 0}", "parameters.equivalent_sample_size: got '0'"),
    ("gates: {beat_marginal: maybe}", "gates.beat_marginal: got 'maybe'; write true or false"),
    ("gates: [1]", "gates: got a list (1); write a mapping"),
    (
        "promotion: automatic",
        "promotion.policy: got 'automatic'; allowed are auto, approval, manual, did you mean auto?",
    ),
    ("promotion: {rope: 0}", "promotion.rope: got '0'"),
    ("schedule: 0 25 * * *", "schedule: cron: '25' is no hour; allowed are 0 to 23"),
    ("schedule: 0 6 * *", "schedule: got '0 6 * *'; cron has 5 fields"),
    ("schedule: 0 6 31-2 * *", "schedule: cron: '31-2' is no day of month"),
    ("schedule: 0 6 * * */0", "schedule: cron: '*/0' is no day of week"),
    (
        "validation: {expectations: [{type: expect_column_to_exist, kwargs: {column: sise}}]}",
        "validation.expectations[0].kwargs.column: no variable is named 'sise', did you mean 'size'?",
    ),
    ("validation: {expectations: [{kwargs: {}}]}", "validation.expectations[0].type: this key is required"),
]


@pytest.mark.parametrize(("line", "expected"), MORE_KEYS, ids=[line[:50] for line, _ in MORE_KEYS])
def test_one_wrong_line_more_gives_one_message(mistakes, line, expected):
    """Line 12 is at fault, and is named."""
    (mistake,) = mistakes(GOOD + line + "\n")
    assert mistake.startswith("claims.yaml:12: ")
    assert expected in mistake


WARNINGS = [
    (GOOD.replace("14d", "9d"), "4: warning: window.held_out: 9 days are fewer than the 10 clusters that decide"),
    (
        GOOD + "parameters: {equivalent_sample_size: 5}\n",
        "12: warning: parameters.equivalent_sample_size: has no effect",
    ),
    (
        GOOD.replace("quantiles: 4", "quantiles: 4, missing_state: x"),
        "8: warning: variables.premium.missing_state: has no",
    ),
    (
        GOOD + "structure: {tiers: [[size, hour, region, premium]]}\n",
        "11: warning: targets.size: nothing is known before",
    ),
    (GOOD.replace("name: claims", "name: other"), "1: warning: name: `bnpipe train other` looks for other.yaml"),
]


@pytest.mark.parametrize(("text", "expected"), WARNINGS, ids=[expected[3:40] for _, expected in WARNINGS])
def test_what_is_odd_is_a_warning(mistakes, write, text, expected):
    """It is told by `check` and stops nothing."""
    (mistake,) = mistakes(text)
    assert expected in mistake
    load_spec(write(text))


def test_held_out_days_count_no_clusters_where_the_spec_names_its_own(mistakes):
    """Only days are known to be as many as days."""
    assert mistakes(GOOD.replace("14d", "7d").replace("timestamp: at", "timestamp: at, cluster: shop")) == []
    assert mistakes(GOOD.replace("14d", "7d") + "promotion: {min_clusters: 7}\n") == []


def test_every_mistake_is_told_at_once_in_the_order_of_lines(write):
    """A wrong key hides no other; the error carries them all."""
    text = GOOD.replace("owner", "ownr").replace("[6, 12, 18]", "[12, 6]").replace("90d", "x")
    text += (
        "structure: {score: bik, required: [[hours, size], [size, premium], [premium, size]]}\nowner: me\nowner: you\n"
    )
    with pytest.raises(SpecError) as raised:
        load_spec(write(text))
    lines = [int(problem.removeprefix(f"{write(text)}:").partition(":")[0]) for problem in raised.value.problems]
    assert lines == [2, 4, 7, 12, 12, 12, 14]
    assert str(raised.value).splitlines() == list(raised.value.problems)


def test_a_predictions_own_columns_are_no_names_for_targets(mistakes):
    """Predictions have a column `impossible`."""
    (mistake,) = mistakes(GOOD.replace("size", "impossible"))
    assert "targets.impossible: predictions have a column of this name" in mistake


BIF = """
network unknown {{ }}
variable hour {{ type discrete [ 2 ] {{ a, b }}; }}
variable "size" {{ type discrete [ 2 ] {{ a, b }}; }}
variable {other} {{ type discrete [ 2 ] {{ a, b }}; }}
// probability ( size | nothing )
probability ( hour ) {{ table 0.5, 0.5; }}
probability ( size | hour, {other} ) {{ (a, a) 0.5, 0.5; }}
probability ( {other} ) {{ table 0.5, 0.5; }}
"""


def test_a_bif_file_gives_the_graph(write, mistakes, tmp_path):
    """Its arcs are frozen into the spec; variables it does not have are told as a warning."""
    (tmp_path / "g.bif").write_text(BIF.format(other="region"))
    text = GOOD + "structure: {graph: {bif: g.bif}}\n"
    (mistake,) = mistakes(text)
    assert "claims.yaml:12: warning: structure.graph.bif: it has no node premium" in mistake
    spec = load_spec(write(text))
    assert spec.structure.graph.arcs == (("hour", "size"), ("region", "size"))
    assert spec.expert_parents() == {"region": (), "hour": (), "premium": (), "size": ("hour", "region")}


def test_mistakes_in_a_bif_file_are_told(mistakes, tmp_path):
    """A node that is no variable, a parent that is not declared, a file that is no BIF."""
    text = GOOD + "structure: {graph: {bif: g.bif}}\n"
    (tmp_path / "g.bif").write_text(BIF.format(other="regoin"))
    assert "it has the node 'regoin'; no variable is named 'regoin', did you mean 'region'?" in mistakes(text)[0]
    (tmp_path / "g.bif").write_text(BIF.format(other="region").replace("hour, region", "hour, shop"))
    assert "probability of size names 'shop', which is not declared" in mistakes(text)[0]
    (tmp_path / "g.bif").write_text("hello")
    assert "is no BIF file: it declares no variable" in mistakes(text)[0]


def test_a_broken_spec_leaves_the_others_standing(tmp_path):
    """`load_all` gives a spec or an error for each file."""
    (tmp_path / "a.yaml").write_text(GOOD.replace("claims\n", "a\n", 1))
    (tmp_path / "b.yml").write_text("name: [")
    (tmp_path / "c.yaml").write_text(GOOD.replace("claims\n", "a\n", 1))
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.yaml").write_text("x")
    read = {path.name: value for path, value in load_all(tmp_path)}
    assert read["a.yaml"].name == "a"
    assert "b.yml:2: column 1: not YAML" in str(read["b.yml"])
    assert "c.yaml:1: name: a is also the name in" in str(read["c.yaml"])
    assert len(read) == 3


def test_a_missing_folder_of_specs_is_a_setting(tmp_path):
    """It names the variable to set."""
    with pytest.raises(SettingsError, match="set BNPIPE_MODELS"):
        load_all(tmp_path / "none")
