"""Follow each backup to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.several import Several
from pv_backup.operators.workbench import journal_sessions, object_store
from pv_backup.services.errors import BackupVanished, PvBackupError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

    from pv_backup.services.retention import RetentionReport
    from pv_backup.services.settings import Settings

#: Vanished backups that are told one by one; more than these are one message, since they have one cause.
TOLD_ONE_BY_ONE: Final = 3


class RetentionOperator(BackupStepOperator):
    """Move what is old to EXPIRED and what the bucket let go of to DELETED, and tell of what vanished before its time.

    It deletes nothing, and needs no Vault: it goes on while that is sealed.
    """

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Return what was moved, by name, for the reader of the XCom tab.

        :raises BackupVanished: after all moves, if a backup of the last 30 days is not where it must be.
        :raises Several: after all moves that could be made.
        """
        from pv_backup.services.retention import Retention

        store = object_store(self.connections, settings)
        report = Retention(sessions=journal_sessions(self.connections), store=store).run()
        incidents = _incidents(report, store.bucket)
        self._settle(context, report, incidents)
        self._tell(context, incidents)
        if report.errors:
            raise Several(list(report.errors.values()), subject=next(iter(report.errors)))
        if report.vanished:
            vanished = _all_vanished(report)
            vanished.told = True
            raise vanished
        return {"expired": report.expired, "deleted": report.deleted, "overdue": report.overdue}

    def _tell(self, context: Context, incidents: Mapping[str, PvBackupError]) -> None:
        from pv_backup.operators.alerting import alert_of

        for incident, error in incidents.items():
            alert_of(context, error, backup_id=None, connections=self.connections, incident=incident)

    def _settle(self, context: Context, report: RetentionReport, incidents: Mapping[str, PvBackupError]) -> None:
        """What this run did not meet is over: it has used the bucket and the journal."""
        from pv_backup.operators.alerting import settle

        still = {*incidents, *(error.code for error in report.errors.values())}
        settle(context, lambda code: code not in still, connections=self.connections)


def _incidents(report: RetentionReport, bucket: str) -> dict[str, PvBackupError]:
    """What people must hear of, by the incident that it is."""
    found: dict[str, PvBackupError] = {}
    if len(report.vanished) > TOLD_ONE_BY_ONE:
        found[BackupVanished.code] = _all_vanished(report)
    else:
        found |= {f"{error.code} {name}".replace("/", " "): error for name, error in report.vanished.items()}
    if idle := report.lifecycle_idle(bucket):
        found[idle.code] = idle
    return found


def _all_vanished(report: RetentionReport) -> BackupVanished:
    names, first = list(report.vanished), next(iter(report.vanished.values()))
    if len(names) == 1:
        return BackupVanished(first.what, remedy=first.remedy)
    return BackupVanished(f"{len(names)} backups, {names[0]} to {names[-1]}: {first.what}", remedy=first.remedy)
