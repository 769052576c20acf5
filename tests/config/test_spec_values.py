"""What a spec gives: domain values, its canonical text, what a run may change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from claims_spec import GOOD
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bnpipe.config import ModelSpec, Overrides, load_spec
from bnpipe.config.scalars import cron_sets, looks_per_year
from bnpipe.errors import DataError, FormatError, SchemaError, SpecError
from bnpipe.release import GateLimits, PromotionRule, ReactionRule

TIERS = "structure: {tiers: [[region], [hour, size]], required: [[region, size], [hour, size]]}\n"


@pytest.fixture
def spec(write):
    """The correct spec, with tiers."""
    return load_spec(write(GOOD + TIERS))


def rows(n=400):
    """Draw rows for the variables of the spec."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "region": rng.choice(["SE", "DK", "NO"], n),
            "hour": rng.integers(0, 24, n),
            "premium": rng.gamma(2.0, 100.0, n),
            "size": rng.choice(["small", "large"], n),
        }
    )


def test_a_spec_is_frozen(spec):
    """So that a training can be known by it."""
    with pytest.raises(ValidationError, match="frozen"):
        spec.name = "x"
    with pytest.raises(ValidationError, match="frozen"):
        spec.window.train = 3


def test_its_canonical_text_gives_the_same_spec(spec):
    """Defaults are written out, keys sorted, days as people write them."""
    text = spec.resolved_json()
    assert ModelSpec.from_resolved(text) == spec
    assert ModelSpec.from_resolved(text).resolved_json() == text
    assert '"train":"90d"' in text
    assert '"max_impossible_share":0.05' in text


def test_its_canonical_text_depends_on_meaning_not_on_writing(write, spec):
    """Order of keys, comments and written defaults change nothing; a changed value does."""
    lines = (GOOD + TIERS).replace("name: claims\nowner: me\n", "owner: me  # who\nname: claims\npromotion: auto\n")
    assert load_spec(write(lines)).resolved_json() == spec.resolved_json()
    assert load_spec(write(lines.replace("90d", "91d"))).resolved_json() != spec.resolved_json()


def test_text_of_another_program_is_refused():
    """With one short reason."""
    with pytest.raises(FormatError, match="not a resolved spec of this version"):
        ModelSpec.from_resolved('{"name": "x"}')
    with pytest.raises(FormatError, match="not a resolved spec"):
        ModelSpec.from_resolved("{")


def test_a_run_may_change_some_things(spec):
    """And leaves the spec as it was."""
    before = spec.resolved_json()
    changed = spec.apply(
        Overrides(score="aic", max_parents=2, estimator="bayes", equivalent_sample_size=5, promotion="manual")
    )
    assert (changed.structure.score, changed.structure.max_parents) == ("aic", 2)
    assert changed.equivalent_sample_size() == 5.0
    assert changed.promotion.policy == "manual"
    assert spec.equivalent_sample_size() == 0.0
    assert spec.resolved_json() == before
    assert spec.apply(Overrides()) == spec


def test_a_run_may_not_contradict_the_spec(spec, write):
    """Fewer parents than required, or a score where nothing is learned."""
    with pytest.raises(SpecError, match=r"max_parents = 1, but size has 2 required parents \(hour, region\)"):
        spec.apply(Overrides(max_parents=1))
    drawn = load_spec(write(GOOD + "structure: {graph: {arcs: [[hour, size]]}}\n"))
    with pytest.raises(SpecError, match="score = aic has no effect"):
        drawn.apply(Overrides(score="aic"))
    assert drawn.apply(Overrides(score="bic", max_parents=3)) == drawn


