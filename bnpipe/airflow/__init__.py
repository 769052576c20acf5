"""Everything that imports Airflow: Dag factories, the registry watcher, the plugin.

The Dags hold no logic of their own: each task calls one verb of :mod:`bnpipe.steps`. Modules here are read by the Dag
processor every few seconds, so whatever is heavy is imported inside the tasks.
"""
