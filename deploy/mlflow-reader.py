"""Make MLflow's user for the service: it may read (default_permission) and nothing else. Safe to repeat."""

import os

from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore  # noqa: TID253  a script of its own

name, password = os.environ["MLFLOW_READER_USERNAME"], os.environ["MLFLOW_READER_PASSWORD"]
store = SqlAlchemyStore()
store.init_db("postgresql+psycopg2://")
if store.has_user(name):
    store.update_user(name, password=password, is_admin=False)
else:
    store.create_user(name, password)
print(f"user {name} reads")  # noqa: T201
