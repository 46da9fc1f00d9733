"""Tell people when the night's dump is not over in time.

Airflow's own deadline alerts were tried first. In 3.3.2 a DAG that has one fails under `airflow dags test` when its run
is marked (`DagRun.update_state` asks the database for an alert by its definition instead of its id), and they say
nothing of a run that was never made.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.workbench import journal_sessions
from pv_backup.services.days import day_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings


class DumpDeadlineOperator(BackupStepOperator):
    """Alert if today's dump is not over by 03:45 Europe/Paris; its success settles that.

    :param dump_dag_id: in whose name people are told.
    """

    def __init__(self, *, dump_dag_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dump_dag_id = dump_dag_id

    def step(self, context: Context, settings: Settings) -> None:
        """Ask the journal by the clock of this worker."""
        from pv_backup.operators.alerting import alert_of, settle
        from pv_backup.services.lateness import late_dump

        now = datetime.now(UTC)
        late = late_dump(journal_sessions(self.connections), now)
        if late is not None:
            alert_of(
                context,
                late,
                backup_id=None,
                connections=self.connections,
                dag_id=self.dump_dag_id,
                day=day_of(now).isoformat(),
            )
        settle(context, connections=self.connections)
