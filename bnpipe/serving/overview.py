"""What `/v1/models` and `/health` tell."""

from __future__ import annotations

from typing import Any, Final

import bnpipe
from bnpipe.errors import NotServed, shorten
from bnpipe.serving.access import Caller
from bnpipe.serving.service import Service
from bnpipe.serving.shelf import ServedModel

_NAMED: Final = 10
"""Models without a champion that a refusal names at most."""


def describe_models(service: Service, caller: Caller) -> dict[str, Any]:
    """List the models a caller may ask: who reigns, what is tried, who is pinned to what."""
    shelf = service.shelf
    absent = [ServedModel(name, faults={"model": why}) for name, why in shelf.absent().items() if caller.sees(name)]
    seen = [shelf.models[name] for name in _seen_by(caller, service)]
    return {"models": [_summary(model, service, caller) for model in (*seen, *absent)]}


def describe_idle(service: Service, caller: Caller) -> str:
    """Name models that nobody answers for, and why, to a caller who may ask them."""
    shelf = service.shelf
    if shelf.situation is None:
        return "the registry has not said yet what is served"
    if shelf.situation.registry and not shelf.models:
        return f"the registry does not answer: {shelf.situation.registry}"
    idle = [f"{name}: {why}" for name, why in shelf.idle().items() if caller.sees(name)]
    return "; ".join(idle[:_NAMED]) or "no model is registered that you may ask"


def only_model(service: Service, caller: Caller) -> str:
    """Name the one model that a caller may ask, for a protocol that names none.

    Raises
    ------
    NotServed
        There are none, or several.
    """
    names = _seen_by(caller, service)
    if len(names) != 1:
        raise NotServed(
            f"/invocations is for a single model, there are {shorten(names) or 'none'}: ask /v1/models/NAME/invocations"
        )
    return names[0]


def _seen_by(caller: Caller, service: Service) -> list[str]:
    return [name for name in service.shelf.models if caller.sees(name)]


def _summary(model: ServedModel, service: Service, caller: Caller) -> dict[str, Any]:
    """Describe a model; whom else it is pinned for is told to operators."""
    canary = model.canary
    return {
        "name": model.name,
        "champion": model.champion and model.champion.number,
        "previous": model.previous and model.previous.number,
        "challenger": model.challenger,
        "canary": canary and {"version": canary.version, "share": canary.share, "shadow": canary.shadow},
        "versions": sorted(model.versions),
        "pinned": {
            client.name: client.pins[model.name]
            for client in service.spec.clients
            if model.name in client.pins and ("operate" in caller.scopes or client.name == caller.name)
        },
        "faults": dict(model.faults),
    }


def describe_model(model: ServedModel, service: Service, caller: Caller, number: int | None) -> dict[str, Any]:
    """Describe one model's champion, or another version of it: graph, states, provenance.

    Raises
    ------
    NotServed
    """
    version = model.version(number) if number is not None else model.champion
    if version is None:
        raise NotServed(f"{model.name} has no champion; there are versions {sorted(model.versions)}")
    network, about = version.network, version.about
    return {
        **_summary(model, service, caller),
        "version": version.number,
        "targets": list(version.targets(None)),
        "variables": [variable.to_dict() for variable in network.schema],
        "parents": {node: list(parents) for node, parents in network.parents.items()},
        "cells_per_row": version.cost,
        "provenance": {
            "content_hash": about.content_hash,
            "created": about.created,
            "trained_until": about.trained_until,
            "run_id": about.run_id,
            "training_key": about.training_key,
            "gates": about.verdict,
        },
    }


def describe_health(service: Service, caller: Caller) -> dict[str, Any]:
    """Tell that the worker lives, how fresh its knowledge of the registry is, and of models that a caller may ask."""
    situation = service.shelf.situation
    return {
        "status": "ok",
        "bnpipe": bnpipe.__version__,
        "registry": "unknown" if situation is None else situation.registry or "ok",
        "registry_answered": None if situation is None else situation.at.isoformat(),
        "models": {
            name: {
                "champion": model.champion and model.champion.number,
                "breakers": {
                    str(number): service.breaker_state(version) for number, version in sorted(model.versions.items())
                },
                "faults": len(model.faults),
            }
            for name, model in service.shelf.models.items()
            if caller.sees(name)
        },
        "warnings": [text for name, texts in service.shelf.warnings().items() if caller.sees(name) for text in texts],
    }
