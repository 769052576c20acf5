"""The circuit breaker, on a clock of the test's own."""

from __future__ import annotations

import pytest

from bnpipe.config.serving import BreakerSpec
from bnpipe.serving.breaker import Breaker

SPEC = BreakerSpec(failures=0.5, of=4, slow=1.0, pause=5.0)


class Bench:
    """A breaker and its clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.breaker = Breaker(SPEC, lambda: self.now)

    def calls(self, pattern: str) -> None:
        """Make calls: good, failed, slow."""
        for letter in pattern:
            assert self.breaker.allows()
            self.breaker.record(seconds=2.0 if letter == "s" else 0.01, failed=letter == "f")


@pytest.fixture
def bench() -> Bench:
    """Closed."""
    return Bench()


@pytest.mark.parametrize(
    ("pattern", "opens"),
    [
        ("ggggggg", False),
        ("fff", False),
        ("gfgg", False),
        ("gfgf", True),
        ("ssgg", True),
        ("fs", False),
        ("gggfs", True),
    ],
)
def test_it_opens_on_enough_of_the_last_calls(bench: Bench, pattern: str, opens: bool) -> None:
    """Half of the last four failed or slow: open; fewer, or fewer than four calls yet: closed."""
    bench.calls(pattern)
    assert (bench.breaker.state == "open") is opens
    assert bench.breaker.allows() is not opens


def test_after_a_pause_one_call_tries(bench: Bench) -> None:
    """Half-open lets one through; its success closes, and what failed before is forgotten."""
    bench.calls("ffff")
    bench.now += 4.9
    assert not bench.breaker.allows()
    bench.now += 0.2
    assert bench.breaker.state == "half-open"
    assert bench.breaker.allows()
    assert not bench.breaker.allows(), "one tries, the others wait for what comes of it"
    bench.breaker.record(seconds=0.01, failed=False)
    assert bench.breaker.state == "closed"
    bench.calls("fgg")
    assert bench.breaker.state == "closed"


def test_a_failed_try_opens_for_another_pause(bench: Bench) -> None:
    """Each try that fails costs a pause."""
    bench.calls("ffff")
    for _ in range(3):
        bench.now += 5.1
        assert bench.breaker.allows()
        bench.breaker.record(seconds=0.0, failed=True)
        assert bench.breaker.state == "open"
        assert not bench.breaker.allows()


def test_late_results_decide_nothing(bench: Bench) -> None:
    """Calls that were under way when it opened neither close it nor prolong the pause."""
    bench.calls("ffff")
    bench.now += 3.0
    bench.breaker.record(seconds=0.0, failed=False)
    assert bench.breaker.state == "open"
    bench.breaker.record(seconds=0.0, failed=True)
    bench.now += 2.1
    assert bench.breaker.state == "half-open"


def test_a_try_that_was_never_made_is_taken_back(bench: Bench) -> None:
    """Its deadline passed in the queue: the next one may try at once."""
    bench.calls("ffff")
    bench.now += 5.1
    assert bench.breaker.allows()
    bench.breaker.abandon()
    assert bench.breaker.allows()


def test_a_try_that_is_never_heard_of_is_forgotten(bench: Bench) -> None:
    """Nothing leaves a model shut for ever."""
    bench.calls("ffff")
    bench.now += 5.1
    assert bench.breaker.allows()
    bench.now += 5.1
    assert bench.breaker.allows()
