"""Where to put nodes and arcs: layers by longest path, few crossings, straight long arcs.

The four steps of Sugiyama, Tagawa & Toda 1981 (IEEE Trans. SMC 11, p. 109): layers here, crossings by igraph,
coordinates here, because boxes are wide and the bends of long arcs are not.
"""

from __future__ import annotations

import itertools
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Arc = tuple[str, str]
Node = tuple[float, float, float]  # x, y, and the slope dx/dy with which an arc passes

NARROW, WIDE = frozenset("iljtfrI.,:;|'()[] "), frozenset("MWmw%@")
LINE = 16.0
PADDING = 12.0
LEAST_WIDTH = 74.0
GAP = 22.0
BEND = 12.0
LAYER_GAP = 46.0
MOST_BANDS = 6
MARGIN = 24.0
LEAN = 10.0  # px an arc may move sideways between the boxes of a layer
SWEEPS = 150


@dataclass(frozen=True, slots=True)
class Box:
    """A node: its centre, size (px) and the lines of its name."""

    name: str
    lines: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float
    layer: int


@dataclass(frozen=True, slots=True)
class Route:
    """An arc: points and slopes (x, y, dx/dy), from the lower edge of its parent to the upper edge of its child."""

    arc: Arc
    points: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Band:
    """The layers of one tier: number from 1, upper and lower edge (px)."""

    tier: int
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn graph, in px with y downwards."""

    boxes: tuple[Box, ...]
    routes: tuple[Route, ...]
    bands: tuple[Band, ...]
    width: float
    height: float


def arrange(parents: Mapping[str, Sequence[str]], tiers: Sequence[Sequence[str]] = ()) -> Drawing:
    """Lay out an acyclic graph.

    Parameters
    ----------
    parents : mapping of str to sequence of str
        Parents of every node.
    tiers : sequence of sequence of str
        Drawn as bands, earlier ones above; left out where arcs contradict them, or where there are so many that
        most hold one node alone: that is an order, not a banding.
    """
    order, kept = _banded(parents, tiers)
    layers = _layers(parents, kept, order or _topological(parents) or tuple(parents))
    chains = {(parent, child): _chain(parent, child, layers) for child in parents for parent in parents[child]}
    rows = _ordered_rows(layers, chains)
    lines = {name: split_name(name) for name in parents}
    widths = {name: max(LEAST_WIDTH, 2 * PADDING + max(map(text_width, lines[name]))) for name in parents}
    xs = _coordinates(rows, chains, widths)
    height = 2 * PADDING - 4 + LINE * max((len(text) for text in lines.values()), default=1)
    step = height + LAYER_GAP
    left = min((xs[name] - widths.get(name, BEND) / 2 for row in rows for name in row), default=0.0) - MARGIN
    if kept:
        left -= MARGIN  # room for the tiers' names
    boxes = {
        name: Box(
            name,
            lines[name],
            xs[name] - left,
            MARGIN + height / 2 + step * layers[name],
            widths[name],
            height,
            layers[name],
        )
        for name in parents
    }
    centres = {name: x - left for name, x in xs.items()}
    right = max((centres[name] + widths.get(name, BEND) / 2 for name in centres), default=0.0)
    return Drawing(
        boxes=tuple(boxes.values()),
        routes=tuple(_routes(chains, boxes, centres, step)),
        bands=_bands(kept, layers, height, step),
        width=right + MARGIN,
        height=2 * MARGIN + height + step * max(layers.values(), default=0),
    )


def has_bands(parents: Mapping[str, Sequence[str]], tiers: Sequence[Sequence[str]]) -> bool:
    """Say whether :func:`arrange` draws these tiers as bands."""
    return bool(_banded(parents, tiers)[1])


def text_width(text: str) -> float:
    """Estimate the width (px) of text set in 13 px, rather too wide than too narrow."""
    return sum(
        4.8 if letter in NARROW else 11.5 if letter in WIDE else 9.4 if letter.isupper() else 7.8 for letter in text
    )


def split_name(name: str, limit: int = 13) -> tuple[str, ...]:
    """Break a long name into lines, at underscores, blanks and capitals if it can be."""
    if len(name) <= limit:
        return (name,)
    spaced = "".join(
        f"\0{letter}" if place and letter.isupper() and name[place - 1].islower() else letter
        for place, letter in enumerate(name)
    )
    words = spaced.replace("_", "_\0").replace("-", "-\0").replace(" ", " \0").split("\0")
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > limit:
            lines.append("")
        lines[-1] += word
    cut = [part for line in lines for part in textwrap.wrap(line.strip(), 2 * limit) or [""]]
    return (*cut[:2], f"{cut[2][:limit]}…") if len(cut) > 3 else tuple(cut)


def _topological(parents: Mapping[str, Iterable[str]]) -> tuple[str, ...] | None:
    """Order parents before children; None if there is a cycle."""
    waiting = {child: set(before) for child, before in parents.items()}
    order: list[str] = []
    while waiting:
        free = [name for name, before in waiting.items() if not before]
        if not free:
            return None
        order += free
        for name in free:
            del waiting[name]
        for before in waiting.values():
            before.difference_update(free)
    return tuple(order)


def _banded(
    parents: Mapping[str, Sequence[str]], tiers: Sequence[Sequence[str]]
) -> tuple[tuple[str, ...] | None, tuple[tuple[str, ...], ...]]:
    """Give the tiers that are drawn as bands and an order of nodes that keeps them; None and none if they are not."""
    named = [tier for tier in tiers if set(tier) & set(parents)]
    order = None if len(named) > max(MOST_BANDS, len(parents) // 2) else _order_with_tiers(parents, tiers)
    kept = tuple(tuple(name for name in tier if name in parents) for tier in tiers) if order is not None else ()
    return order, kept


def _order_with_tiers(parents: Mapping[str, Sequence[str]], tiers: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Order nodes so that tiers follow each other too; None if arcs contradict them or there are none."""
    present = [tuple(name for name in tier if name in parents) for tier in tiers]
    present = [tier for tier in present if tier]
    if len(present) < 2:
        return None
    before = {name: set(parents[name]) for name in parents}
    for earlier, later in itertools.pairwise(present):
        for name in later:
            before[name] |= set(earlier)
    return _topological(before)


