"""Retention by the real DAG: what is old and gone ends as DELETED, on record."""

from __future__ import annotations

import pytest

from tests.integration.journal_world import opened
from tests.system.airflow_world import AirflowWorld

pytestmark = pytest.mark.case("TC-NOM-08")


def backups_of_the_past(world: AirflowWorld, *agos: str) -> list[str]:
    """Recorded backups that no bucket has, made so long ago; their ids."""
    with opened(world.journal) as journal:
        for ago in agos:
            attempt = journal.published()
            journal.sql(
                "UPDATE pv_backup.backup_executions SET started_at = started_at - %s::interval,"
                " finished_at = finished_at - %s::interval, day = (now() - %s::interval)::date WHERE backup_id = %s",
                ago,
                ago,
                ago,
                attempt.backup_id,
            )
        rows = journal.sql("SELECT backup_id::text AS id FROM pv_backup.backup_executions ORDER BY day")
    return [row["id"] for row in rows]


def test_what_is_old_and_gone_is_recorded_as_deleted(world: AirflowWorld):
    ids = backups_of_the_past(world, "33 days", "32 days")
    world.sql("UPDATE pv_backup.backup_executions SET status = 'EXPIRED' WHERE backup_id = %s", ids[0])

    ended = world.run("pv_backup_retention")

    assert ended.exit_code == 0, ended.log
    assert world.tasks() == {"follow_the_backups": ("success", 1)}
    statuses = world.sql("SELECT status FROM pv_backup.backup_executions")
    assert statuses == [{"status": "DELETED"}] * 2
    assert [str(event["backup_id"]) for event in world.audit("expired")] == ids[1:]
    assert [str(event["backup_id"]) for event in world.audit("deleted")] == ids
    assert world.alerts() == []
