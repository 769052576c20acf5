"""`bnpipe demo --story`: what happens to the champion after its first days, on the same flights.

Nothing is staged: the days and the two faults are fixed here, what the system finds and does is read back and printed.
"""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import TYPE_CHECKING

from bnpipe.demo.service import ServiceAtWork
from bnpipe.demo.stage import DRIFT, MODEL, TRAIN, Stage
from bnpipe.errors import PlatformError

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.drift import DriftReport, RowDrift
    from bnpipe.registry import LedgerEntry
    from bnpipe.release import DriftDecision

CALM = date(2013, 7, 15), date(2013, 7, 22)
STORMY = date(2013, 7, 22), date(2013, 7, 29)
FAULTY = date(2013, 7, 29), date(2013, 8, 5)
BAD_AS_OF = date(2013, 8, 5)
AUTUMN = date(2013, 9, 16), date(2013, 9, 23)  # the first week after which a refit has enough days to be proved on
WEEK = timedelta(days=7)
KILOMETRES, CELSIUS = 1.609344, 5 / 9
NOTICED = 60.0
_LEGEND = """\
effect      how far the distribution given its parents moved (total variation), less what chance makes of it
found from  the shift that these days would have shown in four of five cases
now         its statistic; most of it in the champion's own past weeks, and where it begins to be unusual
marginal    how far the node's own shares moved, whoever moved them"""


def tell_story(stage: Stage) -> None:
    """Go through the chapters, in the order of their days.

    Raises
    ------
    PlatformError
        A run failed, or the watcher did not notice a champion moved by hand.
    """
    stage.client.wait_for_dag(DRIFT)
    if any(run.run.startswith("manual") for run in stage.client.runs(DRIFT)):
        home = stage.platform.home
        stage.console.print(f"\nthe story, or a part of it, was told by an earlier demo; delete {home} to begin anew")
        return
    stage.client.unpause(DRIFT)
    _title(stage, "1. A calm week: the first after the champion's days")
    _tell_days(stage, *CALM)
    _look(stage, *CALM, "a calm week")
    stage.console.print(_LEGEND, style="dim")
    _title(stage, "2. A stormy week: on 22, 23 and 28 July more than half were late")
    _tell_days(stage, *STORMY)
    _, report = _look(stage, *STORMY, "a stormy week")
    if report is not None:
        _tell_whose_change(stage, report, ("departure_delay", "late_arrival"))
    _faults(stage)
    _bad_version(stage)
    _autumn(stage)


def _title(stage: Stage, text: str) -> None:
    stage.console.print()
    stage.console.rule(f"[bold]{text}", align="left")


def _look(stage: Stage, start: date, end: date, why: str) -> tuple[DriftDecision, DriftReport | None]:
    """Run the drift Dag on the days ``[start, end)``; print and give what it decided and found."""
    from bnpipe.steps import read_look

    stage.console.print(f"[bold]{DRIFT}[/bold] from {start} to {end}")
    asked = {"from": str(start), "to": str(end), "reason": f"demo: {why}"}
    ended = stage.run(DRIFT, asked)
    mlflow_run = stage.client.xcom(DRIFT, ended.run, "snapshot")["run_id"]
    decision, report = read_look(stage.registry, mlflow_run)
    if report is not None:
        _tell_nodes(stage, report)
    for verdict in decision.verdicts:
        if verdict.gate.startswith("predecessor"):
            stage.console.print(f"  {verdict.gate}: {verdict.outcome}, {verdict.reason}", soft_wrap=True)
    acted = stage.client.xcom(DRIFT, ended.run, "act")
    done = "done" if acted["done"] else "nothing done"
    told = ", people are told" if decision.alert else ""
    stage.console.print(f"  [bold]{decision.action}[/bold] ({done}{told}): {decision.reason}", soft_wrap=True)
    stage.console.print(f"  report {stage.client.report_url(DRIFT, ended.run)}", soft_wrap=True)
    stage.console.print(f"  MLflow {stage.registry.run_url(mlflow_run)}", soft_wrap=True)
    return decision, report


