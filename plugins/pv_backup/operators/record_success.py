"""Close the day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.base import AttemptStepOperator
from pv_backup.operators.day_incidents import settle_day
from pv_backup.operators.metrics import report_backups

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.state import Attempt
    from pv_backup.services.workbench import Workbench


class RecordSuccessOperator(AttemptStepOperator):
    """Write SUCCESS and the one journal event in a single transaction, then tell assets and metrics."""

    def failed_backup_id(self) -> str | None:
        """None: what is published is a backup. Its row stays RUNNING until it is settled, as SUCCESS."""
        return None

    def work(self, context: Context, bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
        """Raise JournalUnavailable (ERR-47-06) rather than claim an unrecorded success."""
        artefact = bench.machine.artefact_of(attempt).artefact
        bench.machine.succeed(keeper.lease)
        settle_day(context, connections=self.connections, artefact_type=attempt.artefact_type, day=attempt.day)
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {
                "backup_id": attempt.backup_id,
                "day": attempt.day.isoformat(),
                "object_key": attempt.object_key,
                "size_bytes": artefact.size_bytes,
                "hash_sha3_256": artefact.hash_sha3_256,
            }
        report_backups(self.connections)
        self.log.info("%s %s is closed: backup %s", attempt.artefact_type, attempt.day, attempt.backup_id)
