"""Airflow finds here the Dag `bn_registry`, which follows the champions of all models."""

from bnpipe.airflow.registry import registry_dag

bn_registry = registry_dag()
