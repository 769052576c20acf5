"""Domain values made from a spec, where that takes more than naming fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from bnpipe.config.bif import read_parents
from bnpipe.config.scalars import did_you_mean
from bnpipe.config.variables import EdgesVariable, QuantilesVariable, StatesVariable
from bnpipe.errors import DataError, SchemaError, SpecError, shorten

if TYPE_CHECKING:
    import pandas as pd

    from bnpipe.config.drift import DriftSpec
    from bnpipe.config.overrides import Overrides
    from bnpipe.config.spec import ModelSpec
    from bnpipe.expectations import FeatureRule
    from bnpipe.release import ReactionRule
    from bnpipe.schema import Schema, Variable
    from bnpipe.source import Query, Window


def read_overrides(values: Mapping[str, Any]) -> Overrides:
    """See :meth:`Overrides.of`."""
    from bnpipe.config.loading import wording
    from bnpipe.config.overrides import Overrides

    try:
        return Overrides.model_validate(dict(values))
    except ValidationError as error:
        problems = []
        for found in error.errors(include_url=False):
            key, known = str(found["loc"][0]), Overrides.model_fields
            if key not in known:
                problems.append(f"{key}: no run can change this{did_you_mean(key, known)}; it can {', '.join(known)}")
            else:
                problems.append(f"{key}: {wording(found['loc'], found)}")
    raise SpecError("\n".join(problems), problems=tuple(problems))


def check_end(spec: ModelSpec, end: date, now: datetime) -> None:
    """See :meth:`ModelSpec.check_end`."""
    zone, last = spec.source.time_zone, spec.source.last_end
    today = now.astimezone(ZoneInfo(zone)).date()
    if end > today:
        raise DataError(
            f"{spec.name}: the window can't end on {end}, in {zone} it is only {today} and its rows are not there yet; "
            f"the latest end is {min(today, last or today)}"
        )
    if last is not None and end > last:
        raise DataError(f"{spec.name}: the window can't end on {end}, {spec.ended(end)}; the latest end is {last}")


def check_overrides(spec: ModelSpec, overrides: Overrides) -> None:
    """Refuse changes that contradict the rest of the spec.

    Raises
    ------
    SpecError
        A score or a limit of parents for a graph that experts drew, fewer parents than are required, a prior for
        maximum likelihood, or a refit beside something that it keeps.
    """
    _check_refit(spec, overrides)
    structure = spec.structure
    for key in ("score", "max_parents"):
        value = getattr(overrides, key)
        if structure.graph is not None and value not in (None, getattr(structure, key)):
            raise SpecError(
                f"{spec.name}: {key} = {value} has no effect, the graph is drawn by experts; leave it empty"
            )
    size, estimator = overrides.equivalent_sample_size, overrides.estimator or spec.parameters.estimator
    if size is not None and estimator == "mle":
        raise SpecError(
            f"{spec.name}: equivalent_sample_size = {size:g} has no effect with the estimator mle, which has no prior; "
            "choose the estimator bayes, or leave it empty"
        )
    limit = overrides.max_parents
    if limit is not None:
        for child in dict.fromkeys(child for _, child in structure.required):
            parents = {parent for parent, other in structure.required if other == child}
            if len(parents) > limit:
                raise SpecError(
                    f"{spec.name}: max_parents = {limit}, but {child} has {len(parents)} required parents "
                    f"({shorten(sorted(parents))}); allow at least {len(parents)}"
                )


def _check_refit(spec: ModelSpec, overrides: Overrides) -> None:
    if overrides.refit is None:
        alone = [key for key in ("since", "refit_of") if getattr(overrides, key) is not None]
        if alone:
            raise SpecError(f"{spec.name}: {alone[0]} has no effect without refit; say which variables to refit")
        return
    kept = ("score", "max_parents", "estimator", "equivalent_sample_size", "relearn_schema")
    if said := [key for key in kept if getattr(overrides, key) not in (None, False)]:
        raise SpecError(f"{spec.name}: {said[0]} has no effect beside refit, which keeps it; leave it empty")
    if strangers := [name for name in overrides.refit if name not in spec.variables]:
        hint = did_you_mean(strangers[0], spec.variables)
        raise SpecError(f"{spec.name}: refit: no variable is named {strangers[0]!r}{hint}")
    if overrides.since is None:
        raise SpecError(f"{spec.name}: refit needs since, the first day of the rows to learn from")


def live_window_at(spec: ModelSpec, at: datetime | date, start: date | None) -> Window:
    """See :meth:`ModelSpec.live_window_at`."""
    from bnpipe.source import window_at

    drift = drift_of(spec)
    lag = spec.source.lag if drift.label_lag is None else drift.label_lag
    window = window_at(
        at,
        time_zone=spec.source.time_zone,
        lag_days=lag,
        train_days=drift.history,
        held_out_days=drift.window,
    )
    if start is None:
        return window
    end = window.end.date()
    if start >= end:
        raise DataError(f"{spec.name}: days from {start} until {end} are none; choose an earlier start")
    return window_at(end, time_zone=spec.source.time_zone, train_days=drift.history, held_out_days=(end - start).days)


def refit_window_at(spec: ModelSpec, at: datetime | date, since: date) -> Window:
    """See :meth:`ModelSpec.refit_window_at`.

    A third of the days is enough to count a few families; the more are left, the sooner the champion can be judged.
    """
    from bnpipe.source import window_at

    end = spec.window_at(at).end.date()
    days = (end - since).days
    if days < 2:
        raise DataError(
            f"{spec.name}: {max(days, 0)} days from {since} until {end}; a refit needs two or more, to learn from and "
            "to be proved on"
        )
    held_out = min(spec.window.held_out, days - max(1, days // 3))
    return window_at(end, time_zone=spec.source.time_zone, train_days=days - held_out, held_out_days=held_out)


def live_query(spec: ModelSpec) -> Query:
    """See :meth:`ModelSpec.live_query`."""
    from bnpipe.answers.columns import UNOBSERVED
    from bnpipe.source import Query

    live = drift_of(spec).source
    if live is None:
        return spec.query()
    return Query(
        path=live.path,
        sql=live.sql,
        timestamp=live.timestamp,
        time_zone=spec.source.time_zone,
        cluster=live.cluster,
        columns=(*spec.variables, UNOBSERVED),
    )


def reaction_rule(spec: ModelSpec) -> ReactionRule:
    """See :meth:`ModelSpec.reaction_rule`."""
    from bnpipe.release import ReactionRule

    drift = drift_of(spec)
    return ReactionRule(
        actions=drift.actions,
        rope=spec.promotion.rope,
        rollbacks_per_year=drift.rollbacks_per_year,
        looks_per_year=drift.looks_per_year,
        youth=drift.youth,
        cool_down=drift.cool_down,
        proof_clusters=spec.promotion.min_clusters,
    )


def drift_of(spec: ModelSpec) -> DriftSpec:
    """Give the section `drift`.

    Raises
    ------
    SpecError
        There is none.
    """
    if spec.drift is None:
        raise SpecError(f"{spec.name}: its spec has no section `drift`; add one, such as `drift: {{window: 7d}}`")
    return spec.drift


def learn_schema(spec: ModelSpec, frame: pd.DataFrame | None) -> Schema:
    """Build the schema; the edges of quantiles come from `frame`, whose columns have the variables' names.

    Raises
    ------
    SchemaError
        A variable can't be cut into bins; names it.
    """
    from bnpipe.schema import Schema

    return Schema(tuple(_variable(name, variable, frame) for name, variable in spec.variables.items()))


def _variable(
    name: str, variable: StatesVariable | EdgesVariable | QuantilesVariable, frame: pd.DataFrame | None
) -> Variable:
    if not isinstance(variable, QuantilesVariable):
        return variable.variable(name)
    if frame is None:
        raise SchemaError(f"{name}: its {variable.quantiles} quantiles are learned from rows; give the training rows")
    if name not in frame.columns:
        raise SchemaError(f"{name}: the training rows have no such column; they have {shorten(frame.columns)}")
    column = frame[name].dropna()
    try:
        return variable.learn(name, column.to_numpy(dtype="float64"))
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{name}: quantiles need numbers, the column holds {column.dtype}: {error}") from error
    except SchemaError as error:
        raise SchemaError(f"{name}: {error}") from error


def schema_reusable_from(spec: ModelSpec, schema: Schema, previous: ModelSpec | None) -> bool:
    """See :meth:`ModelSpec.schema_reusable_from`."""
    if set(schema.names) != set(spec.variables):  # a resolved spec's keys are sorted, a file's are not
        return False
    for name, variable in spec.variables.items():
        if not isinstance(variable, QuantilesVariable):
            if variable.variable(name) != schema[name]:
                return False
            continue
        if previous and previous.columns.get(name) != spec.columns[name]:
            return False
        if not _same_bins(variable, schema[name], previous.variables.get(name) if previous else None):
            return False
    return True


def _same_bins(
    variable: QuantilesVariable,
    learned: Variable,
    previous: StatesVariable | EdgesVariable | QuantilesVariable | None,
) -> bool:
    if learned.edges is None or variable.with_edges(learned.name, learned.edges) != learned:
        return False
    if isinstance(previous, QuantilesVariable):
        return previous.quantiles == variable.quantiles
    return previous is None and len(learned.edges) == variable.quantiles - 1


def evidence(spec: ModelSpec, target: str) -> tuple[str, ...]:
    """See :meth:`ModelSpec.evidence`."""
    level = {name: place for place, tier in enumerate(spec.structure.tiers) for name in tier}
    others = [name for name in spec.variables if name != target]
    if target not in level:
        return tuple(others)
    return tuple(name for name in others if name not in level or level[name] < level[target])


def feature_rules(spec: ModelSpec) -> tuple[FeatureRule, ...]:
    """See :meth:`ModelSpec.feature_rules`.

    Values outside the states are allowed where `other` takes them, so there only nulls are checked.
    """
    return tuple(_rule(name, variable, target=name in spec.targets) for name, variable in spec.variables.items())


def _rule(name: str, variable: StatesVariable | EdgesVariable | QuantilesVariable, *, target: bool) -> FeatureRule:
    from bnpipe.expectations import FeatureRule

    if isinstance(variable, StatesVariable):
        return FeatureRule(
            name=name,
            target=target,
            kind="states",
            states=None if variable.other else variable.all_states,
            max_missing=variable.largest_missing_share,
            missing_severity=variable.missing_severity,
            unknown_severity=variable.unknown_severity,
        )
    return FeatureRule(
        name=name,
        target=target,
        kind="numeric",
        minimum=variable.minimum,
        maximum=variable.maximum,
        max_missing=variable.largest_missing_share,
        missing_severity=variable.missing_severity,
        unknown_severity=variable.range_severity,
    )


def expert_parents(spec: ModelSpec, base_dir: Path | None) -> dict[str, tuple[str, ...]] | None:
    """See :meth:`ModelSpec.expert_parents`.

    Raises
    ------
    SpecError
        The BIF file can't be read.
    """
    graph = spec.structure.graph
    if graph is None:
        return None
    if graph.arcs is None:
        drawn = read_parents((base_dir or Path.cwd()) / str(graph.bif))
        return {name: drawn.get(name, ()) for name in spec.variables}
    return parents_of(spec.variables, graph.arcs)


def parents_of(names: Iterable[str], arcs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Group arcs by child; parents in the order written."""
    parents: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for parent, child in dict.fromkeys(arcs):
        parents[child] = (*parents.get(child, ()), parent)
    return parents
