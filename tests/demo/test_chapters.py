"""The demo's story, as far as it needs no servers: the days it plays on, and how a look is told."""

from __future__ import annotations

import getpass
import io
from pathlib import Path

import pytest
from registry_bench import add_versions
from rich.console import Console

from bnpipe.config import load_spec
from bnpipe.demo import chapters
from bnpipe.demo.airflow_client import AirflowClient
from bnpipe.demo.platform import Platform
from bnpipe.demo.stage import Stage
from bnpipe.demo.story import LATER
from bnpipe.drift import DriftReport, NodeDrift, RowDrift, VariableDrift
from bnpipe.errors import PromotionRefused, RegistryUnavailable


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage whose platform is never started, with a console that writes to memory."""
    return Stage(Platform(tmp_path, dags=tmp_path, plugins=tmp_path), Console(file=io.StringIO(), width=120), tmp_path)


def _said(stage: Stage) -> str:
    assert isinstance(stage.console.file, io.StringIO)
    return stage.console.file.getvalue()


def _report(*nodes: NodeDrift) -> DriftReport:
    variables = {node.name: VariableDrift(node.name, 0.123, 0.0, 0.0, 0.0, 0.0) for node in nodes}
    named = {node.name: node for node in nodes}
    return DriftReport(named, variables, 0.001, 0.03, False, 90, 7, 6700, "2013-07-15", "2013-07-21", 999, 0, "hash")


def test_the_chapters_are_in_order_of_time() -> None:
    """Days that come before those of an earlier chapter would be in its cool-down, or be learned from already."""
    days = [*chapters.CALM, *chapters.STORMY, *chapters.FAULTY, chapters.BAD_AS_OF, *chapters.AUTUMN]
    assert str(days[0]) >= LATER
    assert days == sorted(days)
    assert chapters.AUTUMN[0] > chapters.BAD_AS_OF + 2 * chapters.WEEK


def test_only_one_of_the_planted_units_is_out_of_the_specs_range(repository: Path) -> None:
    """The story says that bounds can see kilometres and can't see Celsius."""
    spec = load_spec(repository / "config" / "models" / "flights.yaml")
    rules = {rule.name: rule for rule in spec.feature_rules()}
    clear, warm = rules["visibility"].maximum, rules["temperature"].maximum
    assert clear is not None
    assert warm is not None
    assert clear * chapters.KILOMETRES > clear
    assert warm * chapters.CELSIUS < warm


def test_a_look_without_alarm_is_told_with_its_past_and_its_power(stage: Stage) -> None:
    """What was found, what would have been found, and the node's own past stand side by side; unknown is not calm."""
    past = (("2013-06-30", 1.25), ("2013-07-07", 0.5), ("2013-07-21", 0.75))
    calm = NodeDrift("rain", known=True, p=0.4, effect=0.021, smallest_shift=0.35, history=past, threshold=2.5)
    chapters._tell_nodes(stage, _report(calm, NodeDrift("wind", known=False, reason="no live row has it")))
    lines = _said(stage).splitlines()
    assert lines[1].split() == ["rain", "0.4", "0.021", "0.35", "0.75", "1.25", "2.50", "0.123"]
    assert lines[2].split(maxsplit=8)[-1].strip() == "no live row has it"
    assert (
        lines[3].strip().startswith("Flagged is what has p <= 0.001 and an effect >= 0.03. The least p has rain: 0.4.")
    )


def test_a_flagged_node_is_told_with_its_rows(stage: Stage) -> None:
    """The row named, and which state gained and which lost."""
    row = RowDrift({"origin": "LGA"}, 0.2, 900, 9000, 0.001, 0.31, (0.2, 0.4), (0.5, 0.3, 0.2), (0.2, 0.61, 0.19), True)
    node = NodeDrift(
        *("carrier", True, "", 0.0007, 0.0007, 0.129, True),
        states=("DL", "EV", "other"),
        changed_rows=(row,),
        change_point="2013-09-03",
    )
    chapters._tell_nodes(stage, _report(node))
    said = _said(stage)
    assert "CHANGED, since 2013-09-03" in said
    assert "origin=LGA (900 rows, effect 0.31): EV 30% -> 61%; DL 50% -> 20%" in said


def test_the_delays_own_change_is_told_apart_from_that_of_their_causes(stage: Stage) -> None:
    """Marginal, conditional and power in one sentence; a node that is unknown is left out."""
    late = NodeDrift("late_arrival", known=True, p=0.9, effect=0.02, smallest_shift=0.19)
    chapters._tell_whose_change(stage, _report(late, NodeDrift("wind", known=False)), ("wind", "late_arrival"))
    [line] = _said(stage).splitlines()
    assert line == (
        "  late_arrival: its shares moved by 0.123; given its parents it moved by 0.020, where 0.19 is found"
    )


def test_where_the_rule_is_not_sure_a_person_rolls_back(stage: Stage, mlflow_uri: str) -> None:
    """The version before reigns again, by a person for that reason, the bad one is barred, and all of it is printed."""
    add_versions(mlflow_uri, chapters.MODEL, 2)
    stage.platform.mlflow_url = mlflow_uri
    for number in (1, 2):
        stage.registry.promote(chapters.MODEL, number, actor="schedule", reason="better")
    chapters._roll_back_by_hand(stage, 2)
    champion = stage.registry.champion(chapters.MODEL)
    assert champion is not None
    assert champion.number == 1
    assert stage.registry.version(chapters.MODEL, 2).barred is not None
    entry = stage.registry.history(chapters.MODEL)[-1]
    assert (entry.kind, entry.actor) == ("rollback", getpass.getuser())
    assert "version 2 lost to its predecessor" in entry.reason
    assert "version 1: rolled back, demo: version 2 lost to its predecessor" in _said(stage)


def test_where_there_is_no_way_back_the_story_ends_with_the_reason(stage: Stage, mlflow_uri: str) -> None:
    """The refusal names what is missing; the champion is who it was and nobody is barred."""
    add_versions(mlflow_uri, chapters.MODEL, 1)
    stage.platform.mlflow_url = mlflow_uri
    stage.registry.promote(chapters.MODEL, 1, actor="schedule", reason="first")
    with pytest.raises(PromotionRefused, match="no earlier champion to go back to from version 1"):
        chapters._roll_back_by_hand(stage, 1)
    champion = stage.registry.champion(chapters.MODEL)
    assert champion is not None
    assert (champion.number, champion.barred) == (1, None)


def test_where_mlflow_is_away_the_rollback_says_so(stage: Stage, mlflow_uri: str) -> None:
    """The error says whom nobody could reach; it may be tried again."""
    stage.platform.mlflow_url = "http://127.0.0.1:9"
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9"):
        chapters._roll_back_by_hand(stage, 2)


def test_a_report_is_linked_where_the_plugin_puts_it() -> None:
    """The address printed is that of the tab."""
    from bnpipe.airflow.plugin import TAB

    client = AirflowClient("http://127.0.0.1:1", "admin", "")
    assert client.report_url("a", "b c") == f"http://127.0.0.1:1/dags/a/runs/b%20c/plugin/{TAB}"
