"""A backup's end on a real bucket and journal: EXPIRED by the clock, DELETED by the bucket, and never by us."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import botocore.exceptions
import pytest

from pv_backup.services.artefacts import manifest_key
from pv_backup.services.errors import (
    BackupVanished,
    ConfigurationError,
    FormatRejected,
    JournalUnavailable,
    StoreUnavailable,
)
from pv_backup.services.manifest import InvalidMark, mark_invalid
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.retention import Retention, RetentionReport
from pv_backup.services.state import Attempt
from tests.integration.backup_world import DAY, BackupWorld, backup_world
from tests.integration.retention_scene import a_backup, by_lifecycle, expired, named, statuses
from tests.integration.watched_client import store_watched
from tests.support.servers import Bucket

pytestmark = pytest.mark.case("TC-NOM-08")

READS = {"list_objects_v2", "head_object", "get_object"}


@pytest.fixture
def world(stack, source_db, journal_db, bucket) -> Iterator[BackupWorld]:
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


def retain(world: BackupWorld, store: ObjectStore | None = None) -> RetentionReport:
    return Retention(sessions=world.journal.sessions, store=store or world.bench.store).run()


def test_a_backup_expires_after_thirty_days(world: BackupWorld):
    agos = ["90 days", "30 days", "29 days 23 hours", "0 seconds"]
    backups = [a_backup(world, ago=ago, day=DAY + timedelta(days=n)) for n, ago in enumerate(agos)]

    report = retain(world)

    assert statuses(world) == ["EXPIRED", "EXPIRED", "SUCCESS", "SUCCESS"]
    assert report == RetentionReport(
        expired=[named(backup) for backup in backups[:2]],
        present=[named(backup) for backup in backups[2:]],
        overdue=[named(backups[0])],
    )
    assert [world.bucket.versions(backup.object_key) for backup in backups] == [[one.object_key] for one in backups]


def test_an_expired_backup_is_deleted_when_the_bucket_has_let_it_go(world: BackupWorld):
    attempt = expired(world)
    assert retain(world).deleted == []

    by_lifecycle(world, attempt)

    assert retain(world).deleted == [named(attempt)]
    assert statuses(world) == ["DELETED"]
    assert world.bucket.versions(attempt.object_key) == [attempt.object_key]  # below the marker, and not ours to remove


def test_a_run_that_comes_late_makes_both_moves_on_record(world: BackupWorld):
    attempt = a_backup(world, ago="33 days")
    by_lifecycle(world, attempt)

    report = retain(world)

    assert (report.expired, report.deleted) == ([named(attempt)], [named(attempt)])
    events = world.journal.audit.events_of(attempt.backup_id)
    assert [event.event_type for event in events if event.event_type in ("expired", "deleted")] == [
        "expired",
        "deleted",
    ]
    assert events[-1].details == {
        "type": "globals",
        "day": attempt.day.isoformat(),
        "object_key": attempt.object_key,
    }
    assert retain(world) == RetentionReport()


def test_a_lifecycle_that_does_not_delete_is_noticed_after_a_week(world: BackupWorld):
    expired(world, ago="36 days 23 hours")
    assert retain(world).lifecycle_idle(world.bucket.name) is None
    late = expired(world, ago="37 days", day=DAY + timedelta(days=1))

    report = retain(world)

    assert report.overdue == [named(late)]
    warning = report.lifecycle_idle(world.bucket.name)
    assert warning
    assert f"1 backups that expired over 7 days ago are still in s3://{world.bucket.name}" in warning.what
    assert named(late) in warning.what
    assert "lifecycle rule" in warning.remedy
    assert statuses(world) == ["EXPIRED", "EXPIRED"]


def the_object_goes(world: BackupWorld, attempt: Attempt) -> None:
    world.bucket.delete(attempt.object_key)


def the_manifest_goes(world: BackupWorld, attempt: Attempt) -> None:
    world.bucket.delete(manifest_key(attempt.object_key))


def it_is_overwritten(world: BackupWorld, attempt: Attempt) -> None:
    world.bucket.overwrite(attempt.object_key, b"something else")


def it_is_marked(world: BackupWorld, attempt: Attempt) -> None:
    manifest = world.bucket.manifest(attempt.object_key)
    assert manifest
    fields = {name: manifest[name] for name in ("backup_id", "key", "hash_sha3_256", "header_tag")}
    mark_invalid(world.bench.store, InvalidMark(**fields, reason="a drill", found_at="2026-03-29T04:00:00Z"))


def test_a_backup_that_should_be_there_and_is_not_has_vanished(world: BackupWorld):
    incidents = {
        the_object_goes: "is gone",
        the_manifest_goes: "is not that backup any more",
        it_is_overwritten: "is not that backup any more",
        it_is_marked: "is not that backup any more",
    }
    safe = a_backup(world)
    lost = [a_backup(world, day=DAY + timedelta(days=n)) for n in range(1, 5)]
    for incident, backup in zip(incidents, lost, strict=True):
        incident(world, backup)

    report = retain(world)

    assert report.present == [named(safe)]
    assert list(report.vanished) == [named(backup) for backup in lost]
    for (name, error), backup, says in zip(report.vanished.items(), lost, incidents.values(), strict=True):
        assert isinstance(error, BackupVanished), name
        for part in (says, backup.backup_id, backup.object_key):
            assert part in error.what
    assert statuses(world) == ["SUCCESS"] * 5


def test_a_success_that_was_recorded_late_may_be_gone_before_its_thirty_days_by_the_record(world: BackupWorld):
    """The lifecycle counts from the upload; reconciliation may have settled the row two days after it."""
    attempt = a_backup(world, ago="28 days 12 hours")
    world.journal.sql(
        "UPDATE pv_backup.backup_executions SET started_at = clock_timestamp() - interval '30 days 1 hour'"
    )
    by_lifecycle(world, attempt)

    report = retain(world)

    assert report == RetentionReport()
    assert statuses(world) == ["SUCCESS"]


def test_in_the_wrong_bucket_nothing_is_recorded_as_deleted(world: BackupWorld, stack):
    gone = expired(world)
    young = a_backup(world, day=DAY + timedelta(days=1))
    elsewhere = stack.new_bucket()
    wrong = ObjectStore(client=elsewhere.user, bucket=elsewhere.name, kms_key_id="unused", timeout_s=5)

    report = retain(world, wrong)

    assert list(report.vanished) == [named(young)]
    assert report.deleted == []
    assert statuses(world) == ["EXPIRED", "SUCCESS"]
    assert world.bucket.versions(gone.object_key)


@pytest.mark.case("TC-ERR-03")
def test_a_bucket_that_is_not_there_changes_nothing(world: BackupWorld, bucket):
    expired(world)
    a_backup(world, ago="31 days", day=DAY + timedelta(days=1))
    nowhere = ObjectStore(client=bucket.user, bucket=f"{bucket.name}-x", kms_key_id="unused", timeout_s=5)

    with pytest.raises(ConfigurationError, match="S3 refuses"):
        retain(world, nowhere)

    assert statuses(world) == ["EXPIRED", "SUCCESS"]


@pytest.mark.case("TC-ERR-03")
def test_an_s3_that_dies_half_way_changes_nothing(world: BackupWorld):
    due = a_backup(world, ago="31 days")
    by_lifecycle(world, due)
    expired(world, day=DAY + timedelta(days=1))
    a_backup(world, day=DAY + timedelta(days=2))

    def hear(call: str) -> None:
        if call == "after head_object" and world.stack.s3.is_running():
            world.stack.s3.kill()

    with pytest.raises(StoreUnavailable):
        retain(world, store_watched(world, hear).patient_for(1))

    assert statuses(world) == ["SUCCESS", "EXPIRED", "SUCCESS"]
    world.stack.s3.start()
    assert retain(world).deleted == [named(due)]


@pytest.mark.case("TC-ERR-06")
def test_a_journal_that_is_away_says_so(world: BackupWorld):
    a_backup(world, ago="31 days")
    world.stack.postgres.stop()

    with pytest.raises(JournalUnavailable):
        retain(world)

    world.stack.postgres.start()
    assert statuses(world) == ["SUCCESS"]


def test_what_one_row_meets_does_not_stop_the_others(world: BackupWorld, bucket):
    before, odd, refused, after = (expired(world, day=DAY + timedelta(days=n)) for n in range(4))
    for attempt in (before, after):
        by_lifecycle(world, attempt)
    world.journal.sql(
        "UPDATE pv_backup.backup_executions SET object_key = 'elsewhere' WHERE backup_id = %s", odd.backup_id
    )
    refuse_all_reading_of(bucket, refused.object_key)

    report = retain(world)

    assert report.deleted == [named(before), named(after)]
    assert list(report.errors) == [named(odd), named(refused)]
    assert {type(error) for error in report.errors.values()} == {FormatRejected, ConfigurationError}
    assert statuses(world) == ["DELETED", "EXPIRED", "EXPIRED", "DELETED"]


def refuse_all_reading_of(bucket: Bucket, key: str) -> None:
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject"}
    policy = {"Version": "2012-10-17", "Statement": [statement | {"Resource": f"arn:aws:s3:::{bucket.name}/{key}"}]}
    bucket.admin.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(policy))


@pytest.mark.case("TC-INV-07", "TC-NEG-06")
def test_of_two_runs_at_once_each_move_is_made_once(world: BackupWorld):
    attempts = [a_backup(world, ago="31 days", day=DAY + timedelta(days=n)) for n in range(4)]
    for attempt in attempts:
        by_lifecycle(world, attempt)

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda _: retain(world), range(2)))

    assert statuses(world) == ["DELETED"] * 4
    for moved in ("expired", "deleted"):
        assert sorted(name for report in reports for name in getattr(report, moved)) == [named(one) for one in attempts]
    assert [report.errors for report in reports] == [{}, {}]


def test_nothing_but_reading_is_asked_of_the_bucket(world: BackupWorld):
    calls: set[str] = set()
    a_backup(world)
    a_backup(world, ago="31 days", day=DAY + timedelta(days=1))
    by_lifecycle(world, expired(world, day=DAY + timedelta(days=2)))

    report = retain(world, store_watched(world, lambda call: calls.add(call.partition(" ")[2])))

    assert (len(report.expired), len(report.deleted), len(report.present)) == (1, 1, 1)
    assert calls == READS


def test_the_backup_user_may_delete_nothing(world: BackupWorld, bucket):
    attempt = expired(world, ago="90 days")
    (version,) = bucket.admin.list_object_versions(Bucket=bucket.name, Prefix=attempt.object_key)["Versions"]
    attempts: list[Callable[[], object]] = [
        lambda: bucket.user.delete_object(Bucket=bucket.name, Key=attempt.object_key),
        lambda: bucket.user.delete_object(Bucket=bucket.name, Key=attempt.object_key, VersionId=version["VersionId"]),
        lambda: bucket.user.put_bucket_lifecycle_configuration(
            Bucket=bucket.name,
            LifecycleConfiguration={
                "Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
            },
        ),
    ]

    for try_it in attempts:
        with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
            try_it()

    assert world.bucket.versions(attempt.object_key) == [attempt.object_key]
