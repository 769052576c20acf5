"""States, bins and codes."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnpipe.errors import SchemaError
from bnpipe.schema import MISSING, Schema, Variable, bin_labels, quantile_edges, state_name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (True, "true"),
        (np.False_, "false"),
        (3, "3"),
        (np.int64(-3), "-3"),
        (3.0, "3"),
        (np.float32(0.1), "0.1"),
        (2.5, "2.5"),
        (-0.0, "0"),
        (Decimal("3.00"), "3"),
        (math.inf, "inf"),
        ("New York", "New York"),
        (np.str_("x"), "x"),
        (datetime.date(2013, 1, 2), "2013-01-02"),
    ],
)
def test_state_name_is_the_same_for_every_type_of_one_value(value: object, name: str) -> None:
    """YAML, Parquet and JSON type one value differently; its state has one name."""
    assert state_name(value) == name


def test_bin_labels_are_half_open_ranges() -> None:
    """The label tells on which side of a cut point a value lies."""
    assert bin_labels((10.0, 20.5)) == ("<10", "10..20.5", ">=20.5")
    assert bin_labels(()) == ("any",)


@pytest.mark.parametrize(
    ("states", "options", "message"),
    [
        ((), {}, "1 to 255 states"),
        (tuple(map(str, range(256))), {}, "1 to 255 states"),
        (("a", "b", "a"), {}, "given twice: a"),
        (("a", 1), {}, "states are text"),
        ("yes", {}, "list of names"),
        (("a",), {"other": "b"}, "other is 'b'"),
        (("a",), {"missing": "b"}, "missing is 'b'"),
        (("a", "b", "c"), {"edges": (2.0, 2.0)}, "increase strictly"),
        (("a", "b"), {"edges": (math.nan,)}, "finite"),
        (("a", "b"), {"edges": (1.0, 2.0)}, "make 3 bins, got 2 states"),
    ],
)
def test_impossible_variables_are_refused_by_name(states: tuple[str, ...], options: dict, message: str) -> None:
    """The error names the variable and what is wrong with it."""
    with pytest.raises(SchemaError, match=message) as caught:
        Variable("wind", states, **options)
    assert "wind" in str(caught.value)


def test_a_variable_may_have_all_255_states() -> None:
    """The last code before MISSING is a state like any other."""
    variable = Variable("v", tuple(map(str, range(255))))
    codes, unseen = variable.encode(pd.Series([0, 254, 255, None], dtype="Int64"))
    assert codes.tolist() == [0, 254, MISSING, MISSING]
    assert unseen.tolist() == [False, False, True, False]


@pytest.mark.parametrize("dtype", ["object", "category", "string"])
def test_states_unseen_values_and_nulls_are_told_apart(dtype: str) -> None:
    """A null is not unseen; an unseen value without `other` has no state but is counted."""
    values = pd.Series(["b", "z", None, "a"], dtype=dtype)
    codes, unseen = Variable("v", ("a", "b")).encode(values)
    assert codes.dtype == np.uint8
    assert codes.tolist() == [1, MISSING, MISSING, 0]
    assert unseen.tolist() == [False, True, False, False]
    codes, unseen = Variable("v", ("a", "b", "rest", "none"), other="rest", missing="none").encode(values)
    assert codes.tolist() == [1, 2, 3, 0]
    assert unseen.tolist() == [False, True, False, False]


def test_numbers_and_booleans_match_their_state_names() -> None:
    """Whole floats, which pandas makes of integers with gaps, and booleans find their states."""
    assert Variable("v", ("1", "2")).encode(pd.Series([1.0, 2.0, np.nan]))[0].tolist() == [0, 1, MISSING]
    assert Variable("v", ("false", "true")).encode(pd.Series([True, False]))[0].tolist() == [1, 0]


@pytest.mark.parametrize("dtype", ["float64", "float32", "Int64", "int16", "object", "category"])
def test_edges_put_a_value_into_the_bin_it_begins(dtype: str) -> None:
    """A cut point belongs to the bin above it, whatever type the column has."""
    variable = Variable("v", (*bin_labels((10.0, 20.0)), "none"), edges=(10.0, 20.0), missing="none")
    codes, unseen = variable.encode(pd.Series([9, 10, 19, 20, 1000]).astype(dtype))
    assert codes.tolist() == [0, 1, 1, 2, 2]
    assert not unseen.any()


def test_nulls_and_infinities_of_binned_variables() -> None:
    """NaN is missing; infinities lie in the outer bins."""
    variable = Variable("v", bin_labels((1.0,)), edges=(1.0,))
    assert variable.encode(pd.Series([np.nan, -np.inf, np.inf]))[0].tolist() == [MISSING, 0, 1]
    assert variable.encode(pd.Series([pd.NA, 0, 2], dtype="Int64"))[0].tolist() == [MISSING, 0, 1]


def test_text_in_a_binned_column_is_a_state_a_number_or_unseen() -> None:
    """Labels read back as their bins; text that is neither label nor number is unseen."""
    variable = Variable("v", (*bin_labels((1.0,)), "rest"), edges=(1.0,), other="rest")
    codes, unseen = variable.encode(pd.Series([">=1", "0.5", "banana", "nan"]))
    assert codes.tolist() == [1, 0, 2, 2]
    assert unseen.tolist() == [False, False, True, True]


def test_columns_that_can_never_fit_are_refused() -> None:
    """Dates where numbers are binned, and values that can't be compared, are errors that name the variable."""
    with pytest.raises(SchemaError, match=r"wind: .*datetime64"):
        Variable("wind", bin_labels((1.0,)), edges=(1.0,)).encode(pd.Series(pd.to_datetime(["2013-01-01"])))
    with pytest.raises(SchemaError, match=r"wind: .*list"):
        Variable("wind", ("a",)).encode(pd.Series([["a"], ["b"]]))


