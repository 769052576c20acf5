"""The model as MLflow loads it: copied into every version and run from there ("model from code", no pickle).

Needs mlflow and a base install of bnpipe. Not imported by bnpipe itself.
"""

from __future__ import annotations

from typing import Any

import mlflow.pyfunc  # noqa: TID253  MLflow runs this file; nothing imports it
import numpy as np
import pandas as pd
from mlflow.models import set_model  # noqa: TID253

import bnpipe


class NetworkModel(mlflow.pyfunc.PythonModel):
    """Posteriors of the targets for rows in which anything may be missing."""

    def load_context(self, context: Any) -> None:
        """Read the network and compile it."""
        self.network = bnpipe.Network.load(context.artifacts["network"])
        self.engine = bnpipe.compile(self.network)
        self.targets = tuple(context.model_config["targets"])

    def predict(
        self,
        context: Any,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Give each row's posterior of every target.

        Parameters
        ----------
        model_input : DataFrame (rows, columns)
            Columns named after the network's variables, in any order and of any type; absent columns and nulls are
            unobserved; a state the network does not know goes to `other`, or counts as unobserved. A target's own
            column does not bear on that target.

        Returns
        -------
        DataFrame
            For each target ``T``: its most probable state ``T`` and probabilities ``T=state``; ``impossible`` where
            the evidence has probability zero (probabilities are NaN); ``unseen``: number of unknown states.

        Raises
        ------
        SchemaError
            Cells are lists or mappings.
        """
        data = bnpipe.Dataset.from_pandas(model_input, schema=self.network.schema)
        posterior = self.engine.posterior(data, targets=self.targets)
        columns: dict[str, Any] = {}
        for target in self.targets:
            columns |= _columns(target, self.network.schema[target].states, posterior[target])
        unseen = np.zeros(data.rows, dtype=np.int64) if data.unseen is None else data.unseen.sum(axis=0, dtype=np.int64)
        columns |= {"impossible": posterior.impossible, "unseen": unseen}
        return pd.DataFrame(columns, index=model_input.index)


def _columns(target: str, states: tuple[str, ...], probabilities: np.ndarray[Any, Any]) -> dict[str, Any]:
    known = ~np.isnan(probabilities).any(axis=1)
    best = np.full(len(probabilities), None, dtype=object)
    best[known] = np.asarray(states, dtype=object)[probabilities[known].argmax(axis=1)]
    return {target: best} | {f"{target}={state}": probabilities[:, code] for code, state in enumerate(states)}


set_model(NetworkModel())
