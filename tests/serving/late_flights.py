"""Networks in the terms of the demo's model, `config/models/flights.yaml`; the examples of OpenAPI are of one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

import bnpipe
from bnpipe.config import load_spec
from bnpipe.config.variables import QuantilesVariable
from bnpipe.data import Dataset
from bnpipe.inference import TrainingLikelihoods
from bnpipe.network import Network
from bnpipe.schema import Schema

SPEC: Final = load_spec(Path(__file__).parents[2] / "config" / "models" / "flights.yaml")
TARGETS: Final = tuple(SPEC.targets)
PARENTS: Final = {"departure_delay": ("hour", "rain"), "late_arrival": ("departure_delay",)}


def demo_schema() -> Schema:
    """All that the spec says of the variables; bins that a training learns are cut anywhere."""
    return Schema(
        tuple(
            variable.with_edges(name, (10.0, 20.0, 30.0))
            if isinstance(variable, QuantilesVariable)
            else variable.variable(name)
            for name, variable in SPEC.variables.items()
        )
    )


def any_flights() -> Network:
    """A network of all variables of the demo's model, which knows nothing of any."""
    schema, rng = demo_schema(), np.random.default_rng(1)
    frame = pd.DataFrame({variable.name: rng.choice(variable.states, 500) for variable in schema})
    return bnpipe.fit(Dataset.from_pandas(frame, schema), {}, 10.0)


def late_flights() -> tuple[Network, TrainingLikelihoods]:
    """A network of five of its variables, learned from made-up rows, and what was usual in these."""
    schema = demo_schema().project(("hour", "carrier", "rain", "departure_delay", "late_arrival"))
    rng = np.random.default_rng(7)
    rows = 4000
    hour = rng.integers(5, 24, rows)
    rain = rng.choice([0.0, 0.02, 0.1], rows, p=[0.85, 0.1, 0.05])
    delay = np.round(rng.exponential(1.0 + hour + 200.0 * rain) - 8.0)
    cancelled = rng.random(rows) < 0.01 + rain / 2.0
    late = np.where(delay + rng.normal(-5.0, 10.0, rows) >= 15.0, "yes", "no")
    frame = pd.DataFrame(
        {
            "hour": hour,
            "carrier": rng.choice([*schema["carrier"].states], rows),
            "rain": rain,
            "departure_delay": np.where(cancelled, np.nan, delay),
            "late_arrival": np.where(cancelled, "cancelled or diverted", late),
        }
    )
    data = Dataset.from_pandas(frame, schema)
    network = bnpipe.fit(data, PARENTS, 10.0)
    patterns = (network.nodes, set(network.nodes) - set(TARGETS))
    return network, TrainingLikelihoods.measure(bnpipe.compile(network), data, patterns)
