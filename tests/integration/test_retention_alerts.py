"""Who is told what retention found: once, again when it is news again, and by the DAG's own task and callback."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from pv_backup.services.errors import BackupVanished, ConfigurationError, StoreUnavailable
from tests.integration.backup_world import DAY, BackupWorld, backup_world
from tests.integration.retention_scene import a_backup, by_lifecycle, expired, named, statuses
from tests.integration.worker import become_worker, run_task
from tests.support.webhook import Endpoint

pytestmark = pytest.mark.case("TC-NOM-08")


@pytest.fixture
def world(stack, source_db, journal_db, bucket, monkeypatch) -> Iterator[BackupWorld]:
    become_worker(monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket=bucket.name)
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


def retain() -> Exception | None:
    return run_task("pv_backup_retention", "follow_the_backups")


def test_each_vanished_backup_is_told_once_and_anew_when_it_was_back(world: BackupWorld, phone: Endpoint):
    first, second = (a_backup(world, day=DAY + timedelta(days=n)) for n in range(2))
    safe = a_backup(world, day=DAY + timedelta(days=2))
    for lost in (first, second):
        world.bucket.delete(lost.object_key)

    errors = [retain(), retain()]

    assert [type(error) for error in errors] == [BackupVanished, BackupVanished]
    assert "2 backups" in str(errors[0])
    assert [(told["level"], told["code"], told["day"]) for told in phone.received] == [("critical", "VANISHED", "")] * 2
    for told, lost in zip(phone.received, (first, second), strict=True):
        assert lost.object_key in told["cause"]
        assert "list-object-versions" in told["next_step"]

    world.bucket.bring_back(first.object_key)
    retain()
    assert len(phone.received) == 2
    world.bucket.delete(first.object_key)
    retain()
    retain()

    assert len(phone.received) == 3
    assert first.object_key in phone.received[-1]["cause"]
    assert statuses(world) == ["SUCCESS"] * 3
    assert world.bucket.manifest(safe.object_key)


def test_many_that_vanish_are_one_message(world: BackupWorld, phone: Endpoint):
    lost = [a_backup(world, day=DAY + timedelta(days=n)) for n in range(4)]
    for backup in lost:
        world.bucket.delete(backup.object_key)

    retain()
    retain()

    (told,) = phone.received
    assert told["cause"].startswith(f"4 backups, {named(lost[0])} to {named(lost[-1])}: ")


def test_a_lifecycle_that_does_not_delete_is_a_warning_till_it_does(world: BackupWorld, phone: Endpoint):
    late = expired(world, ago="38 days")

    assert [retain(), retain()] == [None, None]

    (told,) = phone.received
    assert (told["level"], told["code"]) == ("warning", "LIFECYCLE")
    by_lifecycle(world, late)
    assert retain() is None
    settled = world.journal.sql(
        "SELECT details->>'incident' AS incident FROM pv_backup.backup_audit_events WHERE event_type = 'alert_settled'"
    )
    assert settled == [{"incident": "pv_backup_retention/LIFECYCLE"}]
    assert statuses(world) == ["DELETED"]


def test_it_goes_on_while_vault_is_away(world: BackupWorld, phone: Endpoint, stack):
    by_lifecycle(world, expired(world))
    stack.vault.stop()

    assert retain() is None

    assert statuses(world) == ["DELETED"]
    assert phone.received == []


@pytest.mark.case("TC-ERR-03")
def test_an_s3_that_is_away_is_told_once_and_changes_nothing(
    world: BackupWorld, phone: Endpoint, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pv_backup.services.object_store._SHORT_CALL_PATIENCE_S", 1.0)
    a_backup(world, ago="31 days")
    world.stack.s3.kill()

    assert [type(retain()), type(retain())] == [StoreUnavailable, StoreUnavailable]

    (told,) = phone.received
    assert (told["level"], told["code"], told["incident"]) == (
        "critical",
        "ERR-47-03",
        "pv_backup_retention/ERR-47-03",
    )
    assert statuses(world) == ["SUCCESS"]
    world.stack.s3.start()
    assert retain() is None
    assert statuses(world) == ["EXPIRED"]


def test_a_row_that_cannot_be_judged_is_told_after_all_others_were(world: BackupWorld, phone: Endpoint):
    odd = a_backup(world)
    a_backup(world, ago="31 days", day=DAY + timedelta(days=1))
    world.journal.sql(
        "UPDATE pv_backup.backup_executions SET object_key = 'elsewhere' WHERE backup_id = %s", odd.backup_id
    )

    error = retain()

    assert isinstance(error, Exception)
    assert named(odd) in str(error)
    assert phone.codes == ["FAILED_FORMAT"]
    assert statuses(world) == ["SUCCESS", "EXPIRED"]


def test_a_bucket_that_does_not_exist_is_told_and_nothing_is_deleted(
    world: BackupWorld, phone: Endpoint, monkeypatch: pytest.MonkeyPatch
):
    expired(world)
    monkeypatch.setenv("PV_BACKUP_BUCKET", f"{world.bucket.name}-x")

    assert isinstance(retain(), ConfigurationError)

    assert phone.codes == ["CONFIGURATION"]
    assert f"{world.bucket.name}-x" in phone.received[0]["cause"]
    assert statuses(world) == ["EXPIRED"]
