"""JSON schemas of what the service takes and gives."""

from __future__ import annotations

from typing import Any, Final

from bnpipe.serving.usual import BASIS

Json = dict[str, Any]


def ref(name: str) -> Json:
    """Point to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Json, *, optional: tuple[str, ...] = (), closed: bool = False, about: str = "") -> Json:
    """Describe an object; all its keys are there unless they are optional."""
    return {
        "type": "object",
        **({"description": about} if about else {}),
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        **({"additionalProperties": False} if closed else {}),
    }


def _by_name(value: Json, about: str = "") -> Json:
    return {"type": "object", "additionalProperties": value, **({"description": about} if about else {})}


def _list(items: Json, about: str = "", **more: Any) -> Json:
    return {"type": "array", "items": items, **more, **({"description": about} if about else {})}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Final[Json] = {"type": "string"}
_NUMBER: Final[Json] = {"type": "integer"}
_TRUTH: Final[Json] = {"type": "boolean"}
_PROBABILITY: Final[Json] = {"type": "number", "minimum": 0, "maximum": 1.0000001}
_VERSION: Final[Json] = {"type": ["integer", "null"]}
_ROW: Final[Json] = _by_name(ref("Cell"), "Evidence: variables and their values.")
_DISTRIBUTION: Final[Json] = _by_name(_PROBABILITY, "Probability by state.")
_OF_TARGETS: Final[Json] = _by_name(_or_null(_DISTRIBUTION), "By target; null where the evidence is impossible.")
_IMPOSSIBLE: Final[Json] = {"type": "boolean", "description": "The evidence has probability zero under the network."}


def _reply(answer: str, **more: Json) -> Json:
    """Describe a reply: its head, and answers."""
    head: Json = {
        "request_id": _TEXT,
        "model": _TEXT,
        "version": {"type": "integer", "description": "Who answered."},
        "arm": {"enum": ["champion", "challenger", "pinned", "fallback"], "description": "Why this version."},
        "fallback": ref("Fallback"),
        "unseen": _list(ref("Unseen"), "Cells, at most 20 of them, whose value is no state of their variable."),
        "ignored": _list(_TEXT, "Variables that the network does not have, where the service ignores such."),
    }
    return _object(head | more | {"answers": _list(ref(answer))}, optional=("fallback", "unseen", "ignored"))


SCHEMAS: Final[Json] = {
    "Cell": {
        "description": "A value: a state as text, number or truth value, or a number to be put into a bin. A cell left "
        "out is unobserved; a null is missing, which some variables have a state for.",
        "type": ["string", "number", "boolean", "null"],
    },
    "Question": _object(
        {
            "rows": _list(_ROW, "One or more rows; an empty one asks for the marginals.", minItems=1),
            "targets": {
                "type": ["array", "null"],
                "items": _TEXT,
                "description": "Variables asked of; left out: the model's own targets. Not for likelihoods.",
            },
            "interval": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "exclusiveMaximum": 1,
                "description": "Level of the posteriors' intervals. Only for posteriors.",
            },
            "abstain_below": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "exclusiveMaximum": 1,
                "description": "A prediction that is less probable is none. Only for predictions.",
            },
            "key": {
                "type": ["string", "null"],
                "description": "What the share of a canary goes by: a customer, an order. Left out: the request's id.",
            },
        },
        optional=("targets", "interval", "abstain_below", "key"),
        closed=True,
    ),
    "PosteriorReply": _reply("PosteriorAnswer"),
    "PosteriorAnswer": _object(
        {
            "posterior": _OF_TARGETS,
            "interval": _by_name(
                _or_null(_by_name(_list(_PROBABILITY, "Both ends.", minItems=2, maxItems=2))),
                "By target and state, where asked for.",
            ),
            "impossible": _IMPOSSIBLE,
        },
        optional=("interval",),
        closed=True,
    ),
    "PredictReply": _reply("PredictAnswer"),
    "PredictAnswer": _object(
        {
            "prediction": _by_name(
                _or_null(
                    _object({"state": {"type": ["string", "null"]}, "probability": _PROBABILITY, "abstained": _TRUTH})
                ),
                "By target; null where the evidence is impossible.",
            ),
            "impossible": _IMPOSSIBLE,
        },
        closed=True,
    ),
    "ExplanationReply": _reply("ExplanationAnswer"),
    "ExplanationAnswer": _object(
        {
            "targets": _by_name(
                _or_null(
                    _object(
                        {
                            "belief": _DISTRIBUTION,
                            "marginal": _by_name(_PROBABILITY, "The belief when nothing is observed."),
                            "evidence": _list(ref("Move"), "What moved the belief most comes first."),
                        }
                    )
                ),
                "By target; null where the evidence is impossible.",
            ),
            "most_probable_explanation": _or_null(_by_name(_TEXT, "A state of every variable.")),
            "log_probability": {"type": ["number", "null"], "description": "Of that assignment, in nats."},
            "impossible": _IMPOSSIBLE,
        },
        closed=True,
    ),
    "Move": _object(
        {
            "variable": _TEXT,
            "without": _or_null(_by_name(_PROBABILITY, "The belief, were this variable not observed.")),
            "moved": {"type": ["number", "null"], "description": "Total variation between the two."},
        }
    ),
    "LikelihoodReply": _reply(
        "LikelihoodAnswer",
        relative_to=_object(
            dict.fromkeys(BASIS, _TEXT), closed=True, about="What the rows are that quantiles are relative to."
        ),
    ),
    "LikelihoodAnswer": _object(
        {
            "log_likelihood": {
                "type": ["number", "null"],
                "description": "Of the observed cells, in nats; null where they are impossible together.",
            },
            "observed": {"type": "integer", "description": "How many cells are."},
            "quantile": {**_PROBABILITY, "description": "Share of rows that are at most as likely."},
            "relative_to": {"enum": list(BASIS), "description": "Of which rows; the reply tells more of them."},
            "impossible": _IMPOSSIBLE,
        },
        closed=True,
    ),
    "Fallback": _object(
        {
            "instead_of": {"type": "integer", "description": "The version that should have answered."},
            "reason": _TEXT,
            "answered_by": {"type": "string", "description": "`version N` or `marginal`."},
        }
    ),
    "Unseen": _object(
        {
            "row": _NUMBER,
            "variable": _TEXT,
            "value": ref("Cell"),
            "hint": {"type": "string", "description": "Why the value made the evidence impossible, if it did."},
        },
        optional=("hint",),
    ),
    "Invocation": {
        "description": "A frame in one of MLflow's four forms.",
        "type": "object",
        "properties": {
            "dataframe_split": _object(
                {
                    "columns": _list(_TEXT, uniqueItems=True),
                    "data": _list(_list(ref("Cell"))),
                    "index": {"type": ["array", "null"], "items": ref("Cell")},
                },
                optional=("index",),
                closed=True,
            ),
            "dataframe_records": _list(_ROW),
            "instances": _list(_ROW),
            "inputs": {
                "anyOf": [
                    _list(_ROW),
                    _by_name({"anyOf": [ref("Cell"), _list(ref("Cell"))]}, "Columns of the same length."),
                ]
            },
            "params": {"type": ["object", "null"]},
        },
        "oneOf": [{"required": [form]} for form in ("dataframe_split", "dataframe_records", "instances", "inputs")],
    },
    "InvocationReply": _object(
        {
            "predictions": _list(
                _by_name(
                    {"type": ["string", "number", "boolean", "null"]},
                    "`TARGET`: the most probable state; `TARGET=STATE`: its probability; `impossible`; `unseen`: how "
                    "many cells are no state.",
                )
            ),
            "fallback": ref("Fallback"),
        },
        optional=("fallback",),
    ),
    "Feedback": _object(
        {
            "model": _TEXT,
            "request_id": {"type": "string", "pattern": "^[0-9a-f]{14}-[0-9a-f]{16}$"},
            "labels": {
                **_by_name({"type": ["string", "number", "boolean"]}, "States by variable."),
                "minProperties": 1,
            },
            "row": {"type": "integer", "minimum": 0, "description": "Counted from 0."},
        },
        optional=("row",),
        closed=True,
    ),
    "FeedbackBody": {"anyOf": [ref("Feedback"), _list(ref("Feedback"))]},
    "Kept": _object({"kept": {"type": "integer", "description": "How many labelled rows."}}),
    "Models": _object({"models": _list(ref("Standing"))}),
    "Standing": _object(
        {
            "name": _TEXT,
            "champion": _VERSION,
            "previous": {**_VERSION, "description": "The last good champion before this one."},
            "challenger": {**_VERSION, "description": "That of the registry, whether it answers anybody or not."},
            "canary": _or_null(
                _object({"version": _NUMBER, "share": _PROBABILITY, "shadow": _PROBABILITY}),
            ),
            "versions": _list(_NUMBER, "In memory."),
            "pinned": _by_name(_NUMBER, "Clients that stay on a version; others' are told to operators only."),
            "faults": _by_name(_TEXT, "Versions that should be served and are not, and why; `model`: there is none."),
        }
    ),
    "Model": {
        "allOf": [
            ref("Standing"),
            _object(
                {
                    "version": {"type": "integer", "description": "The one described."},
                    "targets": _list(_TEXT),
                    "variables": _list(
                        _object(
                            {
                                "name": _TEXT,
                                "states": _list(_TEXT),
                                "edges": _list({"type": "number"}, "Where numbers are cut into bins."),
                                "other": {"type": "string", "description": "Takes values that are no state."},
                                "missing": {"type": "string", "description": "Takes nulls."},
                            },
                            optional=("edges", "other", "missing"),
                        )
                    ),
                    "parents": _by_name(_list(_TEXT)),
                    "cells_per_row": {"type": "number", "description": "What a row costs."},
                    "provenance": _by_name(_TEXT),
                }
            ),
        ]
    },
    "Health": _object(
        {
            "status": {"const": "ok"},
            "bnpipe": _TEXT,
            "registry": {"type": "string", "description": "`ok`, `unknown`, or what is wrong."},
            "registry_answered": {"type": ["string", "null"], "format": "date-time"},
            "models": _by_name(
                _object({"champion": _VERSION, "breakers": _by_name(_TEXT), "faults": {"type": "integer"}})
            ),
            "warnings": _list(_TEXT, "What of the serving file comes to nothing: models that the registry lacks."),
        },
        optional=("bnpipe", "registry", "registry_answered", "models", "warnings"),
    ),
    "Ready": _object({"ready": {"const": True}}),
    "Problem": _object(
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string", "description": "What kind of thing went wrong; the same each time."},
            "status": _NUMBER,
            "detail": {"type": "string", "description": "What was received, what is allowed."},
            "at": {"type": "string", "description": "The part of the body that is meant."},
        },
        optional=("type", "at"),
        closed=True,
    ),
}
