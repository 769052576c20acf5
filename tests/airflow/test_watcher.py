"""The watcher of the champions, against a real MLflow, driven as the triggerer drives it."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import aclosing, suppress
from datetime import datetime

import pytest

from bnpipe.airflow.watcher import ChampionTrigger, poll_champions
from bnpipe.registry.ledger import LEDGER_TAG

FAST = 0.01


class StateStore:
    """The part of Airflow's asset state store that a trigger sees."""

    def __init__(self) -> None:
        self.values = {}

    async def aget(self, key, default=None):
        """Read."""
        return self.values.get(key, default)

    async def aset(self, key, value):
        """Write."""
        self.values[key] = value


@pytest.fixture
def mlflow(mlflow_uri):
    """An MLflow with two models of bnpipe, `alpha` at version 1 and `beta` without a champion."""
    from mlflow import MlflowClient

    client = MlflowClient(mlflow_uri)
    for name in ("alpha", "beta"):
        client.create_registered_model(name, tags={LEDGER_TAG: "run"})
        for _ in range(2):
            client.create_model_version(name, "file:///nowhere")
    client.set_registered_model_alias("alpha", "champion", "1")
    return client


def watch(trigger, *acts, limit=5.0):
    """Collect events: after each event the next act is carried out; ends when acts are used up."""

    async def collect():
        events = []
        async with asyncio.timeout(limit), aclosing(trigger.run()) as stream:
            remaining = list(acts)
            async for event in stream:
                events.append(event.payload)
                if not remaining:
                    return events
                remaining.pop(0)()
        return events

    return asyncio.run(collect())


def told(event):
    """The part of an event that does not change from run to run."""
    return event["model"], event["version"], event["previous"], event["missing"]


def silent(trigger, seconds=0.3):
    """Say whether a trigger has nothing to tell for a while."""
    try:
        watch(trigger, limit=seconds)
    except TimeoutError:
        return True
    return False


def test_one_request_reads_all_champions(mlflow):
    """A model without a champion is there, too; one that is not bnpipe's is not."""
    mlflow.create_registered_model("gamma")
    assert poll_champions() == {"alpha": 1, "beta": None}


def test_a_move_is_announced_with_what_was_before(mlflow):
    """The first look announces too, since nobody knows what was missed; removal counts as a move."""
    events = watch(
        ChampionTrigger("alpha", FAST),
        lambda: mlflow.set_registered_model_alias("alpha", "champion", "2"),
        lambda: mlflow.delete_registered_model_alias("alpha", "champion"),
    )
    assert [told(event) for event in events] == [
        ("alpha", 1, None, False),
        ("alpha", 2, 1, False),
        ("alpha", None, 2, False),
    ]
    times = [datetime.fromisoformat(event["seen"]) for event in events]
    assert times == sorted(times)
    assert times[0].tzinfo is not None


def test_a_model_without_champion_is_silent(mlflow):
    """Nothing to announce, neither for a model that does not exist."""
    assert silent(ChampionTrigger("beta", FAST))
    assert silent(ChampionTrigger("gamma", FAST))


def test_a_model_that_is_renamed_deleted_or_comes_back(mlflow):
    """Its champion is gone and so is the model, which the event tells from an alias taken away."""
    events = watch(
        ChampionTrigger("alpha", FAST),
        lambda: mlflow.rename_registered_model("alpha", "omega"),
        lambda: mlflow.rename_registered_model("omega", "alpha"),
        lambda: mlflow.delete_model_version("alpha", "1"),
    )
    assert [told(event) for event in events] == [
        ("alpha", 1, None, False),
        ("alpha", None, 1, True),
        ("alpha", 1, None, False),
        ("alpha", None, 1, False),
    ]
    assert silent(ChampionTrigger("omega", FAST))


def test_state_survives_a_restart_of_the_triggerer(mlflow):
    """What was announced is not announced again; what moved in between is."""
    store = StateStore()
    first = ChampionTrigger("alpha", FAST)
    first.asset_state_store = store
    watch(first, lambda: mlflow.set_registered_model_alias("alpha", "champion", "2"))
    assert store.values == {"champion": {"version": 1}}

    again = ChampionTrigger("alpha", FAST)
    again.asset_state_store = store
    assert [told(event) for event in watch(again)] == [("alpha", 2, 1, False)]


