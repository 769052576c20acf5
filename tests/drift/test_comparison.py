"""compare_cpds: what it finds, what it can't know, and what must not matter to it."""

from __future__ import annotations

import time

import numpy as np
import pytest

import bnpipe
from benchmarks.characteristics import World, changed, draw_world, tables_of
from benchmarks.days import DAY_EFFECTS, Days, draw_days, part
from benchmarks.networks import published
from bnpipe.data import Dataset
from bnpipe.drift import DriftReport, compare_cpds, fewest_replays, look_level
from bnpipe.errors import DataError, NoCountsError
from bnpipe.network import Network
from bnpipe.schema import MISSING, Schema, Variable

NODE = "dysp"  # of asia, its parents are either and bronc


def world(seed: int = 1, *, shift: float = 0.3, rows: tuple[tuple[int, ...], ...] | None = None) -> World:
    """Asia over 30 days, then seven in which the CPD of `NODE`, or some rows of it, moved by `shift`."""
    truth = published("asia")
    place = truth.nodes.index(NODE)
    base = tables_of(truth)
    after = [changed(table, shift, rows) if k == place else table for k, table in enumerate(base)]
    drawn = draw_days(truth, Days(200), 37, lambda day: base if day < 30 else after, np.random.default_rng(seed))
    return World(bnpipe.fit(part(drawn, 0, 30), truth.parents), part(drawn, 30, 37))


def test_a_changed_cpd_is_named_with_its_rows_and_its_day():
    """The node, its rows before and after, and since when; nothing else."""
    found = world()
    report = compare_cpds(found.network, found.live)
    assert report.flagged == (NODE,)
    node = report.nodes[NODE]
    assert node.p <= 0.05
    assert node.effect == pytest.approx(0.3, abs=0.06)
    assert node.rows == found.live.rows
    assert node.change_point == "0030"
    assert 0 < node.smallest_shift < 0.3
    row = node.changed_rows[0]
    assert set(row.configuration) == set(found.network.parents[NODE])
    assert row.changed
    assert row.interval[0] < 0.3 < row.interval[1] + 0.05
    assert sum(row.before) == pytest.approx(1.0)
    assert sum(row.now) == pytest.approx(1.0)
    assert not report.independent_rows
    assert (report.first_cluster, report.last_cluster, report.live_clusters) == ("0030", "0036", 7)


def test_one_changed_row_is_told_from_the_others():
    """A single row moves: it is named first, and rows that did not move are not called changed."""
    found = world(rows=((1, 0),))
    node = compare_cpds(found.network, found.live).nodes[NODE]
    truth = found.network.schema
    wanted = {
        parent: truth[parent].states[code] for parent, code in zip(found.network.parents[NODE], (1, 0), strict=True)
    }
    assert node.flagged
    assert [dict(row.configuration) for row in node.changed_rows if row.changed] == [wanted]


def test_a_trifle_is_significant_and_does_not_matter():
    """At many rows the least shift is sure; it is told by p and not flagged."""
    truth = published("asia")
    place = truth.nodes.index(NODE)
    base = tables_of(truth)
    after = [changed(table, 0.01) if k == place else table for k, table in enumerate(base)]
    drawn = draw_days(truth, Days(20_000), 37, lambda day: base if day < 30 else after, np.random.default_rng(3))
    report = compare_cpds(bnpipe.fit(part(drawn, 0, 30), truth.parents), part(drawn, 30, 37))
    assert report.nodes[NODE].p <= 0.05
    assert report.nodes[NODE].effect < 0.02
    assert report.flagged == ()
    assert compare_cpds(bnpipe.fit(part(drawn, 0, 30), truth.parents), part(drawn, 30, 37), min_effect=0.005).flagged


def test_rows_without_clusters_are_taken_as_independent():
    """Without cluster labels on one side the report says so, finds the change and dates nothing."""
    found = world()
    loose = Dataset(found.live.schema, found.live.codes)
    report = compare_cpds(found.network, loose)
    assert report.independent_rows
    assert report.flagged == (NODE,)
    assert report.nodes[NODE].change_point is None
    assert "independent" in str(report)