def test_overrides_read_what_a_form_sends():
    """Text of a date, nothing for what was left empty; anything else is refused."""
    read = Overrides.of({"end": "2013-12-31", "score": None, "relearn_schema": None})
    assert read.model_dump(exclude_defaults=True) == {"end": date(2013, 12, 31)}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"end": "yesterday"}, "end: got 'yesterday'; write a date as 2013-12-31"),
        ({"score": "bik"}, "score: got 'bik'; allowed are bic, aic, bdeu, bds, k2, ll, did you mean bic?"),
        ({"max_parents": -1}, "max_parents: got '-1'; input should be greater than or equal to 0"),
        ({"max_parents": "two"}, "max_parents: got 'two'; write a whole number"),
        ({"equivalent_sample_size": float("nan")}, "equivalent_sample_size: got 'nan'; write a finite number"),
        ({"max_parent": 2}, "max_parent: no run can change this, did you mean 'max_parents'?; it can end, score, "),
    ],
)
def test_wrong_overrides_are_told_by_key(wrong, told):
    """What was given and what is allowed, as an error of bnpipe."""
    with pytest.raises(SpecError) as caught:
        Overrides.of(wrong)
    assert str(caught.value).startswith(told)


def test_every_wrong_override_is_told():
    """Not only the first."""
    with pytest.raises(SpecError) as caught:
        Overrides.of({"end": "2013-02-30", "sql": "x", "reason": "r" * 1001})
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["end", "reason", "sql"]
    assert len(str(caught.value)) < 500


def test_a_prior_for_maximum_likelihood_is_refused(spec, write):
    """It would change nothing but the training's identity."""
    with pytest.raises(SpecError, match="equivalent_sample_size = 5 has no effect with the estimator mle"):
        spec.apply(Overrides(equivalent_sample_size=5))
    bayes = load_spec(write(GOOD + "parameters: {estimator: bayes}\n"))
    assert bayes.apply(Overrides(equivalent_sample_size=5)).equivalent_sample_size() == 5.0
    with pytest.raises(SpecError, match="has no effect"):
        bayes.apply(Overrides(estimator="mle", equivalent_sample_size=5))


def test_a_window_ends_at_a_local_midnight(write):
    """A datetime counts the lag, a date is taken at its word."""
    spec = load_spec(write(GOOD.replace("timestamp: at", "timestamp: at, lag: 2d")))
    window = spec.window_at(datetime(2013, 3, 10, 23, 30, tzinfo=UTC))
    assert window.end.isoformat() == "2013-03-09T00:00:00+01:00"
    assert (window.train_days, window.held_out_days) == (90, 14)
    assert spec.window_at(date(2013, 3, 10)).end.isoformat() == "2013-03-10T00:00:00+01:00"


def test_a_source_that_has_ended_says_so(write, spec):
    """The last window is the one that ends with the last day."""
    ended = load_spec(write(GOOD.replace("timestamp: at", "timestamp: at, until: 2013-12-31")))
    assert ended.ended(date(2014, 1, 1)) is None
    assert "has ended: source.until is 2013-12-31" in str(ended.ended(date(2014, 1, 2)))
    assert spec.ended(date(2099, 1, 1)) is None


def test_the_newest_window_ends_now_or_with_the_source(write, spec):
    """Of a source that has ended it is always the same."""
    now = datetime(2014, 6, 1, 6, tzinfo=UTC)
    ended = load_spec(write(GOOD.replace("timestamp: at", "timestamp: at, until: 2013-12-31")))
    assert spec.newest(now) == now
    assert ended.newest(now) == date(2014, 1, 1)
    assert ended.newest(datetime(2013, 12, 30, 6, tzinfo=UTC)) == datetime(2013, 12, 30, 6, tzinfo=UTC)


def test_an_end_that_has_not_come_is_refused(write, spec):
    """The midnight is that of the spec's time zone; Berlin is an hour ahead of UTC in winter."""
    spec.check_end(date(2014, 1, 2), now=datetime(2014, 1, 1, 23, 30, tzinfo=UTC))
    with pytest.raises(DataError, match=r"2014-01-02, in Europe/Berlin it is only 2014-01-01 .* is 2014-01-01"):
        spec.check_end(date(2014, 1, 2), now=datetime(2014, 1, 1, 22, 30, tzinfo=UTC))


