"""Labels that arrive later, perhaps when another version reigns: what is kept, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from registry_bench import make_network, make_rows
from serving_bench import Kept, make_service, send

import bnpipe
from bnpipe.answers.records import new_request_id
from bnpipe.network import Network
from bnpipe.serving.observing import Observer

ID = new_request_id(datetime(2026, 3, 2, tzinfo=UTC))


class Counting(Observer):
    """Hears of labels."""

    def __init__(self) -> None:
        self.models: list[str] = []

    def labelled(self, model: str) -> None:
        """Hear that labels of a row were kept."""
        self.models.append(model)


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
    body = {"model": "flights", "request_id": ID, "labels": labels}
    found = send(service, "POST", "/v1/feedback", json=body)
    assert found.status_code == status, found.text
    assert says in found.text


def test_an_id_that_no_answer_has_is_refused(tmp_path: Path) -> None:
    """Of the future, of another make, or cut off: labels would be kept for nothing. Those kept are counted."""
    observer = Counting()
    service = make_service(tmp_path, log=Kept(), observer=observer)
    now = datetime.now(UTC)

    def status(request_id: str) -> int:
        body = {"model": "flights", "request_id": request_id, "labels": {"late": True}}
        return send(service, "POST", "/v1/feedback", json=body).status_code

    ids = [new_request_id(now + timedelta(hours=hours)) for hours in (-1000, 0, 1)]
    assert [status(one) for one in (*ids, "order-4711", ids[1][:-1], ids[1].upper())] == [202, 202, 422, 422, 422, 422]
    assert observer.models == ["flights"] * 2


@pytest.mark.parametrize("required", [True, False])
def test_labels_that_cannot_be_kept_are_refused(tmp_path: Path, required: bool) -> None:
    """Whatever the policy on answers: 202 says that they were kept."""
    service = make_service(tmp_path, log=Kept(full=True), answers={"required": required})
    body = {"model": "flights", "request_id": ID, "labels": {"late": True}}
    assert send(service, "POST", "/v1/feedback", json=body).status_code == 503
