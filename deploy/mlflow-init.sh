#!/bin/sh
# MLflow's tables, before several workers look for them at once, and the login of the service, which only reads.
# $1: where deploy/ lies
set -eu
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
python -m mlflow.server.auth db upgrade --url postgresql+psycopg2://
python "$1/mlflow-reader.py"