def test_infer_takes_categories_values_and_whole_floats() -> None:
    """Categoricals keep their order, other columns are sorted by value, not by text."""
    frame = pd.DataFrame(
        {
            "size": pd.Categorical(["S", "L"], categories=["S", "M", "L"]),
            "number": [10, 9],
            "gaps": [2.0, None],
            "flag": [True, False],
            "text": ["b", "a"],
        }
    )
    schema = Schema.infer(frame)
    assert {variable.name: variable.states for variable in schema} == {
        "size": ("S", "M", "L"),
        "number": ("9", "10"),
        "gaps": ("2",),
        "flag": ("false", "true"),
        "text": ("a", "b"),
    }


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([0.5, 1.5], "give edges"),
        ([None, None], "no value"),
        (list(range(300)), "300 different values"),
        (pd.to_datetime(["2013-01-01", "2013-01-02"]), "datetime64"),
    ],
)
def test_infer_refuses_what_has_no_states(column: object, message: str) -> None:
    """The error names the column and says what to give instead."""
    with pytest.raises(SchemaError, match=rf"odd: .*{message}"):
        Schema.infer(pd.DataFrame({"odd": column}))


def test_schema_finds_variables_by_name() -> None:
    """Names, places and cardinalities agree; an unknown name is told with those there are."""
    schema = Schema((Variable("a", ("x", "y")), Variable("b", ("z",))))
    assert schema.names == ("a", "b")
    assert schema.cardinalities == (2, 1)
    assert schema["b"] is schema.variables[schema.index("b")]
    assert "a" in schema
    assert "c" not in schema
    with pytest.raises(SchemaError, match="no variable 'c'; there are a, b"):
        schema.index("c")
    with pytest.raises(SchemaError, match="given twice: a"):
        Schema((Variable("a", ("x",)), Variable("a", ("y",))))
    with pytest.raises(SchemaError, match="at least one"):
        Schema(())


def test_hash_is_pinned_and_depends_on_every_field() -> None:
    """Versions are compared by this hash, so it may never change for the same schema."""
    base = Variable("a", ("<1", ">=1", "é"), edges=(1.0,), other="é", missing="é")
    assert Schema((base,)).hash == "b19c7af091c86f33552993d38d5b585a1e4ddd06a7695ffd96bce4a675619e10"
    others = [
        Variable("b", base.states, base.edges, base.other, base.missing),
        Variable("a", ("<1", ">=1", "e"), base.edges, "e", "e"),
        Variable("a", base.states, (1.5,), base.other, base.missing),
        Variable("a", base.states, None, base.other, base.missing),
        Variable("a", base.states, base.edges, None, base.missing),
        Variable("a", base.states, base.edges, base.other, None),
    ]
    assert len({Schema((variable,)).hash for variable in [base, *others]}) == 7


@pytest.mark.parametrize("fields", [{}, {"variables": 3}, {"variables": [{}]}, {"variables": [{"name": "a"}]}])
def test_damaged_schema_fields_are_schema_errors(fields: dict) -> None:
    """Nothing but SchemaError leaves `from_dict`."""
    with pytest.raises(SchemaError):
        Schema.from_dict(fields)


names = st.text(max_size=8)


@given(st.lists(names, min_size=1, max_size=6, unique=True), st.floats(-1e6, 1e6), names.filter(bool))
def test_to_dict_and_back_is_the_same_schema(states: list[str], edge: float, name: str) -> None:
    """Any text may be a state, any finite float an edge."""
    edges = (edge,) if len(states) > 1 else None
    schema = Schema((Variable(name, tuple(states), edges=edges, other=states[-1]),))
    again = Schema.from_dict(schema.to_dict())
    assert again == schema
    assert again.hash == schema.hash


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.integers(2, 6))
def test_quantile_edges_are_increasing_and_leave_no_lower_bin_empty(values: list[float], bins: int) -> None:
    """Whatever the ties, cut points increase, are at most bins - 1, and some value lies below each."""
    edges = quantile_edges(np.array(values), bins)
    assert len(edges) <= bins - 1
    assert list(edges) == sorted(set(edges))
    assert all(edge > min(values) for edge in edges)
    assert bool(edges) == (len(set(values)) > 1)


def test_quantile_edges_share_rows_evenly_and_are_readable() -> None:
    """Without ties each bin holds its share within rounding; labels stay short."""
    values = np.random.default_rng(0).normal(size=10_000)
    edges = quantile_edges(values, 4)
    assert edges == (-0.666, -0.00903, 0.691)
    shares = np.bincount(np.searchsorted(edges, values, side="right")) / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=0.005)


def test_quantile_edges_with_heavy_ties() -> None:
    """A value that holds most rows gets a bin to itself; a constant gets no cut; NaN is ignored."""
    assert quantile_edges(np.array([0.0] * 90 + [0.3, 2.0] * 5), 4) == (0.3,)
    assert quantile_edges(np.array([0.0, 1.0, 2.0, 3.0, np.nan] * 10), 4) == (1.0, 2.0, 3.0)
    assert quantile_edges(np.array([1e6, 1e6 + 1, 1e6 + 2]), 3) == (1000001.0, 1000002.0)
    assert quantile_edges(np.array([7.0] * 5), 3) == ()
    with pytest.raises(SchemaError, match="finite"):
        quantile_edges(np.array([np.nan]), 3)
    with pytest.raises(SchemaError, match="at least 2 bins"):
        quantile_edges(np.array([1.0]), 1)
