"""Raise an alert from a task: the log and the audit trail always, further channels plug in here."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pv_backup.operators.days import day_of_run
from pv_backup.services.alert_memory import AlertMemory
from pv_backup.services.alerts import Alert, AuditChannel, Channel, LogChannel, raise_alert
from pv_backup.services.errors import FormatRejected, PvBackupError
from pv_backup.services.journal import Audit

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.operators.configuration import ConnectionIds

log = logging.getLogger(__name__)


def alert_of(
    context: Context,
    error: BaseException,
    *,
    backup_id: str | None,
    connections: ConnectionIds,
    incident: str = "",
) -> None:
    """Tell of an error that ended a run; whatever goes wrong here is logged and hides nothing.

    :param incident: what the error is an occurrence of; it is then told once, until :func:`settle`.
    """
    ti = context["ti"]
    alert = Alert.from_error(error, dag_id=ti.dag_id, day=_day(context), backup_id=backup_id, run_url=ti.log_url)
    if incident:
        alert = replace(alert, incident=f"{ti.dag_id}/{incident}")
        if not _is_news(alert, connections):
            log.info("%s was told already, and is not settled", alert.incident)
            return
        raise_alert(alert, [LogChannel()])
    else:
        raise_alert(alert, [LogChannel(), *_audit_channel(connections)])


def settle(context: Context, is_over: Callable[[str], bool], *, connections: ConnectionIds) -> None:
    """Note which open incidents of the DAG are over; what can't be noted is told once more at worst.

    Incidents about one file are left alone: nobody sees by a run whether a person has dealt with them.

    :param is_over: is asked with each incident's code.
    """
    from pv_backup.operators.workbench import journal_hook

    flow = f"{context['ti'].dag_id}/"
    try:
        memory = AlertMemory(journal_hook(connections).sessions())
        codes = [name.removeprefix(flow) for name in memory.open_incidents(flow)]
        for code in memory.settle([flow + code for code in codes if "/" not in code and is_over(code)]):
            log.warning("%s is over", code)
    except PvBackupError:
        log.exception("incidents could not be settled")


def _is_news(alert: Alert, connections: ConnectionIds) -> bool:
    """Ask the audit trail, which records the alert by that; an alert whose novelty nobody knows is sent."""
    from pv_backup.operators.workbench import journal_hook

    try:
        return AlertMemory(journal_hook(connections).sessions()).claim(alert)
    except Exception:
        log.exception("the audit trail cannot be reached; the alert stands in this log only")
        return True


def _audit_channel(connections: ConnectionIds) -> list[Channel]:
    from pv_backup.operators.workbench import journal_hook

    try:
        return [AuditChannel(Audit(journal_hook(connections).sessions()))]
    except Exception:
        log.exception("the audit trail cannot be reached; the alert stands in this log only")
        return []


def _day(context: Context) -> str:
    try:
        return day_of_run(context).isoformat()
    except FormatRejected:
        return str(context["params"].get("day", ""))
