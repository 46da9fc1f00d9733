"""The command line for when Airflow is not there, or not wanted: only bucket and key are needed."""
