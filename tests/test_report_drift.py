"""The page of a look for drift: it says what was found and decided, and opens offline."""

from __future__ import annotations

import json
import re
import socket
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import bnpipe
from bnpipe.data import Dataset
from bnpipe.drift import AddedArc, DriftReport, NodeDrift, RowDrift, VariableDrift
from bnpipe.errors import DataError
from bnpipe.release import DriftDecision
from bnpipe.report import drift_report, evidently_html
from bnpipe.report.changes import history_figure, row_figure
from bnpipe.schema import MISSING, Schema, Variable
from bnpipe.verdict import Verdict

EVIL = '<script>alert("&")</script>'
SVG = "{http://www.w3.org/2000/svg}"
PARENTS: dict[str, tuple[str, ...]] = {"hour": (), "wind": ("hour",), "delay": ("hour", "wind"), "late": ("delay",)}

ROW = RowDrift(
    {"hour": "evening", "wind": "high"}, 0.123, 456, 7890, 0.002, 0.271, (0.224, 0.351), (0.7, 0.3), (0.41, 0.59), True
)
CALM_ROW = replace(ROW, configuration={"hour": "noon", "wind": "low"}, p=0.8, effect=0.011, changed=False)
HISTORY = tuple((f"2013-05-{day:02d}", 10.0 + day % 5) for day in range(1, 31))
DELAY = NodeDrift(
    "delay",
    known=True,
    p=0.001,
    own_p=0.001,
    effect=0.271,
    flagged=True,
    share=0.0345,
    rows=4567,
    clusters=7,
    inflation=1.42,
    smallest_shift=0.043,
    states=("on time", "late"),
    changed_rows=(ROW, CALM_ROW),
    change_point="2013-06-24",
    history=(*HISTORY, ("2013-06-28", 61.5)),
    threshold=23.4,
)
HOUR = NodeDrift("hour", known=True, p=0.7, effect=0.01, share=-0.0001, rows=4600, clusters=7, threshold=23.4)
WIND = NodeDrift("wind", known=True, p=0.42, effect=0.012, share=0.002, rows=4600, clusters=7, threshold=23.4)
LATE = NodeDrift(
    "late", known=False, reason="2 live clusters with rows of this family; 3 are needed", rows=99, clusters=2
)


def found(*nodes: NodeDrift, **changes: Any) -> DriftReport:
    """A report of some nodes."""
    report = DriftReport(
        nodes={node.name: node for node in nodes or (HOUR, WIND, DELAY, LATE)},
        variables={name: VariableDrift(name, 0.111, 0.0, 0.0321, 0.0, 0.0044) for name in PARENTS},
        level=0.0014,
        min_effect=0.02,
        independent_rows=False,
        reference_clusters=90,
        live_clusters=7,
        live_rows=4700,
        first_cluster="2013-06-22",
        last_cluster="2013-06-28",
        replays=1999,
        seed=0,
        network="abc",
        added_arcs=(AddedArc("hour", "late", 0.0123, (0.004, 0.02), 0.003),),
    )
    return replace(report, **changes)


REFIT = DriftDecision("refit", False, "delay changed by 0.271.", families=("delay",), since="2013-06-24", alert=True)
NOTHING = DriftDecision("nothing", False, "No CPD changed.")


class Page(HTMLParser):
    """Collects tags, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Note the text; cells are told apart by a blank."""
        if self.tags and self.tags[-1][0] != "style":
            self.words += f" {data}"


def page(report: DriftReport | None = None, decision: DriftDecision = REFIT, **changes: Any) -> str:
    """The page of one look."""
    fields: dict[str, Any] = {"parents": PARENTS, "targets": ("late",)}
    return drift_report(model="flights", version=7, report=report, decision=decision, **{**fields, **changes})


def look(text: str, name: str) -> tuple[str, float, str]:
    """Give fill, width of the edge and hover text of one node of the drawing."""
    drawing = ET.fromstring(re.search(r"<svg.*?</svg>", text, re.DOTALL)[0])  # type: ignore[index]
    for group in drawing.iter(f"{SVG}g"):
        told = group.findtext(f"{SVG}title") or ""
        box = group.find(f"{SVG}rect")
        if box is not None and told.split("\n")[0].removesuffix(" (target)") == name:
            return box.get("fill", ""), float(box.get("stroke-width", "0")), told
    raise AssertionError(name)


