"""Airflow finds here one Dag `bn_canary__NAME` for every spec in BNPIPE_MODELS that has a section `canary`."""

from bnpipe.airflow.canary import canary_dags

globals().update(canary_dags())
