#!/bin/sh
# Airflow's tables and first administrator. Safe to repeat: an administrator who is there keeps the password.
set -eu
username=$1
email=$2
airflow db migrate
airflow users create --role=Admin --username="$username" --email="$email" --firstname=Airflow --lastname=Administrator \
    --password="$AIRFLOW_ADMIN_PASSWORD"
airflow dags reserialize
