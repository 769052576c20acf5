"""What a recipe makes: schema, graph and network, by the same three calls in training and in rebuilding."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import bnpipe
from bnpipe.data import Dataset
from bnpipe.inference import TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.registry import Registry
from bnpipe.schema import Schema
from bnpipe.steps.recipe import Recipe
from bnpipe.store import Store

log = logging.getLogger("bnpipe.steps")


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph, how it scores on the training rows, and the seconds it took to find."""

    parents: Mapping[str, tuple[str, ...]]
    score: float
    seconds: float


OLD_ROWS = 10
"""What a refitted family keeps of what was known, in rows of each parent configuration; see docs/decisions.md."""


def load_base(recipe: Recipe, store: Store, registry: Registry) -> Network | None:
    """Load the version that a refit keeps all but some families of; None if this is no refit.

    The store has a copy under the training's key, which outlives the version.
    """
    if recipe.refit is None or recipe.base is None:
        return None
    place = f"runs/{recipe.training_key}/base.json"
    if store.exists(place):
        return Network.from_json(store.read_text(place))
    return registry.load_network(registry.version(recipe.spec.name, recipe.base))


def fix_schema(recipe: Recipe, rows: Path, registry: Registry) -> Schema:
    """Reuse the base version's bins where they still fit the spec; else learn them from the training rows."""
    from bnpipe.store import load_frame

    spec = recipe.spec
    fixed = spec.fixed_schema()
    if fixed is not None:
        return fixed
    if recipe.base is not None:
        version = registry.version(spec.name, recipe.base)
        base = registry.load_network(version).schema
        learned_by = Recipe.from_json(registry.read_text(version.run_id, "training.json")).spec
        if spec.schema_reusable_from(base, learned_by):
            log.info("%s: bins reused from version %d", spec.name, recipe.base)
            return base
        log.info("%s: the variables changed since version %d; bins are learned anew", spec.name, recipe.base)
    columns = spec.learned_columns()
    return spec.learn_schema(load_frame(rows, columns, start=recipe.window.start, end=recipe.window.train_end))


def find_graph(recipe: Recipe, data: Dataset, base: Network | None = None) -> Graph:
    """Take the graph of the version that is refitted, or the experts', or climb to one."""
    from bnpipe.structure import learn_structure, score_structure

    spec = recipe.spec
    started = time.perf_counter()
    given = recipe.parents if base is None else base.parents
    if given is not None:
        drawn = {name: given.get(name, ()) for name in data.schema.names}
        score = score_structure(data, drawn, score=spec.structure.score)
        return Graph(drawn, score, time.perf_counter() - started)
    found = learn_structure(
        data,
        score=spec.structure.score,
        max_parents=spec.structure.max_parents,
        knowledge=spec.knowledge(),
        tabu=spec.structure.tabu,
        restarts=spec.structure.restarts,
        seed=spec.structure.seed,
        progress=_every(5.0, lambda moves, score: log.info("%s: %d moves, score %.1f", spec.name, moves, score)),
    )
    return Graph(found.parents, found.score, time.perf_counter() - started)


def fit_network(
    recipe: Recipe, data: Dataset, parents: Mapping[str, tuple[str, ...]], base: Network | None = None
) -> Network:
    """Count every family of the graph, cluster by cluster; of a refit only those it names."""
    from bnpipe.parameters import fit, refit

    if base is not None:
        return refit(base, data, recipe.refit or (), old_rows=OLD_ROWS)
    return fit(data, parents, equivalent_sample_size=recipe.spec.equivalent_sample_size())


def measure_likelihoods(recipe: Recipe, network: Network, data: Dataset) -> TrainingLikelihoods:
    """Say what was usual in training: of whole rows, of rows without targets, of what is known before each target."""
    spec = recipe.spec
    known = [set(network.nodes), set(network.nodes) - set(spec.targets), *map(spec.evidence, spec.targets)]
    return TrainingLikelihoods.measure(bnpipe.compile(network), data, known)


def _every(seconds: float, tell: Callable[[int, float], None]) -> Callable[[int, float], None]:
    """Call `tell` at most once in so many seconds."""
    last = time.monotonic()

    def report(moves: int, score: float) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            tell(moves, score)

    return report
