"""The verbs: what Airflow's tasks and the command line both call."""

from bnpipe.steps.chain import audit, fit, learn, register, snapshot, validate
from bnpipe.steps.live import Look
from bnpipe.steps.look import LOOK_STEPS, look, look_compare, look_snapshot, look_validate
from bnpipe.steps.promotion import Outcome, approve, promote, promote_by_hand, reconcile
from bnpipe.steps.proof import evaluate
from bnpipe.steps.reaction import look_act, look_decide, look_report, read_look
from bnpipe.steps.rebuild import Rebuilt, rebuild
from bnpipe.steps.retention import Swept, sweep
from bnpipe.steps.rollback import rollback
from bnpipe.steps.train import fail_run_of, train
from bnpipe.steps.training import STEPS, Release, Training, read_release

__all__ = [
    "LOOK_STEPS",
    "STEPS",
    "Look",
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
    "look",
    "look_act",
    "look_compare",
    "look_decide",
    "look_report",
    "look_snapshot",
    "look_validate",
    "promote",
    "promote_by_hand",
    "read_look",
    "read_release",
    "rebuild",
    "reconcile",
    "register",
    "rollback",
    "snapshot",
    "sweep",
    "train",
    "validate",
]