def darkness(colour: str) -> float:
    """Of a colour printed in grey, 0 white to 1 black."""
    red, green, blue = bytes.fromhex(colour[1:])
    return 1 - (0.299 * red + 0.587 * green + 0.114 * blue) / 255


def test_a_change_is_told_whole() -> None:
    """Decision, numbers, rows before and now, date, past, marginals, arcs and verdicts of a flagged node."""
    critical = Verdict("rows", "pass", "4700 rows")
    text = page(
        found(), validation=(critical,), subtitle="22 to 28 June", decision=replace(REFIT, verdicts=(critical,))
    )
    words = Page(text).words
    for expected in (
        "flights: drift against version 7",
        "22 to 28 June",
        "↻ refit delay",
        "delay changed by 0.271.",
        "every other family stays as it is",
        "1 of 4",
        "p 0.001, effect 0.271, 0.0345 nats/row. Half of the change had happened by 2013-06-24. One row changed.",
        "hour=evening, wind=high",
        "12.3%",
        "[0.224, 0.351]",
        "hour=noon, wind=low",
        "now: 61.5",
        "unusual from here: 23.4",
        "2013-05-01",
        "1.42",
        "0.043",
        "0.111",
        "3.21%",
        "0.44%",
        "hour → late",
        "+0.0123 [+0.0040, +0.0200]",
        "4700 rows",
    ):
        assert expected in words
    assert words.count("4700 rows") == 1
    assert words.index("refit delay") < words.index("The network") < words.index("What changed")


def test_the_colour_is_the_nodes_own_change() -> None:
    """Flagged dark with a strong edge, calm pale also below a parent that moved, unknown hatched; in grey, too."""
    text = page(found(replace(HOUR, flagged=True, share=0.01, p=0.001), WIND, DELAY, LATE))
    fills = {name: look(text, name)[0] for name in PARENTS}
    assert darkness(fills["delay"]) > darkness(fills["hour"]) > darkness(fills["wind"]) + 0.15
    assert darkness(fills["wind"]) < 0.1
    assert fills["late"] == "url(#hatched)"
    assert look(text, "hour")[1] > 2 > look(text, "wind")[1]
    assert "CPD unchanged: p 0.42" in look(text, "wind")[2]
    assert "unknown: 2 live clusters" in look(text, "late")[2]
    words = Page(text).words
    assert "its CPD changed; the darker, the more it costs (most: 0.0345 nats/row)" in words
    assert "bold: a target" in words


def test_unknown_is_never_calm() -> None:
    """The reason stands in the table, p and effect do not, and the top says how many are unknown."""
    words = Page(page(found(HOUR, WIND, LATE), NOTHING)).words
    assert "1 of 3 nodes are unknown, which is not calm" in words
    assert "late ? unknown – – – 99 2 – – 2 live clusters with rows of this family; 3 are needed" in words


def test_a_calm_look_says_so() -> None:
    """No section of changes, nothing to do."""
    text = page(found(HOUR, WIND), NOTHING, parents={"hour": (), "wind": ("hour",)})
    words = Page(text).words
    assert "= calm No CPD changed. Nothing needs to be done." in words
    assert "What changed" not in words
    assert words.count("unknown") == words.count("0 unknown") == 1
    assert "url(#hatched)" not in text


def test_a_change_that_was_let_pass_is_no_calm() -> None:
    """Cooling down: flagged, nothing done."""
    words = Page(page(found(), replace(NOTHING, reason="Cooling down for 3 days.", alert=True))).words
    assert "▲ changed, nothing done Cooling down for 3 days. The next look decides anew." in words


