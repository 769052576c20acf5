"""Tables of all keys, made from the models, for ``docs/spec.md`` and ``docs/serving.md``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bnpipe.config import canary, drift, gates, serving, source, spec, variables

START: Final = "<!-- keys: made by `python -m bnpipe.config`, do not edit -->"
END: Final = "<!-- /keys -->"
SECTIONS: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("Top level", spec.ModelSpec),
    ("source", source.SourceSpec),
    ("window", spec.WindowSpec),
    ("variables: every variable", variables.AnyVariable),
    ("variables: a variable with `states`", variables.StatesVariable),
    ("variables: a variable with `edges` or `quantiles`", variables.NumericVariable),
    ("variables: a variable with `edges`", variables.EdgesVariable),
    ("variables: a variable with `quantiles`", variables.QuantilesVariable),
    ("targets: each", spec.TargetSpec),
    ("structure", spec.StructureSpec),
    ("structure.graph", spec.GraphSpec),
    ("parameters", spec.ParametersSpec),
    ("gates", gates.GatesSpec),
    ("validation", gates.ValidationSpec),
    ("validation.expectations: each", gates.ExpectationSpec),
    ("promotion", spec.PromotionSpec),
    ("drift", drift.DriftSpec),
    ("drift.source", source.LiveSourceSpec),
    ("canary", canary.CanarySpec),
)
SERVING: Final[tuple[tuple[str, type[BaseModel]], ...]] = (
    ("Top level", serving.ServingSpec),
    ("models: each, and defaults", serving.ServedModelSpec),
    ("clients: each", serving.ClientSpec),
    ("limits", serving.LimitsSpec),
    ("batch", serving.BatchSpec),
    ("breaker", serving.BreakerSpec),
    ("answers", serving.AnswerLogSpec),
    ("log", serving.LogSpec),
    ("tracing", serving.TracingSpec),
)


def write_keys(page: str, sections: Sequence[tuple[str, type[BaseModel]]] = SECTIONS) -> str:
    """Put the tables between the marks of a page.

    Raises
    ------
    ValueError
        The page has no such marks.
    """
    if START not in page or END not in page:
        raise ValueError(f"the page lacks {START} or {END}")
    before, after = page.partition(START)[0], page.partition(END)[2]
    return f"{before}{START}\n\n{tables(sections)}\n{END}{after}"


def tables(sections: Sequence[tuple[str, type[BaseModel]]]) -> str:
    """Write one table a mapping of the YAML."""
    return "\n".join(f"### {title}\n\n{_table(model)}" for title, model in sections)


def _table(model: type[BaseModel]) -> str:
    rows = [
        f"| `{name}` | {_default(field)} | {_meaning(field)}{_example(field)} |"
        for name, field in model.model_fields.items()
        if name in model.__annotations__
    ]
    return "\n".join(["| key | if left out | meaning |", "|---|---|---|", *rows, ""])


def _meaning(field: FieldInfo) -> str:
    """Give a key's own description, else that of the mapping it holds."""
    if field.description is not None:
        return field.description
    model = field.annotation
    return (model.__doc__ or "").partition("\n")[0] if isinstance(model, type) else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.default
    if value is PydanticUndefined or isinstance(value, BaseModel) or value in (None, "", (), {}):
        return "–"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    text = f"{value}".lower() if isinstance(value, bool) else f"{value}"
    return f"`{text}`"


def _example(field: FieldInfo) -> str:
    choices = [choice for part in (field.annotation, *get_args(field.annotation)) for choice in _choices(part)]
    if choices:
        return f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    if not field.examples:
        return ""
    text = re.sub(r"'(\w+)':?", lambda match: match[0].replace("'", ""), str(field.examples[0])).replace("'", '"')
    return f" Example: `{text}`."


def _choices(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if getattr(annotation, "__origin__", None) is Literal else ()
