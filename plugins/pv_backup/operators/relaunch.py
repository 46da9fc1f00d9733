"""What the relaunch does itself, before and after the dump that it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowSkipException

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.days import day_of_run, day_to_open
from pv_backup.operators.escalation import demand_unpaused, relaunch_failed
from pv_backup.operators.workbench import journal_sessions, object_store
from pv_backup.services.errors import NotPublished

if TYPE_CHECKING:
    from datetime import date

    from airflow.sdk import Context

    from pv_backup.services.relaunching import Relaunch
    from pv_backup.services.settings import Settings


class ScheduleDayOperator(BackupStepOperator):
    """Open a failed day once more, within what the circuit breaker allows, so that the dump finds it SCHEDULED.

    Ends skipped, and with it the whole run, when the day has its backup.

    :param dump_dag_id: the DAG that is started next.
    """

    def __init__(self, *, dump_dag_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dump_dag_id = dump_dag_id

    def step(self, context: Context, settings: Settings) -> None:
        """Raise CircuitBreakerOpen or BackupVanished, which a person must settle.

        :raises RelaunchFailed: if the dump is paused: what it can't do must not count against the day.
        """
        relaunch = _relaunch(self, settings, day_to_open(context))
        demand_unpaused(context, self.dump_dag_id, relaunch.day)
        if not relaunch.prepare(max_replanification_cycles=settings.max_replanification_cycles):
            raise AirflowSkipException(f"the backup of {relaunch.day} is published already")


class ConfirmBackupOperator(BackupStepOperator):
    """See that the day has its backup by journal and bucket both, and not only by the colour of the dump's run."""

    def step(self, context: Context, settings: Settings) -> str:
        """Return the backup_id; raise RelaunchFailed (ERR-47-05) if there is none."""
        from pv_backup.operators.alerting import settle

        relaunch = _relaunch(self, settings, day_of_run(context))
        try:
            backup_id = relaunch.confirm()
        except NotPublished as error:
            raise relaunch_failed(context, error.what, remedy=error.remedy) from error
        settle(context, connections=self.connections, day=relaunch.day.isoformat())
        return backup_id


def _relaunch(operator: BackupStepOperator, settings: Settings, day: date) -> Relaunch:
    from pv_backup.services.relaunching import Relaunch

    return Relaunch(
        day=day,
        sessions=journal_sessions(operator.connections),
        store=object_store(operator.connections, settings),
    )
