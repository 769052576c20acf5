"""The verbs: what Airflow's tasks and the command line both call."""

from bnpipe.steps.chain import audit, evaluate, fit, learn, register, snapshot, validate
from bnpipe.steps.promotion import Outcome, approve, promote, promote_by_hand, reconcile
from bnpipe.steps.rebuild import Rebuilt, rebuild
from bnpipe.steps.retention import Swept, sweep
from bnpipe.steps.train import fail, train
from bnpipe.steps.training import STEPS, Training

__all__ = [
    "STEPS",
    "Outcome",
    "Rebuilt",
    "Swept",
    "Training",
    "approve",
    "audit",
    "evaluate",
    "fail",
    "fit",
    "learn",
    "promote",
    "promote_by_hand",
    "rebuild",
    "reconcile",
    "register",
    "snapshot",
    "sweep",
    "train",
    "validate",
]
