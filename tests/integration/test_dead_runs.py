"""What a killed worker left is settled by what the bucket holds, verified, when the day is next opened (ERR-47-08)."""

from __future__ import annotations

import pytest

from pv_backup.services.errors import DayClosed, LeaseLost, RunAlive, TransitionRefused
from pv_backup.services.manifest import published
from pv_backup.services.reconciliation import settle_dead_run
from tests.integration.backup_world import KEY, backup_world

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


def outcome_of(world, attempt):
    event = world.journal.journal.event_of(attempt.backup_id)
    return event and (event.outcome, event.error_code)


def test_a_run_that_died_before_its_export_is_failed_and_the_day_opened_anew(world):
    dead = world.open()
    world.bucket.begin_upload(KEY)
    world.journal.expire_lease()
    fresh = world.open(run_id="run 2")
    assert outcome_of(world, dead) == ("FAILED", "ERR-47-08")
    assert fresh.backup_id != dead.backup_id
    assert fresh.replanification_count == 1
    assert world.bucket.is_untouched()
    world.export(fresh)
    world.verify(fresh)


@pytest.mark.case("TC-INV-04")
def test_an_object_without_its_manifest_does_not_make_a_success(world):
    dead = world.exported()
    world.verify(dead)
    world.journal.expire_lease()
    fresh = world.open(run_id="run 2")
    assert outcome_of(world, dead) == ("FAILED", "ERR-47-08")
    world.export(fresh)
    world.verify(fresh)
    world.publish(fresh)
    assert published(world.bench.store, KEY).backup_id == fresh.backup_id


def test_a_run_that_died_after_publishing_is_verified_and_closes_the_day(world):
    dead = world.exported()
    world.verify(dead)
    world.publish(dead)
    world.journal.expire_lease()
    with pytest.raises(DayClosed, match=dead.backup_id):
        world.open(run_id="run 2")
    assert outcome_of(world, dead) == ("SUCCESS", None)
    assert world.journal.row()["status"] == "SUCCESS"


@pytest.mark.case("TC-INV-04", "TC-NEG-01")
def test_a_published_object_that_does_not_verify_is_marked_and_never_a_success(world):
    dead = world.exported()
    world.verify(dead)
    world.publish(dead)
    body = world.bucket.body(KEY)
    world.bucket.overwrite(KEY, body[:-1] + bytes([body[-1] ^ 1]))
    world.journal.expire_lease()
    fresh = world.open(run_id="run 2")
    assert outcome_of(world, dead) == ("FAILED", "ERR-47-04")
    assert published(world.bench.store, KEY) is None
    world.export(fresh)
    world.verify(fresh)
    assert world.publish(fresh).backup_id == fresh.backup_id


def test_a_cleared_run_finds_its_own_backup_published_and_closes_the_day(world):
    mine = world.exported()
    world.verify(mine)
    world.publish(mine)
    with pytest.raises(DayClosed, match=mine.backup_id):
        world.open()
    assert outcome_of(world, mine) == ("SUCCESS", None)


def test_a_live_run_is_left_alone(world):
    alive = world.open()
    world.bucket.begin_upload(KEY)
    with pytest.raises(RunAlive, match="is RUNNING in run run 1, under a lease until"):
        world.open(run_id="run 2")
    with pytest.raises(RunAlive):
        settle_dead_run(world.bench, alive.backup_id)
    assert world.bucket.open_uploads() == [KEY]
    world.bench.leases.renew(alive.lease, 60)


def test_a_worker_that_only_slept_finds_itself_locked_out_after_the_settlement(world):
    sleeper = world.exported()
    world.journal.expire_lease()
    world.open(run_id="run 2")
    with pytest.raises(LeaseLost):
        world.publish(sleeper)
    with pytest.raises(TransitionRefused, match="another worker replaced it"):
        world.bench.machine.succeed(sleeper.lease)
    assert world.bucket.manifest(KEY) is None
