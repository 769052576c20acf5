"""The verbs: what Airflow's tasks and the command line both call."""

from bnpipe.steps.chain import audit, fit, learn, register, snapshot, validate
from bnpipe.steps.promotion import Outcome, approve, promote, promote_by_hand, reconcile
from bnpipe.steps.proof import evaluate
from bnpipe.steps.rebuild import Rebuilt, rebuild
from bnpipe.steps.retention import Swept, sweep
from bnpipe.steps.train import fail_run_of, train
from bnpipe.steps.training import STEPS, Release, Training, read_release

__all__ = [
    "STEPS",
    "Outcome",
    "Rebuilt",
    "Release",
    "Swept",
    "Training",
    "approve",
    "audit",
    "evaluate",
    "fail_run_of",
    "fit",
    "learn",
    "promote",
    "promote_by_hand",
    "read_release",
    "rebuild",
    "reconcile",
    "register",
    "snapshot",
    "sweep",
    "train",
    "validate",
]
