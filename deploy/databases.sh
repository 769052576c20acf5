#!/bin/sh
# Make the roles and databases that are missing, and give the roles the passwords of this environment. Safe to repeat.
set -eu

database() { # name, owner, owner's password
    DB_NAME=$1 DB_OWNER=$2 DB_PASSWORD=$3 psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 <<'SQL'
\getenv name DB_NAME
\getenv owner DB_OWNER
\getenv password DB_PASSWORD
SELECT format('CREATE ROLE %I', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
ALTER ROLE :"owner" LOGIN PASSWORD :'password';
-- A superuser of a managed Postgres is none: it must belong to a role to hand it a database.
GRANT :"owner" TO CURRENT_USER;
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
    echo "database $1 of role $2 is there"
}

database "$AIRFLOW_DB" "$AIRFLOW_DB_USER" "$AIRFLOW_DB_PASSWORD"
database "$MLFLOW_DB" "$MLFLOW_DB_USER" "$MLFLOW_DB_PASSWORD"
database "$MLFLOW_AUTH_DB" "$MLFLOW_DB_USER" "$MLFLOW_DB_PASSWORD"
