"""The watchdog's wait on a real bucket: object and manifest both, until an instant that nothing moves (SPEC F5)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from airflow.sdk.exceptions import AirflowSensorTimeout, TaskDeferralError

from pv_backup.sensors.published_backup import keys_of
from pv_backup.services.artefacts import ArtefactType, manifest_key, object_key_of_day
from pv_backup.services.errors import BackupAbsent
from pv_backup.triggers.published_backup import LOOK_TIMEOUT
from tests.integration.watch_world import WatchWorld, another_triggerers, fired, watch_world

pytestmark = pytest.mark.case("TC-NOM-05")

WAIT_S = 1
SLACK_S = 20  # of a busy machine: the first clients of boto3 alone have taken 5


@pytest.fixture
def world(stack, journal_db, bucket, monkeypatch):
    return watch_world(stack, journal_db, bucket, monkeypatch)


def absent(world: WatchWorld, wait_s: int = WAIT_S) -> BackupAbsent:
    with pytest.raises(BackupAbsent) as caught:
        world.watch(wait_s)
    return caught.value


@pytest.mark.parametrize("day", [date(2026, 1, 1), date(2026, 12, 31), date(2028, 2, 29), date(2035, 10, 9)], ids=str)
@pytest.mark.case("TC-INV-06")
def test_the_watchdogs_spelling_of_the_keys_is_the_dumps(day):
    key = object_key_of_day(ArtefactType.PG_DUMP, day)
    assert keys_of(day) == [key, manifest_key(key)]


def test_a_backup_that_is_there_needs_no_triggerer(world):
    world.put_object()
    world.put_manifest()
    world.sensor().execute(world.context)


@pytest.mark.parametrize("half", ["put_object", "put_manifest", None])
def test_without_object_and_manifest_both_there_is_no_backup_when_the_wait_is_over(world, half):
    if half:
        getattr(world, half)()
    began = time.monotonic()
    error = absent(world)
    assert WAIT_S <= time.monotonic() - began < WAIT_S + SLACK_S
    assert str(world.day) in error.what
    assert world.object_key in error.what
    assert not error.told


def test_a_backup_that_appears_while_it_waits_is_seen(world):
    def publish() -> None:
        time.sleep(1)
        world.put_object()
        time.sleep(1)
        world.put_manifest()

    publisher = threading.Thread(target=publish)
    deferred = world.deferred(60)
    began = time.monotonic()
    publisher.start()
    world.resume(deferred, {"event": fired(another_triggerers(deferred.trigger))})
    seconds = time.monotonic() - began
    publisher.join()
    assert 2 <= seconds < 2 + SLACK_S


@pytest.mark.parametrize("there", [True, False], ids=["present", "absent"])
def test_no_time_to_wait_means_one_look(world, there, monkeypatch):
    monkeypatch.setenv("PV_BACKUP_WATCHDOG_WAIT_S", "0")
    if there:
        world.put_object()
        world.put_manifest()
        world.sensor().execute(world.context)
    else:
        with pytest.raises(BackupAbsent, match="after 0 s of waiting"):
            world.sensor().execute(world.context)


def test_an_s3_that_is_away_all_the_time_is_said_so(world):
    world.stack.s3.kill()
    error = absent(world)
    assert "could not be seen" in error.what
    assert "S3 fails" in error.what


def test_an_s3_that_comes_back_within_the_wait_is_asked_again(world):
    world.put_object()
    world.put_manifest()
    world.stack.s3.kill()
    deferred = world.deferred(240)
    back = threading.Timer(1, world.stack.s3.start)
    back.start()
    world.resume(deferred, {"event": fired(another_triggerers(deferred.trigger))})
    back.join()


def test_a_refusal_is_no_backup_and_is_quoted(stack, journal_db, bucket, monkeypatch):
    world = watch_world(stack, journal_db, bucket, monkeypatch)
    bucket.admin.put_bucket_policy(
        Bucket=bucket.name,
        Policy='{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject",'
        f' "Resource": "arn:aws:s3:::{bucket.name}/*"}}]}}',
    )
    world.put_object()
    world.put_manifest()
    assert "403" in absent(world, 1).what


def test_a_network_that_swallows_everything_does_not_hold_the_alert(world, stack, journal_db, bucket, monkeypatch):
    trigger = world.deferred(1).trigger
    with socket.create_server(("127.0.0.1", 0)) as hole:
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        watch_world(stack, journal_db, bucket, monkeypatch, s3_endpoint=endpoint)
        began = time.monotonic()
        said = fired(another_triggerers(trigger))
        assert said["error"]
        assert time.monotonic() - began < LOOK_TIMEOUT.total_seconds() + SLACK_S


def test_a_restarted_triggerer_keeps_the_deadline(world):
    trigger = world.deferred(8).trigger
    deadline = datetime.fromisoformat(trigger.serialize()[1]["deadline"])

    async def killed_half_way() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(another_triggerers(trigger).run()), 1.5)

    asyncio.run(killed_half_way())
    said = fired(another_triggerers(another_triggerers(trigger)))

    assert said == {"present": False, "error": None}
    assert deadline <= datetime.now(UTC) < deadline + timedelta(seconds=SLACK_S)


def test_a_trigger_that_comes_too_late_still_looks_once(world):
    deferred = world.deferred(1)
    time.sleep(1)
    world.put_object()
    world.put_manifest()
    assert fired(another_triggerers(deferred.trigger)) == {"present": True, "error": None}


@pytest.mark.parametrize("reason", ["Trigger timeout", "Trigger failure"])
def test_when_the_triggerer_is_dead_the_worker_looks_itself(world, reason):
    deferred = world.deferred(60)
    gone = deferred.__class__(trigger=deferred.trigger, method_name="__fail__")
    with pytest.raises(BackupAbsent) as caught:
        world.resume(gone, {"error": reason})
    assert isinstance(caught.value.__cause__, AirflowSensorTimeout | TaskDeferralError)
    world.put_object()
    world.put_manifest()
    world.resume(gone, {"error": reason})


@pytest.mark.case("TC-NOM-06")
def test_an_absence_that_a_relaunch_answered_already_was_told(world):
    world.relaunch_runs.append("watchdog__2026-01-01")
    assert not absent(world, 1).told
    world.relaunch_runs.append(f"watchdog__{world.day}")
    assert absent(world, 1).told
