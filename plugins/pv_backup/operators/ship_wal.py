"""Ship the WAL files that pg_receivewal finished."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.metrics import report_wal
from pv_backup.operators.workbench import build_workbench, source_server
from pv_backup.services.errors import PvBackupError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings
    from pv_backup.services.wal_run import Problem, WalReport, WalRun

#: Codes of outages: over when a run succeeds. An incident about one file stays told.
_OUTAGES: Final = (
    "ERR-47-01",
    "ERR-47-02",
    "ERR-47-03",
    "ERR-47-06",
    "CONFIGURATION",
    "WAL-RECEIVER",
    "REFUSED",
    "UNEXPECTED",
)


class WalProblems(PvBackupError):
    """A run that met problems: what could be shipped was, and each problem had its alert when it was met."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0].error
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.what}{more}", remedy=first.remedy)
        self.code = first.code


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
        from pv_backup.operators.alerting import settle
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
        over = set(_OUTAGES) - {problem.error.code for problem in report.problems if not problem.subject}
        settle(context, sorted(over), connections=self.connections)
        if report.problems:
            raise WalProblems(report.problems)
        return _shown(report)

    def tell(self, context: Context, error: BaseException) -> None:
        """Alert of what ended the run; the problems that it met were told when it met them."""
        if not isinstance(error, WalProblems):
            self._tell(context, error)

    def _tell(self, context: Context, error: BaseException, subject: str = "") -> None:
        """One alert a problem, once for as long as it lasts."""
        from pv_backup.operators.alerting import alert_of
        from pv_backup.services.errors import explain

        incident = "/".join(part for part in (explain(error)[0], subject) if part)
        alert_of(context, error, backup_id=None, connections=self.connections, incident=incident)

    def on_kill(self) -> None:
        """Take no further file; what is in work waits in the directory for the next run."""
        if self._run is not None:
            self._run.stop()


def _shown(report: WalReport) -> dict[str, Any]:
    counted = asdict(report) | {"rate": round(report.rate, 1), "seconds": round(report.seconds, 1)}
    del counted["problems"]
    return counted | {"oldest_s": round(report.oldest_s)}
