"""The OpenAPI document. Handlers read requests themselves, for speed; so what they take and give is written down here.

Tests hold it against the routes, the structs that decode bodies, and the answers of a live service.
"""

from __future__ import annotations

from typing import Any, Final

import bnpipe
from bnpipe.serving import examples
from bnpipe.serving.problems import MEDIA_TYPE
from bnpipe.serving.questions import KINDS
from bnpipe.serving.schemas import SCHEMAS, ref

Json = dict[str, Any]

_SERVICE: Final = (
    "Beliefs of Bayesian networks on request. Each answer names the version that gave it and can be made again from "
    "that version, bit for bit. Errors are problem documents (RFC 9457) that say what was received, and what is "
    "allowed. An answer that does not come from the version chosen has the arm `fallback` and says from where it comes."
)
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Name of the registered model.",
    "schema": {"type": "string", "minLength": 1},
    "example": "flights",
}
_VERSION: Final = {
    "name": "version",
    "in": "query",
    "required": False,
    "description": "Answer by this version instead of the champion. It must be in memory: the champion, its "
    "predecessor, the challenger, and those that a client is pinned to are.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999999999},
}
_QUESTIONS: Final = {
    "posterior": (
        "Probabilities of the targets' states",
        "For each row, each target's distribution given the row's other cells. Null where the evidence is impossible.",
    ),
    "predict": (
        "Most probable states",
        "For each row, each target's most probable state and its probability; none where it is below `abstain_below`.",
    ),
    "explanation": (
        "What moved the belief",
        "For each row and target the belief, and how far it moves without each observed cell; and the best assignment.",
    ),
    "likelihood": (
        "How usual a row is",
        "For each row the log probability of its cells, in nats, and its quantile among training rows, or drawn ones.",
    ),
}
_PROBLEMS: Final = {
    401: "No key, or an unknown one.",
    403: "The key may not do this.",
    404: "No such model or version here.",
    408: "The body did not come in time.",
    413: "Too many bytes or rows, or too costly a question.",
    415: "The body is not of a type that is read here.",
    422: "The body is not what it should be, or does not fit the network.",
    500: "An error in the service.",
    503: "Too much is waiting, the model fails, there is no champion yet, or the answer could not be logged.",
    504: "The deadline passed.",
}
_HEADERS: Final[dict[int, Json]] = {
    401: {"WWW-Authenticate": {"description": "How to say who asks.", "schema": {"type": "string"}}},
    503: {"Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}},
}
_OF_BODIES: Final = (401, 403, 404, 408, 413, 415, 422, 500, 503, 504)


def document(*, anonymous: bool) -> Json:
    """Write the document.

    Parameters
    ----------
    anonymous : bool
        Whether callers without a key are answered, too.
    """
    keys: list[Json] = [{"bearer": []}, {"key": []}]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "bnpipe",
            "version": bnpipe.__version__,
            "description": _SERVICE,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, *keys] if anonymous else keys,
        "tags": [
            {"name": "questions", "description": "What is asked of a model."},
            {"name": "mlflow", "description": "The protocol of `mlflow models serve`."},
            {"name": "service", "description": "What is served, and how it goes."},
        ],
        "paths": _paths(anonymous=anonymous),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _paths(*, anonymous: bool) -> Json:
    paths: Json = {f"/v1/models/{{name}}/{kind}": {"post": _question(kind)} for kind in KINDS}
    paths["/v1/models/{name}/invocations"] = {"post": _invocations([_NAME, _VERSION], "model_invocations")}
    paths["/invocations"] = {"post": _invocations([_VERSION], "invocations")}
    paths["/v1/feedback"] = {"post": _feedback()}
    paths["/v1/models"] = {
        "get": _get("models", "Models that may be asked", "Models", (401, 500), examples.MODELS),
    }
    paths["/v1/models/{name}"] = {
        "get": _get("model", "One model: graph, states, provenance", "Model", (401, 403, 404, 422, 500), examples.MODEL)
        | {"parameters": [_NAME, _VERSION]},
    }
    paths["/health"] = {
        "get": _get("health", "Whether this worker lives", "Health", (500,), examples.HEALTH)
        | {"security": [{}], "description": "Says more to who may ask."},
    }
    paths["/ready"] = {
        "get": _get("ready", "Whether questions may come", "Ready", (500, 503), {"ready": True})
        | {
            "security": [{}],
            "description": "Once each champion of the registry is in memory. A model that has no champion yet takes "
            "nobody else out.",
        },
    }
    paths["/ping"] = {"get": _text("ping", "Whether questions may come", "mlflow", (500, 503)) | {"security": [{}]}}
    paths["/version"] = {
        "get": _text("version", "The version of MLflow whose protocol this is", "mlflow", (500,)) | {"security": [{}]}
    }
    paths["/metrics"] = {
        "get": _text("metrics", "Metrics of all workers, for Prometheus", "service", (401, 403, 500))
        | {"description": "Needs the scope `operate`."}
    }
    return paths


