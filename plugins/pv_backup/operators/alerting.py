"""Tell people of an error from a task, and note when what they were told of is over."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pv_backup.notifiers.failures import alert_of_error
from pv_backup.services.errors import PvBackupError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.operators.configuration import ConnectionIds
    from pv_backup.services.alarm import Alarm, StandIn
    from pv_backup.services.alert_memory import AlertMemory
    from pv_backup.services.alerts import Channel

log = logging.getLogger(__name__)


def alarm(connections: ConnectionIds, *, local: StandIn | None = None) -> Alarm:
    """Log, mail and webhook, with the journal as their memory.

    :param local: what remembers while the journal can't; None takes the worker's own memory.
    """
    from pv_backup.notifiers.mail import MailNotifier
    from pv_backup.notifiers.webhook import WebhookNotifier
    from pv_backup.services.alarm import Alarm
    from pv_backup.services.alerts import LogChannel
    from pv_backup.services.local_memory import LocalMemory

    channels: list[Channel] = [LogChannel(), MailNotifier(), WebhookNotifier()]
    return Alarm(channels=channels, memory=_memory(connections), local=local or LocalMemory())


def alert_of(
    context: Context,
    error: BaseException,
    *,
    backup_id: str | None,
    connections: ConnectionIds,
    incident: str = "",
    dag_id: str = "",
    day: str = "",
    local: StandIn | None = None,
) -> None:
    """Tell of an error in mid-run; whatever goes wrong here is logged and hides nothing.

    :param incident: what the error is an occurrence of, within its DAG; it is then told once, until :func:`settle`.
        Empty: the day's own, or the DAG's where its runs are of no day, with the error's code.
    :param dag_id: whose backup it is about, where that is not this task's DAG; ``day`` likewise.
    :param local: as in :func:`alarm`.
    """
    try:
        alert = alert_of_error(context, error, backup_id=backup_id)
        if dag_id:
            alert = replace(alert, dag_id=dag_id, day=day, incident=f"{dag_id}/{day}/{alert.code}")
        if incident:
            alert = replace(alert, incident=f"{alert.dag_id}/{incident}")
        alarm(connections, local=local).tell(alert)
    except Exception:
        log.exception("nobody could be told of %r", error)


def settle(
    context: Context,
    is_over: Callable[[str], bool] = lambda code: True,
    *,
    connections: ConnectionIds,
    dag_id: str = "",
    day: str = "",
) -> None:
    """Note which open incidents of the DAG are over; what can't be noted is told once more at worst.

    Incidents about one file are left alone: nobody sees by a run whether a person has dealt with them.

    :param is_over: is asked with each incident's code.
    :param dag_id: whose incidents, where they are not those of this task's DAG.
    :param day: whose incidents; empty for those of no day.
    """
    from pv_backup.services.local_memory import LocalMemory

    flow = "/".join(part for part in (dag_id or context["ti"].dag_id, day) if part) + "/"
    memory = _memory(connections)
    if memory is None:
        return
    try:
        codes = [name.removeprefix(flow) for name in memory.open_incidents(flow)]
        for code in memory.settle([flow + code for code in codes if "/" not in code and is_over(code)]):
            log.warning("%s%s is over", flow, code)
        LocalMemory().forget(flow)
    except PvBackupError as error:
        log.warning("incidents of %s could not be settled: %s", flow, error)
    except Exception:
        log.exception("incidents of %s could not be settled", flow)


def _memory(connections: ConnectionIds) -> AlertMemory | None:
    """None where the journal's connection itself can't be had; one that is down says so when it is asked."""
    from pv_backup.operators.workbench import journal_hook
    from pv_backup.services.alert_memory import AlertMemory

    try:
        return AlertMemory(journal_hook(connections).sessions())
    except Exception:
        log.exception("the journal's connection can't be had: whether this was told already, only this worker knows")
        return None
