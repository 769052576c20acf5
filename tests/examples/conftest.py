"""The flights' feed, laid out once for all tests of the examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from bnpipe.examples import flights


@pytest.fixture(scope="session")
def flights_feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole year, as `prepare` lays it out."""
    feed = tmp_path_factory.mktemp("data") / "flights"
    flights.prepare(feed)
    return feed