def test_independent_rows_keep_the_level():
    """Fisher's test by replay: 400 comparisons of 8 nodes at 5 %, more than 6.6 % by luck in 1 of 1 000 seeds."""
    truth = published("asia")
    small = 0
    for number in range(400):
        rng = np.random.default_rng([4, number])
        drawn = draw_days(truth, Days(150), 8, lambda _: tables_of(truth), rng)
        network = bnpipe.fit(Dataset(truth.schema, part(drawn, 0, 7).codes), truth.parents)
        report = compare_cpds(network, Dataset(truth.schema, part(drawn, 7, 8).codes), replays=99, min_effect=0.0)
        small += sum(node.own_p <= 0.05 for node in report.nodes.values())
    assert small <= 0.066 * 400 * 8


@pytest.mark.parametrize("clustered", [True, False])
def test_orders_do_not_matter(clustered: bool):
    """Rows, columns and states in another order give the same p's and effects."""
    found = world()
    live = found.live if clustered else Dataset(found.live.schema, found.live.codes)
    rng = np.random.default_rng(5)
    expected = compare_cpds(found.network, live)
    rows = rng.permutation(live.rows)
    clusters = None if live.clusters is None else live.clusters[rows]
    shuffled = Dataset(live.schema, live.codes[:, rows], clusters, live.cluster_labels)
    columns = rng.permutation(len(live.schema))
    schema = Schema(tuple(live.schema.variables[place] for place in columns))
    counts = {node: found.network.family_counts(node) for node in found.network.nodes}
    network = Network(schema, found.network.parents, counts=counts, cluster_labels=found.network.cluster_labels)
    turned = Dataset(schema, live.codes[columns], live.clusters, live.cluster_labels)
    for report in (compare_cpds(found.network, shuffled), compare_cpds(network, turned)):
        for name, node in expected.nodes.items():
            assert report.nodes[name].p == node.p
            assert report.nodes[name].effect == pytest.approx(node.effect, abs=1e-12)
    if clustered:
        mirrored = _mirrored(found.network, live)
        report = compare_cpds(*mirrored)
        assert [report.nodes[name].p for name in expected.nodes] == [node.p for node in expected.nodes.values()]


