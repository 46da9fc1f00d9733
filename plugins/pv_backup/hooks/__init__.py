"""Airflow connections in, clients for the services out."""
