"""What the operators' dashboards see, through Airflow's own metrics (StatsD or OpenTelemetry)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow.sdk.observability import stats

if TYPE_CHECKING:
    from pv_backup.services.wal_report import WalReport


def report_success(flow: str, size_bytes: int) -> None:
    """Set when a flow last succeeded (Unix seconds) and how large its artefact is (bytes)."""
    stats.gauge(f"pv_backup.{flow}.last_success", time.time())
    stats.gauge(f"pv_backup.{flow}.size_bytes", size_bytes)


def report_wal(report: WalReport) -> None:
    """Set what a run of WAL shipping did (files, files per second) and what it left (files, age in seconds)."""
    stats.gauge("pv_backup.wal.shipped", report.done)
    stats.gauge("pv_backup.wal.rate", report.rate)
    stats.gauge("pv_backup.wal.backlog", report.backlog)
    stats.gauge("pv_backup.wal.oldest_s", report.oldest_s)
    if not report.problems:
        stats.gauge("pv_backup.wal.last_success", time.time())
