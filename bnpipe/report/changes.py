"""A changed CPD drawn: one of its rows before and now, and its past windows against the threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape, quoteattr

from bnpipe.drift import NodeDrift, RowDrift
from bnpipe.report.graph import FONT, INK

GRID, SOFT = "#d9dee4", "#52606d"
BEFORE, NOW, ALARM = "#cfd8e3", "#0072b2", "#a33c00"
LABELS, BARS, NUMBERS = 132.0, 230.0, 98.0
BAR, STATE = 11.0, 32.0
MOST_STATES = 8
WIDE, HIGH, LEFT, RIGHT, TOP, BOTTOM = 720.0, 150.0, 52.0, 24.0, 14.0, 34.0


def row_figure(row: RowDrift, states: Sequence[str]) -> str:
    """Draw the distribution of one parent configuration: a pale and a dark bar a state, and the total variation.

    Of more than eight states the eight that moved most are drawn, in the order of the schema.
    """
    order = sorted(range(len(states)), key=lambda place: -abs(row.now[place] - row.before[place]))[:MOST_STATES]
    shown = sorted(order)
    limit = _limit(max(row.interval[1], row.effect, *(max(row.before[k], row.now[k]) for k in shown)))
    height = STATE * (len(shown) + 1) + 22
    parts = [*_grid(limit, height - 18)]
    for line, place in enumerate(shown):
        parts += _state(states[place], row.before[place], row.now[place], limit, STATE * line)
    parts += _shift(row, limit, STATE * len(shown))
    return _svg(LABELS + BARS + NUMBERS, height, f"{row.name}: before and now", parts)


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    font = f'font-family="{FONT}" font-size="11.5" fill="{INK}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(label)} {font}>',
            f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
            *parts,
            "</svg>",
        ]
    )


def _limit(highest: float) -> float:
    """Give the end of an axis of shares: the next tenth, at most 1."""
    return min(1.0, max(0.1, math.ceil(highest * 10) / 10))


def _grid(limit: float, bottom: float) -> Iterator[str]:
    for part in (0.0, 0.5, 1.0):
        x = LABELS + part * BARS
        yield (
            f'<path d="M{x:.1f} 2V{bottom:.1f}" stroke="{GRID}"/>'
            f'<text x="{x:.1f}" y="{bottom + 13:.1f}" text-anchor="middle" fill="{SOFT}">{part * limit:g}</text>'
        )


def _label(text: str, y: float) -> str:
    short = text if len(text) <= 20 else text[:19] + "…"
    return f'<text x="{LABELS - 8}" y="{y:.1f}" text-anchor="end">{escape(short)}</text>'


def _state(state: str, before: float, now: float, limit: float, top: float) -> Iterator[str]:
    yield f"<g><title>{escape(f'{state}: {before:.3f} before, {now:.3f} now')}</title>"
    yield _label(state, top + 19)
    for value, fill, y in ((before, BEFORE, top + 4), (now, NOW, top + 4 + BAR)):
        width = BARS * value / limit
        yield (
            f'<rect x="{LABELS}" y="{y:.1f}" width="{width:.1f}" height="{BAR - 1}" fill="{fill}" stroke="{NOW}" '
            f'stroke-width="0.8"/>'
            f'<text x="{LABELS + width + 5:.1f}" y="{y + 9:.1f}" font-size="10.5">{value:.3f}</text>'
        )
    yield "</g>"


def _shift(row: RowDrift, limit: float, top: float) -> Iterator[str]:
    low, high, at = (LABELS + BARS * value / limit for value in (*row.interval, row.effect))
    y = top + 15
    told = f"{row.effect:.3f} [{row.interval[0]:.3f}, {row.interval[1]:.3f}]"
    yield (
        f'<path d="M0 {top + 1:.1f}H{LABELS + BARS + NUMBERS}" stroke="{GRID}"/>{_label("total variation", y + 4)}'
        f'<path d="M{low:.1f} {y}H{high:.1f}M{low:.1f} {y - 4}v8M{high:.1f} {y - 4}v8" stroke="{ALARM}" '
        f'stroke-width="1.6"/><circle cx="{at:.1f}" cy="{y}" r="3.6" fill="{ALARM}"/>'
        f'<text x="{max(high, at) + 8:.1f}" y="{y + 4}" font-size="10.5">{told}</text>'
    )


def history_figure(node: NodeDrift) -> str:
    """Draw the statistic of each past window, of the live one, and the threshold; '' where there is no past.

    The scale ends at three times the threshold, or above the past: a live window beyond it is drawn at its end.
    """
    if len(node.history) < 2:
        return ""
    highest = max(value for _, value in node.history)
    top = 1.08 * min(highest, max(3 * node.threshold, *(value for _, value in node.history[:-1])))
    top = top if 0 < top < math.inf else 1.0
    across, down = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM
    spots = [
        (LEFT + across * place / (len(node.history) - 1), TOP + down * (1 - min(value, top) / top))
        for place, (_, value) in enumerate(node.history)
    ]
    parts = [*_scale(top, down), *_threshold(node, top, down), *_windows(node, spots)]
    return _svg(WIDE, HIGH, f"{node.name}: past windows", parts)


def _scale(top: float, down: float) -> Iterator[str]:
    step = 10 ** math.floor(math.log10(top))
    step = next(step * factor for factor in (0.2, 0.5, 1, 2, 5) if top / (step * factor) <= 4)
    for number in range(int(top / step) + 1):
        y = TOP + down * (1 - number * step / top)
        yield (
            f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="{GRID}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="{SOFT}">{number * step:g}</text>'
        )


def _threshold(node: NodeDrift, top: float, down: float) -> Iterator[str]:
    y = TOP + down * (1 - node.threshold / top)
    yield (
        f'<path d="M{LEFT} {y:.1f}H{WIDE - RIGHT}" stroke="{ALARM}" stroke-width="1.4" stroke-dasharray="6 4"/>'
        f'<text x="{LEFT + 6}" y="{y - 5:.1f}" fill="{ALARM}">unusual from here: {node.threshold:.3g}</text>'
    )


def _windows(node: NodeDrift, spots: Sequence[tuple[float, float]]) -> Iterator[str]:
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots[:-1])
    yield f'<polyline points="{line}" fill="none" stroke="{SOFT}" stroke-width="1.2"/>'
    for (label, value), (x, y) in zip(node.history[:-1], spots[:-1], strict=True):
        told = escape(f"window to {label}: {value:.3g}")
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{SOFT}"><title>{told}</title></circle>'
    (label, value), (x, y) = node.history[-1], spots[-1]
    beyond = ", beyond the scale" if y == TOP else ""
    yield (
        f'<path d="M{x:.1f} {y - 7:.1f}l7 7l-7 7l-7 -7z" fill="{NOW}"><title>{escape(f"now, to {label}: {value:.3g}")}'
        f'</title></path><text x="{x - 11:.1f}" y="{y + 4:.1f}" text-anchor="end" font-weight="bold">now: {value:.3g}'
        f'{beyond}</text><text x="{x + RIGHT - 2:.1f}" y="{HIGH - 12}" text-anchor="end">{escape(label)}</text>'
        f'<text x="{LEFT}" y="{HIGH - 12}">{escape(node.history[0][0])}</text>'
        f'<text x="{(LEFT + WIDE) / 2}" y="{HIGH - 12}" text-anchor="middle" fill="{SOFT}">last cluster of each window'
        f"</text>"
    )
