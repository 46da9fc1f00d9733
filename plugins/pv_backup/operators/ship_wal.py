"""Ship the WAL files that pg_receivewal finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.metrics import report_wal
from pv_backup.operators.several import Several
from pv_backup.operators.workbench import build_workbench, source_server
from pv_backup.services.errors import PvBackupError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings
    from pv_backup.services.wal_report import WalReport
    from pv_backup.services.wal_run import WalRun

# Outages of the source: over when it was asked and pg_receivewal follows it. All others: over when files are shipped.
_OF_THE_SOURCE: Final = frozenset({"ERR-47-01", "WAL-RECEIVER"})


class WalProblems(Several):
    """A run that met problems: what could be shipped was, and each problem had its alert when it was met."""

    told = True
    more = "more"


class ShipWalOperator(BackupStepOperator):
    """Ship every finished file of the WAL directory, many at once in this one process.

    It must run where pg_receivewal writes, hence on a queue of its own. It is not retried: the next minute's
    run is its retry, and an outage is told once, not every minute.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._run: WalRun | None = None

    def step(self, context: Context, settings: Settings) -> dict[str, Any]:
        """Return counts, bytes, seconds and what is left, for the reader of the XCom tab.

        :raises WalProblems: after everything that could be shipped was.
        """
        from pv_backup.services.wal_closing import SegmentCloser
        from pv_backup.services.wal_run import WalRun
        from pv_backup.services.wal_spool import WalSpool

        spool = WalSpool(directory=settings.wal_directory)
        closer = SegmentCloser(server=source_server(self.connections, settings), spool=spool)
        self._run = WalRun(
            bench=build_workbench(self.connections, settings),
            spool=spool,
            closer=closer,
            tell=lambda problem: self._tell(context, problem.error, problem.subject),
        )
        report = self._run.run()
        report_wal(report)
        self._settle(context, report)
        if report.problems:
            raise WalProblems([problem.error for problem in report.problems])
        return _shown(report)

    def _tell(self, context: Context, error: PvBackupError, subject: str) -> None:
        """One alert a problem, once for as long as it lasts."""
        from pv_backup.operators.alerting import alert_of

        incident = "/".join(part for part in (error.code, subject) if part)
        alert_of(context, error, backup_id=None, connections=self.connections, incident=incident)

    def _settle(self, context: Context, report: WalReport) -> None:
        """Note which outages are over: those of servers that this run has used with success."""
        from pv_backup.operators.alerting import settle

        def is_over(code: str) -> bool:
            if code in _OF_THE_SOURCE:
                return report.source_seen
            return report.done > 0 and not report.outages

        settle(context, is_over, connections=self.connections)

    def on_kill(self) -> None:
        """Take no further file; what is in work waits in the directory for the next run."""
        if self._run is not None:
            self._run.stop()


def _shown(report: WalReport) -> dict[str, Any]:
    counted = vars(report) | {"rate": round(report.rate, 1), "seconds": round(report.seconds, 1)}
    for name in ("problems", "tell", "source_seen"):
        del counted[name]
    return counted | {"oldest_s": round(report.oldest_s)}
