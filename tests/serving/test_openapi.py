"""The OpenAPI document is what the service does; schemathesis asks whatever it allows, and what it does not."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from late_flights import TARGETS, any_flights, late_flights
from schemathesis.generation import GenerationMode
from serving_bench import Kept, make_service, send

from bnpipe.serving.app import create_app
from bnpipe.serving.descriptions import document
from bnpipe.serving.invocations import Invocation, Split
from bnpipe.serving.problems import Problem
from bnpipe.serving.questions import Feedback, QuestionBody
from bnpipe.serving.schemas import SCHEMAS
from bnpipe.serving.service import Service

DOCUMENT = document(anonymous=True)
OPERATIONS = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A service of the small network that the examples are of."""
    network, usual = late_flights()
    return make_service(tmp_path_factory.mktemp("cache"), [network], targets=TARGETS, log=Kept(), trained=[usual])


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """Check values against a schema of the document."""
    return jsonschema.Draft202012Validator({"components": DOCUMENT["components"], **schema})


def test_every_route_is_described(service: Service) -> None:
    """The document has the service's routes and no others, and is served as it is written."""
    routes: Any = create_app(service).app.app
    there = {
        (method.lower(), route.path)
        for route in routes.routes
        for method in route.methods - {"HEAD"}
        if route.path != "/v1/openapi.json"
    }
    assert there == set(OPERATIONS)
    assert send(service, "GET", "/v1/openapi.json").json() == DOCUMENT


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schemas_are_schemas(schema: str) -> None:
    """JSON schemas, whose references lead somewhere."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[schema])
    for reference in _references(SCHEMAS[schema]):
        assert reference.removeprefix("#/components/schemas/") in SCHEMAS


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [node["$ref"]] if "$ref" in node else [found for value in node.values() for found in _references(value)]
    return [found for item in node for found in _references(item)] if isinstance(node, list) else []


@pytest.mark.parametrize(
    ("struct", "schema"),
    [
        (QuestionBody, SCHEMAS["Question"]),
        (Feedback, SCHEMAS["Feedback"]),
        (Problem, SCHEMAS["Problem"]),
        (Invocation, SCHEMAS["Invocation"]),
        (Split, SCHEMAS["Invocation"]["properties"]["dataframe_split"]),
    ],
)
def test_bodies_have_the_fields_that_are_decoded(struct: type[msgspec.Struct], schema: dict[str, Any]) -> None:
    """No field is described that is not read, and none read that is not described; the same ones are needed."""
    fields = {field.name: field.required for field in msgspec.structs.fields(struct)}
    assert set(schema["properties"]) == set(fields)
    assert set(schema.get("required", ())) == {name for name, required in fields.items() if required}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_examples_are_what_the_service_says(service: Service, method: str, path: str) -> None:
    """Each example of a body gets, within the document's own schema, the example of a reply."""
    operation = DOCUMENT["paths"][path][method]
    status, reply = next(iter(operation["responses"].items()))
    media, content = next(iter(reply["content"].items()))
    bodies = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
    for body in [shown["value"] for shown in bodies.values()] or [None]:
        found = send(service, method.upper(), path.replace("{name}", "flights"), json=body)
        assert found.status_code == int(status), found.text
        assert found.headers["content-type"].startswith(media)
        if "example" not in content:
            continue
        validator(content["schema"]).validate(found.json())
        validator(content["schema"]).validate(content["example"])
        if media == "application/json" and method == "post" and path != "/v1/feedback":
            _same(found.json(), content["example"])
        assert found.json().keys() == content["example"].keys()


def _same(found: Any, example: Any) -> None:
    """Numbers may differ in their last digits from one machine to another."""
    if isinstance(example, dict):
        assert found.keys() == example.keys()
        for name in example.keys() - {"request_id"}:
            _same(found[name], example[name])
    elif isinstance(example, list):
        assert len(found) == len(example)
        for one, its in zip(found, example, strict=True):
            _same(one, its)
    else:
        assert found == (pytest.approx(example, rel=1e-9) if isinstance(example, float) else example)


def test_csv_example_is_read(service: Service) -> None:
    """The example in CSV gets the same reply as that in JSON."""
    content = DOCUMENT["paths"]["/invocations"]["post"]["requestBody"]["content"]["text/csv"]
    found = send(service, "POST", "/invocations", content=content["example"], headers={"content-type": "text/csv"})
    reply = DOCUMENT["paths"]["/invocations"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    _same(found.json(), reply)


def test_bodies_can_be_sent_to_the_demo(tmp_path: Path) -> None:
    """Who tries the document on the demo's model gets an answer to each example: its variables, and states of them."""
    service = make_service(tmp_path, [any_flights()], targets=TARGETS, log=Kept())
    for method, path in OPERATIONS:
        for media, content in DOCUMENT["paths"][path][method].get("requestBody", {}).get("content", {}).items():
            for body in [shown["value"] for shown in content.get("examples", {}).values()] or [content["example"]]:
                text = body if isinstance(body, str) else json.dumps(body)
                address = path.replace("{name}", "flights")
                found = send(service, method.upper(), address, content=text, headers={"content-type": media})
                assert found.status_code in (200, 202), found.text
                assert "unseen" not in found.json()


@pytest.mark.parametrize("anonymous", [True, False])
def test_keys_are_asked_for_where_they_are_needed(anonymous: bool) -> None:
    """The document says that a key may be left out exactly where the service answers without one."""
    assert ({} in document(anonymous=anonymous)["security"]) is anonymous


# A 413 or 422 is an answer, too: what a network has is not the document's to say.
CONFIG = schemathesis.Config.from_dict(
    {"checks": {"positive_data_acceptance": {"expected-statuses": [200, 202, 401, 403, 404, 413, 422]}}}
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_schemathesis_finds_nothing(tmp_path: Path, method: str, path: str, mode: GenerationMode) -> None:
    """Replies have the statuses, types and shapes that are written down; what is not allowed is refused, not failed.

    Asked is what the document allows, with the name of a model in half the cases, and what it does not.
    """
    app = create_app(make_service(tmp_path, log=Kept(), limits={"deadline": 30.0}))
    operation = schemathesis.openapi.from_asgi("/v1/openapi.json", app, config=CONFIG)[path][method.upper()]
    named = operation.as_strategy(generation_mode=mode, path_parameters={"name": "flights"})
    cases = operation.as_strategy(generation_mode=mode)

    @given(case=cases if "{name}" not in path else cases | named)
    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        case.call_and_validate()

    with contextlib.suppress(Unsatisfiable):  # nothing that a GET without parameters could do wrong
        ask()
