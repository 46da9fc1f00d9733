"""Tell Airflow that this package is here; the package itself is imported from `plugins/` by the DAGs."""

from airflow.plugins_manager import AirflowPlugin


class PvBackupPlugin(AirflowPlugin):
    """Named, so that the UI's list of plugins shows it."""

    name = "pv_backup"
