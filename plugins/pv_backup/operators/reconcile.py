"""Settle what a crash left behind."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.day_incidents import DAG_OF, settle_day
from pv_backup.operators.metrics import report_backups
from pv_backup.operators.several import Several
from pv_backup.operators.workbench import build_workbench, journal_hook

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.left_behind import LeftRow
    from pv_backup.services.reconciliation_run import Finding
    from pv_backup.services.settings import Settings

# With the longest leases a second look would come too late for "the lease and six minutes".
_SECOND_LOOK_AT_MOST_S: Final = 30.0


class ReconcileOperator(BackupStepOperator):
    """Settle rows, uploads and staging directories that nobody works on any more, so that none stays for ever.

    It is not retried: the next round, five minutes later, is its retry.
    """

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Return what was settled, by name, for the reader of the XCom tab.

        :raises Several: after everything that could be settled was.
        """
        from pv_backup.operators.alerting import settle
        from pv_backup.services.lease_keeper import RENEWALS_PER_LEASE
        from pv_backup.services.left_behind import LeftBehind
        from pv_backup.services.reconciliation_run import ReconciliationRun

        report = ReconciliationRun(
            bench=build_workbench(self.connections, settings),
            left_behind=LeftBehind(journal_hook(self.connections).sessions()),
            tell=lambda finding: self._tell(context, finding),
            well_again=lambda row: self._well_again(context, row),
            staging=settings.staging_directory,
            second_look_s=min(settings.lease_s / RENEWALS_PER_LEASE, _SECOND_LOOK_AT_MOST_S),
        ).run()
        report_backups(self.connections)
        if report.problems:
            raise Several(report.problems)
        settle(context, connections=self.connections)
        return {name: names for name, names in asdict(report).items() if name != "problems"}

    def _tell(self, context: Context, finding: Finding) -> None:
        from pv_backup.operators.alerting import alert_of

        row = finding.row
        if row is None:
            alert_of(
                context,
                finding.error,
                backup_id=None,
                connections=self.connections,
                incident=f"{finding.error.code}/{finding.subject}",
            )
        else:
            alert_of(
                context,
                finding.error,
                backup_id=row.backup_id,
                connections=self.connections,
                dag_id=DAG_OF[row.artefact_type],
                day=row.day.isoformat(),
            )

    def _well_again(self, context: Context, row: LeftRow) -> None:
        """A day that ended well by settlement is as well as one that ended so by itself."""
        settle_day(context, connections=self.connections, artefact_type=row.artefact_type, day=row.day)
