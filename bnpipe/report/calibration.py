"""Calibration drawn: what was said against what came, one panel a state."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from bnpipe.evaluation import CalibrationBin, Evaluation

INK, GRID, DIAGONAL, POINT = "#1f2933", "#d9dee4", "#7b8794", "#0072b2"
FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
SIDE, LEFT, TOP, BOTTOM, GAP = 210.0, 44.0, 30.0, 42.0, 18.0
ACROSS = 3
MOST_PANELS = 12


@dataclass(frozen=True, slots=True)
class Panel:
    """Bins of one state of one target; axes run from 0 to `limit`."""

    target: str
    state: str
    bins: tuple[CalibrationBin, ...]
    limit: float

    @property
    def title(self) -> str:
        """What is drawn: P(target = state)."""
        name = f"{self.target} = {self.state}"
        return f"P({name if len(name) <= 28 else name[:27] + '…'})"


def panels(evaluation: Evaluation) -> tuple[Panel, ...]:
    """Group bins by target and state; at most 12, rarest states left out first.

    Axes of a panel end at the next tenth above all it shows, so that rare states are legible too.
    """
    found = []
    for target in evaluation.targets:
        for state in dict.fromkeys(bin_.state for bin_ in target.calibration):
            bins = tuple(bin_ for bin_ in target.calibration if bin_.state == state)
            highest = max(max(bin_.mean_probability, bin_.observed) for bin_ in bins)
            found.append(Panel(target.name, state, bins, min(1.0, math.ceil(highest * 10 + 0.2) / 10)))
    if len(found) <= MOST_PANELS:
        return tuple(found)
    kept = sorted(found, key=_share, reverse=True)[:MOST_PANELS]
    return tuple(panel for panel in found if panel in kept)


def _share(panel: Panel) -> float:
    rows = sum(bin_.rows for bin_ in panel.bins)
    return sum(bin_.observed * bin_.rows for bin_ in panel.bins) / rows


def calibration_figure(evaluation: Evaluation) -> str:
    """Draw the calibration of every target as one SVG: points with 95 % intervals, area by rows, the diagonal."""
    shown = panels(evaluation)
    columns = min(ACROSS, max(1, len(shown)))
    lines = max(1, math.ceil(len(shown) / columns))
    width = columns * (SIDE + LEFT + GAP)
    height = lines * (SIDE + TOP + BOTTOM)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    font = f'font-family="{FONT}" font-size="11" fill="{INK}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="Calibration" {font}>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for place, panel in enumerate(shown):
        x, y = (place % columns) * (SIDE + LEFT + GAP) + LEFT, (place // columns) * (SIDE + TOP + BOTTOM) + TOP
        parts.append(f'<g transform="translate({x:.0f} {y:.0f})">{"".join(_panel(panel))}</g>')
    if not shown:
        parts.append(f'<text x="{width / 2}" y="{height / 2}" text-anchor="middle">nothing to calibrate on</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> Iterator[str]:
    yield f'<text x="{SIDE / 2}" y="-12" text-anchor="middle" font-size="13">{escape(panel.title)}</text>'
    for tick in _ticks(panel.limit):
        at = tick / panel.limit * SIDE
        yield (
            f'<path d="M{at:.1f} 0V{SIDE}M0 {SIDE - at:.1f}H{SIDE}" stroke="{GRID}"/>'
            f'<text x="{at:.1f}" y="{SIDE + 14}" text-anchor="middle">{tick:g}</text>'
            f'<text x="-6" y="{SIDE - at + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    yield f'<path d="M0 {SIDE}L{SIDE} 0" stroke="{DIAGONAL}" stroke-dasharray="4 4"/>'
    yield f'<text x="{SIDE / 2}" y="{SIDE + 30}" text-anchor="middle" fill="{DIAGONAL}">said</text>'
    yield (
        f'<text transform="translate(-32 {SIDE / 2}) rotate(-90)" text-anchor="middle" fill="{DIAGONAL}">came</text>'
    )
    most = max(bin_.rows for bin_ in panel.bins)
    for bin_ in panel.bins:
        x, y, low, high = (
            min(1.0, value / panel.limit) * SIDE
            for value in (bin_.mean_probability, bin_.observed, bin_.low, bin_.high)
        )
        told = (
            f"said {bin_.mean_probability:.3f}, came {bin_.observed:.3f} [{bin_.low:.3f}, {bin_.high:.3f}], "
            f"{bin_.rows} rows"
        )
        yield (
            f'<g><title>{told}</title><path d="M{x:.1f} {SIDE - low:.1f}V{SIDE - high:.1f}" stroke="{POINT}" '
            f'stroke-width="1.6"/><circle cx="{x:.1f}" cy="{SIDE - y:.1f}" r="{_radius(bin_, most):.1f}" '
            f'fill="{POINT}"/></g>'
        )


def _ticks(limit: float) -> Sequence[float]:
    step = limit / 4 if limit in {0.2, 0.4, 0.8} else limit / 5 if limit != 0.1 else 0.02
    return [round(step * number, 3) for number in range(round(limit / step) + 1)]


def _radius(bin_: CalibrationBin, most: int) -> float:
    """Area by rows; never too small to see."""
    return max(2.0, 5.0 * math.sqrt(bin_.rows / most))


def calibration_png(evaluation: Evaluation) -> bytes:
    """Draw the same panels as PNG, for places that show no SVG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = panels(evaluation)
    columns = min(ACROSS, max(1, len(shown)))
    lines = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(3.4 * columns, 3.4 * lines), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    for panel, axes in zip(shown, grid.flat, strict=False):
        most = max(bin_.rows for bin_ in panel.bins)
        axes.plot([0, panel.limit], [0, panel.limit], color=DIAGONAL, linestyle="--", linewidth=1)
        for bin_ in panel.bins:
            axes.plot([bin_.mean_probability] * 2, [bin_.low, bin_.high], color=POINT, linewidth=1.6)
            axes.plot([bin_.mean_probability], [bin_.observed], "o", color=POINT, markersize=2 * _radius(bin_, most))
        axes.set(xlim=(0, panel.limit), ylim=(0, panel.limit), xlabel="said", ylabel="came")
        axes.set_title(panel.title, fontsize=10, parse_math=False)
        axes.set_aspect("equal")
        axes.grid(color=GRID)
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()
