"""``python -m benchmarks.canary``: what canaries do where the truth is known, as the tables of docs/canary.md.

A binary target of which the champion knows the log-odds but for an error; days differ and neighbouring days are alike
(first-order autoregression, 0.5), so its mistakes come in spells. An equal challenger has an error of its own of the
same size. A worse one has log-odds shifted, by as much as makes its log-loss worse by so many times the tolerance. Rows
are drawn one by one and go to an arm by its share; a look a day, by the rule of :func:`bnpipe.release.canary.advance`.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bnpipe.release.bounds import NEIGHBOURS, error_factor
from bnpipe.release.canary import OBJECTION, CanaryPolicy

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "canary.md"
POLICY: Final = CanaryPolicy(tolerances={"late": 0.01})
ERROR: Final = 0.3
"""Standard deviation of a version's log-odds about the known ones."""
DAYS: Final = 0.3
"""Standard deviation of what a day adds to the log-odds."""
_MARKS: Final = ("<!-- canary: begin -->", "<!-- canary: end -->")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Run:
    """What became of canaries.

    Parameters
    ----------
    ended : (canaries,)
        ``promote``, ``worse`` (halted on evidence) or ``unproved`` (halted by age).
    stage : (canaries,)
        The last stage reached, from 0.
    days : (canaries,)
        Until the end.
    pairs, arms : float64 (canaries, days)
        Mean differences of log-loss, challenger less champion; NaN where there were too few rows or it had ended.
    moved : int64 (canaries, stages)
        Day at whose end each stage was left.
    """

    ended: NDArray[np.str_]
    stage: Ints
    days: Ints
    pairs: Floats
    arms: Floats
    moved: Ints


def shift_for(worse: float) -> float:
    """Find the shift of log-odds that makes log-loss worse by so many nats per row on average."""
    rng = np.random.default_rng(0)
    odds, truth, error = _logits(rng, 400_000, rng.normal(0.0, DAYS, 400_000))
    came = _share(truth)
    low, high = 0.0, 3.0

    def loss(logits: Floats) -> float:
        return float((np.logaddexp(0.0, logits) - came * logits).mean())

    usual = loss(odds + error)
    for _ in range(40):
        middle = (low + high) / 2.0
        low, high = (middle, high) if loss(odds + error + middle) - usual < worse else (low, middle)
    return low


def run(
    canaries: int,
    rows: int,
    worse: float,
    *,
    seed: int,
    paired: bool = True,
    policy: CanaryPolicy = POLICY,
) -> Run:
    """Simulate canaries of one target with `rows` labelled rows a day, to the end of each.

    Parameters
    ----------
    paired : bool
        Whether rows can be asked again; else arms alone are compared.
    """
    rng = np.random.default_rng(seed)
    shift = shift_for(worse) if worse else 0.0
    most = int(policy.max_days) * len(policy.stages)
    pairs, arms = np.full((canaries, most), np.nan), np.full((canaries, most), np.nan)
    ended = np.full(canaries, "", dtype="U8")
    stage, began, days = (np.zeros(canaries, dtype=np.int64) for _ in range(3))
    moved = np.full((canaries, len(policy.stages)), -1, dtype=np.int64)
    effect = rng.normal(0.0, DAYS, canaries)
    for day in range(most):
        effect = NEIGHBOURS * effect + rng.normal(0.0, DAYS * np.sqrt(1.0 - NEIGHBOURS**2), canaries)
        for canary in np.flatnonzero(ended == ""):
            share = policy.stages[stage[canary]]
            least = policy.min_labels
            gaps = _day(rng, rows, effect[canary], shift=shift, share=share, least=least)
            pairs[canary, day], arms[canary, day] = gaps if paired else (np.nan, gaps[1])
            action = _look(
                pairs[canary, : day + 1],
                arms[canary, began[canary] : day + 1],
                policy,
                policy.stages[stage[canary] + 1],
            )
            if action == "wait" and day + 1 - began[canary] > policy.max_days:
                action = "unproved"
            if action == "wait":
                continue
            if action == "go":
                moved[canary, stage[canary]] = day
                stage[canary] += 1
                began[canary] = day + 1
                action = "promote" if policy.stages[stage[canary]] == 1 else ""
            ended[canary], days[canary] = action, day + 1
        if (ended != "").all():
            break
    return Run(ended, stage, days, pairs, arms, moved)


def _logits(rng: np.random.Generator, rows: int, effect: Floats | float) -> tuple[Floats, Floats, Floats]:
    """Draw the known log-odds, the true ones, and the error of a version."""
    odds = rng.normal(-1.0, 1.2, rows)
    return odds, odds + effect, rng.normal(0.0, ERROR, rows)


def _share(logits: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-logits))
    return found


