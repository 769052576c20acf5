"""Compile every kernel and keep it on disk: ``python -m bnpipe.kernels``, once an installation."""

import importlib
import pkgutil

import bnpipe.kernels

for module in pkgutil.iter_modules(bnpipe.kernels.__path__, "bnpipe.kernels."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
