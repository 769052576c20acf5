"""What a replayed year holds, and how it is told: the tables of docs/year.md and docs/flights-year.svg."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "year.md"
FIGURE: Final = PAGE.with_name("flights-year.svg")
FOLLOWING: Final = 14
"""Days after the rows of a run on which what it found or made is held against what came."""
_MARKS: Final = ("<!-- year: begin -->", "<!-- year: end -->")
_SMOOTH: Final = 7
_WINTER: Final = "2013-11-01"
_GAP: Final = 7
"""Looks without a flag that end a spell."""

Floats = NDArray[np.float64]
Did = Literal["train", "refit", "relearn", "roll back", "hold", "wait"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a champion is kept: retrained each night, looked at for drift, and whether looks act."""

    name: str
    retrains: bool
    looks: bool
    acts: bool


WAYS: Final = (
    Way("never", retrains=False, looks=True, acts=False),
    Way("nightly", retrains=True, looks=False, acts=False),
    Way("drift", retrains=False, looks=True, acts=True),
    Way("both", retrains=True, looks=True, acts=True),
)


@dataclass(frozen=True, slots=True)
class Flag:
    """One node that a look flagged.

    Parameters
    ----------
    node : str
    p, effect : float
    since : str or None
    gain : float or None
        Nats a row by which the family, refitted on the tested days, beats the champion's on the days that follow; None
        where none do.
    """

    node: str
    p: float
    effect: float
    since: str | None
    gain: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """What a morning's run did, or would not do.

    Parameters
    ----------
    did : {"train", "refit", "relearn", "roll back", "hold", "wait"}
    outcome : str
        Of a training as in :class:`bnpipe.release.PromotionDecision`.
    reason : str
    families : tuple of str
        Of a refit.
    gain : float or None
        Nats a row by which what was made beats the champion on the days that follow; None where none do.
    """

    did: Did
    outcome: str
    reason: str
    families: tuple[str, ...] = ()
    gain: float | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """One day: its score under the champion of its first minute, then what the runs of its morning found and did.

    Parameters
    ----------
    label : str
    rows : int
    nats, log_loss : float
        A row: ln p of the whole row, and the loss of the target from what is known before it.
    parts : mapping of str to float
        The share of each node in `nats`, on complete rows; empty where there are none.
    flags : tuple of Flag
    events : tuple of Event
    """

    label: str
    rows: int
    nats: float
    log_loss: float
    parts: Mapping[str, float]
    flags: tuple[Flag, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """The same days in every way, and the minutes it took."""

    minutes: float
    ways: Mapping[str, tuple[Day, ...]]

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        ways = {name: [asdict(day) for day in days] for name, days in self.ways.items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"minutes": self.minutes, "ways": ways}, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Replay:
        """Read what :meth:`save` wrote."""
        fields = json.loads(path.read_text(encoding="utf-8"))
        return cls(fields["minutes"], {name: tuple(map(_day, days)) for name, days in fields["ways"].items()})


def _day(fields: Mapping[str, Any]) -> Day:
    flags = tuple(Flag(**flag) for flag in fields["flags"])
    events = tuple(Event(**{**event, "families": tuple(event["families"])}) for event in fields["events"])
    return Day(**{**fields, "flags": flags, "events": events})


@dataclass(frozen=True, slots=True)
class Spell:
    """Flags of one node with fewer than a week of looks between them."""

    node: str
    flags: tuple[tuple[str, Flag], ...]

    @property
    def gain(self) -> float | None:
        """Mean over its flags of what a refit would have gained on the days that followed."""
        known = [flag.gain for _, flag in self.flags if flag.gain is not None]
        return float(np.mean(known)) if known else None


def spells(days: Sequence[Day]) -> tuple[Spell, ...]:
    """Join flags to spells, in the order in which they began."""
    found: list[tuple[int, Spell]] = []
    for node in sorted({flag.node for day in days for flag in day.flags}):
        flagged = [(place, flag) for place, day in enumerate(days) for flag in day.flags if flag.node == node]
        starts = np.cumsum([0, *(np.diff([place for place, _ in flagged]) > _GAP)])
        for _, group in groupby(zip(starts, flagged, strict=True), key=lambda pair: pair[0]):
            members = [flag for _, flag in group]
            found.append((members[0][0], Spell(node, tuple((days[place].label, flag) for place, flag in members))))
    return tuple(spell for _, spell in sorted(found, key=lambda pair: pair[0]))


def mean(days: Sequence[Day], what: Literal["nats", "log_loss"]) -> float:
    """Give the mean over rows."""
    return float(np.average([getattr(day, what) for day in days], weights=[day.rows for day in days]))


def smoothed(new: Sequence[Day], old: Sequence[Day]) -> Floats:
    """Give the gain of nats a row over the last seven days, float64 (days,); fewer at the start."""
    rows = np.array([day.rows for day in new], dtype=np.float64)
    gains = np.array([one.nats - other.nats for one, other in zip(new, old, strict=True)]) * rows
    found = [
        gains[max(0, place - _SMOOTH + 1) : place + 1].sum() / rows[max(0, place - _SMOOTH + 1) : place + 1].sum()
        for place in range(len(new))
    ]
    return np.array(found)


def write(replay: Replay, page: Path = PAGE, figure: Path = FIGURE) -> None:
    """Draw the figure and write the tables between the page's marks."""
    figure.write_text(drawn(replay), encoding="utf-8")
    text = page.read_text(encoding="utf-8") if page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = "\n".join((_MARKS[0], *tables(replay), _MARKS[1]))
    page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, text, flags=re.DOTALL), encoding="utf-8")