def _layers(
    parents: Mapping[str, Sequence[str]], tiers: Sequence[Sequence[str]], order: Sequence[str]
) -> dict[str, int]:
    """Put each node below its parents and its tier's predecessors, then let sources sink towards their children."""
    tier_of = {name: number for number, tier in enumerate(tiers) for name in tier}
    layers: dict[str, int] = {}
    for name in order:
        earlier = [layers[other] for other in layers if tier_of.get(other, 0) < tier_of.get(name, -1)]
        layers[name] = 1 + max((*(layers[parent] for parent in parents[name]), *earlier), default=-1)
    children: dict[str, list[str]] = defaultdict(list)
    for child, before in parents.items():
        for parent in before:
            children[parent].append(child)
    last = {
        number: max((layers[name] for name in layers if tier_of.get(name) == number), default=0)
        for number in set(tier_of.values())
    }
    for name in reversed(order):
        if len(children[name]) > len(parents[name]):
            lowest = min(layers[child] for child in children[name]) - 1
            layers[name] = min(lowest, last[tier_of[name]]) if name in tier_of else lowest
    return layers


def _chain(parent: str, child: str, layers: Mapping[str, int]) -> tuple[str, ...]:
    """Name the places an arc passes: its parent, one bend in each layer between, its child."""
    bends = [f"{parent}\0{child}\0{layer}" for layer in range(layers[parent] + 1, layers[child])]
    return (parent, *bends, child)


def _ordered_rows(layers: Mapping[str, int], chains: Mapping[Arc, tuple[str, ...]]) -> list[list[str]]:
    """Order the nodes and bends of each layer so that few arcs cross."""
    import igraph

    depth = dict(layers)
    for (parent, _), chain in chains.items():
        for step, place in enumerate(chain[1:-1], start=1):
            depth[place] = layers[parent] + step
    if not depth:
        return []
    names = list(depth)
    number = {name: place for place, name in enumerate(names)}
    graph = igraph.Graph(directed=True)
    graph.add_vertices(len(names))
    graph.add_edges([(number[a], number[b]) for chain in chains.values() for a, b in itertools.pairwise(chain)])
    placed = graph.layout_sugiyama(layers=[depth[name] for name in names], maxiter=200)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in sorted(names, key=lambda name: float(placed[number[name]][0])):
        rows[depth[name]].append(name)
    return rows