def _tell_nodes(stage: Stage, report: DriftReport) -> None:
    """Print a line a node: what was found, what its own past is like, and what could have been found."""
    from rich.table import Table

    heads = ("node", "p", "effect", "found from", "now", "past", "unusual", "marginal", "")
    table = Table(*heads, box=None, pad_edge=False)
    for column in table.columns[1:8]:
        column.justify = "right"
    for node in sorted(report.nodes.values(), key=lambda node: (not node.flagged, node.p, -node.effect)):
        if not node.known:
            table.add_row(node.name, *"???????", node.reason)
            continue
        past = [value for _, value in node.history[:-1]]
        table.add_row(
            node.name,
            f"{node.p:.2g}",
            f"{node.effect:.3f}",
            f"{node.smallest_shift:.2f}",
            f"{node.history[-1][1]:.2f}" if node.history else "",
            f"{max(past):.2f}" if past else "",
            f"{node.threshold:.2f}",
            f"{report.variables[node.name].marginal_shift:.3f}",
            f"CHANGED, since {node.change_point}" if node.flagged else "",
            style="bold" if node.flagged else None,
        )
    stage.console.print(table)
    for name in report.flagged:
        for row in [row for row in report.nodes[name].changed_rows if row.changed][:4]:
            stage.console.print(f"  {_row(report.nodes[name].states, row)}", soft_wrap=True)
    known = [node for node in report.nodes.values() if node.known]
    if known and not report.flagged:
        surest, largest = min(known, key=lambda node: node.p), max(known, key=lambda node: node.effect)
        asked = f"p <= {report.level:.2g} and an effect >= {report.min_effect:g}"
        stage.console.print(
            f"  Flagged is what has {asked}. The least p has {surest.name}: {surest.p:.2g}. "
            f"The largest effect has {largest.name}: {largest.effect:.3f}, with p = {largest.p:.2g}.",
            soft_wrap=True,
        )


def _tell_whose_change(stage: Stage, report: DriftReport, names: Sequence[str]) -> None:
    """Print what of nodes' change is their own, and what that of their parents."""
    for name in names:
        node, shift = report.nodes[name], report.variables[name].marginal_shift
        if node.known:
            stage.console.print(
                f"  {name}: its shares moved by {shift:.3f}; given its parents it moved by {node.effect:.3f}, "
                f"where {node.smallest_shift:.2f} is found"
            )


def _row(states: tuple[str, ...], row: RowDrift) -> str:
    """Tell where one changed row's shares went: the state that gained most and the one that lost most."""
    gains = sorted(zip(states, row.before, row.now, strict=True), key=lambda each: each[2] - each[1])
    moved = "; ".join(f"{state} {before:.0%} -> {now:.0%}" for state, before, now in (gains[-1], gains[0]))
    return f"{row.name} ({row.live_rows} rows, effect {row.effect:.2f}): {moved}"


def _tell_days(stage: Stage, start: date, end: date) -> None:
    """Print what the days were like, beside those that the champion learned from."""
    stage.console.print(
        f"{start} to {end - timedelta(days=1)}: {_weather(_read_days(stage, start, end))}", soft_wrap=True
    )
    champion = stage.registry.champion(MODEL)
    if champion is not None and champion.train_end is not None:
        began = date.fromisoformat(champion.tags["bnpipe.window_start"][:10])
        before = _weather(_read_days(stage, began, champion.train_end.date()))
        stage.console.print(f"days that version {champion.number} learned from: {before}", soft_wrap=True)


def _read_days(stage: Stage, start: date, end: date) -> pd.DataFrame:
    import pandas as pd

    days = (start + timedelta(days=place) for place in range((end - start).days))
    columns = ["late_arrival", "departure_delay", "precipitation"]
    return pd.concat(pd.read_parquet(stage.feed / f"day={day}" / "part.parquet", columns=columns) for day in days)


def _weather(rows: pd.DataFrame) -> str:
    return (
        f"{len(rows)} departures, {(rows['late_arrival'] != 'no').mean():.0%} late, cancelled or diverted, "
        f"delay on leaving {rows['departure_delay'].mean():.0f} min, {(rows['precipitation'] > 0).mean():.1%} in rain"
    )


def _faults(stage: Stage) -> None:
    from bnpipe.examples import flights

    _title(stage, "3. Two faults upstream, planted: the weather provider goes metric")
    stage.console.print(
        "Visibility comes in kilometres for a week. The spec says 0 to 10 miles, so its bounds can see that.",
        soft_wrap=True,
    )
    with flights.in_another_unit(stage.feed, "visibility", KILOMETRES, *FAULTY):
        _look(stage, *FAULTY, "visibility comes in kilometres")
    _tell_untouched(stage)
    stage.console.print(
        "\nInstead, temperature comes in Celsius (the variable is its deviation from the fortnight before). Each value"
        " is plausible in Fahrenheit, too, so no bound can see it; but which values occur can.",
        soft_wrap=True,
    )
    with flights.in_another_unit(stage.feed, "temperature_anomaly", CELSIUS, *FAULTY):
        _look(stage, *FAULTY, "the temperature's deviation comes in Celsius")
    _tell_untouched(stage)


def _tell_untouched(stage: Stage) -> None:
    """Print that no training was started and who is champion, as Airflow and MLflow have it."""
    trainings = sum(run.run.startswith("drift__") for run in stage.client.runs(TRAIN))
    champion = stage.registry.champion(MODEL)
    number = champion and champion.number
    stage.console.print(f"  trainings started by drift runs so far: {trainings}; champion: version {number}")


