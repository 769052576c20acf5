"""The metrics say what happened: each figure known by hand, summed over workers, kept when one is killed."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import requests
from prometheus_client import CollectorRegistry
from watched import ASKING_KEY, METRICS_KEY, Served, garden, lay_out, serving, shelf_of

from bnpipe.answers.records import Record
from bnpipe.config.serving import BreakerSpec, ServingSpec
from bnpipe.errors import JournalError, QuestionError
from bnpipe.serving.access import ANONYMOUS, Access
from bnpipe.serving.cells import Encoded
from bnpipe.serving.metrics import PrometheusObserver
from bnpipe.serving.observing import Finished, Observer
from bnpipe.serving.questions import Kind
from bnpipe.serving.routing import Canary
from bnpipe.serving.service import Service
from bnpipe.serving.versions import ServedVersion


class Watched:
    """A service in this process and what its metrics say."""

    def __init__(self, cache: Path, spec: ServingSpec | None = None, log: Any = None) -> None:
        self.cache, self.spec = cache, spec or ServingSpec()
        self.registry = CollectorRegistry()
        self.observer = PrometheusObserver(self.registry)
        self.shelf = shelf_of(cache, self.spec)
        self.service = Service(self.spec, self.shelf, Access((), anonymous=True), log, self.observer)
        self.observer.watch(self.service, lambda: 3)

    def ask(self, kind: Kind, *rows: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
        """Ask a question; wait for shadows, too."""

        async def asked() -> bytes:
            body = msgspec.json.encode({"rows": rows, **more})
            reply = await self.service.ask(kind, "garden", body, ANONYMOUS, arrived=time.monotonic())
            await self.service.drain()
            return reply.body

        return msgspec.json.decode(asyncio.run(asked()))["answers"]

    def __getitem__(self, sample: str) -> float | None:
        """Give a sample by its text, as in ``bnpipe_rows_total{model="garden"}``, after counting."""
        self.observer.count()
        name, _, labels = sample.partition("{")
        return self.registry.get_sample_value(name, dict(re.findall(r'(\w+)="([^"]*)"', labels)))


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A garden that is asked for."""
    lay_out(tmp_path, {1: garden()})
    return Watched(tmp_path)


def version_of(watched: Watched) -> ServedVersion:
    champion = watched.shelf.model("garden").champion
    assert champion is not None
    return champion


def test_each_observed_node_is_counted_in_the_rows_that_observe_it(watched: Watched):
    """Node activation: a null or absent cell observes nothing; remembered answers count like fresh ones."""
    for _ in range(2):
        watched.ask("posterior", {"rain": "yes"}, {"rain": "no", "gauge": 7}, {"gauge": None})
    assert watched['bnpipe_rows_total{model="garden"}'] == 6
    assert watched['bnpipe_node_observed_total{model="garden",node="rain"}'] == 4
    assert watched['bnpipe_node_observed_total{model="garden",node="gauge"}'] == 2
    assert watched['bnpipe_node_observed_total{model="garden",node="wet"}'] == 0
    assert watched['bnpipe_cache_lookups_total{result="hit"}'] == 1
    assert watched['bnpipe_cache_lookups_total{result="miss"}'] == 1


def test_beliefs_add_up_to_the_rows_asked_about(watched: Watched):
    """The mass of a state is the sum of its probabilities: in posteriors and in explanations."""
    watched.ask("posterior", {"rain": "yes"}, {"rain": "no"}, {})
    watched.ask("explanation", {"rain": "yes"})
    mass = [
        watched[f'bnpipe_belief_mass_total{{model="garden",target="wet",state="{state}"}}'] for state in ("yes", "no")
    ]
    assert mass[0] == pytest.approx(1.0 + 0.2 + (0.25 + 0.75 * 0.2) + 1.0)
    assert mass[1] == pytest.approx(0.0 + 0.8 + 0.75 * 0.8 + 0.0)


def test_predictions_and_abstentions_are_counted_by_state(watched: Watched):
    """A row in which no state is probable enough is an abstention, not a prediction."""
    watched.ask("predict", {"rain": "yes"}, {"rain": "no"}, {}, abstain_below=0.7)
    assert watched['bnpipe_predicted_total{model="garden",target="wet",state="yes"}'] == 1
    assert watched['bnpipe_predicted_total{model="garden",target="wet",state="no"}'] == 1
    assert watched['bnpipe_abstained_total{model="garden",target="wet"}'] == 1


