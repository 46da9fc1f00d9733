"""Raise an alert from a task: the log and the audit trail always, further channels plug in here."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pv_backup.operators.days import day_of_run
from pv_backup.services.alerts import Alert, AuditChannel, Channel, LogChannel, raise_alert
from pv_backup.services.errors import FormatRejected
from pv_backup.services.journal import Audit

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.operators.workbench import ConnectionIds

log = logging.getLogger(__name__)


def alert_of(context: Context, error: BaseException, *, backup_id: str | None, connections: ConnectionIds) -> None:
    """Tell of an error that ended a run; whatever goes wrong here is logged and hides nothing."""
    from pv_backup.operators.workbench import journal_hook

    ti = context["ti"]
    alert = Alert.from_error(
        error,
        dag_id=ti.dag_id,
        day=_day(context),
        backup_id=backup_id,
        run_url=ti.log_url,
    )
    channels: list[Channel] = [LogChannel()]
    try:
        channels.append(AuditChannel(Audit(journal_hook(connections).sessions())))
    except Exception:
        log.exception("the audit trail cannot be reached; the alert stands in this log only")
    raise_alert(alert, channels)


def _day(context: Context) -> str:
    try:
        return day_of_run(context).isoformat()
    except FormatRejected:
        return str(context["params"].get("day", ""))
