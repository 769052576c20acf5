"""The specification of one network: frozen models of its YAML, and the domain values made from them."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from bnpipe.config.canary import CanarySpec
from bnpipe.config.drift import Actions, DriftSpec
from bnpipe.config.gates import GatesSpec, ValidationSpec
from bnpipe.config.scalars import Cron, Days, ModelName, Part, Text, VariableName, looks_per_year
from bnpipe.config.source import SourceSpec
from bnpipe.config.variables import QuantilesVariable, VariableSpec

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from bnpipe.config.overrides import Overrides
    from bnpipe.expectations import FeatureRule
    from bnpipe.knowledge import Knowledge
    from bnpipe.release import GateLimits, PromotionRule, ReactionRule
    from bnpipe.schema import Schema
    from bnpipe.source import Query, Window

Arc = tuple[VariableName, VariableName]
ArcGroup = tuple[VariableName | tuple[VariableName, ...], VariableName | tuple[VariableName, ...]]
Score = Literal["bic", "aic", "bdeu", "bds", "k2", "ll"]
Estimator = Literal["mle", "bayes"]
Policy = Literal["auto", "approval", "manual"]
PartT = TypeVar("PartT", bound=Part)


class WindowSpec(Part):
    """Which days a training learns from and is proved on."""

    train: Days = Field(ge=1, description="Days to learn from.", examples=["90d"])
    held_out: Days = Field(ge=1, description="Days after those, kept from learning, to prove it on.", examples=["14d"])


class TargetSpec(Part):
    """A variable whose posterior is served."""

    tolerance: float = Field(
        default=0.01,
        ge=0.0,
        description="Nats per row by which its log-loss may worsen in a promotion. Smaller than what the held-out "
        "clusters can tell apart, and no new graph is ever promoted; the verdicts say how many would be needed.",
    )


def _empty_target(value: Any) -> Any:
    return {} if value is None else value


class GraphSpec(Part):
    """A graph drawn by experts."""

    arcs: tuple[Arc, ...] | None = Field(
        default=None, description="Arcs [parent, child].", examples=[[["rain", "late"]]]
    )
    bif: Text | None = Field(
        default=None, validate_default=True, description="BIF file whose arcs to take, relative to this file."
    )

    @field_validator("bif")
    @classmethod
    def _some(cls, bif: str | None, info: ValidationInfo) -> str | None:
        if "arcs" in info.data and info.data["arcs"] is None and bif is None:
            raise ValueError("give either `arcs` or `bif`")
        return bif


def _each_arc(arcs: Any) -> Any:
    """Write ``[[a, b], c]`` out as ``[a, c], [b, c]``; what is no such list is left for the type to refuse."""
    if not isinstance(arcs, list | tuple):
        return arcs
    written: list[Any] = []
    for arc in arcs:
        if not isinstance(arc, list | tuple) or len(arc) != 2 or all(isinstance(side, str) for side in arc):
            written.append(arc)
            continue
        parents, children = (side if isinstance(side, list | tuple) else [side] for side in arc)
        written += [(parent, child) for parent in parents for child in children]
    return written


class StructureSpec(Part):
    """How the graph is learned, or which graph it is."""

    score: Score = Field(default="bic", description="Score to maximise.")
    max_parents: int = Field(default=3, ge=0, le=30, description="Most parents a variable may have.")
    tabu: int = Field(default=0, ge=0, description="Length of the tabu list; 0 is plain hill climbing.")
    restarts: int = Field(default=0, ge=0, description="Random restarts.")
    seed: int = Field(default=0, ge=0, description="Seed of the restarts; same seed, same graph.")
    required: tuple[Arc, ...] = Field(default=(), description="Arcs [parent, child] the graph must have.")
    forbidden: Annotated[
        tuple[Arc, ...], BeforeValidator(_each_arc, json_schema_input_type=tuple[Arc | ArcGroup, ...])
    ] = Field(
        default=(),
        description="Arcs [parent, child] the graph must not have. Either side may be a list: each of it is meant.",
        examples=[[["late", "hour"], [["weekday", "carrier"], ["wind", "rain"]]]],
    )
    tiers: tuple[tuple[VariableName, ...], ...] = Field(
        default=(),
        description="Lists of variables in order of time: arcs never point to an earlier list. Variables in none are "
        "free. A target is predicted from the tiers before its own.",
        examples=[[["hour", "carrier"], ["delay"]]],
    )
    bootstraps: int = Field(
        default=0, ge=0, le=10_000, description="Cluster bootstraps for the strength of arcs; 0: none."
    )
    graph: GraphSpec | None = Field(default=None, description="A graph drawn by experts; nothing is learned then.")


class ParametersSpec(Part):
    """How the conditional distributions follow from the counts."""

    estimator: Estimator = Field(default="mle", description="`mle` maximum likelihood, or `bayes` with a BDeu prior.")
    equivalent_sample_size: float = Field(
        default=10.0, gt=0.0, description="Rows that the prior is worth, with `estimator: bayes`."
    )


class PromotionSpec(Part):
    """When a new version takes over."""

    policy: Policy = Field(
        default="auto",
        description="`auto` promotes a winner, `approval` asks a person in Airflow, `manual` leaves it to MLflow.",
    )
    rope: float = Field(default=0.005, gt=0.0, description="Difference that does not matter, in nats per row.")
    lucky_per_year: float = Field(default=1.0, gt=0.0, description="Promotions of an equal model tolerated a year.")
    min_clusters: int = Field(default=10, ge=2, description="Fewest held-out clusters for a decision.")


def _short_policy(value: Any) -> Any:
    return {"policy": value} if isinstance(value, str) else value


class ModelSpec(Part):
    """The specification of one network."""

    name: ModelName = Field(
        description="Name of the network: small letters, digits, `_` and `-`.", examples=["flights"]
    )
    owner: Text = Field(description="Who answers for it.", examples=["ops-analytics@example.com"])
    description: str = Field(default="", description="What it is for.")
    source: SourceSpec = Field(description="Where rows come from.")
    window: WindowSpec = Field(description="Which days to learn from and to prove on.")
    variables: dict[VariableName, VariableSpec] = Field(min_length=2, description="The variables, by name.")
    targets: dict[
        VariableName, Annotated[TargetSpec, BeforeValidator(_empty_target, json_schema_input_type=TargetSpec | None)]
    ] = Field(
        min_length=1, description="Variables whose posteriors are served.", examples=[{"late": {"tolerance": 0.002}}]
    )
    structure: StructureSpec = Field(default=StructureSpec(), description="How the graph is learned, or which it is.")
    parameters: ParametersSpec = Field(default=ParametersSpec(), description="How CPDs follow from counts.")
    gates: GatesSpec = Field(default=GatesSpec(), description="What every version must reach.")
    validation: ValidationSpec = Field(default=ValidationSpec(), description="What the rows must fulfil.")
    promotion: Annotated[
        PromotionSpec, BeforeValidator(_short_policy, json_schema_input_type=PromotionSpec | Policy)
    ] = Field(
        default=PromotionSpec(), description="When a new version takes over; `auto`, `approval` or `manual` for short."
    )
    drift: DriftSpec | None = Field(
        default=None,
        description="When and how live rows are compared with the champion; left out: they are not.",
    )
    canary: CanarySpec | None = Field(
        default=None, description="How a challenger earns its traffic; with it `bn_canary__NAME` looks every hour."
    )
    schedule: Cron | None = Field(
        default=None,
        description="Cron of the training, in the source's time zone; left out: only by hand.",
        examples=["0 6 * * *"],
    )

    # -- resolution

    def resolved_json(self) -> str:
        """Give canonical JSON: every default written out, keys sorted. Part of a training's identity."""
        fields = self.model_dump(mode="json", exclude={"canary"} if self.canary is None else set())
        if self.drift is None:
            del fields["drift"]  # the keys of trainings from before there was such a section stay what they are
        elif self.drift.source is None:
            del fields["drift"]["source"]
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_resolved(cls, text: str) -> ModelSpec:
        """Read what :meth:`resolved_json` wrote.

        Raises
        ------
        FormatError
            Not a resolved spec of this version of bnpipe.
        """
        from pydantic import ValidationError

        from bnpipe.errors import FormatError

        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise FormatError(f"not a resolved spec of this version of bnpipe: {error.errors()[0]['msg']}") from error

    def apply(self, overrides: Overrides) -> ModelSpec:
        """Give the spec as one run changes it; `end`, `relearn_schema` and `reason` are the caller's.

        Raises
        ------
        SpecError
            A change that contradicts the rest of the spec.
        """
        from bnpipe.config.builders import check_overrides

        check_overrides(self, overrides)
        structure = _changed(self.structure, score=overrides.score, max_parents=overrides.max_parents)
        parameters = _changed(
            self.parameters,
            estimator=overrides.estimator,
            equivalent_sample_size=overrides.equivalent_sample_size,
        )
        promotion = _changed(self.promotion, policy=overrides.promotion)
        return self.model_copy(update={"structure": structure, "parameters": parameters, "promotion": promotion})

    def with_actions(self, actions: Actions | None) -> ModelSpec:
        """Give the spec with other `drift.actions`; None leaves them.

        Raises
        ------
        SpecError
            The spec has no section `drift`.
        """
        return self.model_copy(update={"drift": _changed(self.drift_rule(), actions=actions)})

    # -- domain values

    def window_at(self, at: datetime | date) -> Window:
        """Place the window: a date is its end, a datetime the end of the data interval."""
        from bnpipe.source import window_at

        return window_at(
            at,
            time_zone=self.source.time_zone,
            lag_days=self.source.lag,
            train_days=self.window.train,
            held_out_days=self.window.held_out,
        )

    def live_window_at(self, at: datetime | date, *, start: date | None = None) -> Window:
        """Place the window of a look: its last part is what is tested, the part before dates a change.

        Parameters
        ----------
        at : datetime or date
            A date is its end, a datetime the end of the data interval.
        start : date or None
            First day to test; None: as many days as the spec says.

        Raises
        ------
        SpecError
            The spec has no section `drift`.
        DataError
            `start` is not before the end.
        """
        from bnpipe.config.builders import live_window_at

        return live_window_at(self, at, start)

    def refit_window_at(self, at: datetime | date, since: date) -> Window:
        """Place the window of a refit: the days from `since` on, the later ones to prove it on.

        Raises
        ------
        DataError
            There are fewer than two days.
        """
        from bnpipe.config.builders import refit_window_at

        return refit_window_at(self, at, since)

    def fewest_rows(self, days: int) -> int:
        """Rows that so many days must have, in proportion to `validation.min_rows` of the whole window."""
        return max(1, self.validation.min_rows * days // (self.window.train + self.window.held_out))

    def ended(self, at: datetime | date) -> str | None:
        """Say why there is nothing new to learn at `at`, if the source has ended before; else None."""
        last = self.source.last_end
        if last is None or self.window_at(at).end.date() <= last:
            return None
        return f"the source of {self.name} has ended: source.until is {self.source.until}"

    def newest(self, now: datetime) -> datetime | date:
        """Say as of when the newest window is learned: `now`, or the day after the source's last if it has ended."""
        last = self.source.last_end
        return last if last is not None and self.ended(now) else now

    def check_end(self, end: date, *, now: datetime) -> None:
        """Refuse a window that a person wants to end where its rows can't be there.

        Parameters
        ----------
        end : date
            The local midnight that begins this day.
        now : datetime
            With its offset.

        Raises
        ------
        DataError
            That midnight has not come yet, or lies after the end of the source; names the latest that will do.
        """
        from bnpipe.config.builders import check_end

        check_end(self, end, now)

    def query(self) -> Query:
        """Say which rows and columns to read; columns are renamed to the variables' names."""
        from bnpipe.source import Query

        source = self.source
        return Query(
            path=source.path,
            sql=source.sql,
            timestamp=source.timestamp,
            time_zone=source.time_zone,
            cluster=source.cluster,
            columns=tuple(self.columns.values()),
            names=tuple(self.columns),
        )

    def live_query(self) -> Query:
        """Say which live rows and columns to read: those of `drift.source` if there is one, else of `source`.

        Raises
        ------
        SpecError
            The spec has no section `drift`.
        """
        from bnpipe.config.builders import live_query

        return live_query(self)

    @property
    def columns(self) -> dict[str, str]:
        """Variable -> column of the source."""
        return {name: variable.column or name for name, variable in self.variables.items()}

    def learned_columns(self) -> tuple[str, ...]:
        """Variables whose bins are quantiles of the data; the columns that :meth:`learn_schema` needs."""
        return tuple(name for name, variable in self.variables.items() if isinstance(variable, QuantilesVariable))

    def equivalent_sample_size(self) -> float:
        """Rows that the prior is worth: 0 for maximum likelihood."""
        return self.parameters.equivalent_sample_size if self.parameters.estimator == "bayes" else 0.0

    def knowledge(self) -> Knowledge:
        """Give what experts know of the arcs."""
        from bnpipe.knowledge import Knowledge

        structure = self.structure
        return Knowledge(required=structure.required, forbidden=structure.forbidden, tiers=structure.tiers)

    def expert_parents(self, base_dir: Path | None = None) -> dict[str, tuple[str, ...]] | None:
        """Parents of every variable in the graph drawn by experts; None if the graph is to be learned.

        A spec read by :func:`load_spec` already holds the arcs of its BIF file; `base_dir` is where else to find it.
        """
        from bnpipe.config.builders import expert_parents

        return expert_parents(self, base_dir)

    def evidence(self, target: str) -> tuple[str, ...]:
        """Variables known before `target`: those in earlier tiers or in none; all others if it is in no tier."""
        from bnpipe.config.builders import evidence

        return evidence(self, target)

    def fixed_schema(self) -> Schema | None:
        """Give the schema if nothing of it is learned from data, else None."""
        from bnpipe.config.builders import learn_schema

        return None if self.learned_columns() else learn_schema(self, None)

    def learn_schema(self, frame: pd.DataFrame) -> Schema:
        """Give the schema, with quantile bins learned from `frame` (training rows, columns named as variables)."""
        from bnpipe.config.builders import learn_schema

        return learn_schema(self, frame)

    def schema(self, frame: pd.DataFrame | None = None) -> Schema:  # type: ignore[override]
        """Give the fixed schema, or learn one from the training rows in `frame`."""
        from bnpipe.config.builders import learn_schema

        return learn_schema(self, frame)

    def schema_reusable_from(self, schema: Schema, previous: ModelSpec | None = None) -> bool:
        """Whether a champion's schema, learned bins included, still is one of these variables.

        Parameters
        ----------
        schema : Schema
            The champion's.
        previous : ModelSpec or None
            The champion's spec. With it the answer is exact. Without it, a variable that ties left with fewer bins
            than `quantiles` counts as changed.
        """
        from bnpipe.config.builders import schema_reusable_from

        return schema_reusable_from(self, schema, previous)

    def feature_rules(self, schema: Schema | None = None) -> tuple[FeatureRule, ...]:
        """Say what each column must fulfil before anything is learned."""
        from bnpipe.config.builders import feature_rules

        return feature_rules(self)

    def further_expectations(self, *, but: Collection[str] = ()) -> tuple[dict[str, Any], ...]:
        """Give the further expectations as Great Expectations writes them, `but` those about some columns."""
        asked = self.validation.expectations
        return tuple(item.model_dump() for item in asked if item.kwargs.get("column") not in but)

    def gate_limits(self) -> GateLimits:
        """Limits of the absolute gates."""
        from bnpipe.release import GateLimits

        return GateLimits(**self.gates.model_dump())

    def promotion_rule(self) -> PromotionRule:
        """How champion and challenger are compared."""
        from bnpipe.release import PromotionRule

        rule = self.promotion
        return PromotionRule(
            rope=rule.rope,
            lucky_per_year=rule.lucky_per_year,
            looks_per_year=looks_per_year(self.schedule),
            min_clusters=rule.min_clusters,
            tolerances={name: target.tolerance for name, target in self.targets.items()},
        )

    def drift_rule(self) -> DriftSpec:
        """Give the section `drift`; SpecError if there is none."""
        from bnpipe.config.builders import drift_of

        return drift_of(self)

    def reaction_rule(self) -> ReactionRule:
        """Say what may follow from a look.

        Raises
        ------
        SpecError
            The spec has no section `drift`.
        """
        from bnpipe.config.builders import reaction_rule

        return reaction_rule(self)


def _changed(part: PartT, **changes: Any) -> PartT:
    given = {key: value for key, value in changes.items() if value is not None}
    return part.model_copy(update=given) if given else part