def _question(kind: str) -> Json:
    summary, description = _QUESTIONS[kind]
    return {
        "operationId": kind,
        "tags": ["questions"],
        "summary": summary,
        "description": description + " Needs the scope `ask`.",
        "parameters": [_NAME, _VERSION],
        "requestBody": _body("Question", examples.QUESTIONS[kind]),
        "responses": _responses(_given(f"{kind.capitalize()}Reply", examples.REPLIES[kind]), _OF_BODIES),
    }


def _invocations(parameters: list[Json], operation: str) -> Json:
    body = _body("Invocation", examples.INVOCATIONS)
    body["content"]["text/csv"] = {"schema": {}, "example": examples.INVOCATION_CSV}  # text is no JSON type
    reply = _given("InvocationReply", examples.INVOCATION_REPLY)
    reply["headers"]["X-Model-Version"] = {"description": "Who answered.", "schema": {"type": "integer"}}
    alone = " For a service of a single model." if operation == "invocations" else ""
    return {
        "operationId": operation,
        "tags": ["mlflow"],
        "summary": "Posteriors as `mlflow models serve` gives them",
        "description": "Columns that are no variable are ignored, unknown states counted, NaN is a null, and null "
        f"stands where MLflow writes NaN. `params` are ignored: the models have none.{alone} Needs the scope `ask`.",
        "parameters": parameters,
        "requestBody": body,
        "responses": _responses(reply, _OF_BODIES),
    }


def _feedback() -> Json:
    reply = {"description": "Kept.", "content": {"application/json": {"schema": ref("Kept"), "example": {"kept": 1}}}}
    return {
        "operationId": "feedback",
        "tags": ["questions"],
        "summary": "Labels that arrived later",
        "description": "What turned out for a row of an earlier answer: one, or a list. Of several for a row the last "
        "counts. Needs the scope `feedback`.",
        "requestBody": _body("FeedbackBody", examples.FEEDBACK),
        "responses": {"202": reply} | _problems((401, 403, 404, 408, 413, 415, 422, 500, 503)),
    }


def _body(schema: str, shown: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": ref(schema), "examples": shown}}}


def _given(schema: str, example: Any) -> Json:
    return {
        "description": "The answers, one for each row, in their order.",
        "headers": {"X-Request-Id": {"description": "What feedback and audit go by.", "schema": {"type": "string"}}},
        "content": {"application/json": {"schema": ref(schema), "example": example}},
    }


def _responses(reply: Json, statuses: tuple[int, ...]) -> Json:
    return {"200": reply} | _problems(statuses)


def _get(operation: str, summary: str, schema: str, statuses: tuple[int, ...], example: Any) -> Json:
    content = {"application/json": {"schema": ref(schema), "example": example}}
    return {
        "operationId": operation,
        "tags": ["service"],
        "summary": summary,
        "responses": _responses({"description": "So it is.", "content": content}, statuses),
    }


def _text(operation: str, summary: str, tag: str, statuses: tuple[int, ...]) -> Json:
    reply = {"description": "So it is.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"operationId": operation, "tags": [tag], "summary": summary, "responses": _responses(reply, statuses)}


def _problems(statuses: tuple[int, ...]) -> Json:
    return {
        str(status): {
            "description": _PROBLEMS[status],
            "content": {MEDIA_TYPE: {"schema": ref("Problem")}},
            **({"headers": _HEADERS[status]} if status in _HEADERS else {}),
        }
        for status in statuses
    }
