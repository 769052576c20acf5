"""Contradictions of experts are found before learning."""

from __future__ import annotations

import pytest

from bnpipe.errors import KnowledgeError
from bnpipe.knowledge import Knowledge

NAMES = ("age", "smoke", "tar", "cancer")


@pytest.mark.parametrize(
    ("knowledge", "kind", "field", "says"),
    [
        (Knowledge(required=(("age", "tra"),)), "unknown variable", "required", "'tra'"),
        (Knowledge(forbidden=(("ago", "tar"),)), "unknown variable", "forbidden", "'ago'"),
        (Knowledge(tiers=(("age",), ("smock",))), "unknown variable", "tiers", "'smock'"),
        (Knowledge(required=(("tar", "tar"),)), "self arc", "required", "tar -> tar"),
        (Knowledge(tiers=(("age",), ("tar", "age"))), "repeated in tiers", "tiers", "age stands 2 times"),
        (Knowledge(required=(("age", "tar"),), forbidden=(("age", "tar"),)), "forbidden", "required", "age -> tar"),
        (Knowledge(required=(("tar", "age"),), tiers=(("age",), ("tar",))), "against tiers", "required", "tar -> age"),
        (Knowledge(required=(("age", "tar"), ("tar", "age"))), "cycle", "required", "age -> tar -> age"),
        (Knowledge(required=(("age", "tar"), ("smoke", "tar"))), "too many parents", "required", "max_parents = 1"),
    ],
)
def test_each_contradiction_is_told(knowledge: Knowledge, kind: str, field: str, says: str):
    """One problem of the right kind at the right place, whose message names what is wrong."""
    (problem,) = knowledge.problems(NAMES, max_parents=1)
    assert (problem.kind, problem.field) == (kind, field)
    assert says in problem.message
    with pytest.raises(KnowledgeError) as caught:
        knowledge.check(NAMES, max_parents=1)
    assert problem.message in str(caught.value)


def test_the_cycle_is_named_along_its_arcs():
    """Three required arcs in a circle are written out."""
    knowledge = Knowledge(required=(("age", "smoke"), ("smoke", "tar"), ("tar", "age")))
    with pytest.raises(KnowledgeError, match="age -> smoke -> tar -> age"):
        knowledge.check(NAMES)


def test_many_contradictions_make_a_short_message():
    """Hundreds of mistakes are counted, not listed."""
    knowledge = Knowledge(required=tuple((f"no{i}", "tar") for i in range(300)))
    with pytest.raises(KnowledgeError, match="and 295 more") as caught:
        knowledge.check(NAMES)
    assert len(str(caught.value)) < 1000


def test_tiers_and_forbidden_arcs_are_not_allowed():
    """Arcs go forward or within a tier; variables in no tier are free; forbidding one way leaves the other."""
    knowledge = Knowledge(forbidden=(("cancer", "smoke"),), tiers=(("age", "smoke"), ("tar",)))
    allowed = knowledge.allowed(NAMES)
    arcs = {(NAMES[i], NAMES[j]) for i in range(4) for j in range(4) if not allowed[i, j]}
    assert arcs == {*((name, name) for name in NAMES), ("tar", "age"), ("tar", "smoke"), ("cancer", "smoke")}


def test_violations_of_a_graph_are_listed():
    """A missing required arc, a forbidden one, a cycle and too many parents are four sentences."""
    knowledge = Knowledge(required=(("age", "smoke"),), forbidden=(("cancer", "tar"),))
    graph = {"age": (), "smoke": ("tar",), "tar": ("smoke", "cancer"), "cancer": ()}
    broken = knowledge.violations(graph, max_parents=1)
    assert len(broken) == 4
    assert Knowledge().violations({"age": (), "smoke": ("age",)}, max_parents=1) == ()


def test_lists_from_a_file_are_taken():
    """Arcs and tiers given as lists become tuples; an arc of three names is refused."""
    assert Knowledge(required=[["age", "tar"]], tiers=[["age"]]) == Knowledge((("age", "tar"),), tiers=(("age",),))
    with pytest.raises(KnowledgeError, match="pair"):
        Knowledge(required=[["age", "tar", "cancer"]])
