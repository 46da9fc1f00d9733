"""Backups of some time ago, and what a lifecycle makes of them."""

from __future__ import annotations

from datetime import date

from pv_backup.services.artefacts import manifest_key
from pv_backup.services.export_sources import GlobalsSource
from pv_backup.services.state import Attempt
from tests.integration.backup_world import DAY, BackupWorld


def a_backup(world: BackupWorld, *, ago: str = "1 day", day: date = DAY) -> Attempt:
    """A published backup (of the roles, the smallest there is) that was made some time ago."""
    attempt = world.back_up(GlobalsSource(server=world.server), day=day)
    world.journal.sql(
        "UPDATE pv_backup.backup_executions SET started_at = clock_timestamp() - %s::interval - interval '1 minute',"
        " finished_at = clock_timestamp() - %s::interval WHERE backup_id = %s",
        ago,
        ago,
        attempt.backup_id,
    )
    return attempt


def expired(world: BackupWorld, *, ago: str = "31 days", day: date = DAY) -> Attempt:
    """A backup that an earlier run made EXPIRED."""
    attempt = a_backup(world, ago=ago, day=day)
    world.journal.sql(
        "UPDATE pv_backup.backup_executions SET status = 'EXPIRED' WHERE backup_id = %s", attempt.backup_id
    )
    return attempt


def by_lifecycle(world: BackupWorld, attempt: Attempt) -> None:
    """What a lifecycle rule does in a versioned bucket: a delete marker on top, the bytes below it for now."""
    world.bucket.delete(attempt.object_key)
    world.bucket.delete(manifest_key(attempt.object_key))


def statuses(world: BackupWorld) -> list[str]:
    """Of all rows, by day."""
    return [row["status"] for row in world.journal.sql("SELECT status FROM pv_backup.backup_executions ORDER BY day")]


def named(attempt: Attempt) -> str:
    return f"globals/{attempt.day}"
