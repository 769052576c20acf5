"""Whether all engines give the same posteriors, on every published network that they can solve."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from benchmarks.child import Outcome, run_child
from benchmarks.engines import answerer
from benchmarks.engines.bnpipe_engine import ANY_DENSITY
from benchmarks.networks import exact, hidden, sample
from benchmarks.results import PartResult, Table, Target

TITLE: Final = "Agreement"
_METHOD: Final = """\
Up to {targets} unobserved variables of {rows} rows drawn from the network itself (so that their evidence is possible),
with {share:.0%} of the cells hidden. bnpipe, here without its limit on the size of a clique, and one peer at a time run
in a process of their own, for at most {limit:g} s of processor time and {memory:g} GB of memory. CPDs are the published
ones divided by their rows' sums, given to every engine in float64. *apart* is the largest absolute difference of a
probability."""
_NOTE: Final = "Where an engine fails, or both together take too long or too much memory, the cell says so."


@dataclass(frozen=True)
class Plan:
    """Which networks, and how many questions."""

    networks: tuple[str, ...] = (
        "asia", "cancer", "earthquake", "survey", "sachs", "child", "alarm", "insurance", "water", "mildew", "barley",
        "hailfinder", "hepar2", "win95pts", "pathfinder", "andes", "pigs", "diabetes", "link",
        "munin", "munin1", "munin2", "munin3", "munin4",
    )  # fmt: skip
    rows: int = 2
    targets: int = 5
    share: float = 0.7
    limit: float = 60.0
    gigabytes: float = 16.0


PLAN: Final = Plan()
TINY: Final = Plan(networks=("asia",), rows=1, gigabytes=0.0)


def run(plan: Plan, engines: tuple[str, ...]) -> PartResult:
    """Ask every engine on every network."""
    peers = [engine for engine in engines if engine != "bnpipe"]
    rows: list[tuple[str, ...]] = []
    targets: list[Target] = []
    for network in plan.networks:
        found = {peer: _compare(network, peer, plan) for peer in peers}
        about = next((outcome.value for outcome in found.values() if outcome.value), None)
        shape = (str(about["nodes"]), str(about["answers"])) if about else ("–", "–")
        rows.append((network, *shape, *(_told(found[peer]) for peer in peers)))
        solved = {peer: outcome.value["apart"] for peer, outcome in found.items() if outcome.value}
        targets += [
            Target(f"{network}, apart from {peer}", 1e-9, apart, "", at_least=False) for peer, apart in solved.items()
        ]
    columns = ("network", "nodes", "answers compared", *(f"apart from {peer}" for peer in peers))
    text = _METHOD.format(
        targets=plan.targets, rows=plan.rows, share=plan.share, limit=plan.limit, memory=plan.gigabytes
    )  # fmt: skip
    return PartResult(
        "agreement", TITLE, text, (Table("Largest differences to bnpipe", columns, tuple(rows), _NOTE),), tuple(targets)
    )


def compared(*, network: str, peer: str, rows: int, targets: int, share: float, gigabytes: float) -> dict[str, Any]:
    """Give the largest difference between a peer's answers and bnpipe's; in a child process if memory is limited."""
    if gigabytes:
        resource.setrlimit(resource.RLIMIT_DATA, (int(gigabytes * 1e9), int(gigabytes * 1e9)))
    network_ = exact(network)
    data = hidden(sample(network_, rows, 11), share, 12)
    free = [node for node in network_.nodes if (data.column(node) == 255).any()]
    chosen = [str(node) for node in np.random.default_rng(13).permutation(free)[:targets]]
    answers = {}
    for engine, variant in (("bnpipe", (ANY_DENSITY,)), (peer, ())):
        ready = answerer(engine)(network_, *variant)
        answers[engine] = ready.posteriors(ready.prepare(data), chosen)
    apart, count = 0.0, 0
    for target in chosen:
        both = ~np.isnan(answers[peer][target]).any(axis=1) & (data.column(target) == 255)
        count += int(both.sum())
        difference = np.abs(answers[peer][target] - answers["bnpipe"][target])[both]
        apart = max(apart, float(difference.max(initial=0.0)))
    return {"nodes": len(network_.nodes), "answers": count, "apart": apart}


def _compare(network: str, peer: str, plan: Plan) -> Outcome:
    arguments = {
        "network": network, "peer": peer, "rows": plan.rows, "targets": plan.targets, "share": plan.share,
        "gigabytes": plan.gigabytes,
    }  # fmt: skip
    return run_child(
        "benchmarks.agreement:compared", arguments, cpu_seconds=plan.limit, wall_seconds=2 * plan.limit + 60
    )


def _told(outcome: Outcome) -> str:
    if outcome.value is None:
        return outcome.failure
    return f"{outcome.value['apart']:.1e}" if outcome.value["answers"] else "–"
