"""Pictures and pages: well formed, legible, offline, whatever the names hold."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest

from bnpipe.evaluation import BaselineScores, CalibrationBin, Evaluation, TargetScores
from bnpipe.network import Network
from bnpipe.release import PromotionDecision
from bnpipe.report import calibration_figure, calibration_png, draw_network, network_png, training_report
from bnpipe.report.layout import GAP, Drawing, arrange, split_name, text_width
from bnpipe.schema import Schema, Variable
from bnpipe.verdict import Verdict

SVG = "{http://www.w3.org/2000/svg}"
EVIL = '<script>alert("&")</script>'
PARENTS = {
    "hour": (),
    "origin": (),
    "wind_speed_at_departure": ("hour",),
    "departure_delay": ("hour", "origin", "wind_speed_at_departure"),
    "late": ("departure_delay", "origin", "hour"),
}
TIERS = (("hour", "origin"), ("wind_speed_at_departure",), ("departure_delay",), ("late",))


def network(parents: dict[str, tuple[str, ...]] | None = None) -> Network:
    """A network of three uniform states a node."""
    graph = PARENTS if parents is None else parents
    schema = Schema(tuple(Variable(name, ("low", "high", "<odd>")) for name in graph))
    tables = {name: np.full([3] * (len(before) + 1), 1 / 3) for name, before in graph.items()}
    return Network(schema, graph, tables=tables)


def random_graph(nodes: int, most_parents: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Parents among the nodes before."""
    rng = np.random.default_rng(seed)
    names = [f"variable_{number}" for number in range(nodes)]
    return {
        name: tuple(rng.choice(names[:place], min(place, rng.integers(0, most_parents + 1)), replace=False).tolist())
        for place, name in enumerate(names)
    }


EVALUATION = Evaluation(
    rows=1000,
    clusters=14,
    independent_rows=False,
    training_rows=90000,
    held_out_nats=-5.0,
    training_nats=-4.9,
    held_out_interval=(-5.1, -4.9),
    overfit=0.1,
    impossible_rows=10,
    unseen_rows=2,
    other_rows=3,
    targets=(
        TargetScores(
            name="late",
            evidence=("hour",),
            rows=990,
            missing_rows=10,
            impossible_rows=4,
            log_loss=0.4321,
            log_loss_interval=(0.41, 0.45),
            brier=0.1234,
            roc_auc=None,
            calibration=(
                CalibrationBin("yes", 0.04, 0.05, 0.02, 0.09, 500),
                CalibrationBin("yes", 0.31, 0.28, 0.2, 0.4, 490),
            ),
            expected_calibration_error=0.02,
            calibration_error_interval=(0.0, 0.03),
            note="no ROC-AUC: only 'no' came",
        ),
    ),
    baselines=(BaselineScores("marginal", "late", 0.5, 0.2, 0.5, -0.0679, (-0.09, -0.05)),),
)


def overlaps(drawing: Drawing) -> list[tuple[str, str]]:
    """Boxes that touch."""
    return [
        (a.name, b.name)
        for a, b in itertools.combinations(drawing.boxes, 2)
        if abs(a.x - b.x) < (a.width + b.width) / 2 and abs(a.y - b.y) < (a.height + b.height) / 2
    ]


@pytest.mark.parametrize("seed", range(4))
def test_boxes_keep_apart_and_arcs_go_down(seed: int) -> None:
    """Random graphs of 18 nodes: no overlap, children below parents, everything on the sheet."""
    graph = random_graph(18, 3, seed)
    drawing = arrange(graph)
    box = {box.name: box for box in drawing.boxes}
    assert not overlaps(drawing)
    assert {route.arc for route in drawing.routes} == {(p, child) for child in graph for p in graph[child]}
    for child, parents in graph.items():
        assert all(box[parent].layer < box[child].layer for parent in parents)
    for route in drawing.routes:
        ys = [y for _, y, _ in route.points]
        assert ys == sorted(ys)
        assert abs(route.points[0][0] - box[route.arc[0]].x) <= box[route.arc[0]].width / 2
        assert abs(route.points[-1][0] - box[route.arc[1]].x) <= box[route.arc[1]].width / 2
    for item in drawing.boxes:
        assert item.width / 2 <= item.x <= drawing.width - item.width / 2
        assert item.height / 2 <= item.y <= drawing.height - item.height / 2