def _day(
    rng: np.random.Generator, rows: int, effect: float, *, shift: float, share: float, least: int
) -> tuple[float, float]:
    """Draw a day's rows and give the mean difference on the same rows, and between the arms."""
    odds, truth, error = _logits(rng, rows, effect)
    came = rng.random(rows) < _share(truth)
    old, new = odds + error, odds + rng.normal(0.0, ERROR, rows) + shift
    before, after = (np.logaddexp(0.0, logits) - came * logits for logits in (old, new))
    challenger = rng.random(rows) < share
    count = int(challenger.sum())
    by_arm = np.nan if min(count, rows - count) < least else after[challenger].mean() - before[~challenger].mean()
    return float((after - before).mean()), float(by_arm)


def _look(pairs: Floats, arms: Floats, policy: CanaryPolicy, reach: float) -> str:
    """Say ``worse``, ``go`` or ``wait``, as :func:`bnpipe.release.canary.advance` does before a share of `reach`."""
    alpha = policy.error / policy.looks() / 2.0
    tolerance = policy.tolerance("late")
    known = [found[np.isfinite(found)] for found in (pairs, arms)]
    if any(len(found) >= 2 and found.mean() - _margin(found, alpha) > tolerance for found in known):
        return "worse"
    if len(arms) < policy.min_clusters:
        return "wait"
    proof, against = known[0] if len(known[0]) >= 2 else known[1], known[1]
    if len(proof) < 2 or proof.mean() + _margin(proof, alpha) >= tolerance / reach:
        return "wait"
    if len(against) >= 2 and against.mean() - _margin(against, OBJECTION) > tolerance / reach:
        return "wait"
    return "go"


_QUANTILES: Final[dict[tuple[int, float], float]] = {}


def _margin(values: Floats, alpha: float) -> float:
    from scipy.special import stdtrit

    count = len(values)
    if (count, alpha) not in _QUANTILES:
        factor, degrees = error_factor(count, NEIGHBOURS)
        _QUANTILES[count, alpha] = float(stdtrit(degrees, 1.0 - alpha)) * factor
    return _QUANTILES[count, alpha] * float(values.std(ddof=1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary", description=__doc__)
    parser.add_argument("--canaries", type=int, default=400, help="of each line (default: 400)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 5000], help="labelled a day (default: 1000 5000)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: docs/canary.md)")
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    text = "\n".join(_tables(chosen.canaries, chosen.rows))
    print(f"{text}\n{time.monotonic() - started:.0f} s")  # noqa: T201
    page = chosen.page.read_text(encoding="utf-8") if chosen.page.exists() else "\n".join(_MARKS)
    begin, end = (re.escape(mark) for mark in _MARKS)
    body = f"{_MARKS[0]}\n{text}\n{_MARKS[1]}"
    chosen.page.write_text(re.sub(f"{begin}.*{end}", lambda _: body, page, flags=re.DOTALL), encoding="utf-8")


def _tables(canaries: int, labelled: Sequence[int]) -> Iterator[str]:
    lines = [(rows, worse, paired) for paired in (True, False) for rows in labelled for worse in (0, 1, 2, 5, 10)]
    yield (
        f"{canaries} canaries a line (a quarter where rows are more than 1000 a day), tolerance "
        f"{POLICY.tolerance('late'):g} nats per row, other settings as when left out; 95 % intervals (Wilson).\n"
    )
    columns = ["compared", "labelled rows a day", "worse by × tolerance", "promoted", "halted as worse"]
    columns += ["halted as unproved", "reached 50 %", "days to the end, median", "its answers until then, days' worth"]
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for place, (rows, worse, paired) in enumerate(lines):
        count = canaries if rows <= 1000 else max(canaries // 4, 1)
        found = run(count, rows, worse * POLICY.tolerance("late"), seed=1000 + place, paired=paired)
        shares = [np.mean(found.ended == end) for end in ("promote", "worse", "unproved")]
        shares.append(np.mean(found.stage >= 2))
        cells = ["pairs and arms" if paired else "arms alone", str(rows), str(worse)]
        cells += [wilson(float(share), count) for share in shares]
        yield f"| {' | '.join([*cells, f'{np.median(found.days):.0f}', f'{np.mean(_exposed(found)):.2f}'])} |"
    yield ""


def _exposed(found: Run) -> Floats:
    """Sum the challenger's share over each canary's days."""
    left = np.where(found.moved >= 0, found.moved + 1, found.days[:, None])
    lasted = np.diff(np.concatenate([np.zeros((len(left), 1)), np.minimum(left, found.days[:, None])], axis=1), axis=1)
    exposed: Floats = (lasted * np.array(POLICY.stages)).sum(axis=1)
    return exposed


def wilson(share: float, count: int) -> str:
    """Tell a share of so many with its 95 % interval."""
    z = 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return f"{share:.1%} [{max(middle - half, 0.0):.1%}, {min(middle + half, 1.0):.1%}]"


if __name__ == "__main__":
    main()
