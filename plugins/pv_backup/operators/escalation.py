"""Who tells people that a relaunch failed: the watchdog that waits for it, or the relaunch itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from airflow.sdk import DagRunState

from pv_backup.services.errors import RelaunchFailed

if TYPE_CHECKING:
    from datetime import date

    from airflow.sdk import Context

WATCHDOG: Final = "pv_backup_watchdog"
RELAUNCH: Final = "pv_backup_relaunch"
#: Of the runs of the relaunch that the watchdog starts, one a day.
WATCHDOG_RUN_ID: Final = "watchdog__{day}"

log = logging.getLogger(__name__)


def relaunch_failed(context: Context, what: str, *, remedy: str) -> RelaunchFailed:
    """ERR-47-05, noted as told where a watchdog waits for this very run and is about to escalate."""
    error = RelaunchFailed(what, remedy=remedy)
    error.told = _is_awaited(context)
    return error


def demand_unpaused(context: Context, dag_id: str, day: date) -> None:
    """Make sure that a run of the DAG would start, and not only be queued.

    :raises RelaunchFailed: if it is paused.
    """
    if context["ti"].get_dag(dag_id).is_paused:
        raise relaunch_failed(
            context,
            f"{dag_id} is paused, so the backup of {day} cannot be started again",
            remedy=f"unpause {dag_id}, then trigger pv_backup_relaunch for {day} by hand",
        )


def _is_awaited(context: Context) -> bool:
    ti = context["ti"]
    if ti.dag_id != RELAUNCH or not context["run_id"].startswith(WATCHDOG_RUN_ID.format(day="")):
        return False
    try:
        return ti.get_dr_count(dag_id=WATCHDOG, states=[DagRunState.RUNNING]) > 0
    except Exception:
        log.exception("whether %s waits for this run is not known", WATCHDOG)
        return False
