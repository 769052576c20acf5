"""Airflow finds here one Dag `bn_release__NAME` for every file in BNPIPE_MODELS."""

from bnpipe.airflow.release import release_dags

globals().update(release_dags())
