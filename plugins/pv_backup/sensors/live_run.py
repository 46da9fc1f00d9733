"""Let a run that is at work finish before the day is touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.sdk import BaseSensorOperator

from pv_backup.operators.configuration import ConnectionIds, load_settings
from pv_backup.operators.days import day_of_run
from pv_backup.operators.escalation import relaunch_failed
from pv_backup.operators.wait_for_run import relaunch_deadline
from pv_backup.operators.workbench import journal_sessions

if TYPE_CHECKING:
    from airflow.sdk import Context

# The relaunch has a deadline of its own, which is read when it runs; this only has to be longer.
_NEVER: Final = timedelta(days=1)


class LiveRunSensor(BaseSensorOperator):
    """Wait while the day's row is RUNNING under a live lease: two dumps of a day are worse than a late one.

    A lease that ran out is nobody's, and the dump settles it when it opens the day.

    :param connections: the Airflow connections to use.
    """

    def __init__(self, *, connections: ConnectionIds | None = None, **kwargs: Any) -> None:
        super().__init__(**{"mode": "reschedule", "poke_interval": 30, "timeout": _NEVER, **kwargs})
        self.connections = connections or ConnectionIds()

    def poke(self, context: Context) -> bool:
        """Whether nobody works on the day.

        :raises RelaunchFailed: when `relaunch_timeout_s` are over.
        """
        from pv_backup.services.relaunching import row_of_dump

        day = day_of_run(context)
        row = row_of_dump(journal_sessions(self.connections), day)
        if row is None or not row.is_alive:
            return True
        self.log.info("backup %s of %s is being made: %s", row.backup_id, day, row.note)
        if datetime.now(UTC) < relaunch_deadline(context, load_settings()):
            return False
        raise relaunch_failed(
            context,
            f"the dump of {day} that was at work did not end in time: backup {row.backup_id}, {row.note}",
            remedy="look at that run: let it end or stop it, then trigger pv_backup_relaunch by hand",
        )
