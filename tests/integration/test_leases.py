"""Leases on a real database: who may work on a running backup, and until when by its clock."""

from __future__ import annotations

from uuid import uuid4

import pytest

from pv_backup.services.errors import FormatRejected, LeaseLost, RunAlive
from pv_backup.services.leases import Lease
from tests.integration.journal_world import opened

pytestmark = pytest.mark.case("TC-ERR-08", "TC-NOM-07")


@pytest.fixture
def world(journal_db):
    with opened(journal_db) as world:
        yield world


def seconds_left(world):
    (left,) = world.sql(
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float AS s FROM pv_backup.backup_executions"
    )
    return left["s"]


def test_a_lease_lasts_as_long_as_it_was_given_and_renewed(world):
    lease = world.open(lease_s=30).lease
    assert 25 < seconds_left(world) <= 30
    world.leases.renew(lease, 60)
    assert 55 < seconds_left(world) <= 60
    world.leases.hand_over(lease, 900)
    assert 890 < seconds_left(world) <= 900


def test_the_next_task_takes_over_what_it_was_handed(world):
    lease = world.open().lease
    world.leases.hand_over(lease, 900)
    following = world.leases.acquire(lease.backup_id, 60)
    assert following.token != lease.token
    assert seconds_left(world) <= 60
    world.leases.renew(following, 60)


def test_acquiring_fences_the_predecessor_even_after_expiry(world):
    dead = world.open().lease
    world.expire_lease()
    retry = world.leases.acquire(dead.backup_id, 60)
    for call in (world.leases.renew, world.leases.hand_over):
        with pytest.raises(LeaseLost, match="taken by another worker"):
            call(dead, 60)
    world.leases.renew(retry, 60)


def test_an_expired_lease_is_renewed_until_somebody_takes_it_over(world):
    lease = world.open().lease
    for call in (world.leases.renew, world.leases.hand_over):
        world.expire_lease()
        call(lease, 60)
        assert seconds_left(world) > 50
    world.expire_lease()
    world.leases.take_over(lease.backup_id, 60)
    for call in (world.leases.renew, world.leases.hand_over):
        with pytest.raises(LeaseLost, match="taken by another worker"):
            call(lease, 60)


@pytest.mark.parametrize("status", ["SCHEDULED", "SUCCESS", "FAILED", "EXPIRED", "DELETED"])
def test_only_a_running_row_has_a_lease(world, status):
    lease = world.open().lease
    world.put_in(status)
    for call in (
        lambda: world.leases.renew(lease, 60),
        lambda: world.leases.acquire(lease.backup_id, 60),
        lambda: world.leases.take_over(lease.backup_id, 60),
    ):
        with pytest.raises(LeaseLost, match=f"is {status}, not RUNNING"):
            call()


def test_an_attempt_that_was_replaced_has_no_lease(world):
    old = world.open()
    world.machine.fail(old.backup_id, error_code="ERR-47-01", error_text="x")
    world.open()
    with pytest.raises(LeaseLost, match="no current attempt"):
        world.leases.renew(old.lease, 60)
    with pytest.raises(LeaseLost, match="no current attempt"):
        world.leases.acquire(str(uuid4()), 60)


def test_a_settler_takes_over_the_dead_only(world):
    lease = world.open().lease
    with pytest.raises(RunAlive, match="run 1"):
        world.leases.take_over(lease.backup_id, 60)
    world.leases.renew(lease, 60)
    world.expire_lease()
    settler = world.leases.take_over(lease.backup_id, 60)
    with pytest.raises(LeaseLost):
        world.leases.renew(lease, 60)
    with pytest.raises(RunAlive):
        world.leases.take_over(lease.backup_id, 60)
    world.leases.renew(settler, 60)


@pytest.mark.case("TC-NEG-05")
def test_a_malformed_backup_id_is_refused_before_the_database_is_asked(world):
    with pytest.raises(FormatRejected):
        Lease(backup_id="'; DROP", token=str(uuid4()))
    with pytest.raises(FormatRejected):
        world.leases.acquire("not-a-uuid", 60)