def test_surprise_is_minus_the_log_likelihood(watched: Watched):
    """Rows of probability 0 are counted apart: one of them would hide all others in a mean."""
    watched.ask("posterior", {"rain": "yes"}, {"rain": "no", "wet": "yes"}, {"rain": "yes", "wet": "no"})
    assert watched['bnpipe_surprise_nats_total{model="garden"}'] == pytest.approx(-np.log(0.25) - np.log(0.75 * 0.2))
    assert watched['bnpipe_impossible_rows_total{model="garden"}'] == 1


def test_unseen_states_are_told_by_variable(watched: Watched):
    """A value that is no state is counted under its variable; the value itself is nowhere."""
    watched.ask("posterior", {"rain": "canary-7231"}, {"rain": "canary-7231", "wet": "yes"})
    assert watched['bnpipe_node_unseen_total{model="garden",node="rain"}'] == 2
    assert b"canary-7231" not in watched.observer.expose()


def test_variables_that_are_unknown_have_no_name_in_the_metrics(tmp_path: Path):
    """Callers must not be able to make labels."""
    lay_out(tmp_path, {1: garden()})
    watched = Watched(tmp_path, ServingSpec.model_validate({"defaults": {"unknown_variables": "ignore"}}))
    watched.ask("posterior", {"stranger-7231": "yes", "rain": "no"}, {"stranger-7232": 1})
    assert watched['bnpipe_unknown_cells_total{model="garden"}'] == 2
    assert b"stranger" not in watched.observer.expose()


def test_a_sample_of_answers_stands_for_all(watched: Watched):
    """Of many answers a few are looked into and count for more: the sum has no bias.

    200 of 3000 answers are drawn, 30 % of them sure of rain. The sum would stray by four standard errors in one of
    16 000 seeds; the seed is fixed.
    """
    random.seed(7)
    version = version_of(watched)
    sure, not_sure = b'[{"posterior":{"wet":{"no":0.0,"yes":1.0}}}]', b'[{"posterior":{"wet":{"no":1.0,"yes":0.0}}}]'
    for place in range(3000):
        watched.observer.answered(version, "posterior", sure if place % 10 < 3 else not_sure)
    yes = watched['bnpipe_belief_mass_total{model="garden",target="wet",state="yes"}']
    no = watched['bnpipe_belief_mass_total{model="garden",target="wet",state="no"}']
    assert yes + no == pytest.approx(3000)
    assert abs(yes - 900) < 4 * 3000 * np.sqrt(0.3 * 0.7 / 200)


def test_many_rows_of_one_answer_count_in_full(watched: Watched):
    """A large question is looked into at a few rows; counts of rows and observed cells are exact.

    Every fourth row tells of rain, so steps of four would see only one kind. 64 rows are drawn for the likelihood, 32
    for the beliefs; each would stray by four standard errors in one of 16 000 seeds, and the seed is fixed.
    """
    random.seed(7)
    rows = [{"rain": "yes" if place % 4 == 0 else "no"} for place in range(1000)]
    watched.ask("posterior", *rows)
    assert watched['bnpipe_node_observed_total{model="garden",node="rain"}'] == 1000
    mass = watched['bnpipe_belief_mass_total{model="garden",target="wet",state="yes"}']
    assert mass + watched['bnpipe_belief_mass_total{model="garden",target="wet",state="no"}'] == pytest.approx(1000)
    spread = np.sqrt(0.25 * 0.75)
    assert abs(mass / 1000 - (0.25 + 0.75 * 0.2)) < 4 * 0.8 * spread / np.sqrt(32)
    nats = watched['bnpipe_surprise_nats_total{model="garden"}'] / 1000
    assert abs(nats + 0.25 * np.log(0.25) + 0.75 * np.log(0.75)) < 4 * np.log(3) * spread / np.sqrt(64)