def tables(replay: Replay) -> Iterator[str]:
    """Give the lines of the page's tables."""
    days = next(iter(replay.ways.values()))
    yield (
        f"{len(days)} days, {days[0].label} to {days[-1].label}, {sum(day.rows for day in days)} rows; the run took "
        f"{replay.minutes:.0f} minutes of a busy machine.\n"
    )
    yield from _totals(replay)
    yield from _months(replay)
    yield from _nodes(replay)
    yield from _detections(replay)
    yield from _decisions(replay)
    yield from _held(replay)


def _totals(replay: Replay) -> Iterator[str]:
    yield "**Totals.** Gains are over the champion that is never retrained.\n"
    yield from _head(
        "kept", "nats/row", "gain", "days better", "log-loss of late_arrival", "gain", "days better",
        "looks that flagged", "promoted", "held", "refits promoted / asked for", "relearned", "rolled back",
        "looks held", "looks that waited",
    )  # fmt: skip
    old = replay.ways["never"]
    for way in WAYS:
        days = replay.ways[way.name]
        counted = Counter((event.did, event.outcome) for day in days for event in day.events)
        asked = sum(count for (did, _), count in counted.items() if did == "refit")
        better = [sum(new.nats > day.nats for new, day in zip(days, old, strict=True)),
                  sum(new.log_loss < day.log_loss for new, day in zip(days, old, strict=True))]  # fmt: skip
        itself = way.name == "never"
        yield _line(
            way.name,
            f"{mean(days, 'nats'):.3f}",
            "" if itself else f"{mean(days, 'nats') - mean(old, 'nats'):+.3f}",
            "" if itself else str(better[0]),
            f"{mean(days, 'log_loss'):.4f}",
            "" if itself else f"{mean(old, 'log_loss') - mean(days, 'log_loss'):+.4f}",
            "" if itself else str(better[1]),
            str(sum(bool(day.flags) for day in days)) if way.looks else "–",
            str(counted["train", "promote"]) if way.retrains else "–",
            str(counted["train", "held"]) if way.retrains else "–",
            f"{counted['refit', 'promote']} / {asked}" if way.acts else "–",
            str(sum(count for (did, _), count in counted.items() if did == "relearn")) if way.acts else "–",
            str(counted["roll back", "done"]) if way.acts else "–",
            str(counted["hold", "nothing"]) if way.acts else "–",
            str(counted["wait", "nothing"]) if way.acts else "–",
        )
    yield ""


def _months(replay: Replay) -> Iterator[str]:
    yield "**By month.** Gains of nats/row, and of `late_arrival`'s log-loss, over the champion never retrained.\n"
    others = [way.name for way in WAYS[1:]]
    yield from _head("month", "never, nats/row", *others, "never, log-loss", *others)
    old = replay.ways["never"]
    for month in sorted({day.label[:7] for day in old}):
        kept = {name: [day for day in days if day.label[:7] == month] for name, days in replay.ways.items()}
        nats = {name: mean(days, "nats") for name, days in kept.items()}
        losses = {name: mean(days, "log_loss") for name, days in kept.items()}
        yield _line(
            month,
            f"{nats['never']:.3f}",
            *(f"{nats[name] - nats['never']:+.3f}" for name in others),
            f"{losses['never']:.4f}",
            *(f"{losses['never'] - losses[name]:+.4f}" for name in others),
        )
    yield ""


