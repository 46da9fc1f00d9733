"""Reconciliation as Airflow runs it, of a dump whose worker is long dead."""

from __future__ import annotations

from datetime import date
from uuid import uuid4

import pytest

from tests.system.airflow_world import AirflowWorld, object_key

DAY = date(2026, 3, 29)


@pytest.mark.case("TC-NOM-07", "TC-ERR-08")
def test_a_dead_dump_is_settled_with_its_upload_and_told_in_its_name(world: AirflowWorld):
    backup_id, key = str(uuid4()), object_key(DAY)
    world.sql(
        "INSERT INTO pv_backup.backup_executions (backup_id, type, day, object_key, status, lease_expires_at)"
        " VALUES (%s, 'pg_dump', %s, %s, 'RUNNING', clock_timestamp())",
        backup_id,
        DAY,
        key,
    )
    world.bucket.admin.create_multipart_upload(Bucket=world.bucket.name, Key=key)

    ended = world.run("pv_backup_reconciliation", lease_s=15)

    assert ended.exit_code == 0, ended.log
    assert world.tasks()["settle_what_is_left"] == ("success", 1)
    assert (world.row()["status"], world.row()["error_code"]) == ("FAILED", "ERR-47-08")
    assert world.outcomes() == [(backup_id, "FAILED")]
    assert [event["details"]["outcome"] for event in world.audit("settled")] == ["FAILED"]
    assert world.open_uploads() == []
    (alert,) = [alert for alert in world.alerts() if alert["code"] == "ERR-47-08"]
    assert (alert["level"], alert["dag_id"], alert["day"]) == ("critical", "pv_backup_daily_dump", DAY.isoformat())
    assert len(ended.lines_with("ALERT critical ERR-47-08")) == 1