def test_an_engine_call_is_counted_with_its_questions(watched: Watched):
    """Batches: rows, questions and seconds of each call, by kind."""

    async def together() -> None:
        body = msgspec.json.encode({"rows": [{"rain": "yes"}, {"gauge": 1}]})
        bodies = [body, body.replace(b"yes", b"no")]
        asked = (
            watched.service.ask("posterior", "garden", each, ANONYMOUS, arrived=time.monotonic()) for each in bodies
        )
        await asyncio.gather(*asked)

    asyncio.run(together())
    assert watched['bnpipe_engine_rows_total{model="garden",kind="posterior"}'] == 4
    assert watched['bnpipe_engine_seconds_count{model="garden",kind="posterior"}'] == 1
    assert watched["bnpipe_batch_questions_sum"] == 2


def test_requests_are_counted_by_status_and_timed_by_arm(watched: Watched):
    """The buckets reach from 0.2 ms to 5 s, each holding those below."""
    for seconds, status in ((0.0001, 200), (0.004, 200), (7.0, 503)):
        watched.observer.request(Finished("posterior", status, seconds, "garden", 1, "champion"))
    labels = 'endpoint="posterior",model="garden",arm="champion"'
    assert watched['bnpipe_requests_total{endpoint="posterior",model="garden",status="200"}'] == 2
    assert watched['bnpipe_requests_total{endpoint="posterior",model="garden",status="503"}'] == 1
    found = [
        watched[f'bnpipe_request_seconds_bucket{{{labels},le="{le}"}}'] for le in ("0.0002", "0.002", "0.005", "5.0")
    ]
    assert found == [1, 1, 2, 2]
    assert watched[f"bnpipe_request_seconds_sum{{{labels}}}"] == pytest.approx(7.0041)


def test_versions_breakers_and_the_registry_are_looked_at(tmp_path: Path):
    """A swap, a canary, a breaker that opened, requests held, and when the registry last answered."""
    lay_out(tmp_path, {1: garden(), 2: garden(0.3)}, canary=Canary(2, 0.1, 0.0, "salt"))
    watched = Watched(tmp_path, ServingSpec(breaker=BreakerSpec(of=1)))
    assert watched['bnpipe_version_in_use{model="garden",role="champion"}'] == 1
    assert watched['bnpipe_version_in_use{model="garden",role="challenger"}'] == 2
    assert watched['bnpipe_canary_share{model="garden",mode="answers"}'] == 0.1
    assert watched['bnpipe_swaps_total{model="garden"}'] == 0
    assert watched["bnpipe_registry_up"] == 1
    assert abs(watched["bnpipe_registry_answered_timestamp_seconds"] - time.time()) < 60
    assert watched["bnpipe_requests_held"] == 3
    lay_out(tmp_path, {2: garden(0.3)}, champion=2)
    watched.shelf.refresh()
    assert watched['bnpipe_version_in_use{model="garden",role="champion"}'] == 2
    assert watched['bnpipe_version_in_use{model="garden",role="challenger"}'] == 0
    assert watched['bnpipe_canary_share{model="garden",mode="answers"}'] == 0
    assert watched['bnpipe_swaps_total{model="garden"}'] == 1

    def fails(*_: Any) -> Any:
        raise RuntimeError("canary-7231")

    watched.service.batcher.ask = fails
    answers = watched.ask("posterior", {"rain": "yes"})
    assert answers[0]["posterior"]["wet"]["yes"] == pytest.approx(0.3 + 0.7 * 0.2)  # the marginal
    assert watched['bnpipe_engine_failures_total{model="garden",kind="posterior"}'] == 1
    assert watched['bnpipe_breaker_opened_total{model="garden"}'] == 1
    assert watched['bnpipe_breaker_state{model="garden",role="champion"}'] == 2
    assert watched['bnpipe_belief_mass_total{model="garden",target="wet",state="yes"}'] is None  # nobody believes that


def test_a_shadow_is_measured_against_the_answer(tmp_path: Path):
    """Total variation: the garden that knows of more rain believes otherwise by a known amount."""
    lay_out(tmp_path, {1: garden(0.25), 2: garden(0.35)}, canary=Canary(2, 0.0, 1.0, "salt"))
    watched = Watched(tmp_path)
    watched.ask("posterior", {})
    assert watched['bnpipe_shadow_distance_count{model="garden"}'] == 1
    assert watched['bnpipe_shadow_distance_sum{model="garden"}'] == pytest.approx(0.1 * 0.8)
    assert watched['bnpipe_canary_share{model="garden",mode="shadows"}'] == 1


