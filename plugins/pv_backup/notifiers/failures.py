"""What a failed task's context says of its failure, for whoever tells people."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.sdk.log import redact  # type: ignore[attr-defined] # it is the masker of the task's own log

from pv_backup.services.alerts import Alert
from pv_backup.services.days import choose_day
from pv_backup.services.errors import FormatRejected, WorkerDied

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context


def alert_of_failure(context: Context) -> Alert:
    """Say of a failed task all that is known, which is little when its process was killed (ERR-47-08)."""
    error = context.get("exception")
    return alert_of_error(context, error if isinstance(error, BaseException) else _died(context))


def alert_of_error(context: Context, error: BaseException, *, backup_id: str | None = None) -> Alert:
    """Say of an error what the alert needs, with the DAG, day and run of a context.

    The secrets of connections that this process has read are masked, as they are in Airflow's logs.

    :param backup_id: None: the one that the task says it works on.
    """
    ti, dag = context.get("ti"), context.get("dag")
    alert = Alert.from_error(
        error,
        dag_id=ti.dag_id if ti else dag.dag_id if dag else "",
        day=_day_of(context),
        backup_id=backup_id or _backup_id_of(context),
        run_url=ti.log_url if ti else "",
    )
    # Nobody knows what an error that was not foreseen quotes.
    return replace(alert, cause=str(redact(alert.cause)), next_step=str(redact(alert.next_step)))


def was_told(context: Context) -> bool:
    """Whether people were alerted of the error where it was found."""
    return bool(getattr(context.get("exception"), "told", False))


def _day_of(context: Context) -> str:
    """The day of a run that is of a day, empty for the others, whose incidents last over midnight."""
    params: Mapping[str, Any] = context.get("params") or {}
    run = context.get("dag_run")
    if "day" not in params or run is None:
        return ""
    requested = str(params["day"])
    with suppress(FormatRejected):
        return choose_day(run.run_after, requested or "today").isoformat()
    return requested


def _backup_id_of(context: Context) -> str | None:
    """What a step of a backup calls its attempt; outside its own process that is not known yet."""
    says = getattr(context.get("task"), "failed_backup_id", None)
    backup_id = says() if says else None
    return backup_id if isinstance(backup_id, str) else None


def _died(context: Context) -> WorkerDied:
    ti = context.get("ti")
    return WorkerDied(
        f"the process of task {ti.task_id} ended without a word" if ti else f"run {context.get('run_id')} failed",
        remedy="see who kills processes on that worker (the OOM killer?); reconciliation settles the rest in minutes",
    )