def test_an_end_after_the_last_day_is_refused(write):
    """The latest end is named, also when both reasons hold."""
    ended = load_spec(write(GOOD.replace("timestamp: at", "timestamp: at, until: 2013-12-31")))
    now = datetime(2014, 6, 1, tzinfo=UTC)
    ended.check_end(date(2014, 1, 1), now=now)
    with pytest.raises(DataError, match=r"source\.until is 2013-12-31; the latest end is 2014-01-01"):
        ended.check_end(date(2014, 1, 2), now=now)
    with pytest.raises(DataError, match=r"it is only 2014-06-01 .* the latest end is 2014-01-01"):
        ended.check_end(date(2014, 6, 2), now=now)


def test_the_query_renames_columns(write):
    """From here on columns have the variables' names."""
    query = load_spec(write(GOOD.replace("{quantiles: 4}", "{quantiles: 4, column: Premium EUR}"))).query()
    assert query.columns == ("region", "hour", "Premium EUR", "size")
    assert query.names == ("region", "hour", "premium", "size")
    assert (query.path, query.sql, query.timestamp, query.cluster) == ("claims/*.parquet", None, "at", None)


def test_states_for_the_rest_and_for_nulls_are_added(write):
    """Behind the listed ones, unless they are listed."""
    text = GOOD.replace("[SE, DK], other: other", "[SE, rest, DK], other: rest, missing: state")
    region = load_spec(write(text)).learn_schema(rows())["region"]
    assert region.states == ("SE", "rest", "DK", "missing")
    assert (region.other, region.missing) == ("rest", "missing")
    hour = load_spec(write(text)).learn_schema(rows())["hour"]
    assert hour.states == ("<6", "6..12", "12..18", ">=18")
    assert hour.missing is None


def test_only_a_schema_without_quantiles_is_fixed(spec, write):
    """Bins of equal rows need the rows."""
    assert spec.fixed_schema() is None
    assert spec.learned_columns() == ("premium",)
    with pytest.raises(SchemaError, match="premium: its 4 quantiles are learned from rows"):
        spec.schema()
    fixed = load_spec(write(GOOD.replace("quantiles: 4", "edges: [100, 200], labels: [low, mid, high]")))
    schema = fixed.fixed_schema()
    assert schema is not None
    assert schema["premium"].states == ("low", "mid", "high")
    assert fixed.schema(rows()) == schema


def test_learned_bins_share_the_rows_out(spec):
    """Four bins of a hundred rows each, roughly."""
    frame = rows()
    frame.loc[:9, "premium"] = np.nan
    codes, unseen = spec.learn_schema(frame)["premium"].encode(frame["premium"])
    assert not unseen.any()
    counts = np.bincount(codes, minlength=256)
    assert (counts[:4] > 85).all()
    assert counts[255] == 10


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (rows().drop(columns="premium"), "premium: the training rows have no such column"),
        (rows().assign(premium="dear"), "premium: quantiles need numbers"),
        (rows().assign(premium=np.nan), "premium: "),
    ],
)
def test_rows_that_give_no_bins_are_refused(spec, frame, message):
    """The variable is named."""
    with pytest.raises(SchemaError, match=message):
        spec.learn_schema(frame)


def test_learned_bins_are_reused_until_the_variables_change(spec, write):
    """Other keys of the spec do not matter; another number of bins, states or variables does."""
    schema = spec.learn_schema(rows())

    def reusable(old, new, previous=None):
        return load_spec(write((GOOD + TIERS).replace(old, new, 1))).schema_reusable_from(schema, previous)

    assert reusable("owner: me", "owner: you")
    assert reusable("quantiles: 4", "quantiles: 4, max_missing: 0.5", spec)
    for old, new in [
        ("quantiles: 4", "quantiles: 5"),
        ("quantiles: 4", "quantiles: 4, missing: state"),
        ("quantiles: 4", "edges: [1, 2, 3]"),
        ("[6, 12, 18]", "[6, 12, 17]"),
        ("[SE, DK]", "[DK, SE]"),
        ("  size: {states", "  more: {states: [a]}\n  size: {states"),
    ]:
        assert not reusable(old, new)
        assert not reusable(old, new, spec)
    assert not reusable("quantiles: 4", "quantiles: 4, column: other_column", spec)


