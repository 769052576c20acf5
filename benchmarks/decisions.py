"""``python -m benchmarks.decisions``: how often luck promotes or rolls back, as the tables of docs/decisions.md.

Days' d follow a first-order autoregression with standard deviation 1 about the threshold (d = rope), where luck is
likeliest.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from bnpipe.release import PromotionRule, ReactionRule
from bnpipe.release.bounds import NEIGHBOURS, error_factor

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "decisions.md"
NIGHTS: Final = 365
WINDOWS: Final = (10, 14, 30)
CORRELATIONS: Final = (0.0, 0.3, 0.5, 0.7)
YOUTH: Final = ReactionRule().youth - 1
"""Clusters after a promotion at the last look that may roll back."""
YOUTHS_A_YEAR: Final = NIGHTS / ReactionRule().youth
REFERENCE: Final = 56
_WARM_UP: Final = 40
_MARKS: Final = ("<!-- decisions: begin -->", "<!-- decisions: end -->")

Tail = Literal["normal", "t, 4 degrees", "skewed"]
TAILS: Final[tuple[Tail, ...]] = ("normal", "t, 4 degrees", "skewed")

Floats = NDArray[np.float64]
Margin = Callable[[Floats, float], Floats]
"""Half-width of a one-sided bound at a level, of windows (n, C)."""


def draw(series: int, days: int, correlation: float, tail: Tail, rng: np.random.Generator) -> Floats:
    """Draw stationary series of mean 0 and standard deviation 1, float64 (series, days)."""
    shape = (series, days + _WARM_UP)
    if tail == "normal":
        news = rng.standard_normal(shape)
    elif tail == "t, 4 degrees":
        news = rng.standard_t(4, shape) / np.sqrt(2.0)
    else:
        news = 1.0 - rng.standard_exponential(shape)
    found = news.copy()
    for day in range(1, shape[1]):
        found[:, day] = correlation * found[:, day - 1] + np.sqrt(1.0 - correlation**2) * news[:, day]
    stationary: Floats = found[:, _WARM_UP:]
    return stationary


def allowing(correlation: float) -> Margin:
    """Give the margin of :func:`bnpipe.release.judge` that allows for this correlation; 0 is Student's."""

    def margin(windows: Floats, alpha: float) -> Floats:
        factor, degrees = error_factor(windows.shape[-1], correlation)
        found: Floats = _quantile(alpha, degrees) * factor * windows.std(axis=1, ddof=1)
        return found

    return margin


OURS: Final = allowing(NEIGHBOURS)
STUDENT: Final = allowing(0.0)


def nights(days: Floats, clusters: int, *, alpha: float, threshold: float = 0.0, margin: Margin = OURS) -> Floats:
    """Count in each year the nights whose window of `clusters` days passes, float64 (years,)."""
    count = np.zeros(len(days))
    for first in range(days.shape[1] - clusters + 1):
        window = days[:, first : first + clusters]
        count += window.mean(axis=1) - margin(window, alpha) > threshold
    return count


def shifts_to_roll_back(before: Floats, since: Floats, *, alpha: float, margin: Margin = OURS) -> tuple[Floats, Floats]:
    """Find what must be added to each day since the promotion for a rollback.

    Parameters
    ----------
    before : float64 (youths, reference clusters)
    since : float64 (youths, clusters since the promotion)

    Returns
    -------
    tuple of float64 (youths, looks)
        By the mean, and by every cluster; the first look has `min_clusters` days. Negative: rolled back as it is.
    """
    least = ReactionRule().min_clusters
    looks = range(least, since.shape[1] + 1)
    by_mean = [margin(since[:, :count], alpha) - since[:, :count].mean(axis=1) for count in looks]
    beyond = np.maximum(before.max(axis=1), 0.0)
    by_every = [beyond - since[:, :count].min(axis=1) for count in looks]
    return np.stack(by_mean, axis=1), np.stack(by_every, axis=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the simulated years, for a quicker look (default: 1)"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/decisions.md)")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    tables = [*_promotions(round(3000 * chosen.share)), *_rollbacks(round(40000 * chosen.share))]
    tables += [*_power(round(20000 * chosen.share)), *_tried(round(40000 * chosen.share))]
    text = "\n".join(tables)
    print(f"{text}\n{time.monotonic() - started:.0f} s")  # noqa: T201
    page = chosen.page.read_text(encoding="utf-8") if chosen.page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = f"{_MARKS[0]}\n{text}\n{_MARKS[1]}"
    chosen.page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, page, flags=re.DOTALL), encoding="utf-8")