def test_arcs_pass_beside_boxes() -> None:
    """Where a long arc passes a layer it stays clear of the layer's boxes."""
    drawing = arrange(random_graph(18, 3, 7))
    for route in drawing.routes:
        for (x, top, _), (x_below, bottom, _) in zip(route.points[1:-1:2], route.points[2:-1:2], strict=True):
            for box in drawing.boxes:
                if abs(box.y - (top + bottom) / 2) < 1:
                    nearest = min(abs(x - box.x), abs(x_below - box.x))
                    assert nearest > box.width / 2 + GAP / 2 - 5


def test_tiers_become_bands_one_below_the_other() -> None:
    """Each variable lies in its tier's band; bands do not overlap."""
    drawing = arrange(PARENTS, TIERS)
    box = {box.name: box for box in drawing.boxes}
    assert [band.tier for band in drawing.bands] == [1, 2, 3, 4]
    for band, tier in zip(drawing.bands, TIERS, strict=True):
        assert all(band.top < box[name].y < band.bottom for name in tier)
    for above, below in itertools.pairwise(drawing.bands):
        assert above.bottom <= below.top


def test_tiers_that_arcs_contradict_are_left_out() -> None:
    """A drawing is never refused; nor for names the graph does not have."""
    assert arrange(PARENTS, (("late",), ("hour",))).bands == ()
    assert len(arrange(PARENTS, (("hour", "stranger"), ("late",))).bands) == 2


def test_small_graphs_can_be_drawn() -> None:
    """One node, nodes without arcs."""
    assert len(arrange({"a": ()}).boxes) == 1
    lonely = arrange({"a": (), "b": (), "c": ()})
    assert not overlaps(lonely)
    assert len({box.y for box in lonely.boxes}) == 1


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("hour", ("hour",)),
        ("departure_delay", ("departure_", "delay")),
        ("destinationGroup", ("destination", "Group")),
        ("a" * 60, ("a" * 26, "a" * 26, "a" * 8)),
    ],
)
def test_long_names_are_broken(name: str, lines: tuple[str, ...]) -> None:
    """At underscores and capitals, else anywhere; very long ones end in an ellipsis."""
    assert split_name(name) == lines
    assert split_name("x" * 200)[-1].endswith("…")
    assert text_width("WWW") > text_width("xxx") > text_width("iii")


def test_the_network_is_well_formed_svg() -> None:
    """A box a node, a path an arc, the target bold, strength as width; names are escaped."""
    strength = dict.fromkeys(network().arcs, 0.5) | {("hour", "late"): 1.0, ("origin", "late"): 0.0}
    root = ET.fromstring(draw_network(network(), tiers=TIERS, strength=strength, targets=["late"]))
    titles = {group.findtext(f"{SVG}title"): group for group in root.iter(f"{SVG}g")}
    assert len(titles) == len(PARENTS) + len(network().arcs)
    bold = [group for group in titles.values() if group.get("font-weight") == "bold"]
    assert ["".join(text.text or "" for text in group.iter(f"{SVG}text")) for group in bold] == ["late"]

    def width(arc: str) -> float:
        found = next(group for title, group in titles.items() if title and title.startswith(arc)).find(f"{SVG}path")
        assert found is not None
        return float(found.get("stroke-width", "0"))

    assert width("hour → late") > width("hour → departure_delay") > width("origin → late")
    assert any("states: low, high, <odd>" in (title or "") for title in titles)
    assert EVIL not in draw_network({EVIL: (), "b": (EVIL,)}, targets=[EVIL])
    ET.fromstring(draw_network({EVIL: (), "b": (EVIL,)}))


def test_parents_alone_are_enough_to_draw() -> None:
    """A learned graph without CPDs; nodes only named as parents are drawn too."""
    svg = draw_network({"b": ("a",)})
    assert "2 nodes, 1 arcs" in svg
    assert network_png({"b": ["a"]}).startswith(b"\x89PNG")


def test_drawing_is_the_same_twice() -> None:
    """The same network, the same bytes."""
    assert draw_network(network(), tiers=TIERS) == draw_network(network(), tiers=TIERS)


def test_png_has_the_size_of_the_drawing() -> None:
    """Twice as many pixels as px; odd names are text, not formulas."""
    graph = {"$a_1$": (), "b": ("$a_1$",)}
    png = network_png(network(graph), targets=["b"], strength={("$a_1$", "b"): 1.0})
    width, height = int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
    drawing = arrange(graph)
    assert (width, height) == (pytest.approx(2 * drawing.width, abs=1), pytest.approx(2 * drawing.height, abs=1))


