"""JSON schemas of a spec and of the serving file, from which editors complete them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from bnpipe.config.serving import ServingSpec
from bnpipe.config.spec import ModelSpec


def json_schema() -> dict[str, Any]:
    """Generate the JSON schema of ``config/models/*.yaml``."""
    schema: dict[str, Any] = _plain(_generated(ModelSpec))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "bnpipe network"
    schema["description"] = "One network of bnpipe: where its rows come from, its variables, what it must beat."
    return schema


def serving_schema() -> dict[str, Any]:
    """Generate the JSON schema of ``config/serving.yaml``."""
    schema: dict[str, Any] = _plain(_generated(ServingSpec))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "bnpipe serve"
    schema["description"] = "Where `bnpipe serve` listens, who may ask, and what it does under strain."
    return schema


@cache
def _generated(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _plain(node: Any) -> Any:
    """Drop pydantic's titles, which only repeat the key, and allow no keys but those that are named."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if key != "title" or not isinstance(value, str)}
    return {**plain, "additionalProperties": False} if "patternProperties" in plain else plain


def keys_at(location: tuple[str | int, ...], model: type[BaseModel] = ModelSpec) -> list[str]:
    """Name the keys allowed at a location of pydantic's."""
    schema = _generated(model)
    node: Mapping[str, Any] = schema
    for part in location:
        node = _step(_resolved(schema, node), part, schema)
    return list(_resolved(schema, node).get("properties", {}))


def _resolved(schema: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = schema["$defs"][str(node["$ref"]).rpartition("/")[2]]
    for choice in node.get("anyOf", ()):
        resolved = _resolved(schema, choice)
        if "properties" in resolved or "items" in resolved or "prefixItems" in resolved:
            return resolved
    return node


def _step(node: Mapping[str, Any], part: str | int, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(part, int):
        found: Any = node.get("items", {})
    elif part.startswith("<"):
        found = next(
            (choice for choice in node.get("oneOf", ()) if part.strip("<>") in _resolved(schema, choice)["properties"]),
            {},
        )
    else:
        others = [*node.get("patternProperties", {}).values(), node.get("additionalProperties", {})]
        found = node.get("properties", {}).get(part, others[0])
    return found if isinstance(found, Mapping) else {}