def _promotions(years: int) -> Iterator[str]:
    yield f"**Lucky promotions a year**, budget 1: nights of {years} years each, ± 95 %.\n"
    columns = ["correlation", "days", *(f"{count} clusters" for count in WINDOWS)]
    yield from _head(*columns, "14, d = 0, rope half a day's deviation", "14, Student's t")
    alpha = PromotionRule().alpha
    for correlation in CORRELATIONS:
        for tail in TAILS:
            rng = np.random.default_rng([1, round(10 * correlation), TAILS.index(tail)])
            days = draw(years, NIGHTS + max(WINDOWS) - 1, correlation, tail, rng)
            cells = [nights(_year(days, count), count, alpha=alpha) for count in WINDOWS]
            cells += [
                nights(_year(days, 14), 14, alpha=alpha, threshold=0.5),
                nights(_year(days, 14), 14, alpha=alpha, margin=STUDENT),
            ]
            yield _line(f"{correlation:g}", tail, *map(_mean, cells))
    yield ""


def _year(days: Floats, window: int) -> Floats:
    return days[:, : NIGHTS + window - 1]


def _rollbacks(youths: int) -> Iterator[str]:
    yield (
        f"**Lucky rollbacks a year**, budget 0.2: shares of {youths} youths of 28 days with a look a day, times "
        f"{YOUTHS_A_YEAR:.0f} promotions a year, ± 95 %.\n"
    )
    yield from _head(
        "correlation", "days", "both rules", "by the mean", f"every cluster, {REFERENCE} reference clusters",
        "every cluster, 7", "by the mean, Student's t",
    )  # fmt: skip
    alpha = ReactionRule().alpha
    for correlation in CORRELATIONS:
        for tail in TAILS:
            rng = np.random.default_rng([2, round(10 * correlation), TAILS.index(tail)])
            days = draw(youths, REFERENCE + YOUTH, correlation, tail, rng)
            before, since = days[:, :REFERENCE], days[:, REFERENCE:]
            by_mean, by_every = shifts_to_roll_back(before, since, alpha=alpha)
            _, by_few = shifts_to_roll_back(before[:, -7:], since, alpha=alpha)
            student, _ = shifts_to_roll_back(before, since, alpha=alpha, margin=STUDENT)
            found = [np.minimum(by_mean, by_every), by_mean, by_every, by_few, student]
            cells = [YOUTHS_A_YEAR * (shifts.min(axis=1) < 0) for shifts in found]
            yield _line(f"{correlation:g}", tail, *map(_mean, cells))
    yield ""


def _power(draws: int) -> Iterator[str]:
    yield (
        "**What is found in 80 %**: how far d must lie beyond the threshold, in standard deviations of a day "
        f"(normal days, {draws} draws).\n"
    )
    yield from _head(
        "decision", "clusters", *(f"correlation {each:g}" for each in CORRELATIONS[:3]), "0.5, Student's t"
    )
    samples = [
        draw(draws, REFERENCE + YOUTH, correlation, "normal", np.random.default_rng([3, round(10 * correlation)]))
        for correlation in CORRELATIONS[:3]
    ]
    for count in WINDOWS:
        windows = [days[:, :count] for days in samples]
        cells = [_needed(each, OURS, PromotionRule().alpha) for each in windows]
        cells.append(_needed(windows[-1], STUDENT, PromotionRule().alpha))
        yield _line("promotion", str(count), *(f"{cell:.2f}" for cell in cells))
    alpha = ReactionRule().alpha
    for count in (7, 14, YOUTH):
        cells = []
        for days, margin in [*((days, OURS) for days in samples), (samples[-1], STUDENT)]:
            before, since = days[:, :REFERENCE], days[:, REFERENCE : REFERENCE + count]
            by_mean, by_every = shifts_to_roll_back(before, since, alpha=alpha, margin=margin)
            shifts = by_mean if margin is STUDENT else np.minimum(by_mean, by_every)
            cells.append(float(np.quantile(shifts.min(axis=1), 0.8)))
        yield _line("rollback, by then", str(count), *(f"{cell:.2f}" for cell in cells))
    yield ""


