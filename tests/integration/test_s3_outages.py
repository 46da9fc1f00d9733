"""The S3 server dies in the middle of an export and comes back (ERR-47-03)."""

from __future__ import annotations

import threading

import pytest

from pv_backup.services.errors import UploadFailed
from tests.integration.backup_world import KEY, MEBIBYTE, backup_world

pytestmark = pytest.mark.case("TC-ERR-03")


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        world.fill(12)
        yield world


@pytest.mark.parametrize("away_s", [5, pytest.param(20, marks=pytest.mark.soak)])
def test_an_export_survives_an_s3_server_that_was_away(world, away_s):
    attempt = world.open()
    restart = threading.Timer(away_s, world.stack.s3.start)

    def kill_for_a_while():
        world.stack.s3.kill()
        restart.start()

    world.export(attempt, world.watched(kill_for_a_while, after_bytes=12 * MEBIBYTE))
    restart.join()
    assert world.bucket.versions(KEY) == [KEY]
    assert world.bucket.open_uploads() == []
    world.verify(attempt)
    world.publish(attempt)


def test_an_export_whose_s3_server_stays_away_fails_and_the_next_try_clears_up(world):
    attempt = world.open()
    impatient = world.with_bench(store=world.store_at(world.stack.s3.endpoint, timeout_s=2))
    source = world.watched(world.stack.s3.kill, after_bytes=12 * MEBIBYTE)
    with pytest.raises(UploadFailed, match=f"{KEY}: nothing completed for 2 s"):
        impatient.export(attempt, source)
    world.stack.s3.start()
    world.export(attempt)
    assert world.bucket.versions(KEY) == [KEY]
    assert world.bucket.open_uploads() == []
    world.verify(attempt)