def _mirrored(network: Network, live: Dataset) -> tuple[Network, Dataset]:
    """Name the states of every variable in the other order."""
    schema = Schema(tuple(Variable(each.name, each.states[::-1]) for each in network.schema))
    tops = np.array(network.schema.cardinalities, dtype=np.uint8)[:, None] - 1
    flipped = np.where(live.codes == MISSING, MISSING, tops - live.codes).astype(np.uint8)
    counts = {}
    for node in network.nodes:
        own = network.family_counts(node)
        flat, size = own.cells.copy(), own.table_size
        counts[node] = own.place(np.arange(own.shape[0]), own.shape[0])
        mirrored = (flat // size) * size + (size - 1 - flat % size)
        order = np.argsort(mirrored)
        counts[node] = type(own)(own.shape, mirrored[order], own.counts[order])
    turned = Network(schema, network.parents, counts=counts, cluster_labels=network.cluster_labels)
    return turned, Dataset(schema, flipped, live.clusters, live.cluster_labels)


def test_missing_cells_leave_only_their_families_out():
    """A family counts the rows where it is whole; a column that never comes makes its families unknown."""
    found = world()
    codes = found.live.codes.copy()
    place = found.live.schema.index("smoke")
    codes[place] = MISSING
    live = Dataset(found.live.schema, codes, found.live.clusters, found.live.cluster_labels)
    report = compare_cpds(found.network, live)
    lost = {"smoke", *(node for node in found.network.nodes if "smoke" in found.network.parents[node])}
    assert set(report.unknown) == lost
    assert all("no live row" in report.nodes[name].reason for name in lost)
    assert report.variables["smoke"].missing == 1.0
    assert report.flagged == (NODE,)


def test_unseen_and_new_are_kept_beside():
    """Values that no state takes, and configurations without a reference row, are told and flag no CPD."""
    schema = Schema((Variable("a", ("x", "y", "z")), Variable("b", ("u", "v"))))
    rng = np.random.default_rng(6)
    codes = np.stack([rng.integers(0, 2, 1000), rng.integers(0, 2, 1000)]).astype(np.uint8)
    days = np.repeat(np.arange(20, dtype=np.int32), 50)
    network = bnpipe.fit(Dataset(schema, codes, days, tuple(f"{day:02d}" for day in range(20))), {"b": ("a",)})
    live = codes[:, :300].copy()
    live[0, :90] = 2
    unseen = np.zeros_like(live, dtype=bool)
    unseen[1, :30] = True
    live[1, :30] = MISSING
    labels = tuple(f"{day:02d}" for day in range(20, 26))
    report = compare_cpds(network, Dataset(schema, live, days[:300], labels, unseen))
    assert report.variables["b"].unseen == pytest.approx(0.1)
    assert report.variables["b"].new_configurations == pytest.approx(60 / 270)
    assert report.variables["a"].marginal_shift > 0.2
    assert report.nodes["a"].flagged
    assert not report.nodes["b"].flagged


def test_too_few_clusters_are_unknown_and_never_calm():
    """Two live days may be one storm; a level beyond all windows can't be reached."""
    found = world()
    two = part(found.live, 0, 2)
    report = compare_cpds(found.network, two)
    assert set(report.unknown) == set(found.network.nodes)
    assert "2 live clusters" in report.nodes[NODE].reason
    assert report.flagged == ()
    few = part(found.live, 0, 3)
    short = bnpipe.fit(part(found.live, 3, 7), found.network.parents)
    assert "too few for level" in compare_cpds(short, few, level=0.001).nodes[NODE].reason


def test_no_rows_are_unknown():
    """An empty window says nothing of anything, and crashes nothing."""
    found = world()
    empty = Dataset(found.live.schema, found.live.codes[:, :0], found.live.clusters[:0], ())
    report = compare_cpds(found.network, empty)
    assert set(report.unknown) == set(found.network.nodes)
    assert report.live_clusters == 0


def test_odd_tables_are_compared():
    """One state, 255 states, Zipf's law and single rows: every node gets a p, and an unchanged one none below 1 %."""
    rng = np.random.default_rng(8)
    schema = Schema(
        (
            Variable("one", ("only",)),
            Variable("many", tuple(f"s{k}" for k in range(255))),
            Variable("child", ("no", "yes")),
        )
    )
    share = 1.0 / np.arange(1, 256)
    many = rng.choice(255, 37 * 40, p=share / share.sum())
    codes = np.stack([np.zeros(37 * 40), many, rng.integers(0, 2, 37 * 40)]).astype(np.uint8)
    days = Dataset(
        schema, codes, np.repeat(np.arange(37, dtype=np.int32), 40), tuple(f"{day:02d}" for day in range(37))
    )
    network = bnpipe.fit(part(days, 0, 30), {"child": ("one", "many")})
    report = compare_cpds(network, part(days, 30, 37))
    assert report.unknown == ()
    assert all(node.p > 0.01 for node in report.nodes.values())


def test_only_the_window_is_tested_and_earlier_days_date_the_change():
    """With a window of seven of 28 days, a change ten days ago is found, and dated before the window."""
    truth = published("asia")
    place = truth.nodes.index(NODE)
    base = tables_of(truth)
    after = [changed(table, 0.3) if k == place else table for k, table in enumerate(base)]
    drawn = draw_days(truth, Days(200), 58, lambda day: base if day < 48 else after, np.random.default_rng(9))
    network, live = bnpipe.fit(part(drawn, 0, 30), truth.parents), part(drawn, 30, 58)
    report = compare_cpds(network, live, window=7)
    assert (report.live_clusters, report.live_rows) == (7, 7 * 200)
    assert report.first_cluster == "0051"
    assert report.variables == compare_cpds(network, part(live, 21, 28)).variables
    assert report.flagged == (NODE,)
    assert abs(int(str(report.nodes[NODE].change_point)) - 48) <= 1


def test_a_missing_arc_is_asked_for_only_where_it_is_missing():
    """A node that came to hang on another asks for that arc; with knowledge against it, for none."""
    schema = Schema(tuple(Variable(name, ("0", "1")) for name in "abc"))
    rng = np.random.default_rng(10)
    a, b = rng.integers(0, 2, (2, 47 * 100))
    c = np.where(rng.random(a.size) < 0.2, 1 - a, a)
    late = np.arange(a.size) >= 30 * 100
    c = np.where(late & (rng.random(a.size) < 0.6), b, c)
    labels = tuple(f"{day:02d}" for day in range(47))
    days = Dataset(schema, np.stack([a, b, c]).astype(np.uint8), np.repeat(np.arange(47, dtype=np.int32), 100), labels)
    network, live = bnpipe.fit(part(days, 0, 30), {"c": ("a",)}), part(days, 30, 47)
    arcs = compare_cpds(network, live, knowledge=bnpipe.Knowledge()).added_arcs
    assert [(arc.parent, arc.child) for arc in arcs] == [("b", "c")]
    assert arcs[0].interval[0] < arcs[0].gain < arcs[0].interval[1]
    assert compare_cpds(network, live, knowledge=bnpipe.Knowledge(forbidden=[("b", "c")])).added_arcs == ()
    assert compare_cpds(network, live, knowledge=bnpipe.Knowledge(), max_parents=1).added_arcs == ()
    assert compare_cpds(network, live).added_arcs == ()


def test_a_report_is_saved_loaded_and_printed(tmp_path):
    """What is read back is what was written; the table names the change; a newer format is refused."""
    found = world()
    report = compare_cpds(found.network, found.live)
    report.save(tmp_path / "report.json")
    loaded = DriftReport.load(tmp_path / "report.json")
    assert loaded == report
    assert "1 of 8 CPDs changed" in str(report)
    assert f"{NODE}" in report.table().splitlines()[1]
    assert "CHANGED at" in report.table().splitlines()[1]
    with pytest.raises(bnpipe.BnpipeError, match="format 2"):
        DriftReport.from_dict(report.to_dict() | {"format": 2})
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(bnpipe.BnpipeError, match=r"other\.json"):
        DriftReport.load(tmp_path / "other.json")


def test_the_same_seed_gives_the_same_report():
    """Nothing but the arguments decides."""
    found = world()
    assert compare_cpds(found.network, found.live, seed=3) == compare_cpds(found.network, found.live, seed=3)


def test_misuse_is_named():
    """Imported networks, other schemas and options out of range are refused with what to do."""
    found = world()
    with pytest.raises(NoCountsError, match="imported"):
        compare_cpds(published("asia"), found.live)
    other = Dataset(Schema((Variable("x", ("0", "1")),)), np.zeros((1, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="another schema"):
        compare_cpds(found.network, other)
    for options, said in (
        ({"level": 0.0}, "level"),
        ({"min_effect": 2.0}, "min_effect"),
        ({"window": 0}, "window"),
        ({"replays": 10}, "replays can't reach level"),
    ):
        with pytest.raises(DataError, match=said):
            compare_cpds(found.network, found.live, **options)


def test_a_years_budget_is_spent_look_by_look():
    """One alarm in two years over daily looks is a level of 0.00137, which 1 459 replays and more can reach."""
    level = look_level(0.5, 365)
    assert level == pytest.approx(0.5 / 365)
    assert 1 / (fewest_replays(level) + 1) <= level / 2
    assert fewest_replays(0.05) == 999
    with pytest.raises(DataError):
        look_level(0, 365)


def test_forty_nodes_are_compared_in_seconds():
    """A look at ALARM with day effects and a year's level takes seconds: it runs after every night."""
    drawn = draw_world("alarm", Days(300, DAY_EFFECTS), np.random.default_rng(11))
    started = time.process_time()
    compare_cpds(drawn.network, drawn.live, level=look_level(0.5, 365))
    assert time.process_time() - started < 10.0
