"""Who answers a request depends on its key and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.release.canary import CanaryState
from bnpipe.serving.routing import Canary, choose_arm, is_shadowed, place

TENTH = Canary(version=7, share=0.1, salt="flights:7:1")


STATE = CanaryState(
    version=7,
    champion=6,
    stage=1,
    share=0.1,
    began=datetime(2026, 3, 1, tzinfo=UTC),
    since=datetime(2026, 3, 5, tzinfo=UTC),
    salt="flights:7:1",
)


def keys(count: int) -> list[str]:
    return [f"customer-{number}" for number in range(count)]


def test_another_process_chooses_the_same() -> None:
    """A worker that was restarted, with another hash seed, sends each key where it went before."""
    code = (
        "from bnpipe.serving.routing import Canary, choose_arm\n"
        f"print(*[choose_arm(f'customer-{{n}}', {TENTH!r})[1] for n in range(300)], sep='')"
    )
    environment = {"PYTHONHASHSEED": "12345", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "".join(choose_arm(key, TENTH)[1] for key in keys(300))


def test_places_are_pinned() -> None:
    """The hash itself stays what it is: another would move every customer on the day of an upgrade."""
    pinned = [0.757368674025, 0.82310203417, 0.181232825444, 0.461640423762]
    assert [round(place(key, "a"), 12) for key in ("", "x", "Ωμέγα", "x" * 1000)] == pinned
    assert place("bc", "a") != place("c", "ab")


@given(st.text(), st.text(), st.floats(0, 1), st.floats(0, 1))
def test_who_is_in_stays_in(key: str, salt: str, one: float, other: float) -> None:
    """A larger share keeps every key of a smaller one."""
    small, large = sorted([one, other])
    if choose_arm(key, Canary(7, small, salt=salt)) == "challenger":
        assert choose_arm(key, Canary(7, large, salt=salt)) == "challenger"
    assert choose_arm(key, Canary(7, 0.0, salt=salt)) == "champion"
    assert choose_arm(key, Canary(7, 1.0, salt=salt)) == "challenger"
    assert 0.0 <= place(key, salt) < 1.0


def test_keys_with_any_text_have_a_place() -> None:
    """Half a surrogate pair, which JSON may hold, is a key like any other."""
    assert 0.0 <= place("\ud800", "\udfff") < 1.0


def test_places_are_uniform() -> None:
    """20 000 keys fill 100 equal parts evenly.

    Chi-squared with 99 degrees at level 1e-4: keys and salt are fixed, so luck had its say once, when they were chosen.
    """
    from scipy.stats import chi2

    counts = np.bincount([int(100 * place(key, "flights:7:1")) for key in keys(20_000)], minlength=100)
    assert ((counts - 200.0) ** 2 / 200.0).sum() < chi2.isf(1e-4, 99)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_kept(share: float) -> None:
    """Of 50 000 keys the share goes to the challenger, within 4 standard errors (6 in 100 000 by luck)."""
    found = np.mean([choose_arm(key, replace(TENTH, share=share)) == "challenger" for key in keys(50_000)])
    assert abs(found - share) < 4 * (share * (1 - share) / 50_000) ** 0.5


def test_another_canary_takes_other_keys() -> None:
    """Who was in one canary's tenth is in the next one's tenth as often as anybody: within 4 standard errors."""
    following = replace(TENTH, salt="flights:8:2")
    chosen = [key for key in keys(50_000) if choose_arm(key, TENTH) == "challenger"]
    again = np.mean([choose_arm(key, following) == "challenger" for key in chosen])
    assert abs(again - 0.1) < 4 * (0.09 / len(chosen)) ** 0.5


def test_no_canary_is_all_champion() -> None:
    """Without a canary, and while the challenger only shadows, the champion answers everybody."""
    assert choose_arm("x", None) == "champion"
    assert not is_shadowed("x", None)
    shadow = Canary(7, 0.0, shadow=1.0, salt="s")
    assert {choose_arm(key, shadow) for key in keys(1000)} == {"champion"}
    assert all(is_shadowed(key, shadow) for key in keys(1000))
    assert not is_shadowed("x", TENTH)


def test_a_state_becomes_what_workers_need() -> None:
    """Share and shadow follow from the mode; a canary that has ended routes nobody."""
    assert Canary.of(STATE) == Canary(7, 0.1, 0.0, "flights:7:1")
    assert Canary.of(replace(STATE, mode="shadow", share=0.25)) == Canary(7, 0.0, 0.25, "flights:7:1")
    assert Canary.of(replace(STATE, status="halted", reason="worse")) is None
    assert Canary.of(None) is None
