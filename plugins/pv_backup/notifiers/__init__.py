"""Ways to reach the people on call, as Airflow's notifiers and as the services' channels."""
