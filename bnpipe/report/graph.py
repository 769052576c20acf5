"""The network drawn: SVG for pages and READMEs, PNG for MLflow, both from one layout."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from bnpipe.errors import shorten
from bnpipe.network import Network
from bnpipe.report.layout import Arc, Band, Box, Drawing, Node, Route, arrange

Graph = Mapping[str, Sequence[str]]
Point = tuple[float, float]

# Okabe & Ito 2008, Color Universal Design: told apart with any colour vision, and by weight in black and white.
INK, ARROW = "#1f2933", "#3d5a80"
NODE_FILL, NODE_EDGE = "#eaf3fa", "#0072b2"
TARGET_FILL, TARGET_EDGE = "#fde3c8", "#d55e00"
BAND_FILLS, BAND_INK = ("#f6f7f9", "#ffffff"), "#7b8794"
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
HEAD = 8.0
HATCHED = "url(#hatched)"
_HATCHING = (
    '<defs><pattern id="hatched" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#ffffff"/><path d="M0 0V7" stroke="#b6bfc9" stroke-width="3.4"/></pattern></defs>'
)


@dataclass(frozen=True, slots=True)
class NodeLook:
    """How a node is drawn.

    Parameters
    ----------
    fill, edge, ink : str
        Colours; `fill` may be `HATCHED`.
    width : float
        Of the edge, px.
    told : str
        On hovering, below the name.
    """

    fill: str = NODE_FILL
    edge: str = NODE_EDGE
    ink: str = INK
    width: float = 1.3
    told: str = ""


_TARGET = NodeLook(TARGET_FILL, TARGET_EDGE, width=2.0)


def draw_network(
    network: Network | Graph,
    *,
    tiers: Sequence[Sequence[str]] = (),
    strength: Mapping[Arc, float] | None = None,
    targets: Sequence[str] = (),
    looks: Mapping[str, NodeLook] | None = None,
) -> str:
    """Draw a network as SVG.

    Parameters
    ----------
    network : Network or mapping of str to sequence of str
        Or only the parents of every node. States are told on hovering.
    tiers : sequence of sequence of str
        Shown as bands, earlier ones above; left out where arcs contradict them.
    strength : mapping of (parent, child) to float, optional
        Share of bootstraps that found the arc, 0 to 1: the width of its line.
    targets : sequence of str
        Drawn in another colour and bold.
    looks : mapping of str to NodeLook, optional
        Of each node; targets are then told by bold names alone.

    Returns
    -------
    str
        One ``<svg>`` element on white, legible on light and dark pages, without scripts or outside references.
    """
    parents = _parents(network)
    drawing = arrange(parents, tiers)
    width, height = round(drawing.width), round(drawing.height)
    words = f"{len(drawing.boxes)} nodes, {len(drawing.routes)} arcs"
    label = quoteattr(f"Bayesian network: {words}")
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    given = network if isinstance(network, Network) else parents
    shown = {name: _TARGET if name in targets else NodeLook() for name in parents} | dict(looks or {})
    hatched = any(look.fill == HATCHED for look in shown.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={label} font-family="{FONT}">',
        f"<title>{words}</title>{_HATCHING if hatched else ''}",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        *_bands(drawing),
        *(_arrow(route, _share(strength, route.arc)) for route in drawing.routes),
        *(_node(box, given, shown[box.name], target=box.name in targets) for box in drawing.boxes),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _parents(network: Network | Graph) -> Graph:
    """Give the parents of every node, also of those only named as a parent."""
    if isinstance(network, Network):
        return network.parents
    named = dict.fromkeys(parent for parents in network.values() for parent in parents)
    return {**{name: () for name in named if name not in network}, **network}


def _bands(drawing: Drawing) -> Iterator[str]:
    for band in drawing.bands:
        yield (
            f'<rect x="4" y="{band.top:.1f}" width="{drawing.width - 8:.1f}" height="{band.bottom - band.top:.1f}" '
            f'rx="6" fill="{_band_fill(band)}"/>'
            f'<text x="12" y="{band.top + 15:.1f}" font-size="11" fill="{BAND_INK}">{_band_name(band)}</text>'
        )


def _band_fill(band: Band) -> str:
    return BAND_FILLS[(band.tier - 1) % 2]


def _band_name(band: Band) -> str:
    return f"tier {band.tier}"


def _share(strength: Mapping[Arc, float] | None, arc: Arc) -> float | None:
    return None if strength is None else float(strength.get(arc, 0.0))


def _line_width(share: float | None) -> float:
    return 1.5 if share is None else 0.7 + 3.0 * share


def _curves(points: Sequence[Node]) -> Iterator[tuple[Point, Point, Point]]:
    """Give the control points of one cubic Bézier curve for each piece; pieces join smoothly."""
    for (x0, y0, slope0), (x1, y1, slope1) in itertools.pairwise(points):
        reach = (y1 - y0) * (0.5 if slope0 == 0 or slope1 == 0 else 1 / 3)
        yield (x0 + slope0 * reach, y0 + reach), (x1 - slope1 * reach, y1 - reach), (x1, y1)


def _shaft(route: Route) -> tuple[Node, ...]:
    """Give the points of an arc without the room its head takes."""
    x, y, slope = route.points[-1]
    return (*route.points[:-1], (x, y - HEAD + 1, slope))


def _head(route: Route) -> tuple[Point, Point, Point]:
    x, y, _ = route.points[-1]
    return (x, y), (x - HEAD / 2, y - HEAD), (x + HEAD / 2, y - HEAD)


def _arrow(route: Route, share: float | None) -> str:
    points = _shaft(route)
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(
        f"C{a[0]:.1f} {a[1]:.1f} {b[0]:.1f} {b[1]:.1f} {c[0]:.1f} {c[1]:.1f}" for a, b, c in _curves(points)
    )
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(route))
    told = escape(f"{route.arc[0]} → {route.arc[1]}" + ("" if share is None else f", in {share:.0%} of bootstraps"))
    return (
        f'<g><title>{told}</title><path d="{path}" fill="none" stroke="{ARROW}" stroke-opacity="0.8" '
        f'stroke-width="{_line_width(share):.2f}"/><polygon points="{head}" fill="{ARROW}"/></g>'
    )


def _states(network: Network | Graph, name: str) -> str:
    if not isinstance(network, Network):
        return ""
    return f"\nstates: {shorten(network.schema[name].states, limit=12)}"


def _node(box: Box, network: Network | Graph, look: NodeLook, *, target: bool) -> str:
    parents = ", ".join(_parents(network)[box.name]) or "none"
    about = f"{box.name}{' (target)' if target else ''}{_states(network, box.name)}"
    told = escape("\n".join([about, *([look.told] if look.told else []), f"parents: {parents}"]))
    lines = "".join(f'<text x="{box.x:.1f}" y="{y:.1f}">{escape(line)}</text>' for line, y in _baselines(box))
    weight = ' font-weight="bold"' if target else ""
    return (
        f'<g font-size="13" text-anchor="middle" fill="{look.ink}"{weight}><title>{told}</title>'
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="8" fill="{look.fill}" stroke="{look.edge}" stroke-width="{look.width:g}"/>'
        f"{lines}</g>"
    )


def _baselines(box: Box) -> Iterator[tuple[str, float]]:
    first = box.y - 8.0 * (len(box.lines) - 1) + 4.5
    return ((line, first + 16.0 * number) for number, line in enumerate(box.lines))


def network_png(
    network: Network | Graph,
    *,
    tiers: Sequence[Sequence[str]] = (),
    strength: Mapping[Arc, float] | None = None,
    targets: Sequence[str] = (),
    scale: float = 2.0,
) -> bytes:
    """Draw a network as PNG; parameters as of :func:`draw_network`, `scale` image pixels a px."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path

    drawing = arrange(_parents(network), tiers)
    figure = Figure(figsize=(drawing.width / 72, drawing.height / 72), dpi=72 * scale, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, drawing.width), ylim=(drawing.height, 0))
    axes.axis("off")
    for band in drawing.bands:
        axes.axhspan(band.top, band.bottom, color=_band_fill(band), linewidth=0)
        axes.text(12, band.top + 15, _band_name(band), fontsize=11, color=BAND_INK)
    for route in drawing.routes:
        points = _shaft(route)
        vertices = [points[0][:2], *(point for curve in _curves(points) for point in curve)]
        codes = [Path.MOVETO, *[Path.CURVE4] * (len(vertices) - 1)]
        width = _line_width(_share(strength, route.arc))
        axes.add_patch(PathPatch(Path(vertices, codes), facecolor="none", edgecolor=ARROW, linewidth=width, alpha=0.8))
        axes.add_patch(Polygon(_head(route), closed=True, facecolor=ARROW, linewidth=0))
    for box in drawing.boxes:
        target = box.name in targets
        corner = (box.x - box.width / 2 + 8, box.y - box.height / 2 + 8)
        axes.add_patch(
            FancyBboxPatch(
                corner,
                box.width - 16,
                box.height - 16,
                boxstyle="round,pad=8,rounding_size=8",
                facecolor=TARGET_FILL if target else NODE_FILL,
                edgecolor=TARGET_EDGE if target else NODE_EDGE,
                linewidth=2 if target else 1.3,
            )
        )
        for line, y in _baselines(box):
            weight = "bold" if target else "normal"
            axes.text(box.x, y, line, fontsize=12, color=INK, ha="center", weight=weight, parse_math=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=72 * scale)
    return image.getvalue()
