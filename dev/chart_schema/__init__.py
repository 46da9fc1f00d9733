"""What the official Airflow chart takes for each value that deploy/helm/values.yaml sets, in one JSON file.

`helm install` would know, but it needs the chart, which a test can't download everywhere. So the chart's own
values.schema.json is read once, and what our values need of it is kept in `excerpt.json`, with the schema's digest:

    helm repo add apache-airflow https://airflow.apache.org
    helm pull apache-airflow/airflow --version 1.22.0 --untar
    python -m dev.chart_schema airflow          # after a new key in values.yaml, or for another version of the chart

The excerpt that is here was made of the sources of chart 1.22.0 as they stood on 29 April 2026 (apache/airflow, commit
3e311d6d766d), before its release on 13 June 2026. So the tests hold values.yaml against that schema; with the released
chart another digest is to be expected, and another key or type would be news.
"""