def _nodes(replay: Replay) -> Iterator[str]:
    yield (
        "**By node.** Gains of nats/row over the champion never retrained, of ln P(node given its parents) on complete "
        "rows: until October, and in November and December.\n"
    )
    others = [way.name for way in WAYS[1:]]
    yield from _head("node", *others, *(f"{name}, from November" for name in others))
    cells: dict[str, list[str]] = {}
    for late in (False, True):
        kept = {
            name: [day for day in days if (day.label >= _WINTER) == late and day.parts]
            for name, days in replay.ways.items()
        }
        weights = [day.rows for day in kept["never"]]
        for node in kept["never"][0].parts if weights else ():
            parts = {
                name: np.average([day.parts[node] for day in days], weights=weights) for name, days in kept.items()
            }
            cells.setdefault(node, []).extend(f"{round(parts[name] - parts['never'], 3) + 0.0:+.3f}" for name in others)
    for node, row in cells.items():
        yield _line(node, *row, *[""] * (2 * len(others) - len(row)))
    yield ""


def _detections(replay: Replay) -> Iterator[str]:
    yield (
        f"**What was flagged.** Flags of a node with no week of calm between them are one spell. Gain: nats/row of the "
        "champion with that family refitted on the week tested, over the champion, on the "
        f"{FOLLOWING} days that followed (mean over the spell's looks); above 0 it told of something that lasted.\n"
    )
    yield from _head(
        "champion kept", "node", "first look", "last", "looks", "least p", "effect", "since, at first", "gain"
    )
    for way in WAYS:
        for spell in spells(replay.ways[way.name]):
            flags = [flag for _, flag in spell.flags]
            yield _line(
                way.name,
                spell.node,
                spell.flags[0][0],
                spell.flags[-1][0],
                str(len(flags)),
                f"{min(flag.p for flag in flags):.4f}",
                f"{max(flag.effect for flag in flags):.3f}",
                flags[0].since or "",
                _gain(spell.gain),
            )
    yield ""


def _decisions(replay: Replay) -> Iterator[str]:
    yield (
        f"**What was done**, held trainings left out. Gain: nats/row of what was made over the champion it was judged "
        f"against, on the {FOLLOWING} days after its rows.\n"
    )
    yield from _head("champion kept", "morning of", "run", "outcome", "gain", "because")
    for way in WAYS:
        for day in replay.ways[way.name]:
            for event in day.events:
                if (event.did, event.outcome) == ("train", "promote") or event.did in ("refit", "relearn", "roll back"):
                    run = f"{event.did} {', '.join(event.families)}".strip()
                    yield _line(way.name, day.label, run, event.outcome, _gain(event.gain), event.reason.split("; ")[0])
    yield ""


def _held(replay: Replay) -> Iterator[str]:
    looks = [(day.label, event) for day in replay.ways["drift"] for event in day.events if event.did == "hold"]
    yield "**Looks that were held** as bad data, the same in every way" + (".\n" if looks else ": none.\n")
    if looks:
        yield from _head("morning of", "because")
        for label, event in looks:
            yield _line(label, event.reason.split(": ", maxsplit=1)[-1].split("; ")[0])
        yield ""
    yield "**Trainings that were held**, by the first verdict that was no pass.\n"
    yield from _head("champion kept", "held by", "nights", "better on the days that followed", "gain, mean")
    for way in WAYS:
        held: dict[str, list[float]] = {}
        for day in replay.ways[way.name]:
            for event in day.events:
                if event.did == "train" and event.outcome in ("held", "refused"):
                    gate = ": ".join(event.reason.split(": ")[:2]).split(",")[0]
                    held.setdefault(gate, []).append(np.nan if event.gain is None else event.gain)
        for gate, gains in held.items():
            known = [gain for gain in gains if not np.isnan(gain)]
            yield _line(
                way.name, gate, str(len(gains)), f"{sum(gain > 0 for gain in known)} of {len(known)}",
                _gain(float(np.mean(known)) if known else None),
            )  # fmt: skip


