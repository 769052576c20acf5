"""A frozen model says so, by whom and why, and every freeze and thaw is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from registry_bench import check_agreement

from bnpipe.errors import VersionNotFound
from bnpipe.registry import Registry, describe


def test_frozen_and_thawed(registry: Registry, model: str) -> None:
    """Why, by whom and since when is a tag that MLflow shows; it is gone after the thaw, its story is not."""
    assert registry.frozen(model) is None
    assert registry.freezes(model) == ()
    registry.freeze(model, actor="eve", reason="audit week")
    (entry,) = registry.freezes(model)
    text = f"by eve since {entry.time:%Y-%m-%d %H:%M UTC}: audit week"
    assert registry.frozen(model) == text
    assert text in registry.connection.client.get_registered_model(model).tags.values()
    registry.thaw(model, actor="bob")
    registry.thaw(model, actor="bob")
    assert registry.frozen(model) is None
    told = [describe(entry).split("UTC  ")[1] for entry in registry.freezes(model)]
    assert told == ["frozen by eve: audit week", "thawed by bob"]


def test_a_freeze_is_no_move(registry: Registry, model: str) -> None:
    """The ledger's entries stay moves of the champion, a retry is still known, and a person may still promote."""
    first = registry.promote(model, 1, actor="eve", reason="first", key="run-1")
    registry.freeze(model, actor="eve", reason="audit week")
    assert registry.promote(model, 1, actor="eve", reason="first", key="run-1") == first
    registry.promote(model, 2, actor="eve", reason="all the same")
    registry.rollback(model, actor="eve", reason="no")
    assert len(check_agreement(registry)) == 3
    registry.connection.client.rename_registered_model(model, "departures")
    assert "audit week" in (registry.frozen("departures") or "")
    assert len(registry.freezes("departures")) == 1


def test_frozen_again_tells_the_latest_reason(registry: Registry, model: str) -> None:
    """The second freeze replaces the tag; both are kept."""
    registry.freeze(model, actor="eve", reason="audit week")
    registry.freeze(model, actor="bob", reason="")
    assert (registry.frozen(model) or "").startswith("by bob since")
    assert (registry.frozen(model) or "").endswith(": no reason given")
    assert [entry.actor for entry in registry.freezes(model)] == ["eve", "bob"]


def test_a_tag_set_or_deleted_in_mlflow_counts(registry: Registry, model: str) -> None:
    """People may freeze and thaw in MLflow, too, with or without words."""
    client = registry.connection.client
    client.set_registered_model_tag(model, "bnpipe.frozen", "")
    assert registry.frozen(model) == "no reason given"
    client.delete_registered_model_tag(model, "bnpipe.frozen")
    assert registry.frozen(model) is None


def test_no_model_is_made_by_freezing(registry: Registry) -> None:
    """A mistyped name is an error, and not frozen."""
    with pytest.raises(VersionNotFound, match="nothing"):
        registry.freeze("nothing", actor="eve", reason="?")
    with pytest.raises(VersionNotFound, match="nothing"):
        registry.thaw("nothing", actor="eve")
    assert registry.frozen("nothing") is None
    assert registry.models() == ()


def test_freezes_at_once_are_all_kept(mlflow_uri: str, registry: Registry, model: str) -> None:
    """Four at once get four numbers."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: Registry(mlflow_uri).freeze(model, actor=f"user {n}", reason="race"), range(4)))
    assert sorted(entry.actor for entry in registry.freezes(model)) == [f"user {n}" for n in range(4)]
    assert [entry.number for entry in registry.freezes(model)] == [1, 2, 3, 4]
