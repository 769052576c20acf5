"""What a spec's keys say together: variables that exist, arcs that agree, bins that fit.

They look at the values as written, not at the model, so that one wrong key hides no other mistake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bnpipe.config import yaml_lines
from bnpipe.config.bif import read_parents
from bnpipe.config.loading import Draft, Problem, read_draft
from bnpipe.config.scalars import did_you_mean
from bnpipe.config.spec import ModelSpec
from bnpipe.errors import SpecError, shorten

if TYPE_CHECKING:
    from bnpipe.knowledge import KnowledgeProblem

Arcs = list[tuple[yaml_lines.Path, tuple[str, str]]]

LEARNED_KEYS: Final = ("score", "max_parents", "tabu", "restarts", "required", "forbidden", "bootstraps")
"""Keys of ``structure`` that mean nothing beside a graph drawn by experts."""
OUTPUT_COLUMNS: Final = ("impossible", "unseen")
"""Columns of every prediction, so no names for targets."""
WHAT_TO_DO: Final = {
    "self arc": "remove it",
    "repeated in tiers": "keep one",
    "forbidden": "remove one of the two",
    "against tiers": "turn the arc or move a variable to another tier",
    "cycle": "remove one of these arcs",
    "too many parents": "raise max_parents or require fewer",
}


def check_spec(path: Path | str, *, online: bool = True, now: datetime | None = None) -> list[Problem]:
    """Find every mistake of a spec, warnings included, in the order of lines.

    Parameters
    ----------
    path : Path
        The YAML file.
    online : bool
        Also ask the source: does the SQL run, are the columns there, has the window rows? And that of live rows. And
        Great Expectations, whether it knows the further expectations.
    now : datetime or None
        When the next scheduled run would be, with an offset; None is now.
    """
    from bnpipe.config.online import further_problems, live_problems, source_problems

    draft = read_draft(Path(path))
    problems = [*draft.problems, *static_problems(draft)]
    if online and draft.spec is not None:
        problems += source_problems(draft, draft.spec, now)
        problems += live_problems(draft, draft.spec)
        problems += further_problems(draft, draft.spec)
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.key))


def static_problems(draft: Draft) -> Iterator[Problem]:
    """Find what contradicts itself without asking the source."""
    raw = draft.document.value
    if not isinstance(raw, dict):
        return
    names = [str(name) for name in _mapping(raw, "variables")]
    structure = _mapping(raw, "structure")
    yield from _variables(draft, _mapping(raw, "variables"))
    yield from _targets(draft, _mapping(raw, "targets"), names)
    if _mapping(structure, "graph"):
        yield from _graph(draft, structure, names)
    else:
        yield from _knowledge(draft, structure, names)
    yield from _expectations(draft, _mapping(raw, "validation"), names)
    yield from _warnings(draft)


# -- variables and targets


def _variables(draft: Draft, variables: Mapping[str, Any]) -> Iterator[Problem]:
    folded: dict[str, str] = {}
    for name, value in variables.items():
        first = folded.setdefault(name.lower(), name)
        if first != name:
            yield draft.problem(("variables", name), f"differs from {first!r} only by capitals; SQL can't; rename one")
        if isinstance(value, dict) and value.get("missing_state") is not None and value.get("missing") != "state":
            path = ("variables", name, "missing_state")
            yield draft.problem(path, "has no effect; add `missing: state`", "warning")


def _targets(draft: Draft, targets: Mapping[str, Any], names: Sequence[str]) -> Iterator[Problem]:
    for target in targets:
        if names and target not in names:
            yield draft.problem(("targets", target), _unknown(target, names))
        elif target in OUTPUT_COLUMNS:
            yield draft.problem(("targets", target), "predictions have a column of this name already; rename it")


def _unknown(name: str, names: Sequence[str]) -> str:
    hint = did_you_mean(name, names)
    return f"no variable is named {name!r}{hint or f'; there are {shorten(names)}'}"


# -- arcs


def _knowledge(draft: Draft, structure: Mapping[str, Any], names: Sequence[str]) -> Iterator[Problem]:
    required, forbidden = (_arcs(structure.get(key), ("structure", key)) for key in ("required", "forbidden"))
    tiers = _tiers(structure)
    yield from _unknown_names(draft, required + forbidden, tiers, names)
    limit = structure.get("max_parents") or 3
    found = _contradictions(required, forbidden, tiers, names, int(limit) if str(limit).isdigit() else None)
    for problem in found:
        yield draft.problem(_place(problem, required, forbidden), _advice(problem))


def _graph(draft: Draft, structure: Mapping[str, Any], names: Sequence[str]) -> Iterator[Problem]:
    for key in LEARNED_KEYS:
        if structure.get(key) is not None:
            message = "contradicts `graph`: experts drew it, nothing is learned; remove this key or `graph`"
            yield draft.problem(("structure", key), message)
    graph = _mapping(structure, "graph")
    if graph.get("bif") is not None and graph.get("arcs") is not None:
        yield draft.problem(("structure", "graph", "bif"), "`arcs` says the graph already; keep one of the two")
        return
    tiers = _tiers(structure)
    arcs = _arcs(graph.get("arcs"), ("structure", "graph", "arcs"))
    if isinstance(graph.get("bif"), str):
        place = ("structure", "graph", "bif")
        try:
            parents = read_parents(draft.path.parent / graph["bif"])
        except SpecError as error:
            yield draft.problem(place, f"{error}; the path is relative to this file")
            return
        yield from _bif_names(draft, parents, names)
        arcs = [(place, (parent, child)) for child in parents for parent in parents[child]]
        yield from _unknown_names(draft, [], tiers, names)
    else:
        yield from _unknown_names(draft, arcs, tiers, names)
    for problem in _contradictions(arcs, [], tiers, names, None):
        yield draft.problem(_place(problem, arcs, []), _advice(problem).replace("required arc", "arc"))


def _bif_names(draft: Draft, parents: Mapping[str, Any], names: Sequence[str]) -> Iterator[Problem]:
    place = ("structure", "graph", "bif")
    for name in parents:
        if names and name not in names:
            yield draft.problem(place, f"it has the node {name!r}; {_unknown(name, names)}")
    absent = [name for name in names if name not in parents]
    if absent:
        yield draft.problem(place, f"it has no node {shorten(absent)}: no arcs there", "warning")


def _unknown_names(draft: Draft, arcs: Arcs, tiers: Sequence[Sequence[str]], names: Sequence[str]) -> Iterator[Problem]:
    if not names:
        return
    for path, arc in arcs:
        for name in dict.fromkeys(arc):
            if name not in names:
                yield draft.problem(path, f"arc {arc[0]} -> {arc[1]}: {_unknown(name, names)}")
    for level, tier in enumerate(tiers):
        for place, name in enumerate(tier):
            if name not in names:
                yield draft.problem(("structure", "tiers", level, place), _unknown(name, names))


def _contradictions(
    required: Arcs, forbidden: Arcs, tiers: Sequence[Sequence[str]], names: Sequence[str], max_parents: int | None
) -> tuple[KnowledgeProblem, ...]:
    if not (required or forbidden or tiers):
        return ()
    from bnpipe.knowledge import Knowledge

    knowledge = Knowledge(
        required=tuple(arc for _, arc in required),
        forbidden=tuple(arc for _, arc in forbidden),
        tiers=tuple(map(tuple, tiers)),
    )
    found = knowledge.problems(names, max_parents)
    return tuple(problem for problem in found if problem.kind != "unknown variable")


def _place(problem: KnowledgeProblem, required: Arcs, forbidden: Arcs) -> yaml_lines.Path:
    arcs = forbidden if problem.field == "forbidden" else required
    if problem.arc is not None:
        return next((path for path, arc in arcs if arc == problem.arc), ("structure",))
    return ("structure", problem.field)


def _advice(problem: KnowledgeProblem) -> str:
    return f"{problem.message}; {WHAT_TO_DO[problem.kind]}" if problem.kind in WHAT_TO_DO else problem.message


def _arcs(value: Any, path: yaml_lines.Path) -> Arcs:
    arcs = value if isinstance(value, list) else []
    written = [((*path, place), arc) for place, arc in enumerate(arcs) if isinstance(arc, list) and len(arc) == 2]
    return [
        (at, (str(parent), str(child)))
        for at, (parents, children) in written
        for parent in _names(parents)
        for child in _names(children)
    ]


def _names(side: Any) -> list[Any]:
    """Give the variables on one side of an arc: one name, or a list of names."""
    return [name for name in (side if isinstance(side, list) else [side]) if isinstance(name, str)]


def _tiers(structure: Mapping[str, Any]) -> list[list[str]]:
    tiers = structure.get("tiers")
    if not isinstance(tiers, list):
        return []
    return [[str(name) for name in tier] if isinstance(tier, list) else [] for tier in tiers]


def _mapping(raw: Any, key: str) -> Mapping[str, Any]:
    value = raw.get(key) if isinstance(raw, dict) else None
    return value if isinstance(value, dict) else {}


# -- the rest


def _expectations(draft: Draft, validation: Mapping[str, Any], names: Sequence[str]) -> Iterator[Problem]:
    expectations = validation.get("expectations")
    for place, expectation in enumerate(expectations if isinstance(expectations, list) else []):
        kwargs = _mapping(expectation, "kwargs")
        for key in ("column", "column_A", "column_B"):
            column = kwargs.get(key)
            if isinstance(column, str) and column not in names and not column.startswith("_"):
                yield draft.problem(("validation", "expectations", place, "kwargs", key), _unknown(column, names))


def _warnings(draft: Draft) -> Iterator[Problem]:
    parameters = _mapping(draft.document.value, "parameters")
    if parameters.get("equivalent_sample_size") is not None and parameters.get("estimator") in (None, "mle"):
        path = ("parameters", "equivalent_sample_size")
        yield draft.problem(path, "has no effect with `estimator: mle`; set `estimator: bayes`", "warning")
    if draft.spec is not None:
        yield from _odd(draft, draft.spec)


def _odd(draft: Draft, spec: ModelSpec) -> Iterator[Problem]:
    clusters = spec.promotion.min_clusters
    if spec.source.cluster is None and spec.window.held_out < clusters:
        yield draft.problem(
            ("window", "held_out"),
            f"{spec.window.held_out} days are fewer than the {clusters} clusters that decide between champion and "
            f"challenger: every comparison stays undecided; hold out {clusters}d or more",
            "warning",
        )
    for target in spec.targets:
        if target in spec.variables and not spec.evidence(target):
            message = "nothing is known before it, it is in the first tier; move it to a later one"
            yield draft.problem(("targets", target), message, "warning")
    if spec.name != draft.path.stem:
        message = f"`bnpipe train {spec.name}` looks for {spec.name}.yaml, this file is {draft.path.name}; rename one"
        yield draft.problem(("name",), message, "warning")