def _gain(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _head(*columns: str) -> Iterator[str]:
    yield _line(*columns)
    yield _line(*["---"] * len(columns))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def drawn(replay: Replay) -> str:
    """Draw detection, decisions and gains above one another, as SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "bnpipe", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(10, 8.5), layout="constrained")
        nodes = len({flag.node for days in replay.ways.values() for day in days for flag in day.flags})
        heights = [0.6 + 0.3 * max(nodes, 1), 1.6, 3.0]
        detection, decisions, gains = figure.subplots(3, 1, sharex=True, height_ratios=heights)
        _draw_detection(detection, replay)
        _draw_decisions(decisions, replay)
        _draw_gains(gains, replay)
        for axes in (detection, decisions, gains):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(visible=True, axis="x", alpha=0.3)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", written.getvalue(), flags=re.MULTILINE)


_LOOKS: Final = {"never": (0.25, "s", "0.0"), "drift": (0.0, "o", "0.45"), "both": (-0.25, "x", "0.3")}
_LINES: Final = {"nightly": ("-", "0.0", 1.6), "drift": ("--", "0.35", 1.4), "both": ("-", "0.6", 2.2)}
_RUNS: Final = (
    ("train", "promote", "^", "black", "trained, promoted"),
    ("train", "held", "|", "0.6", "trained, held"),
    ("refit", "promote", "D", "black", "refit, promoted"),
    ("refit", "held", "D", "white", "refit, held"),
    ("relearn", "promote", "P", "black", "relearned, promoted"),
    ("relearn", "held", "P", "white", "relearned, held"),
    ("roll back", "done", "v", "white", "rolled back"),
    ("wait", "nothing", ".", "0.4", "flagged, waiting"),
    ("hold", "nothing", "x", "0.0", "bad data, held"),
)


def _draw_detection(axes: Any, replay: Replay) -> None:
    first = {
        flag.node: day.label for days in replay.ways.values() for day in reversed(days) for flag in reversed(day.flags)
    }
    nodes = sorted(first, key=lambda node: (first[node], node), reverse=True)
    for name, (shift, marker, colour) in _LOOKS.items():
        marks = [
            (date.fromisoformat(day.label), nodes.index(flag.node) + shift)
            for day in replay.ways[name]
            for flag in day.flags
        ]
        label = {"never": "champion never retrained", "drift": "kept by drift", "both": "kept by both"}[name]
        axes.plot(*_columns(marks), linestyle="", marker=marker, markersize=2.5, color=colour, label=label)
    axes.set_yticks(range(len(nodes)), nodes)
    axes.set_ylim(-0.6, max(len(nodes), 1) - 0.4)
    axes.set_title("Distributions flagged by the look of each morning", loc="left", fontsize=10)
    axes.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.98), markerscale=2)


def _draw_decisions(axes: Any, replay: Replay) -> None:
    names = [way.name for way in reversed(WAYS) if way.retrains or way.acts]
    for did, outcome, marker, colour, label in _RUNS:
        marks = [
            (date.fromisoformat(day.label), place + (0.0 if did == "train" else -0.25))
            for place, name in enumerate(names)
            for day in replay.ways[name]
            if any((event.did, event.outcome) == (did, outcome) for event in day.events)
        ]
        if marks:
            edge = "black" if colour == "white" else colour
            axes.plot(*_columns(marks), linestyle="", marker=marker, markersize=5, color=colour, mec=edge, label=label)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_title("Decisions", loc="left", fontsize=10)
    axes.legend(
        frameon=False, ncols=8, loc="lower right", bbox_to_anchor=(1, 0.98), columnspacing=1.0, handletextpad=0.1
    )


def _draw_gains(axes: Any, replay: Replay) -> None:
    old = replay.ways["never"]
    dates = [date.fromisoformat(day.label) for day in old]
    axes.axhline(0.0, color="black", linewidth=0.6)
    for name, (style, colour, width) in _LINES.items():
        gains = smoothed(replay.ways[name], old)
        axes.plot(dates, gains, linestyle=style, color=colour, linewidth=width, label=name)
    axes.set_ylabel("nats/row over never retrained")
    axes.set_title("Held-out score of each day before it is learned from, mean of seven days", loc="left", fontsize=10)
    axes.legend(frameon=False, ncols=3, loc="upper left")


def _columns(marks: Sequence[tuple[date, float]]) -> tuple[list[date], list[float]]:
    return [day for day, _ in marks], [height for _, height in marks]
