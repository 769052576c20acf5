"""pgmpy: HillClimbSearch on a DataFrame of integer codes, its quickest input (text and categories are slower)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from benchmarks.engines.base import Learner, Parents
from bnpipe.data import Dataset


class PgmpyLearner(Learner):
    """`HillClimbSearch`; options: none."""

    def __init__(self) -> None:
        warnings.simplefilter("ignore")
        import pgmpy.causal_discovery  # noqa: F401

    def load(self, data: Dataset, options: Mapping[str, Any]) -> pd.DataFrame:
        """Turn rows into the input."""
        return pd.DataFrame(data.codes.T.astype("int64"), columns=list(data.schema.names))

    def learn(self, loaded: pd.DataFrame, options: Mapping[str, Any]) -> Any:
        """Learn a graph."""
        from pgmpy.causal_discovery import HillClimbSearch

        search = HillClimbSearch(scoring_method="bic-d", return_type="dag", show_progress=False)
        return search.fit(loaded).causal_graph_

    def parents(self, loaded: pd.DataFrame, learned: Any) -> Parents:
        """Read the graph."""
        return {str(node): tuple(learned.predecessors(node)) for node in loaded.columns}
