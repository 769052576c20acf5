"""Learning a registered version again from what was recorded of it, to prove where its numbers come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bnpipe.config import Settings
from bnpipe.errors import StoreError, VersionNotFound, shorten
from bnpipe.network import Network
from bnpipe.registry import Registry, Version
from bnpipe.steps.learning import find_graph, fit_network, fix_schema, load_base
from bnpipe.steps.recipe import Recipe, code_version
from bnpipe.store import Store, fingerprint, load_dataset


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came out when a version was learned again.

    Parameters
    ----------
    same : bool
        Whether the content hash of the rebuilt network is the registered one.
    registered, rebuilt : str
        The two hashes.
    differences : tuple of str
        What differs, where it does: schema, structure, families, code version.
    """

    model: str
    version: int
    same: bool
    registered: str
    rebuilt: str
    differences: tuple[str, ...]


def rebuild(model: str, version: int, *, settings: Settings | None = None) -> Rebuilt:
    """Learn `version` of `model` again from its recorded snapshot and spec; nothing is written.

    Raises
    ------
    VersionNotFound
        There is no such version.
    StoreError
        Its snapshot is gone or its rows are no longer those that were recorded.
    """
    settings = settings or Settings.from_environ()
    registry = Registry(settings.tracking_uri)
    store = Store(settings.store)
    registered = registry.version(model, version)
    before = registry.load_network(registered)
    recipe = _recipe_of(registered, store, registry)
    with store.open_snapshot(recipe.snapshot) as rows:
        found = fingerprint(rows)
        if found != recipe.snapshot.fingerprint:
            raise StoreError(
                f"the snapshot of {model} {version} has fingerprint {found[:12]}, "
                f"{recipe.snapshot.fingerprint[:12]} was recorded: the stored rows were changed"
            )
        base = load_base(recipe, store, registry)
        try:
            schema = fix_schema(recipe, rows, registry) if base is None else base.schema
        except VersionNotFound:  # the version whose bins were reused was deleted; they are in this one too
            schema = before.schema
        data = load_dataset(rows, schema, start=recipe.window.start, end=recipe.window.train_end)
    again = fit_network(recipe, data, find_graph(recipe, data, base).parents, base)
    same = again.content_hash == before.content_hash
    return Rebuilt(
        model=model,
        version=version,
        same=same,
        registered=before.content_hash,
        rebuilt=again.content_hash,
        differences=() if same else tuple(_differences(before, again, recipe.code_version)),
    )


def _recipe_of(version: Version, store: Store, registry: Registry) -> Recipe:
    """Read what a version is made of: from the store, else from the MLflow run that made it."""
    place = f"runs/{version.training_key}/training.json"
    text = store.read_text(place) if store.exists(place) else registry.read_text(version.run_id, "training.json")
    recipe = Recipe.from_json(text)
    if recipe.training_key != version.training_key:
        raise StoreError(
            f"{place} is not in {store!r}, and the MLflow run of {version.model} {version.number} tells of a later "
            "training: what this version was made of is lost"
        )
    return recipe


def _differences(before: Network, again: Network, recorded_code: str) -> Iterator[str]:
    if recorded_code != code_version():
        yield f"bnpipe {recorded_code} learned it, this is {code_version()}"
    if before.schema.hash != again.schema.hash:
        yield "other states or bins"
    elif before.structure_hash != again.structure_hash:
        changed = [node for node in again.nodes if set(before.parents[node]) != set(again.parents[node])]
        yield f"other parents of {shorten(changed)}"
    else:
        changed = [node for node in again.nodes if before.family_hash(node) != again.family_hash(node)]
        yield f"other counts in {shorten(changed)}"