def test_bins_that_ties_made_fewer_are_reused_if_the_spec_before_is_known(write):
    """Rainfall is mostly zero: ten quantiles give fewer bins, every night."""
    spec = load_spec(write(GOOD.replace("quantiles: 4", "quantiles: 10")))
    schema = spec.learn_schema(rows().assign(premium=np.r_[np.zeros(350), np.arange(50)]))
    assert len(schema["premium"].states) < 10
    assert spec.schema_reusable_from(schema, spec)
    more = load_spec(write(GOOD.replace("quantiles: 4", "quantiles: 12")))
    assert not more.schema_reusable_from(schema, spec)


def test_a_target_is_predicted_from_what_came_before(spec, write):
    """Earlier tiers and variables in no tier; all others for a target in no tier."""
    assert spec.evidence("size") == ("region", "premium")
    assert spec.evidence("region") == ("premium",)
    assert spec.evidence("premium") == ("region", "hour", "size")


def test_knowledge_is_what_the_structure_says(spec):
    """Arcs and tiers, unchanged, and without contradiction."""
    knowledge = spec.knowledge()
    assert knowledge.required == (("region", "size"), ("hour", "size"))
    assert knowledge.tiers == (("region",), ("hour", "size"))
    assert knowledge.problems(tuple(spec.variables), 3) == ()
    assert spec.expert_parents() is None


def test_feature_rules_say_what_rows_must_fulfil(write):
    """States without `other`, ranges, shares of nulls and how bad each is."""
    text = GOOD.replace("{edges: [6, 12, 18]}", "{edges: [6], minimum: 0, maximum: 24, range_severity: warning}")
    text = text.replace("{quantiles: 4}", "{quantiles: 4, missing: state}")
    region, hour, premium, size = load_spec(write(text)).feature_rules()
    assert (region.name, region.kind, region.states, region.max_missing) == ("region", "states", None, 0.05)
    assert (hour.kind, hour.minimum, hour.maximum, hour.unknown_severity) == ("numeric", 0.0, 24.0, "warning")
    assert premium.max_missing == 1.0
    assert (size.states, size.unknown_severity) == (("small", "large"), "critical")


def test_gates_and_promotion_have_the_defaults_of_the_rules(spec):
    """A spec that says nothing means what the rules mean by themselves."""
    assert spec.gate_limits() == GateLimits()
    rule = spec.promotion_rule()
    assert (rule.rope, rule.lucky_per_year, rule.min_clusters, rule.looks_per_year) == (
        PromotionRule().rope,
        PromotionRule().lucky_per_year,
        PromotionRule().min_clusters,
        PromotionRule().looks_per_year,
    )
    assert rule.tolerances == {"size": 0.002}


def test_drift_has_the_defaults_of_its_rule(write):
    """An empty section means what the rule means by itself, and takes the rope of promotions."""
    rule = load_spec(write(GOOD + "promotion: {rope: 0.01}\ndrift: {}\n")).reaction_rule()
    assert rule == ReactionRule(rope=0.01)


def test_a_spec_without_drift_says_so_and_keeps_its_old_text(spec):
    """Nothing is looked at unasked, and the trainings of such a spec keep the keys they had."""
    assert spec.drift is None
    assert "drift" not in spec.resolved_json()
    with pytest.raises(SpecError, match="section `drift`"):
        spec.reaction_rule()