class _FullDisk:
    """A log that keeps the first record and then no more."""

    def __init__(self) -> None:
        self.kept: list[Record] = []

    def append(self, records: list[Record]) -> None:
        if self.kept:
            raise JournalError("the disk is full")
        self.kept += records


def test_records_kept_and_refused_are_counted(tmp_path: Path):
    """A log that refuses is seen in the metrics, whether the answer was given or not."""
    lay_out(tmp_path, {1: garden()})
    watched = Watched(tmp_path, log=_FullDisk())
    watched.ask("posterior", {"rain": "yes"})
    with pytest.raises(JournalError):
        watched.ask("posterior", {"rain": "yes"})
    assert watched["bnpipe_journal_records_total"] == 1
    assert watched["bnpipe_journal_refused_total"] == 1


def test_errors_and_shed_requests_are_counted(watched: Watched):
    """Errors go by their class, never by their words."""
    watched.observer.error(kind=QuestionError.__name__, model="garden")
    watched.observer.shed()
    watched.observer.unshadowed("garden")
    watched.observer.labelled("garden")
    assert watched['bnpipe_errors_total{kind="QuestionError",model="garden"}'] == 1
    assert watched["bnpipe_shed_total"] == 1
    assert watched['bnpipe_unshadowed_total{model="garden"}'] == 1
    assert watched['bnpipe_labelled_rows_total{model="garden"}'] == 1


def test_what_cannot_be_counted_does_not_keep_the_rest_from_it(watched: Watched, caplog: pytest.LogCaptureFixture):
    """One thing that fails costs one line in the log, and nothing else."""
    version = version_of(watched)
    for _ in range(3):
        watched.observer.answered(version, "posterior", b"no JSON")
        watched.observer.evidence(version, Encoded(np.zeros((1, 1), dtype=np.uint8), (), ()))
    watched.observer.shed()
    assert watched["bnpipe_shed_total"] == 1
    assert len([record for record in caplog.records if record.name == "bnpipe.serving.metrics"]) == 1


def test_noting_costs_a_request_next_to_nothing(watched: Watched):
    """What a request waits for is a tuple in a queue: 6 hooks in under 30 µs of this thread, counting done elsewhere.

    Measured on an idle core: 2 to 3 µs; the best of five is taken.
    """
    version, observer = version_of(watched), watched.observer
    encoded = version.encoder.encode([{"rain": "yes"}])
    done = Finished("posterior", 200, 0.001, "garden", 1, "champion")
    best = np.inf
    for _ in range(5):
        began = time.thread_time()
        for _ in range(1000):
            observer.evidence(version, encoded)
            observer.cached(hit=False)
            observer.answered(version, "posterior", b"[]")
            observer.logged(1, refused=False)
            observer.shed()
            observer.request(done)
        best = min(best, (time.thread_time() - began) / 1000)
        observer.count()
    assert best < 30e-6


def test_a_queue_nobody_empties_does_not_grow_for_ever(watched: Watched):
    """If the thread that counts dies, the oldest events go; memory does not."""
    for _ in range(150_000):
        watched.observer.shed()
    assert watched["bnpipe_shed_total"] == 100_000


def test_every_hook_is_counted():
    """A hook that is only inherited would hear and forget."""
    hooks = {name for name in vars(Observer) if not name.startswith("_")}
    assert hooks
    assert hooks <= vars(PrometheusObserver).keys()


def test_nothing_is_lost_or_counted_twice_while_others_go_on(watched: Watched):
    """Threads note what they hear while it is counted: the sum is exact."""
    noting = [threading.Thread(target=lambda: [watched.observer.shed() for _ in range(10_000)]) for _ in range(4)]
    for thread in noting:
        thread.start()
    while any(thread.is_alive() for thread in noting):
        watched.observer.count()
    assert watched["bnpipe_shed_total"] == 40_000


def test_a_thread_counts_by_itself_until_it_is_stopped(watched: Watched):
    """Without anybody asking for the metrics; and what is left when it stops is counted, too."""
    watched.observer.start()
    watched.observer.shed()
    end = time.monotonic() + 30
    while not (counted := watched.registry.get_sample_value("bnpipe_shed_total")):
        assert time.monotonic() < end
        time.sleep(0.02)
    watched.observer.shed()
    watched.observer.stop()
    assert watched.registry.get_sample_value("bnpipe_shed_total") == counted + 1