def test_calibration_shows_every_bin() -> None:
    """A point and an interval a bin; axes end where the data do."""
    root = ET.fromstring(calibration_figure(EVALUATION))
    assert len(list(root.iter(f"{SVG}circle"))) == 2
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "P(late = yes)" in texts
    assert "0.4" in texts
    assert "1" not in texts
    assert calibration_png(EVALUATION).startswith(b"\x89PNG")


def test_nothing_to_calibrate_is_a_picture_too() -> None:
    """No target, or none with rows."""
    empty = Evaluation(0, 0, True, 0, None, None, None, None, 0, 0, 0, (), ())
    assert "nothing to calibrate on" in calibration_figure(empty)
    ET.fromstring(calibration_figure(empty))
    assert calibration_png(empty).startswith(b"\x89PNG")


class Page(HTMLParser):
    """Collects tags, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and what it points to."""
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in {"src", "href", "xlink:href"}]

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.words += data


def page(**changes: object) -> str:
    """The page of one training."""
    verdicts = (
        Verdict("max_overfit", "pass", "within"),
        Verdict("challenger", "undecided", "about 20 clusters would decide", kind="relative"),
    )
    fields: dict[str, object] = {
        "name": "flights",
        "network": network(),
        "evaluation": EVALUATION,
        "verdicts": verdicts,
        "decision": PromotionDecision("held", "challenger: undecided", verdicts),
        "tiers": TIERS,
        "windows": [("training", "2013-03-01 to 2013-05-30")],
        "audit": ["every constraint is kept"],
        "validation": ["wind: 3 % missing"],
        "seconds": {"learn": 2.0, "fit": 0.5},
        "provenance": [("snapshot", "9f9f")],
        "notes": ["Parameters assume that cells are missing at random."],
    }
    return training_report(**{**fields, **changes})  # type: ignore[arg-type]


def test_the_report_tells_the_whole_training() -> None:
    """Outcome, graph, scores beside baselines, calibration, gates, windows, audit, seconds, provenance."""
    words = Page(page()).words
    for expected in (
        "held",
        "challenger: undecided",
        "0.4321 [0.4100, 0.4500]",
        "-0.0679 [-0.0900, -0.0500]",
        "no ROC-AUC: only 'no' came",
        "about 20 clusters would decide",
        "2013-03-01 to 2013-05-30",
        "every constraint is kept",
        "wind: 3 % missing",
        "2.0 s",
        "9f9f",
        "missing at random",
        "P(late = yes)",
        "departure_",
    ):
        assert expected in words


def test_the_report_opens_offline() -> None:
    """No script, no link, nothing loaded from anywhere."""
    text = page()
    parsed = Page(text)
    assert not {"script", "link", "iframe", "img"} & set(parsed.tags)
    assert parsed.references == []
    assert set(re.findall(r"https?://[^\s\"'<]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in text
    assert "@import" not in text


def test_the_report_escapes_whatever_it_is_given() -> None:
    """Names, reasons and values are text, never markup."""
    graph = {EVIL: (), "late": (EVIL,)}
    text = page(
        name=EVIL,
        network=network(graph),
        tiers=(),
        verdicts=(Verdict(EVIL, "fail", EVIL),),
        decision=None,
        provenance=[(EVIL, EVIL)],
        notes=[EVIL],
        audit=[EVIL],
        seconds={EVIL: 1.0},
    )
    assert "<script" not in text
    assert EVIL in Page(text).words


def test_bands_are_explained_where_they_are_drawn() -> None:
    """Tiers that arcs contradict, or a mere order of single nodes, are not drawn and not spoken of."""
    chain = random_graph(9, 2, seed=1)
    assert "Bands are tiers" in page()
    assert "Bands are tiers" not in page(tiers=TIERS[::-1])
    assert "Bands are tiers" not in page(network=network(chain), tiers=[(name,) for name in chain])


def test_a_training_that_ended_early_has_a_page() -> None:
    """Only a graph: no scores, no gates, no steps."""
    text = training_report(name="flights", network=network())
    assert "none yet" in Page(text).words
    assert "Scores on held-out rows" not in text
