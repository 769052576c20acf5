"""What a reply says beside its answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from serving_bench import ask, make_service

from bnpipe.network import Network
from bnpipe.schema import Schema, Variable


@pytest.mark.parametrize(("share", "hinted"), [(0.0, True), (0.1, False)])
def test_an_other_that_training_never_saw_is_told(tmp_path: Path, share: float, hinted: bool) -> None:
    """Evidence that is impossible as an unseen value counts as a state without any row says why."""
    schema = Schema((Variable("carrier", ("AA", "other"), other="other"), Variable("late", ("no", "yes"))))
    tables = {"carrier": np.array([1.0 - share, share]), "late": np.array([0.7, 0.3])}
    service = make_service(tmp_path, [Network(schema, {"carrier": (), "late": ()}, tables=tables)])
    reply = ask(service, "posterior", [{"carrier": "AA"}, {"carrier": "ZZ"}])
    assert [answer["impossible"] for answer in reply["answers"]] == [False, hinted]
    (cell,) = reply["unseen"]
    assert (cell["row"], cell["variable"], cell["value"]) == (1, "carrier", "ZZ")
    assert ("'other', which has probability 0" in cell.get("hint", "")) is hinted
