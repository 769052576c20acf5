"""Airflow finds bnpipe's pages here."""

from bnpipe.airflow.plugin import BnpipePlugin

__all__ = ["BnpipePlugin"]