def test_bad_data_have_a_page_without_numbers() -> None:
    """Held and not compared: every node hatched, what failed is named, nothing is called calm."""
    broken = Verdict("temperature", "fail", "mean 71 is above 45")
    hold = DriftDecision("hold", False, "temperature: fail.", alert=True, verdicts=(broken,))
    text = page(None, hold, validation=(broken,))
    words = Page(text).words
    assert "✗ hold temperature: fail. These rows are not learned." in words
    assert words.count("mean 71 is above 45") == 1
    assert "All nodes" not in words
    assert "calm" not in words
    assert {look(text, name)[0] for name in PARENTS} == {"url(#hatched)"}


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (replace(REFIT, advised_only=True), "advised: refit delay"),
        (replace(REFIT, advised_only=True), "name the families to refit on rows since 2013-06-24: delay"),
        (DriftDecision("roll back", True, "worse", to=5), "bnpipe rollback flights --to 5 --reason"),
        (DriftDecision("roll back", False, "worse", to=5), "↩ roll back to version 5 worse Version 7 is barred"),
        (DriftDecision("relearn", True, "arc"), "To follow the advice: start bn_train__flights."),
        (DriftDecision("relearn", False, "arc"), "bn_train__flights learns. What it makes must pass the gates"),
    ],
)
def test_every_decision_says_what_comes_next(decision: DriftDecision, expected: str) -> None:
    """Advice names the command, an action what it did and how to undo or stop it."""
    words = Page(page(found(), decision)).words
    assert expected in words
    assert ("Nothing was done" in words) == decision.advised_only
    assert ("bnpipe freeze flights" in words) != decision.advised_only


def test_rows_taken_as_independent_are_told() -> None:
    """No clusters: said on top, and no number of clusters anywhere."""
    report = found(replace(DELAY, clusters=0, history=(), change_point=None), independent_rows=True, live_clusters=0)
    words = Page(page(report)).words
    assert "rows are taken as independent, and p may be too small" in words
    assert "reference clusters" not in words
    assert "There are no past windows to show." in words


def test_the_page_opens_offline() -> None:
    """No script, nothing loaded from anywhere; links are followed by people only."""
    text = page(found(), links={"MLflow": "http://mlflow/#/1", "Evidently": "evidently.html"})
    tags = Page(text).tags
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in tags}
    assert [fields["href"] for tag, fields in tags if tag == "a"] == ["http://mlflow/#/1", "evidently.html"]
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg", "http://mlflow/#/1"}
    assert set(re.findall(r"url\([^)]*\)", text)) == {"url(#hatched)"}
    assert "@import" not in text


def test_evidently_stands_beside_or_behind_a_link() -> None:
    """Its page is put into a sandbox, unless there is a link to it; either way it is not acted upon."""
    inside = Page(page(found(), evidently="<p id='its'>all</p>"))
    frame = next(fields for tag, fields in inside.tags if tag == "iframe")
    assert frame["srcdoc"] == "<p id='its'>all</p>"
    assert frame["sandbox"] == "allow-scripts"
    assert "Nothing is acted upon here" in inside.words
    linked = Page(page(found(), evidently="<p>all</p>", links={"Evidently": "e.html"}))
    assert not [tag for tag, _ in linked.tags if tag == "iframe"]
    assert "Nothing is acted upon here" in linked.words
    assert "Evidently" not in Page(page(found())).words


def test_the_page_escapes_whatever_it_is_given() -> None:
    """Names, states, labels, reasons and links are text, never markup; a link never runs a script."""
    row = replace(ROW, configuration={EVIL: EVIL})
    node = replace(
        DELAY, name=EVIL, states=(EVIL, "b"), changed_rows=(row,), change_point=EVIL, history=((EVIL, 1.0),) * 3
    )
    report = found(
        node,
        replace(LATE, reason=EVIL),
        variables={EVIL: VariableDrift(EVIL, 0.1, 0.0, 0.0, 0.0, 0.0)},
        added_arcs=(AddedArc(EVIL, EVIL, 0.1, (0.0, 0.2), 0.1),),
        first_cluster=EVIL,
    )
    text = drift_report(
        model=EVIL,
        version=1,
        report=report,
        parents={EVIL: (), "late": (EVIL,)},
        decision=DriftDecision(
            "refit", False, EVIL, families=(EVIL,), since=EVIL, verdicts=(Verdict(EVIL, "fail", EVIL),)
        ),
        validation=(Verdict(EVIL, "pass", EVIL),),
        targets=(EVIL,),
        evidently=EVIL,
        subtitle=EVIL,
        links={EVIL: "javascript:alert(1)"},
    )
    assert "<script" not in text
    parsed = Page(text)
    assert EVIL in parsed.words
    assert not [fields for tag, fields in parsed.tags if tag == "a"]


