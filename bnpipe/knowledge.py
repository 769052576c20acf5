"""What experts know before the data speak: arcs that must be, arcs that can't be, tiers in time.

Contradictions are found before learning, one message each, so that a spec can point at its lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bnpipe.errors import KnowledgeError, shorten
from bnpipe.graph import Arc, Parents, arcs_of, find_cycle

ProblemKind = Literal[
    "unknown variable", "self arc", "repeated in tiers", "forbidden", "against tiers", "cycle", "too many parents"
]
Field = Literal["required", "forbidden", "tiers"]


@dataclass(frozen=True, slots=True)
class KnowledgeProblem:
    """One contradiction.

    Parameters
    ----------
    kind : str
        What is wrong, in a word or two.
    message : str
        One sentence that names the arc or variable.
    arc : (str, str) or None
        The (parent, child) at fault, as written.
    variable : str or None
        The variable at fault.
    field : {"required", "forbidden", "tiers"}
        Where it is written.
    """

    kind: ProblemKind
    message: str
    arc: Arc | None = None
    variable: str | None = None
    field: Field = "required"


@dataclass(frozen=True)
class Knowledge:
    """What experts know.

    Parameters
    ----------
    required : tuple of (str, str)
        (parent, child) arcs every learned graph holds.
    forbidden : tuple of (str, str)
        (parent, child) arcs no learned graph holds; the other direction stays allowed.
    tiers : tuple of tuple of str
        Earlier to later. Arcs go from a tier to the same or a later one; a variable in no tier is free.
    """

    required: tuple[Arc, ...] = ()
    forbidden: tuple[Arc, ...] = ()
    tiers: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("required", "forbidden"):
            arcs = tuple(tuple(arc) for arc in getattr(self, name))
            if bad := [arc for arc in arcs if len(arc) != 2]:
                raise KnowledgeError(f"{name}: an arc is a pair (parent, child), not {shorten(bad, limit=1)}")
            object.__setattr__(self, name, arcs)
        object.__setattr__(self, "tiers", tuple(tuple(tier) for tier in self.tiers))

    def check(self, names: Sequence[str], max_parents: int | None = None) -> None:
        """Refuse knowledge that contradicts itself or names what is not there.

        Raises
        ------
        KnowledgeError
            With every contradiction, at most five written out.
        """
        problems = self.problems(names, max_parents)
        if problems:
            raise KnowledgeError("; ".join(_first_messages(problems)))

    def problems(self, names: Sequence[str], max_parents: int | None = None) -> tuple[KnowledgeProblem, ...]:
        """List every contradiction, in the order required, forbidden, tiers, then those of the arcs together."""
        known = set(names)
        found = [*self._arc_problems(known), *self._tier_problems(known)]
        found += [*self._contradictions(), *self._crowded(max_parents)]
        cycle = find_cycle(arc for arc in self.required if arc[0] != arc[1])
        if cycle:
            text = f"required arcs make a cycle: {' -> '.join(cycle)}"
            found.append(KnowledgeProblem("cycle", text, arc=(cycle[0], cycle[1])))
        return tuple(found)

    def allowed(self, names: Sequence[str]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Give the arcs a graph may hold: bool (n, n) by [parent, child], False on the diagonal."""
        index = {name: i for i, name in enumerate(names)}
        tier = np.full(len(names), -1)
        for level, members in enumerate(self.tiers):
            tier[[index[name] for name in members if name in index]] = level
        free = tier < 0
        allowed = free[:, None] | free[None, :] | (tier[:, None] <= tier[None, :])
        for parent, child in self.forbidden:
            if parent in index and child in index:
                allowed[index[parent], index[child]] = False
        np.fill_diagonal(allowed, val=False)
        return allowed

    def violations(self, parents: Parents, max_parents: int | None = None) -> tuple[str, ...]:
        """List what a graph breaks: one sentence an arc or node; empty when every constraint is kept."""
        arcs = arcs_of(parents)
        names = list(dict.fromkeys([*parents, *(parent for parent, _ in arcs)]))
        index = {name: i for i, name in enumerate(names)}
        allowed = self.allowed(names)
        broken = [f"required arc {_text(arc)} is missing" for arc in self.required if arc not in set(arcs)]
        broken += [f"arc {_text(arc)} is not allowed" for arc in arcs if not allowed[index[arc[0]], index[arc[1]]]]
        if cycle := find_cycle(arcs):
            broken.append(f"the graph has a cycle: {' -> '.join(cycle)}")
        if max_parents is not None:
            crowded = [(child, len(its)) for child, its in parents.items() if len(its) > max_parents]
            broken += [f"{child} has {count} parents, more than {max_parents}" for child, count in crowded]
        return tuple(broken)

    def _arc_problems(self, known: set[str]) -> Iterator[KnowledgeProblem]:
        fields: tuple[tuple[Field, tuple[Arc, ...]], ...] = (("required", self.required), ("forbidden", self.forbidden))
        for field, arcs in fields:
            for arc in arcs:
                for name in dict.fromkeys(arc):
                    if name not in known:
                        text = f"{field} arc {_text(arc)}: {_unknown(name, known)}"
                        yield KnowledgeProblem("unknown variable", text, arc, name, field)
                if arc[0] == arc[1]:
                    text = f"{field} arc {_text(arc)} goes from a variable to itself"
                    yield KnowledgeProblem("self arc", text, arc, arc[0], field)

    def _tier_problems(self, known: set[str]) -> Iterator[KnowledgeProblem]:
        for name, times in Counter(name for tier in self.tiers for name in tier).items():
            if name not in known:
                text = f"tiers: {_unknown(name, known)}"
                yield KnowledgeProblem("unknown variable", text, variable=name, field="tiers")
            if times > 1:
                text = f"tiers: {name} stands {times} times; name it once"
                yield KnowledgeProblem("repeated in tiers", text, variable=name, field="tiers")

    def _contradictions(self) -> Iterator[KnowledgeProblem]:
        level = {name: i for i, tier in enumerate(self.tiers) for name in tier}
        for arc in dict.fromkeys(self.required):
            parent, child = arc
            if arc in self.forbidden:
                yield KnowledgeProblem("forbidden", f"arc {_text(arc)} is both required and forbidden", arc)
            if parent in level and child in level and level[parent] > level[child]:
                text = f"required arc {_text(arc)} goes back in time: {child} is in an earlier tier than {parent}"
                yield KnowledgeProblem("against tiers", text, arc)

    def _crowded(self, max_parents: int | None) -> Iterator[KnowledgeProblem]:
        if max_parents is None:
            return
        for child, count in Counter(child for _, child in dict.fromkeys(self.required)).items():
            if count > max_parents:
                text = f"{child} has {count} required parents, more than max_parents = {max_parents}"
                arc = next(arc for arc in self.required if arc[1] == child)
                yield KnowledgeProblem("too many parents", text, arc, child)


def _first_messages(problems: Sequence[KnowledgeProblem], limit: int = 5) -> list[str]:
    messages = [problem.message for problem in problems[:limit]]
    rest = len(problems) - limit
    return [*messages, f"and {rest} more"] if rest > 0 else messages


def _unknown(name: str, known: set[str]) -> str:
    return f"no variable is named {name!r}; there are {shorten(sorted(known))}"


def _text(arc: Arc) -> str:
    return f"{arc[0]} -> {arc[1]}"
