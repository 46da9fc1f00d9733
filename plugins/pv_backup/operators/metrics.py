"""What dashboards and Prometheus see, through Airflow's own metrics, StatsD or OpenTelemetry (docs/metrics.md).

Every name is ``pv_backup.<flow>.<figure>``, so that one mapping serves all of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.sdk.observability import stats

if TYPE_CHECKING:
    from pv_backup.operators.configuration import ConnectionIds
    from pv_backup.services.wal_report import WalReport

log = logging.getLogger(__name__)


def report_backups(connections: ConnectionIds) -> None:
    """Set what the journal says of each flow's newest backup, at a success and every five minutes.

    A figure that cannot be had never fails a backup: it is logged, and the rules look at times and not at ages.
    """
    from pv_backup.operators.workbench import journal_hook
    from pv_backup.services.figures import figures

    try:
        _set(figures(journal_hook(connections).sessions()))
    except Exception:
        log.exception("the figures of the newest backups could not be reported")


def report_wal(report: WalReport) -> None:
    """Set what a run of WAL shipping did, and what it left; a run without a file says nothing of size and rate."""
    found: dict[str, float] = {
        "wal.shipped": report.done,
        "wal.backlog": report.backlog,
        "wal.oldest_s": report.oldest_s,
    }
    if report.done:
        found |= {
            "wal.size_bytes": report.stored_bytes,
            "wal.duration_s": report.seconds,
            "wal.rate": report.read_bytes / max(report.seconds, 1e-9),
        }
    if not report.problems:
        found["wal.last_success"] = time.time()
    _set(found)


def _set(found: Mapping[str, float]) -> None:
    for name, value in found.items():
        stats.gauge(f"pv_backup.{name}", value)
