"""The only reader of YAML and environment: specs of networks, settings, and the domain values made from them."""

from bnpipe.config.checks import check_spec
from bnpipe.config.json_schema import json_schema
from bnpipe.config.loading import Problem, load_all, load_spec
from bnpipe.config.overrides import Overrides
from bnpipe.config.settings import Settings
from bnpipe.config.spec import ModelSpec
from bnpipe.config.variables import EdgesVariable, QuantilesVariable, StatesVariable

__all__ = [
    "EdgesVariable",
    "ModelSpec",
    "Overrides",
    "Problem",
    "QuantilesVariable",
    "Settings",
    "StatesVariable",
    "check_spec",
    "json_schema",
    "load_all",
    "load_spec",
]
