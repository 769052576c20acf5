"""Examples of the OpenAPI document: what a small network in the terms of the demo's flights was asked, and said."""

from __future__ import annotations

from typing import Any, Final

from bnpipe.serving.usual import BASIS, DRAWN_ROWS, TRAINING_ROWS

Json = dict[str, Any]

QUESTIONS: Final[Json] = {
    "posterior": {
        "two rows": {
            "summary": "Two rows, of which one says nothing; with intervals",
            "value": {"rows": [{"hour": 18, "rain": 0.1}, {}], "targets": ["late_arrival"], "interval": 0.95},
        }
    },
    "predict": {
        "abstaining": {
            "summary": "Only what is at least 90 % sure; this customer always meets the same arm of a canary",
            "value": {
                "rows": [{"hour": 9, "departure_delay": -4}, {"carrier": "EV", "hour": 18}],
                "targets": ["late_arrival"],
                "abstain_below": 0.9,
                "key": "C-1041",
            },
        }
    },
    "explanation": {
        "a row": {
            "summary": "What the hour and the rain do",
            "value": {"rows": [{"hour": 18, "rain": 0.1}], "targets": ["late_arrival"]},
        }
    },
    "likelihood": {
        "two rows": {
            "summary": "Is this usual? A row without the target, as in training, and one of which less is known",
            "value": {
                "rows": [
                    {"hour": 18, "carrier": "EV", "rain": 0.0, "departure_delay": 95},
                    {"rain": 0.1, "late_arrival": "no"},
                ]
            },
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
                "posterior": {
                    "late_arrival": {
                        "no": 0.5330075974668951,
                        "yes": 0.4086372787986918,
                        "cancelled or diverted": 0.058355123734413095,
                    }
                },
                "impossible": False,
                "interval": {
                    "late_arrival": {
                        "no": [0.3544360151124696, 0.6629786357476849],
                        "yes": [0.2626443713809706, 0.5533700989510402],
                        "cancelled or diverted": [0.009143606053774537, 0.25562953105383734],
                    }
                },
            },
            {
                "posterior": {
                    "late_arrival": {
                        "no": 0.7772142765745513,
                        "yes": 0.2119462215791915,
                        "cancelled or diverted": 0.010839501846257236,
                    }
                },
                "impossible": False,
                "interval": {
                    "late_arrival": {
                        "no": [0.7132468500291502, 0.7896880976731708],
                        "yes": [0.19163279876824135, 0.2405377816866875],
                        "cancelled or diverted": [0.00868957511337586, 0.08692646788703273],
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
                "prediction": {"late_arrival": {"state": "no", "probability": 0.9937541091387246, "abstained": False}},
                "impossible": False,
            },
            {
                "prediction": {"late_arrival": {"state": None, "probability": 0.7156124547154361, "abstained": True}},
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
                    "late_arrival": {
                        "belief": {
                            "no": 0.5330075974668951,
                            "yes": 0.4086372787986918,
                            "cancelled or diverted": 0.058355123734413095,
                        },
                        "marginal": {
                            "no": 0.7772142765745513,
                            "yes": 0.2119462215791915,
                            "cancelled or diverted": 0.010839501846257236,
                        },
                        "evidence": [
                            {
                                "variable": "rain",
                                "without": {
                                    "no": 0.715612454715436,
                                    "yes": 0.27022050762767047,
                                    "cancelled or diverted": 0.014167037656893504,
                                },
                                "moved": 0.18260485724854092,
                            },
                            {
                                "variable": "hour",
                                "without": {
                                    "no": 0.5312700983192965,
                                    "yes": 0.4040026873498674,
                                    "cancelled or diverted": 0.06472721433083604,
                                },
                                "moved": 0.006372090596422984,
                            },
                        ],
                    }
                },
                "most_probable_explanation": {
                    "hour": "17 to 20",
                    "carrier": "9E",
                    "rain": "heavy",
                    "departure_delay": "early",
                    "late_arrival": "no",
                },
                "log_probability": -8.733699440681036,
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
                "log_likelihood": -8.054136948756257,
                "observed": 4,
                "quantile": 0.124,
                "relative_to": TRAINING_ROWS,
                "impossible": False,
            },
            {
                "log_likelihood": -3.6594563499469195,
                "observed": 2,
                "quantile": 0.0525,
                "relative_to": DRAWN_ROWS,
                "impossible": False,
            },
        ],
    },
}
INVOCATIONS: Final[Json] = {
    "split": {
        "summary": "As `DataFrame.to_dict(orient='split')` gives it",
        "value": {"dataframe_split": {"columns": ["carrier", "hour"], "data": [["EV", 18], ["ZZ", None]]}},
    },
    "records": {
        "summary": "Row by row",
        "value": {"dataframe_records": [{"carrier": "EV", "hour": 18}, {"carrier": "ZZ", "hour": None}]},
    },
    "inputs": {"summary": "Column by column", "value": {"inputs": {"carrier": ["EV", "ZZ"], "hour": [18, None]}}},
}
INVOCATION_CSV: Final = "carrier,hour\nEV,18\nZZ,\n"
INVOCATION_REPLY: Final[Json] = {
    "predictions": [
        {
            "late_arrival": "no",
            "late_arrival=no": 0.7156124547154361,
            "late_arrival=yes": 0.2702205076276704,
            "late_arrival=cancelled or diverted": 0.0141670376568935,
            "impossible": False,
            "unseen": 0,
        },
        {
            "late_arrival": "no",
            "late_arrival=no": 0.7772142765745511,
            "late_arrival=yes": 0.21194622157919146,
            "late_arrival=cancelled or diverted": 0.010839501846257236,
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
            "labels": {"late_arrival": "yes"},
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
    "targets": ["late_arrival"],
    "variables": [
        {
            "name": "hour",
            "states": ["before 8", "8 to 11", "11 to 14", "14 to 17", "17 to 20", "after 20"],
            "edges": [8.0, 11.0, 14.0, 17.0, 20.0],
        },
        {
            "name": "carrier",
            "states": ["9E", "AA", "B6", "DL", "EV", "FL", "MQ", "UA", "US", "VX", "WN", "other"],
            "other": "other",
        },
        {"name": "rain", "states": ["dry", "light", "heavy"], "edges": [0.005, 0.05]},
        {
            "name": "departure_delay",
            "states": ["early", "0 to 5", "5 to 15", "15 to 30", "30 to 60", "over 60", "cancelled"],
            "edges": [0.0, 5.0, 15.0, 30.0, 60.0],
            "missing": "cancelled",
        },
        {"name": "late_arrival", "states": ["no", "yes", "cancelled or diverted"]},
    ],
    "parents": {
        "hour": [],
        "carrier": [],
        "rain": [],
        "departure_delay": ["hour", "rain"],
        "late_arrival": ["departure_delay"],
    },
    "cells_per_row": 159.0,
    "provenance": {
        "content_hash": "a25f62f2cc55edfe7061abfaa00004a9d0ea438331247d32d48d8c7ad4663f6b",
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
