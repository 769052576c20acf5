"""Labels that arrive later, perhaps when another version reigns: what is kept, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from registry_bench import make_network, make_rows
from serving_bench import Kept, make_service, send

import bnpipe
from bnpipe.network import Network


def renamed() -> Network:
    """A later network: other states of `late`, and `note` is gone."""
    rows = make_rows().drop(columns="note")
    rows["late"] = rows["late"].map({True: "much", False: "not"})
    return bnpipe.fit(bnpipe.Dataset.from_pandas(pd.DataFrame(rows)), {"rain": (), "wind": (), "late": ("rain",)})


@pytest.mark.parametrize(
    ("labels", "status", "says"),
    [
        ({"late": "much"}, 202, ""),
        ({"late": True}, 202, ""),
        ({"late": True, "note": "on time"}, 202, ""),
        ({"late": "much", "note": "on time"}, 422, "no variable 'note'"),
        ({"late": "perhaps"}, 422, "there are much, not"),
        ({"lat": True}, 422, "no variable 'lat' in the network, did you mean 'late'?"),
    ],
    ids=["of the champion", "of the one before", "all of the one before", "of both", "of none", "misspelt"],
)
def test_any_version_here_may_take_them(tmp_path: Path, labels: dict[str, Any], status: int, says: str) -> None:
    """A row answered by the version before is labelled in its states; one version must take all of a row's labels."""
    service = make_service(tmp_path, [make_network(), renamed()], previous=1, log=Kept())
    body = {"model": "flights", "request_id": "r", "labels": labels}
    found = send(service, "POST", "/v1/feedback", json=body)
    assert found.status_code == status, found.text
    assert says in found.text