def _bad_version(stage: Stage) -> None:
    _title(stage, "4. A bad version, promoted by hand in MLflow")
    stage.console.print(f"[bold]{TRAIN}[/bold] as of {BAD_AS_OF}, with one parent a node at most, promotion: manual")
    asked = {"end": str(BAD_AS_OF), "max_parents": 1, "promotion": "manual", "reason": "demo: as simple as can be"}
    bad = stage.tell_outcome(stage.run(TRAIN, asked))
    stage.console.print("\nMeanwhile applications ask: a hundred single flights a second, of the calm week.")
    with ServiceAtWork(stage, CALM) as service:
        began = time.monotonic()
        entry = _promote_in_mlflow(stage, bad)
        service.tell_swap(bad, since=began)
        for end in (BAD_AS_OF + WEEK, BAD_AS_OF + 2 * WEEK):
            stage.console.print()
            began = time.monotonic()
            decision, _ = _look(stage, end - WEEK, end, f"version {bad} reigns")
            if decision.action == "roll back":
                break
        else:
            began = time.monotonic()
            _roll_back_by_hand(stage, bad)
        champion = stage.registry.champion(MODEL)
        if champion is not None and champion.number != bad:
            service.tell_swap(champion.number, since=began)
    if stage.registry.version(MODEL, bad).barred is not None:
        stage.console.print(f"  version {bad} is barred from automatic promotion")
    for later in stage.registry.history(MODEL)[entry.number :]:
        _tell_entry(stage, later)


def _promote_in_mlflow(stage: Stage, version: int) -> LedgerEntry:
    """Set the alias as MLflow's page does, and wait until the watcher has had it entered."""
    before = len(stage.registry.history(MODEL))
    stage.registry.connection.call("set_registered_model_alias", MODEL, "champion", str(version))
    stage.console.print(f"\nSomebody gives version {version} the alias champion in MLflow.")
    began = time.monotonic()
    with stage.console.status("waiting for the watcher …"):
        while len(history := stage.registry.history(MODEL)) == before:
            stage.platform.check()
            if time.monotonic() - began > NOTICED:
                raise PlatformError(
                    f"{NOTICED:.0f} s after the alias was set the ledger does not have it; see bn_registry"
                )
            time.sleep(0.2)
    stage.console.print(f"  noticed after {time.monotonic() - began:.1f} s")
    _tell_entry(stage, history[-1])
    run = stage.client.runs("bn_registry")[0].run
    stage.client.wait("bn_registry", run, timeout=NOTICED, check=stage.platform.check)
    warnings = stage.client.xcom("bn_registry", run, "reconcile")["warnings"]
    said = "; ".join(warnings) or "none, the version passed its own gates; that it lost to the champion bars nobody"
    stage.console.print(f"  warnings of bn_registry: {said}", soft_wrap=True)
    return history[-1]


def _roll_back_by_hand(stage: Stage, bad: int) -> None:
    """Do what `bnpipe rollback` does, where the rule does not decide."""
    from bnpipe.config import Settings
    from bnpipe.steps import rollback

    settings = replace(Settings.from_environ(), tracking_uri=stage.platform.mlflow_url)
    stage.console.print(f"The rule is not sure of it, so a person decides: bnpipe rollback {MODEL} --reason …")
    said = f"demo: version {bad} lost to its predecessor before it was promoted"
    outcome = rollback(model=MODEL, actor=getpass.getuser(), reason=said, settings=settings)
    stage.console.print(f"  version {outcome.version}: {outcome.outcome}, {outcome.reason}", soft_wrap=True)


def _autumn(stage: Stage) -> None:
    _title(stage, "5. Autumn: what in these flights does change")
    _tell_days(stage, *AUTUMN)
    decision, report = _look(stage, *AUTUMN, "the third week of September")
    if report is not None:
        _tell_whose_change(stage, report, report.flagged)
    if decision.action not in ("refit", "relearn"):
        return
    started = [run.run for run in stage.client.runs(TRAIN) if run.run.startswith("drift__")]
    stage.console.print(f"\n[bold]{TRAIN}[/bold], started by the drift run")
    version = stage.tell_outcome(stage.follow(TRAIN, started[0]))
    run_id = stage.registry.version(MODEL, version).run_id
    if "families.json" in stage.registry.artifacts(run_id):
        families = json.loads(stage.registry.read_text(run_id, "families.json"))
        anew = [name for name, each in families.items() if not each["same"]]
        same = len(families) - len(anew)
        stage.console.print(f"  learned anew: {', '.join(anew)}; the other {same} families have the hashes they had")


def _tell_entry(stage: Stage, entry: LedgerEntry) -> None:
    from bnpipe.registry import describe

    stage.console.print(f"  ledger {describe(entry).strip()}", soft_wrap=True, markup=False)
