"""What a training or a look is made of, read back from the file that its snapshot wrote."""

from __future__ import annotations

import json

import pytest

from bnpipe.errors import FormatError
from bnpipe.steps.live import LookRecipe
from bnpipe.steps.recipe import Recipe, key_of


@pytest.mark.parametrize("fields", [{"format": 2}, {"some": "other file"}])
@pytest.mark.parametrize(("recipe", "name"), [(Recipe, "training.json"), (LookRecipe, "look.json")])
def test_a_newer_format_is_refused(recipe, name, fields):
    """Half of it would be read otherwise; the error says which file, and what to do."""
    with pytest.raises(FormatError, match=rf"{name} has format .*, this bnpipe reads up to 1; upgrade bnpipe"):
        recipe.from_json(json.dumps(fields))


def test_a_key_does_not_depend_on_the_order_of_fields():
    """The same recipe never makes a second version."""
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})
