"""A worker that lost its lease can make nothing visible (SPEC section 3), and one that kept it is not disturbed."""

from __future__ import annotations

import time

import pytest

from pv_backup.services.errors import LeaseLost, UploadFailed
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.publication import publish
from tests.integration.backup_world import KEY, MEBIBYTE, backup_world
from tests.integration.faulty_network import relay_to
from tests.integration.wal_world import wait_until

pytestmark = pytest.mark.case("TC-INV-04", "TC-ERR-08")


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        yield world


def taken_over(world):
    world.bench.leases.acquire(str(world.journal.row()["backup_id"]), 60)


def expired_and_settled(world):
    world.journal.expire_lease()
    world.open(run_id="run 2")


LOSSES = pytest.mark.parametrize(
    ("lose", "told"),
    [(taken_over, "taken by another worker"), (expired_and_settled, "a newer one has replaced it")],
    ids=["taken over", "settled by the next run"],
)


@LOSSES
@pytest.mark.parametrize("mebibytes", [1, 7], ids=["single put", "multipart"])
def test_without_the_lease_no_upload_is_completed(world, lose, told, mebibytes):
    world.fill(mebibytes)
    source = world.watched(lambda: lose(world))
    with pytest.raises(LeaseLost, match=told):
        world.export(world.open(), source)
    assert world.bucket.is_untouched()
    assert world.journal.row()["hash_sha3_256"] is None


@LOSSES
def test_without_the_lease_nothing_is_published(world, lose, told):
    attempt = world.exported()
    world.verify(attempt)
    held, keeper = world.bench.keep_lease(attempt.backup_id)
    lose(world)
    with keeper, pytest.raises(LeaseLost, match=told):
        publish(world.bench, held, keeper)
    assert world.bucket.keys() == [KEY]


def test_a_lease_that_ran_out_unnoticed_costs_no_backup(world):
    world.fill(1)
    attempt = world.open()
    world.export(attempt, world.watched(world.journal.expire_lease))
    world.verify(attempt)
    world.publish(attempt)


def test_a_successor_ends_the_upload_of_a_worker_that_only_slept(world):
    world.fill(7)
    attempt = world.open()

    def successor_backs_up():
        world.export(attempt)
        world.verify(attempt)
        world.publish(attempt)

    with pytest.raises((LeaseLost, UploadFailed)):
        world.export(attempt, world.watched(successor_backs_up, after_bytes=12 * MEBIBYTE))
    assert world.bucket.versions(KEY) == [KEY]
    assert world.bucket.open_uploads() == []
    world.verify(attempt)


def test_the_loss_is_noticed_in_the_middle_of_the_stream(world):
    world.fill(8)
    held, keeper = keeper_of_a_second(world)

    def lose_the_lease_until_that_is_noticed():
        taken_over(world)
        wait_until(lambda: keeper._stop_reason, meaning="noticed")

    source = world.watched(lose_the_lease_until_that_is_noticed)
    with keeper, pytest.raises(LeaseLost, match="taken by another worker"):
        ArtefactExport(bench=world.bench, attempt=held, source=source, keeper=keeper).run()
    assert source.passed_bytes < 16 * MEBIBYTE
    assert world.bucket.is_untouched()


def test_the_lease_is_renewed_while_the_source_is_slow_and_handed_over_at_the_end(world):
    world.fill(1)
    held, keeper = keeper_of_a_second(world)
    source = world.watched(lambda: time.sleep(2.5))
    began = time.monotonic()
    with keeper:
        ArtefactExport(bench=world.bench, attempt=held, source=source, keeper=keeper).run()
    (left,) = world.journal.sql(
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float AS s FROM pv_backup.backup_executions"
    )
    handover_s = world.bench.settings.handover_s
    assert handover_s - (time.monotonic() - began) <= left["s"] <= handover_s
    world.verify(held)


def test_a_journal_that_is_away_for_a_moment_does_not_end_the_stream(stack, source_db, journal_db, bucket, caplog):
    with relay_to("127.0.0.1", stack.postgres.port) as relay:
        dsn = journal_db.service_dsn.replace(f":{stack.postgres.port}/", f":{relay.port}/")
        with backup_world(stack, source_db, journal_db, bucket, journal_dsn=dsn) as world:
            world.fill(1)
            held, keeper = keeper_of_a_second(world, lease_s=3)

            def away_for_one_renewal():
                relay.cut()
                wait_until(lambda: "not renewed this time" in caplog.text, meaning="tried to renew")
                relay.mend()

            source = world.watched(away_for_one_renewal)
            with keeper:
                ArtefactExport(bench=world.bench, attempt=held, source=source, keeper=keeper).run()
            world.verify(held)


def keeper_of_a_second(world, *, lease_s=1):
    """A keeper whose lease is shorter than any setting allows, so that the test need not wait a minute."""
    attempt = world.open()
    lease = world.bench.leases.acquire(attempt.backup_id, lease_s)
    keeper = LeaseKeeper(
        leases=world.bench.leases, lease=lease, lease_s=lease_s, handover_s=world.bench.settings.handover_s
    )
    return world.bench.machine.attempt(lease), keeper
