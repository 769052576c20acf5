"""Airflow finds here one Dag `bn_train__NAME` for every file in BNPIPE_MODELS."""

from bnpipe.airflow.train import train_dags

globals().update(train_dags())
