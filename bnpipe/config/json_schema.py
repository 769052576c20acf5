"""The JSON schema of a spec, from which editors complete it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnpipe.config.spec import ModelSpec


def json_schema() -> dict[str, Any]:
    """Generate the JSON schema of ``config/models/*.yaml``."""
    schema: dict[str, Any] = _plain(ModelSpec.model_json_schema())
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "bnpipe network"
    schema["description"] = "One network of bnpipe: where its rows come from, its variables, what it must beat."
    return schema


def _plain(node: Any) -> Any:
    """Drop pydantic's titles, which only repeat the key."""
    if isinstance(node, dict):
        return {
            key: _plain(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str) and "properties" not in node.get("title", ""))
        }
    return [_plain(item) for item in node] if isinstance(node, list) else node


def keys_at(location: tuple[str | int, ...]) -> list[str]:
    """Name the keys allowed at a location of pydantic's."""
    schema = ModelSpec.model_json_schema()
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
        found = node.get("properties", {}).get(part, node.get("additionalProperties", {}))
    return found if isinstance(found, Mapping) else {}
