#!/bin/sh
# MLflow's tables, before several workers look for them at once.
set -eu
mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"
python -m mlflow.server.auth db upgrade --url postgresql+psycopg2://