def test_figures_show_the_reports_numbers() -> None:
    """A bar a state before and now, in proportion; the states that moved most of many; a point a past window."""
    root = ET.fromstring(row_figure(ROW, DELAY.states))
    bars = [float(bar.get("width", "0")) for bar in root.iter(f"{SVG}rect")][1:]
    assert np.allclose(np.array(bars) / bars[0], np.array([0.7, 0.41, 0.3, 0.59]) / 0.7, atol=0.01)
    many = replace(ROW, before=(0.1,) * 10, now=(0.1,) * 7 + (0.0, 0.2, 0.1))
    texts = [text.text for text in ET.fromstring(row_figure(many, tuple("abcdefghij"))).iter(f"{SVG}text")]
    assert {"h", "i"} <= set(texts)
    assert "j" not in texts
    past = ET.fromstring(history_figure(DELAY))
    assert len(list(past.iter(f"{SVG}circle"))) == len(HISTORY)
    assert history_figure(replace(DELAY, history=HISTORY[:1])) == ""
    ET.fromstring(history_figure(replace(DELAY, history=(("a", 0.0), ("b", float("inf"))), threshold=0.0)))


def test_a_real_look_becomes_a_page() -> None:
    """What `compare_cpds` finds can be drawn: the flipped CPD is named with its rows, its parent is not."""
    reference, live = rows(40, 0.2), rows(7, 0.7, seed=1)
    network = bnpipe.fit(reference, {"rain": (), "wet": ("rain",)})
    report = bnpipe.compare_cpds(network, live, level=0.05, seed=0)
    assert report.flagged == ("wet",)
    text = page(report, parents=dict(network.parents), targets=())
    words = Page(text).words
    assert "rain=no" in words
    assert f"now: {report.nodes['wet'].history[-1][1]:.3g}" in words
    assert look(text, "rain")[1] < 2 < look(text, "wet")[1]


STATES = ("no", "</script><b>")


def rows(days: int, wet: float, seed: int = 0) -> Dataset:
    """Days of 60 rows; `wet` is P(wet = second state | no rain); `silent` has no values."""
    rng = np.random.default_rng(seed)
    rain = rng.random(60 * days) < 0.4
    codes = np.stack([rain, rng.random(rain.size) < np.where(rain, 0.5, wet)]).astype(np.uint8)
    schema = Schema((Variable("rain", ("no", "yes")), Variable("wet", STATES)))
    return Dataset(
        schema, codes, np.repeat(np.arange(days), 60).astype(np.int32), tuple(f"{day:03d}" for day in range(days))
    )


def test_evidently_shows_our_metric_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its page holds our effects, names states as data only, forbids every load; making it connects to nothing."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    reference, live = rows(20, 0.2), rows(7, 0.7, seed=1)
    text = evidently_html(reference, live, found())
    data = re.search(r"var metric_\w+ = (.*);\n", text)
    assert data is not None
    assert "</script><b>" not in text
    widgets = json.dumps(json.loads(data[1]))
    assert "bnpipe: change of each conditional distribution" in widgets
    assert '["delay", "CHANGED", "0.001", "0.271", "0.0345"]' in widgets
    assert "Drift Score" in widgets or "drift_score" in widgets
    assert "default-src 'none'" in text[: text.index("<style>")]
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", text[: text.index("var global")])


def test_evidently_leaves_silent_columns_out() -> None:
    """A column without a live value is no crash; without any there is nothing to draw."""
    reference, live = rows(5, 0.2), rows(3, 0.2)
    silent = live.codes.copy()
    silent[1] = MISSING
    half = Dataset(live.schema, silent, live.clusters, live.cluster_labels)
    assert "rain" in evidently_html(reference, half, found())
    with pytest.raises(DataError, match="nothing to draw"):
        evidently_html(reference, Dataset(live.schema, np.full_like(silent, MISSING)), found())