def _coordinates(
    rows: Sequence[Sequence[str]], chains: Mapping[Arc, tuple[str, ...]], widths: Mapping[str, float]
) -> dict[str, float]:
    """Choose x, keeping the order and the gaps, so that arcs are as straight as can be.

    Least squares over arcs, layer by layer: each place wants the weighted mean of its neighbours; the wish is
    projected on the gaps by isotonic regression. Pieces between two bends weigh most (Gansner et al. 1993, IEEE
    Trans. Software Eng. 19, p. 224).
    """
    neighbours: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for chain in chains.values():
        for a, b in itertools.pairwise(chain):
            weight = (1.0, 2.0, 8.0)[(a not in widths) + (b not in widths)]
            neighbours[a].append((b, weight))
            neighbours[b].append((a, weight))
    offsets = [_offsets(row, widths) for row in rows]
    xs = {name: x for row, offset in zip(rows, offsets, strict=True) for name, x in zip(row, offset, strict=True)}
    middle = max((float(offset[-1]) for offset in offsets), default=0.0) / 2
    for row, offset in zip(rows, offsets, strict=True):
        for name in row:
            xs[name] += middle - float(offset[-1]) / 2
    for sweep in range(SWEEPS):
        indices = range(len(rows)) if sweep % 2 == 0 else range(len(rows) - 1, -1, -1)
        for index in indices:
            row, offset = rows[index], offsets[index]
            wishes, weights = [], []
            for name in row:
                near = neighbours[name] or [(name, 0.1)]
                total = sum(weight for _, weight in near)
                wishes.append(sum(xs[other] * weight for other, weight in near) / total)
                weights.append(total)
            fitted = _isotonic(np.array(wishes) - offset, np.array(weights)) + offset
            xs.update(zip(row, fitted.tolist(), strict=True))
    return xs


def _offsets(row: Sequence[str], widths: Mapping[str, float]) -> NDArray[np.float64]:
    """Give the least x of each place of a layer if the first stands at 0."""
    halves = np.array([widths.get(name, BEND) / 2 for name in row])
    steps = halves[:-1] + halves[1:] + GAP
    return np.concatenate([[0.0], np.cumsum(steps)])


def _isotonic(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the nearest rising sequence in weighted least squares, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, mass, size = pools.pop()
            both = mass + pool[1]
            pool = ((mean * mass + pool[0] * pool[1]) / both, both, size + pool[2])
        pools.append(pool)
    return np.concatenate([np.full(size, mean) for mean, _, size in pools])


def _routes(
    chains: Mapping[Arc, tuple[str, ...]], boxes: Mapping[str, Box], xs: Mapping[str, float], step: float
) -> Iterable[Route]:
    """Give each arc its points; arcs of one box leave and enter side by side."""
    leaving: dict[str, list[Arc]] = defaultdict(list)
    entering: dict[str, list[Arc]] = defaultdict(list)
    for arc in chains:
        leaving[arc[0]].append(arc)
        entering[arc[1]].append(arc)
    starts = {
        arc: x
        for name, arcs in leaving.items()
        for arc, x in _ports(boxes[name], sorted(arcs, key=lambda arc: xs[chains[arc][1]]))
    }
    ends = {
        arc: x
        for name, arcs in entering.items()
        for arc, x in _ports(boxes[name], sorted(arcs, key=lambda arc: xs[chains[arc][-2]]))
    }
    for arc, chain in chains.items():
        parent, child = boxes[arc[0]], boxes[arc[1]]
        half = parent.height / 2
        path = [
            (starts[arc], parent.y + half),
            *((xs[bend], parent.y + number * step) for number, bend in enumerate(chain[1:-1], start=1)),
            (ends[arc], child.y - half),
        ]
        points: list[Node] = [(*path[0], 0.0)]
        for before, (x, y), behind in zip(path, path[1:], path[2:], strict=False):
            slope = _slope(before, (x, y), behind, LEAN / half)
            points += [(x - slope * half, y - half, slope), (x + slope * half, y + half, slope)]
        yield Route(arc, (*points, (*path[-1], 0.0)))


def _slope(before: tuple[float, float], here: tuple[float, float], behind: tuple[float, float], most: float) -> float:
    """Give the slope dx/dy that does not overshoot (Fritsch & Butland 1984, SIAM J. Sci. Stat. Comput. 5, p. 300)."""
    above = (here[0] - before[0]) / (here[1] - before[1])
    below = (behind[0] - here[0]) / (behind[1] - here[1])
    if above * below <= 0:
        return 0.0
    mean = 2 * above * below / (above + below)
    return max(-most, min(most, mean))


def _ports(box: Box, arcs: Sequence[Arc]) -> Iterable[tuple[Arc, float]]:
    """Share a box's edge out among its arcs, from left to right."""
    spread = min(14.0, 0.7 * box.width / max(1, len(arcs) - 1))
    first = box.x - spread * (len(arcs) - 1) / 2
    return ((arc, first + spread * number) for number, arc in enumerate(arcs))


def _bands(tiers: Sequence[Sequence[str]], layers: Mapping[str, int], height: float, step: float) -> tuple[Band, ...]:
    bands = []
    for number, tier in enumerate(tiers, start=1):
        if tier:
            first, last = min(layers[name] for name in tier), max(layers[name] for name in tier)
            top = MARGIN + first * step - LAYER_GAP / 2 + 2
            bands.append(Band(number, top, MARGIN + last * step + height + LAYER_GAP / 2 - 2))
    return tuple(bands)