def _needed(windows: Floats, margin: Margin, alpha: float) -> float:
    """Find the difference that passes in four of five windows."""
    return float(np.quantile(margin(windows, alpha) - windows.mean(axis=1), 0.8))


def _tried(draws: int) -> Iterator[str]:
    """Compare bounds on 14 clusters."""
    alpha, tails = PromotionRule().alpha, TAILS[:2]
    yield (
        f"**Bounds that were tried**, 14 clusters: lucky promotions a year ({draws} windows, times 365), and the "
        "difference found in 80 %, in standard deviations of a day (normal days).\n"
    )
    rates = [f"{correlation:g}, {tail}" for correlation in CORRELATIONS[:3] for tail in tails]
    yield from _head("bound", *rates, "found at 0", "found at 0.5")
    samples = {
        (correlation, tail): draw(draws, 14, correlation, tail, np.random.default_rng([4, round(10 * correlation)]))
        for correlation in CORRELATIONS[:3]
        for tail in tails
    }
    tried: dict[str, Margin] = {
        "Student's t": STUDENT,
        "correlation taken as 0.3": allowing(0.3),
        "**correlation taken as 0.5**": OURS,
        "correlation estimated, bias taken off": _estimating(0.0),
        "the same plus a standard error": _estimating(1.0),
        "means of 4 blocks (Ibragimov & Müller 2010)": _blocks(4),
        "means of 7 blocks": _blocks(7),
        "4 cosines (Lazarus et al. 2018)": _cosines(4),
        "8 cosines": _cosines(8),
    }
    for name, margin in tried.items():
        cells = [NIGHTS * (each.mean(axis=1) > margin(each, alpha)) for each in samples.values()]
        found = [_needed(samples[correlation, "normal"], margin, alpha) for correlation in (0.0, 0.5)]
        yield _line(name, *map(_mean, cells), *(f"{difference:.2f}" for difference in found))


def _estimating(errors: float) -> Margin:
    """Estimate the correlation, take its bias off (Marriott & Pope 1954), add standard errors; between 0 and 0.7."""

    def margin(windows: Floats, alpha: float) -> Floats:
        count = windows.shape[1]
        rest = windows - windows.mean(axis=1, keepdims=True)
        raw = (rest[:, 1:] * rest[:, :-1]).sum(axis=1) / (rest**2).sum(axis=1)
        correlation = np.clip((count * raw + 1.0) / (count - 4.0) + errors / np.sqrt(count), 0.0, 0.7)
        grid = np.linspace(0.0, 0.7, 71)
        factors = [factor * _quantile(alpha, df) for factor, df in (error_factor(count, float(each)) for each in grid)]
        found: Floats = np.interp(correlation, grid, factors) * windows.std(axis=1, ddof=1)
        return found

    return margin


def _blocks(blocks: int) -> Margin:
    def margin(windows: Floats, alpha: float) -> Floats:
        edges = np.linspace(0, windows.shape[1], blocks + 1).round().astype(int)
        means = [windows[:, first:last].mean(axis=1) for first, last in pairwise(edges)]
        found: Floats = _quantile(alpha, blocks - 1) * np.std(means, axis=0, ddof=1) / np.sqrt(blocks)
        return found

    return margin


def _cosines(waves: int) -> Margin:
    def margin(windows: Floats, alpha: float) -> Floats:
        count = windows.shape[1]
        angles = np.pi * np.arange(1, waves + 1)[:, None] * (np.arange(count) + 0.5) / count
        weights = windows @ (np.sqrt(2.0 / count) * np.cos(angles)).T
        found: Floats = _quantile(alpha, waves) * np.sqrt((weights**2).mean(axis=1) / count)
        return found

    return margin


def _quantile(alpha: float, degrees: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1.0 - alpha))


def _head(*columns: str) -> Iterator[str]:
    yield _line(*columns)
    yield _line(*["---"] * len(columns))


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(values: Floats) -> str:
    half = 1.96 * float(values.std()) / np.sqrt(len(values))
    mean = float(values.mean())
    if mean == 0:
        return "0"
    digits = 2 if mean >= 0.1 else 3
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


if __name__ == "__main__":
    main()
