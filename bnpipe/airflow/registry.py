"""`bn_registry`: notices when a champion moves, by whatever hand, and puts ledger and alias together again."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Asset, AssetAny, AssetWatcher, BaseOperator, Param

from bnpipe.airflow.alerts import registry_alert
from bnpipe.airflow.specs import models
from bnpipe.airflow.tasks import retry_settings, run_url, short_errors
from bnpipe.airflow.watcher import ChampionTrigger
from bnpipe.alerts import send
from bnpipe.errors import SettingsError

if TYPE_CHECKING:
    from bnpipe.registry import Reconciliation, Sighting

log = logging.getLogger("bnpipe.airflow")

POLL_VARIABLE = "BNPIPE_POLL_SECONDS"


def poll_seconds() -> float:
    """Read how often to look at the registry.

    Raises
    ------
    SettingsError
        Not a positive number.
    """
    text = os.environ.get(POLL_VARIABLE) or "5"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 86_400.0:
        raise SettingsError(f"{POLL_VARIABLE} must be a number of seconds above 0, got {text!r}")
    return seconds


def champion_asset(name: str, *, poll_seconds: float = 5.0) -> Asset:
    """Give the asset of a model's champion; its events say what :class:`ChampionTrigger` has seen."""
    watcher = AssetWatcher(name=f"champion of {name}", trigger=ChampionTrigger(name, poll_seconds))
    return Asset(f"champion of {name}", uri=f"bnpipe://champion/{name}", group="bnpipe", watchers=[watcher])


def registry_dag() -> DAG:
    """Make the one Dag that follows all champions. It is unpaused when created: a watcher lives only so long."""
    seconds = poll_seconds()
    assets = [champion_asset(model.name, poll_seconds=seconds) for model in models()]
    dag = DAG(
        "bn_registry",
        description="Reconcile ledger and champion whenever a champion moves",
        doc_md=_DOCUMENT,
        schedule=AssetAny(*assets) if assets else None,
        is_paused_upon_creation=False,
        catchup=False,
        max_active_runs=1,
        params={
            "model": Param(
                None, type=["null", "string"], title="Model", description="Blank: every model bnpipe manages."
            )
        },
        tags=["bnpipe", "registry"],
        default_args={"owner": "bnpipe", **retry_settings()},
    )
    with dag:
        reconcile = ReconcileOperator(task_id="reconcile")
        reconcile.returns_dag_result = True
    return dag


class ReconcileOperator(BaseOperator):
    """Close what a crash left open, and write into the ledger what was moved by hand; safe to run at any time.

    Returns
    -------
    dict
        ``closed``, ``voided``, ``by_hand``: entries of the ledger, one line each; ``warnings`` for a person.
    """

    def execute(self, context: Any) -> dict[str, list[str]]:
        """Reconcile."""
        from bnpipe import steps

        sightings = _sightings(context)
        for seen in sightings:
            log.info("champion of %s: version %s, before: %s", seen.model, seen.version, seen.previous)
        with short_errors(context):
            report = _report(steps.reconcile(context["params"]["model"], sightings=sightings))
        for fate, lines in report.items():
            for line in lines:
                log.info("%s: %s", fate, line)
        if report["warnings"]:
            send(registry_alert(report["warnings"], link=run_url(context["ti"])))
        return report


def _report(found: Iterable[Reconciliation]) -> dict[str, list[str]]:
    from bnpipe.registry import describe

    report: dict[str, list[str]] = {"closed": [], "voided": [], "by_hand": [], "warnings": []}
    for one in found:
        for fate in ("closed", "voided", "by_hand"):
            report[fate] += [f"{entry.model}: {describe(entry).strip()}" for entry in getattr(one, fate)]
        report["warnings"] += one.warnings
    return report


def _sightings(context: Any) -> tuple[Sighting, ...]:
    """Read what the watchers saw; several moves of one champion may have started one run."""
    from bnpipe.registry import Sighting

    events = [
        event.extra.get("payload", event.extra)
        for events in context["triggering_asset_events"].values()
        for event in events
    ]
    return tuple(
        Sighting(
            event["model"],
            event["version"],
            event["previous"],
            datetime.fromisoformat(event["seen"]),
            event["missing"],
        )
        for event in events
        if "seen" in event
    )


_DOCUMENT = """# Registry

A watcher polls MLflow for the alias `champion` of every model. When one moves (by a training, an approval, the command
line, or by a person in the MLflow UI) the asset `champion of NAME` gets an event and this Dag reconciles the ledger:

- a promotion that crashed half-way is closed as done or void,
- a move by hand becomes an entry with the actor `unknown (MLflow)`, with a warning if that version never passed its
  gates or is barred; so does every other version that the watcher saw on the way,
- an alias that was removed, a champion that was deleted, and a model that was renamed or deleted are warned of.

Start it by hand at any time; it changes nothing that is in order.
"""
