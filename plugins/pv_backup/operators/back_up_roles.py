"""Back up the role definitions that travel with the daily dump."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pv_backup.operators.base import BackupStepOperator
from pv_backup.operators.day_incidents import settle_day
from pv_backup.operators.metrics import report_backups
from pv_backup.operators.open_day import open_attempt
from pv_backup.operators.workbench import build_workbench, source_server
from pv_backup.services.artefacts import ArtefactType

if TYPE_CHECKING:
    from airflow.sdk import Context

    from pv_backup.services.settings import Settings


class BackUpRolesOperator(BackupStepOperator):
    """Without the roles pg_restore on an empty server fails on owners and grants (SPEC F1).

    They are an artefact of their own, with row, manifest and journal event; a few kilobytes, hence all
    steps in one task. Ends skipped when the day's roles are published already.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._backup_id: str | None = None

    def failed_backup_id(self) -> str | None:
        """The attempt that this very task opened."""
        return self._backup_id

    def step(self, context: Context, settings: Settings) -> str:
        """Run all steps of the small artefact and return its backup_id."""
        from pv_backup.services.export_sources import GlobalsSource
        from pv_backup.services.exporting import ArtefactExport
        from pv_backup.services.publication import publish
        from pv_backup.services.verification import read_back

        bench = build_workbench(self.connections, settings)
        source = GlobalsSource(server=source_server(self.connections, settings))
        opened = open_attempt(context, bench, ArtefactType.GLOBALS, self.opened)
        self._backup_id = opened.backup_id
        attempt, keeper = self.hold(bench, opened.backup_id)
        with keeper:
            ArtefactExport(bench=bench, attempt=attempt, source=source, keeper=keeper).run()
            read_back(bench, attempt, keeper)
            publish(bench, attempt, keeper)
        self._backup_id = None  # published: from here on it is settled as SUCCESS and never fails
        bench.machine.succeed(keeper.lease)
        settle_day(context, connections=self.connections, artefact_type=attempt.artefact_type, day=attempt.day)
        report_backups(self.connections)
        return attempt.backup_id
