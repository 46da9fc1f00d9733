"""What the operators' dashboards see, through Airflow's own metrics (StatsD or OpenTelemetry)."""

from __future__ import annotations

import time

from airflow.sdk.observability import stats


def report_success(flow: str, size_bytes: int) -> None:
    """Set when a flow last succeeded (Unix seconds) and how large its artefact is (bytes)."""
    stats.gauge(f"pv_backup.{flow}.last_success", time.time())
    stats.gauge(f"pv_backup.{flow}.size_bytes", size_bytes)
