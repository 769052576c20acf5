"""The parts of the replayed year: who reigns when, what a page is made of."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, timedelta
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.year import Year
from benchmarks.year_page import Day, Event, Flag, Replay, drawn, mean, smoothed, spells, tables, write
from bnpipe.config import load_spec
from bnpipe.data import Dataset
from bnpipe.schema import Schema, Variable

SPEC = """\
name: lamp
owner: somebody
source: {connection: local, path: "lamp/*.parquet", timestamp: at, time_zone: UTC, lag: 1d}
window: {train: 30d, held_out: 14d}
variables:
  wind: {states: [low, high]}
  lamp: {states: [dark, lit]}
targets:
  lamp: {tolerance: 0.05}
structure: {tiers: [[wind], [lamp]]}
parameters: {estimator: bayes, equivalent_sample_size: 5}
gates: {min_rows: 100}
promotion: {policy: auto, rope: 0.02}
drift: {window: 7d, history: 21d, alarms_per_year: 0.5, actions: auto}
schedule: "0 6 * * *"
"""
FIRST, CHANGED, LAST = 45, 52, 85


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> list[dict[str, Day]]:
    """Forty days of a lamp that follows the wind otherwise from day 52 on; 200 rows a day, seed 3."""
    path = tmp_path_factory.mktemp("lamp") / "lamp.yaml"
    path.write_text(SPEC)
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(LAST, dtype=np.int32), 200)
    wind = (rng.random(days.size) < 0.4).astype(np.uint8)
    lit = np.where(days < CHANGED, 0.2 + 0.5 * wind, 0.8 - 0.5 * wind)
    lamp = (rng.random(days.size) < lit).astype(np.uint8)
    labels = tuple(str(date(2013, 1, 1) + timedelta(day)) for day in range(LAST))
    schema = Schema((Variable("wind", ("low", "high")), Variable("lamp", ("dark", "lit"))))
    year = Year(load_spec(path), Dataset(schema, np.stack([wind, lamp]), days, labels))
    return list(year.replay(FIRST, LAST))


def _mornings(replayed: list[dict[str, Day]], way: str, did: str, outcome: str) -> list[int]:
    return [
        place
        for place, found in enumerate(replayed)
        if any((event.did, event.outcome) == (did, outcome) for event in found[way].events)
    ]


def test_ways_score_alike_until_one_has_another_champion(replayed):
    """A champion promoted in a morning would have scored that very day, which had begun without it."""
    for way in ("nightly", "drift", "both"):
        promoted = min(_mornings(replayed, way, "train", "promote") + _mornings(replayed, way, "refit", "promote"))
        scores = [(found[way].nats, found["never"].nats) for found in replayed]
        assert all(new == old for new, old in scores[: promoted + 1])
        assert scores[promoted + 1][0] > scores[promoted + 1][1]


def test_looks_flag_the_lamp_once_it_changed(replayed):
    """A change by 0.6 in total variation would escape seven days, or be seen before it came; luck: 1 in 700 a look."""
    flagged = [place for place, found in enumerate(replayed) if found["never"].flags]
    changed = CHANGED - FIRST
    assert changed < flagged[0] <= changed + 8
    assert {flag.node for found in replayed for flag in found["never"].flags} == {"lamp"}


def test_only_ways_that_act_refit(replayed):
    """A champion that is only watched would be touched, or one that is kept by drift would not."""
    assert not any(found["never"].events for found in replayed)
    refits = [event for found in replayed for event in found["drift"].events if event.did == "refit"]
    assert refits
    assert all(event.families == ("lamp",) for event in refits)


def test_a_refit_waits_until_it_can_be_proved(replayed):
    """Looks in between would begin one that must be held, or none would come once ten days can prove it."""
    waited = _mornings(replayed, "drift", "wait", "nothing")
    [promoted] = _mornings(replayed, "drift", "refit", "promote")
    assert not _mornings(replayed, "drift", "refit", "held")
    assert waited
    assert waited == list(range(waited[0], promoted))
    assert abs(promoted - (CHANGED - FIRST + 14 + 1)) <= 1  # a lag of one day; a change dated a day off
    date_told = str(date(2013, 1, 1) + timedelta(FIRST + promoted))
    assert f"the look of {date_told} can have as many" in replayed[waited[-1]]["drift"].events[0].reason


def _day(place: int, nats: float = -1.0, *, rows: int = 10, flags=(), events=()) -> Day:
    return Day(str(date(2013, 5, 1) + timedelta(place)), rows, nats, 0.3, {"rain": nats}, tuple(flags), tuple(events))


def test_spells_end_after_a_week_of_calm():
    """Flags a week apart would be two spells, or flags further apart one."""
    flag = Flag("rain", 0.001, 0.1, "2013-04-20", 0.5)
    days = [_day(place, flags=[flag] if place in (0, 7, 15) else []) for place in range(20)]
    found = spells(days)
    assert [len(spell.flags) for spell in found] == [2, 1]
    assert found[0].gain == pytest.approx(0.5)


def test_means_are_over_rows():
    """A quiet day would count as much as a busy one."""
    days = [_day(0, -1.0, rows=30), _day(1, -3.0, rows=10)]
    assert mean(days, "nats") == pytest.approx(-1.5)
    assert smoothed(days, [replace(day, nats=-4.0) for day in days])[-1] == pytest.approx(2.5)


def _made() -> Replay:
    flag = Flag("rain", 0.001, 0.1, "2013-04-20", None)
    refit = Event("refit", "held", "challenger: undecided, d +0.1", ("rain",), 0.1)
    calm = tuple(_day(place) for place in range(10))
    noted = (*calm[:5], _day(5, flags=[flag], events=[refit, Event("train", "promote", "won", gain=-0.1)]), *calm[6:])
    return Replay(1.0, {"never": calm, "nightly": calm, "drift": noted, "both": noted})


def test_a_replay_is_saved_whole(tmp_path):
    """A page that is written again would tell of something else than the run."""
    _made().save(tmp_path / "year.json")
    assert Replay.load(tmp_path / "year.json") == _made()


def test_the_page_is_made_of_whole_tables(tmp_path):
    """A row would have more or fewer cells than its head, or the text outside the marks would be lost."""
    page = tmp_path / "year.md"
    page.write_text("before\n<!-- year: begin -->\nstale\n<!-- year: end -->\nafter\n")
    write(_made(), page, tmp_path / "year.svg")
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "refit rain | held | +0.100" in "\n".join(tables(_made()))


def test_the_figure_needs_nothing_from_outside():
    """The SVG would be no XML, or fetch a font or an image."""
    svg = drawn(_made())
    ElementTree.fromstring(svg)
    assert not re.search(r"""(?:href|src)=["']http|@import|url\(http""", svg)
