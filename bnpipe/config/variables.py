"""What the spec says of one variable: listed states, bins with edges, or bins learned from quantiles."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from bnpipe.config.scalars import Part, Share

if TYPE_CHECKING:
    from bnpipe.schema import Variable

MAX_STATES = 255


def _state(value: object) -> object:
    """Take a state written in Python for its canonical text; YAML hands over the text as written."""
    if isinstance(value, bool | int | float):
        from bnpipe.schema import state_name

        return state_name(value)
    return value


State = Annotated[
    str,
    BeforeValidator(_state),
    Field(min_length=1, max_length=200),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
"""A state: the text as written, so ``no`` is "no", ``01`` is "01" and ``null`` is "null"."""


class AnyVariable(Part):
    """What all variables share."""

    description: str = Field(default="", description="What it means, for reports.")
    column: str | None = Field(
        default=None, min_length=1, description="Column of the source; the variable's own name if left out."
    )
    missing: Literal["drop", "state"] = Field(
        default="drop",
        description="Nulls: `drop` keeps the row out of structure learning and of the families with this variable; "
        "`state` makes missing a state of its own (right where absence means something).",
    )
    missing_state: State = Field(default="missing", description="Name of the state for nulls, where `missing: state`.")
    max_missing: Share | None = Field(
        default=None,
        description="Largest share of nulls that passes validation; left out: 0.05 with `missing: drop`, else any.",
        examples=[0.05],
    )
    missing_severity: Literal["critical", "warning"] = Field(
        default="critical",
        description="More nulls than `max_missing`: `critical` stops the run, `warning` is recorded.",
    )

    @property
    def largest_missing_share(self) -> float:
        """`max_missing`, or its default."""
        if self.max_missing is not None:
            return self.max_missing
        return 0.05 if self.missing == "drop" else 1.0

    def _with_missing(self, states: tuple[str, ...]) -> tuple[str, ...]:
        return states if self.missing == "drop" or self.missing_state in states else (*states, self.missing_state)

    @property
    def _missing(self) -> str | None:
        return self.missing_state if self.missing == "state" else None


class StatesVariable(AnyVariable):
    """A variable whose states are listed."""

    states: tuple[State, ...] = Field(
        min_length=1,
        description="The states, as the text they have in the data (true/false for booleans, 3 for 3.0). Their order "
        "is kept. Nothing is guessed: `no` is the text no, `01` the text 01.",
        examples=[["AA", "B6", "UA"]],
    )
    other: State | None = Field(
        default=None, description="State that takes every value not listed; added to `states` if it is not among them."
    )
    unknown_severity: Literal["critical", "warning"] = Field(
        default="critical",
        description="A value that is no state, where there is no `other`: stop the run, or record it.",
    )

    @field_validator("states")
    @classmethod
    def _distinct(cls, states: tuple[str, ...]) -> tuple[str, ...]:
        twice = [state for place, state in enumerate(states) if state in states[:place]]
        if twice:
            raise ValueError(f"state {twice[0]!r} is listed twice; keep one")
        return states

    @model_validator(mode="after")
    def _few_enough(self) -> Self:
        if len(self.all_states) > MAX_STATES:
            raise ValueError(f"{len(self.all_states)} states, at most {MAX_STATES} are possible; group the rare ones")
        return self

    @property
    def all_states(self) -> tuple[str, ...]:
        """The listed states, `other` and the state for nulls."""
        other = () if self.other is None or self.other in self.states else (self.other,)
        return self._with_missing((*self.states, *other))

    def variable(self, name: str) -> Variable:
        """Build the domain value."""
        from bnpipe.schema import Variable

        return Variable(name, self.all_states, other=self.other, missing=self._missing)


class NumericVariable(AnyVariable):
    """A number cut into bins."""

    minimum: float | None = Field(default=None, description="Smallest value that passes validation.")
    maximum: float | None = Field(default=None, description="Largest value that passes validation.")
    range_severity: Literal["critical", "warning"] = Field(
        default="critical", description="A value below `minimum` or above `maximum`: stop the run, or record it."
    )

    @field_validator("maximum")
    @classmethod
    def _ordered(cls, maximum: float | None, info: ValidationInfo) -> float | None:
        minimum = info.data.get("minimum")
        if maximum is not None and minimum is not None and maximum <= minimum:
            raise ValueError(f"maximum {maximum:g} is not above minimum {minimum:g}; swap them")
        return maximum


class EdgesVariable(NumericVariable):
    """A number cut at given edges: bin i holds edges[i-1] <= x < edges[i]."""

    edges: tuple[float, ...] = Field(
        min_length=1,
        max_length=MAX_STATES - 1,
        description="Cut points, growing. n edges make n + 1 bins, the outer ones open.",
        examples=[[5, 10, 20]],
    )
    labels: tuple[State, ...] | None = Field(
        default=None,
        description="Names of the bins, one more than edges; left out: `<5`, `5..10`, `>=10`.",
        examples=[["calm", "breeze", "wind", "storm"]],
    )

    @field_validator("edges")
    @classmethod
    def _growing(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        for low, high in itertools.pairwise(edges):
            if high == low:
                raise ValueError(f"the edge {low:g} is written twice, which makes an empty bin; keep one")
            if high < low:
                raise ValueError(f"bins overlap: edge {high:g} comes after edge {low:g}; write edges in growing order")
        return edges

    @field_validator("labels")
    @classmethod
    def _one_a_bin(cls, labels: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        edges = info.data.get("edges")
        if labels is not None and edges is not None and len(labels) != len(edges) + 1:
            raise ValueError(f"{len(labels)} labels for {len(edges) + 1} bins ({len(edges)} edges); write one a bin")
        if labels is not None and len(set(labels)) < len(labels):
            raise ValueError(f"labels must differ, got {', '.join(labels)}")
        return labels

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        low, high = self.minimum, self.maximum
        if low is not None and self.edges[0] <= low:
            raise ValueError(f"edge {self.edges[0]:g} is not above minimum {low:g}: its first bin would stay empty")
        if high is not None and self.edges[-1] > high:
            raise ValueError(f"edge {self.edges[-1]:g} is above maximum {high:g}: its last bin would stay empty")
        if self.labels and self.missing == "state" and self.missing_state in self.labels:
            raise ValueError(f"missing_state {self.missing_state!r} is also a label; rename one")
        return self

    def variable(self, name: str) -> Variable:
        """Build the domain value."""
        from bnpipe.schema import Variable, bin_labels

        labels = self.labels or bin_labels(self.edges)
        return Variable(name, self._with_missing(labels), edges=self.edges, missing=self._missing)


class QuantilesVariable(NumericVariable):
    """A number cut into bins of about equal rows; edges are learned once and then reused from the champion."""

    quantiles: int = Field(ge=2, le=50, description="How many bins; ties may leave fewer.", examples=[4])

    def learn(self, name: str, values: Any) -> Variable:
        """Choose the edges from values (rows,), nulls left out, and build the domain value."""
        import numpy as np

        from bnpipe.schema import quantile_edges

        return self.with_edges(name, quantile_edges(np.asarray(values, dtype=np.float64), self.quantiles))

    def with_edges(self, name: str, edges: tuple[float, ...]) -> Variable:
        """Build the domain value with edges learned before."""
        from bnpipe.schema import Variable, bin_labels

        return Variable(name, self._with_missing(bin_labels(edges)), edges=edges, missing=self._missing)


_KINDS = {"states": StatesVariable, "edges": EdgesVariable, "quantiles": QuantilesVariable}


def _kind(value: Any) -> str | None:
    if isinstance(value, Mapping):
        kinds = [kind for kind in _KINDS if kind in value]
    else:
        kinds = [kind for kind, model in _KINDS.items() if isinstance(value, model)]
    return f"<{kinds[0]}>" if len(kinds) == 1 else None


VariableSpec = Annotated[
    Annotated[StatesVariable, Tag("<states>")]
    | Annotated[EdgesVariable, Tag("<edges>")]
    | Annotated[QuantilesVariable, Tag("<quantiles>")],
    Discriminator(
        _kind,
        custom_error_type="variable_kind",
        custom_error_message="a variable needs exactly one of the keys states, edges, quantiles",
    ),
]
"""One variable of the spec."""
