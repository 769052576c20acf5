"""`bnpipe demo`: a whole MLflow and Airflow on this machine, and what is shown on them."""

from bnpipe.demo.story import run

__all__ = ["run"]