_WORKER = """
import sys
from bnpipe.serving.process import share_counters
from bnpipe.serving.metrics import PrometheusObserver
share_counters(sys.argv[1])
observer = PrometheusObserver()
for _ in range(int(sys.argv[2])):
    observer.shed()
observer.count()
print([line for line in observer.expose().decode().splitlines() if line.startswith(sys.argv[3])])
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_goes_on_counting_where_its_namesake_died(tmp_path: Path):
    """Counters are the service's: not lost with a worker that was killed, nor kept in one more file each time."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def life(name: str, events: int) -> str:
        command = [sys.executable, "-c", _WORKER, name, str(events), "bnpipe_shed_total"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.strip()

    assert life("worker-1", 2) == "['bnpipe_shed_total 2.0']"
    files = sorted(path.name for path in tmp_path.iterdir())
    assert life("worker-2", 3) == "['bnpipe_shed_total 5.0']"
    assert life("worker-1", 4) == "['bnpipe_shed_total 9.0']"
    assert sorted(path.name for path in tmp_path.iterdir() if "worker-1" in path.name) == files


def values(text: str, name: str) -> dict[str, float]:
    """Samples of a metric, by the text of their labels."""
    return {labels: float(value) for labels, value in re.findall(rf"(?m)^{name}(\{{[^}}]*\}})? (\S+)$", text)}


def total(served: Served, name: str) -> float:
    return sum(values(served.metrics(), name).values())


@pytest.mark.timeout(180)
def test_a_killed_worker_takes_no_count_with_it(tmp_path: Path):
    """Any worker tells the sum over all; one killed -9 is missed until it is back, and no request is forgotten."""
    lay_out(tmp_path / "cache", {1: garden()})
    with serving(tmp_path, tmp_path / "cache", workers=2) as served:
        for _ in range(20):
            assert served.ask("posterior", {"rain": "yes"}).status_code == 200
            served.session.close()  # so that both workers get some
        served.wait_for(lambda: total(served, "bnpipe_workers") == 2)
        served.wait_for(lambda: total(served, "bnpipe_rows_total") == 20)
        pids = served.wait_for(lambda: len(found := served.workers()) == 2 and found)
        assert set(values(served.metrics(), "bnpipe_version_in_use")) >= {
            f'{{model="garden",pid="{name}",role="champion"}}' for name in pids
        }
        os.kill(pids["worker-1"], signal.SIGKILL)
        served.wait_for(lambda: served.workers()["worker-1"] != pids["worker-1"])
        served.wait_for(lambda: total(served, "bnpipe_workers") == 2)
        assert total(served, "bnpipe_rows_total") == 20
        served.ask("posterior", {"rain": "yes"})
        served.wait_for(lambda: total(served, "bnpipe_rows_total") == 21)
        merely_asking = requests.get(f"{served.address}/metrics", headers={"X-API-Key": ASKING_KEY}, timeout=20)
        assert merely_asking.status_code == 403
        assert "bnpipe_" not in merely_asking.text
        question = f"{served.address}/v1/models/garden/posterior"
        merely_reading = requests.post(question, json={"rows": [{}]}, headers={"X-API-Key": METRICS_KEY}, timeout=20)
        assert merely_reading.status_code == 403
        text = served.metrics()
        assert values(text, "bnpipe_registry_up") == {"": 0.0}
        assert values(text, "bnpipe_journal_records_total") == {"": 21.0}


def test_a_costly_network_is_looked_at_less(watched: Watched, monkeypatch: pytest.MonkeyPatch):
    """Watching must not cost more than answering: fewer rows stand for all, and of the costliest none is computed."""
    cost = version_of(watched).cost
    rows = [{"rain": "yes"}] * 100
    for cells, rows_told in ((2.5 * cost, 100), (0.5 * cost, 0)):
        monkeypatch.setattr("bnpipe.serving.metrics._LIKELY_CELLS", cells)
        before = watched['bnpipe_surprise_nats_total{model="garden"}'] or 0.0
        watched.ask("posterior", *rows)
        nats = watched['bnpipe_surprise_nats_total{model="garden"}'] - before
        assert nats == pytest.approx(rows_told * -np.log(0.25))
