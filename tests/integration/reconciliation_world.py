"""A worker with something that a dead one left behind, and what a reconciliation by the DAG's own task made of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.left_behind import LeftBehind
from pv_backup.services.reconciliation_run import ReconciliationReport, ReconciliationRun
from tests.integration.backup_world import DAY, BackupWorld, backup_world
from tests.integration.worker import become_worker, run_task
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack


@dataclass(frozen=True)
class Scene:
    """A world in which something was left behind, and the staging directory of its worker."""

    world: BackupWorld
    staging: Path

    def reconcile(self) -> Exception | None:
        return run_task("pv_backup_reconciliation", "settle_what_is_left")

    def round(self, *, second_look_s: float = 0) -> ReconciliationReport:
        """A round without Airflow."""
        return ReconciliationRun(
            bench=self.world.bench,
            left_behind=self.left_behind,
            tell=lambda finding: None,
            well_again=lambda row: None,
            staging=self.staging,
            second_look_s=second_look_s,
        ).run()

    @property
    def left_behind(self) -> LeftBehind:
        return LeftBehind(self.world.journal.sessions)

    def rows(self) -> dict[tuple[str, date], str]:
        found = self.world.journal.sql("SELECT type, day, status FROM pv_backup.backup_executions")
        return {(row["type"], row["day"]): row["status"] for row in found}

    def alerts(self) -> list[tuple[str, str]]:
        """(event, incident) of alerts and their settlements, oldest first."""
        found = self.world.journal.sql(
            "SELECT event_type, details->>'incident' AS incident FROM pv_backup.backup_audit_events"
            " WHERE event_type IN ('alert', 'alert_settled') ORDER BY id"
        )
        return [(event["event_type"], event["incident"]) for event in found]

    def settlements(self) -> list[tuple[str, str]]:
        """(backup_id, outcome) as the audit has them, oldest first."""
        found = self.world.journal.sql(
            "SELECT backup_id::text, details->>'outcome' AS outcome FROM pv_backup.backup_audit_events"
            " WHERE event_type = 'settled' ORDER BY id"
        )
        return [(event["backup_id"], event["outcome"]) for event in found]

    def dead(self, *, artefact_type: ArtefactType = ArtefactType.PG_DUMP, day: date = DAY) -> str:
        """A run that died in the middle of its upload; its backup_id."""
        attempt = self.world.open(artefact_type=artefact_type, day=day, run_id=f"the dead run of {artefact_type}")
        self.world.bucket.begin_upload(attempt.object_key)
        self.world.journal.expire_lease()
        return attempt.backup_id

    def dead_after_publishing(self) -> str:
        attempt = self.world.exported()
        self.world.verify(attempt)
        self.world.publish(attempt)
        self.world.journal.expire_lease()
        return attempt.backup_id


@contextmanager
def reconciliation_scene(
    stack: TestStack,
    source_db: SourceDatabase,
    journal_db: JournalDatabase,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Scene]:
    """This process as that worker, until the test's end; it waits no longer than a test can."""
    become_worker(
        monkeypatch, stack, source_dsn=source_db.dump_dsn, journal_dsn=journal_db.service_dsn, bucket=bucket.name
    )
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(staging))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pv_backup.operators.reconcile._SECOND_LOOK_AT_MOST_S", 0)
    monkeypatch.setattr("pv_backup.services.object_store._SHORT_CALL_PATIENCE_S", 0.5)
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        yield Scene(world, staging)