def test_what_happened_while_no_triggerer_ran(mlflow):
    """After a restart nothing is told of a champion that stayed, and one event of one that was removed."""
    store = StateStore()
    for act, events in (
        (lambda: None, [("alpha", 1, None, False)]),
        (lambda: None, []),
        (lambda: mlflow.delete_registered_model_alias("alpha", "champion"), [("alpha", None, 1, False)]),
        (lambda: None, []),
    ):
        act()
        trigger = ChampionTrigger("alpha", FAST)
        trigger.asset_state_store = store
        assert [told(event) for event in listen(trigger, 0.5)] == events


def listen(trigger, seconds):
    """Collect what a trigger has to tell within some time."""
    events = []

    async def collect():
        async with aclosing(trigger.run()) as stream:
            async for event in stream:
                events.append(event.payload)  # noqa: PERF401  # a comprehension would lose all when time is up

    with suppress(TimeoutError):
        asyncio.run(asyncio.wait_for(collect(), seconds))
    return events


def test_event_goes_out_before_it_is_stored(mlflow):
    """A crash in between announces twice rather than never, also a second before Airflow has written the event."""
    trigger = ChampionTrigger("alpha", 5.0)
    trigger.asset_state_store = StateStore()
    assert len(listen(trigger, 1.0)) == 1
    assert trigger.asset_state_store.values == {}


def test_a_state_written_by_another_release_is_looked_at_anew(mlflow):
    """What can't be understood counts as never looked."""
    trigger = ChampionTrigger("alpha", FAST)
    trigger.asset_state_store = StateStore()
    trigger.asset_state_store.values = {"champion": {"number": 1}}
    assert [told(event) for event in watch(trigger)] == [("alpha", 1, None, False)]


def test_an_outage_is_logged_once_and_waited_out(mlflow, mlflow_uri, monkeypatch, caplog):
    """The watcher outlives MLflow."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.INFO, "bnpipe.airflow")

    async def outlive():
        async with asyncio.timeout(10), aclosing(ChampionTrigger("alpha", FAST).run()) as stream:
            event = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.5)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
            return await event

    assert asyncio.run(outlive()).payload["version"] == 1
    told = [record.message for record in caplog.records if record.name == "bnpipe.airflow"]
    assert len([text for text in told if "can't be read" in text]) == 1
    assert told[-1] == "the registry answers again"


def test_trigger_is_built_again_from_what_it_serialises():
    """Airflow stores class path and arguments; equal triggers are one."""
    from airflow.sdk.module_loading import import_string

    path, arguments = ChampionTrigger("alpha", 7.0).serialize()
    again = import_string(path)(**arguments)
    assert (again.model, again.poll_seconds) == ("alpha", 7.0)
    assert ChampionTrigger.hash(path, arguments) == ChampionTrigger.hash(*again.serialize())


def test_two_models_share_one_poll(mlflow, monkeypatch):
    """Run by Airflow's own stream manager, both triggers hear of their own model from the same requests."""
    from airflow.triggers.shared_stream import SharedStreamManager

    from bnpipe.airflow import watcher

    polls = []
    real = watcher.poll_champions
    monkeypatch.setattr(watcher, "poll_champions", lambda: polls.append(1) or real())
    mlflow.set_registered_model_alias("beta", "champion", "2")

    async def hear():
        manager = SharedStreamManager(max_subscriber_queue=100, ack_timeout=5.0, cohort_grace_period=0.0)
        triggers = [ChampionTrigger("alpha", 0.2), ChampionTrigger("beta", 0.2)]
        streams = [
            trigger.filter_shared_stream(
                manager.subscribe(trigger_id=n, trigger=trigger, key=trigger.shared_stream_key())
            )
            for n, trigger in enumerate(triggers)
        ]
        async with asyncio.timeout(5):
            events = await asyncio.gather(*(anext(stream) for stream in streams))
        await manager.stop_all()
        return [told(event.payload) for event in events]

    assert asyncio.run(hear()) == [("alpha", 1, None, False), ("beta", 2, None, False)]
    assert len(polls) == 1