def test_the_live_window_ends_with_its_labels(write):
    """The tested days are the newest whose labels had time to arrive; other days before them date a change."""
    at = datetime(2026, 3, 15, 5, tzinfo=UTC)
    spec = load_spec(write(GOOD.replace("Berlin}", "Berlin, lag: 2d}") + "drift: {window: 5d, history: 10d}\n"))
    window = spec.live_window_at(at)
    assert [day.date() for day in (window.start, window.train_end, window.end)] == [
        date(2026, 2, 26),
        date(2026, 3, 8),
        date(2026, 3, 13),
    ]
    late = load_spec(write(GOOD + "drift: {label_lag: 9d}\n")).live_window_at(at)
    assert late.end.date() == date(2026, 3, 6)
    chosen = spec.live_window_at(date(2026, 3, 4), start=date(2026, 3, 1))
    assert (chosen.train_end.date(), chosen.end.date()) == (date(2026, 3, 1), date(2026, 3, 4))


@pytest.mark.parametrize(("days", "learned"), [(2, 1), (7, 2), (14, 4), (21, 7), (40, 26)])
def test_a_refit_learns_from_the_first_days_since_the_change(spec, days, learned):
    """A third of them, or all but the held-out days of the spec where there are more."""
    end = date(2026, 3, 31)
    window = spec.refit_window_at(end, end - timedelta(days=days))
    assert (window.train_days, window.held_out_days) == (learned, days - learned)
    assert window.end.date() == end


def test_a_refit_needs_days_to_be_proved_on(spec):
    """One day can't both be learned from and be proved on."""
    with pytest.raises(DataError, match="two or more"):
        spec.refit_window_at(date(2026, 3, 31), date(2026, 3, 30))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"since": date(2026, 3, 1)}, "since"),
        ({"refit_of": 3}, "refit_of"),
        ({"refit": ("size",)}, "since"),
        ({"refit": ("siize",), "since": date(2026, 3, 1)}, "size"),
        ({"refit": ("size",), "since": date(2026, 3, 1), "max_parents": 0}, "max_parents"),
        ({"refit": ("size",), "since": date(2026, 3, 1), "relearn_schema": True}, "relearn_schema"),
    ],
)
def test_a_refit_that_contradicts_itself_is_refused(spec, form, said):
    """What a refit keeps can't be chosen beside it, and what it needs is asked for."""
    with pytest.raises(SpecError, match=said):
        spec.apply(Overrides(**form))


def test_promotion_has_a_short_form(write):
    """`promotion: manual` is `promotion: {policy: manual}`."""
    short = load_spec(write(GOOD + "promotion: manual\n"))
    assert short == load_spec(write(GOOD + "promotion: {policy: manual}\n"))


@pytest.mark.parametrize(
    ("cron", "looks"),
    [
        (None, 365),
        ("0 6 * * *", 365),
        ("*/15 * * * *", 365),
        ("@weekly", 52 + 1),
        ("0 6 * * mon-fri", 260),
        ("0 6 1 * *", 12),
        ("0 6 1 * 1", 12 + 52 - 1),
        ("0 6 29 2 *", 1),
    ],
)
def test_the_error_budget_counts_the_looks_of_a_year(cron, looks):
    """In 2023, whose first day was a Sunday: 53 Sundays; one of the firsts was a Monday."""
    assert looks_per_year(cron) == looks


CRON_FIELDS = ["0", "5", "6-9", "*/2", "1,7", "*", "10-20/5", "sun", "jan", "mon-fri", "?", "99", "-1", "a/b"]


@given(st.lists(st.sampled_from(CRON_FIELDS), min_size=4, max_size=6))
def test_cron_is_what_croniter_takes(fields):
    """Whatever is accepted here, Airflow's parser accepts, with the same values for minute and hour."""
    from croniter import croniter

    cron = " ".join(fields)
    try:
        minutes, hours, *_ = cron_sets(cron)
    except ValueError:
        return
    expanded, _ = croniter.expand(cron)
    assert minutes == (set(range(60)) if expanded[0] == ["*"] else set(expanded[0]))
    assert hours == (set(range(24)) if expanded[1] == ["*"] else set(expanded[1]))
