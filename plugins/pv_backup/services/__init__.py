"""The work itself, in plain Python that has never heard of Airflow."""
