"""Airflow finds here one Dag `bn_drift__NAME` for every spec in BNPIPE_MODELS that has a section `drift`."""

from bnpipe.airflow.drift import drift_dags

globals().update(drift_dags())
