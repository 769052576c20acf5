"""Examples of the OpenAPI document: what a small network of late flights was asked, and what it said."""

from __future__ import annotations

from typing import Any, Final

from bnpipe.serving.usual import BASIS, DRAWN_ROWS, TRAINING_ROWS

Json = dict[str, Any]

QUESTIONS: Final[Json] = {
    "posterior": {
        "two rows": {
            "summary": "Two rows, of which one says nothing; with intervals",
            "value": {"rows": [{"rain": "yes"}, {}], "targets": ["late"], "interval": 0.95},
        }
    },
    "predict": {
        "abstaining": {
            "summary": "Only what is at least 90 % sure; this customer always meets the same arm of a canary",
            "value": {
                "rows": [{"rain": "no"}, {"wind": 2}],
                "targets": ["late"],
                "abstain_below": 0.9,
                "key": "C-1041",
            },
        }
    },
    "explanation": {
        "a row": {
            "summary": "What rain and wind do",
            "value": {"rows": [{"rain": "yes", "wind": 1}], "targets": ["late"]},
        }
    },
    "likelihood": {
        "two rows": {
            "summary": "Is this usual? A row without the target, as in training, and one of which less is known",
            "value": {"rows": [{"rain": "no", "wind": 3, "note": "on time"}, {"rain": "no", "late": True}]},
        }
    },
}
REPLIES: Final[Json] = {
    "posterior": {
        "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036",
        "model": "flights",
        "version": 1,
        "arm": "champion",
        "answers": [
            {
                "posterior": {"late": {"false": 0.1141304347826087, "true": 0.8858695652173914}},
                "impossible": False,
                "interval": {
                    "late": {
                        "false": [0.07952705854682864, 0.16760632001915263],
                        "true": [0.8323936799808475, 0.9204729414531715],
                    }
                },
            },
            {
                "posterior": {"late": {"false": 0.5120240284395474, "true": 0.4879759715604526}},
                "impossible": False,
                "interval": {
                    "late": {
                        "false": [0.46393886400585593, 0.5616578901591032],
                        "true": [0.43834210984089683, 0.5360611359941441],
                    }
                },
            },
        ],
    },
    "predict": {
        "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036",
        "model": "flights",
        "version": 1,
        "arm": "champion",
        "answers": [
            {
                "prediction": {"late": {"state": "false", "probability": 0.9652397260273973, "abstained": False}},
                "impossible": False,
            },
            {
                "prediction": {"late": {"state": None, "probability": 0.5369565217391304, "abstained": True}},
                "impossible": False,
            },
        ],
    },
    "explanation": {
        "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036",
        "model": "flights",
        "version": 1,
        "arm": "champion",
        "answers": [
            {
                "targets": {
                    "late": {
                        "belief": {"false": 0.22222222222222224, "true": 0.7777777777777778},
                        "marginal": {"false": 0.5120240284395474, "true": 0.4879759715604526},
                        "evidence": [
                            {
                                "variable": "rain",
                                "without": {"false": 0.5858333333333333, "true": 0.4141666666666666},
                                "moved": 0.3636111111111111,
                            },
                            {
                                "variable": "wind",
                                "without": {"false": 0.1141304347826087, "true": 0.8858695652173914},
                                "moved": 0.10809178743961355,
                            },
                        ],
                    }
                },
                "most_probable_explanation": {"rain": "yes", "wind": "1", "late": "true", "note": "delay, >= 15 min"},
                "log_probability": -1.9676765783490155,
                "impossible": False,
            }
        ],
    },
    "likelihood": {
        "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036",
        "model": "flights",
        "version": 1,
        "arm": "champion",
        "relative_to": BASIS,
        "answers": [
            {
                "log_likelihood": -1.8758914340627686,
                "observed": 3,
                "quantile": 0.662,
                "relative_to": TRAINING_ROWS,
                "impossible": False,
            },
            {
                "log_likelihood": -4.119636027033881,
                "observed": 2,
                "quantile": 0.012,
                "relative_to": DRAWN_ROWS,
                "impossible": False,
            },
        ],
    },
}
INVOCATIONS: Final[Json] = {
    "split": {
        "summary": "As `DataFrame.to_dict(orient='split')` gives it",
        "value": {"dataframe_split": {"columns": ["rain", "wind"], "data": [["yes", 1], ["hail", None]]}},
    },
    "records": {
        "summary": "Row by row",
        "value": {"dataframe_records": [{"rain": "yes", "wind": 1}, {"rain": "hail", "wind": None}]},
    },
    "inputs": {"summary": "Column by column", "value": {"inputs": {"rain": ["yes", "hail"], "wind": [1, None]}}},
}
INVOCATION_CSV: Final = "rain,wind\nyes,1\nhail,\n"
INVOCATION_REPLY: Final[Json] = {
    "predictions": [
        {
            "late": "true",
            "late=false": 0.22222222222222224,
            "late=true": 0.7777777777777778,
            "impossible": False,
            "unseen": 0,
        },
        {
            "late": "false",
            "late=false": 0.5120240284395474,
            "late=true": 0.4879759715604526,
            "impossible": False,
            "unseen": 1,
        },
    ]
}
FEEDBACK: Final[Json] = {
    "one": {
        "summary": "What became of the second row of an answer",
        "value": {
            "model": "flights",
            "request_id": "0006453a7e3c10-5f2b8c1d9e4a7036",
            "row": 1,
            "labels": {"late": True},
        },
    }
}
_STANDING: Final[Json] = {
    "name": "flights",
    "champion": 1,
    "previous": None,
    "challenger": None,
    "canary": None,
    "versions": [1],
    "pinned": {},
    "faults": {},
}
MODELS: Final[Json] = {"models": [_STANDING]}
MODEL: Final[Json] = {
    **_STANDING,
    "version": 1,
    "targets": ["late"],
    "variables": [
        {"name": "rain", "states": ["no", "yes"]},
        {"name": "wind", "states": ["1", "2", "3"]},
        {"name": "late", "states": ["false", "true"]},
        {"name": "note", "states": ["delay, >= 15 min", "on time"]},
    ],
    "parents": {"rain": [], "wind": [], "late": ["rain", "wind"], "note": ["late"]},
    "cells_per_row": 16.0,
    "provenance": {
        "content_hash": "7184050567488a8b8745d094a858044773ec45d2f3e4cc9f54ebfb11cdf67273",
        "created": "2026-11-22T00:40:47+00:00",
        "trained_until": "2026-11-21",
        "run_id": "b31964ad15434df59029c5ec9efd0b5c",
        "training_key": "flights/2026-11-21",
        "gates": "pass",
    },
}
HEALTH: Final[Json] = {
    "status": "ok",
    "bnpipe": "0.1.0",
    "registry": "ok",
    "registry_answered": "2026-11-22T00:40:49+00:00",
    "models": {"flights": {"champion": 1, "breakers": {"1": "closed"}, "faults": 0}},
    "warnings": [],
}
