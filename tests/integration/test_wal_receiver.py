"""A source whose WAL does not arrive: it must not look like a quiet night."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pv_backup.services.errors import ReceiverDown
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_spool import WalSpool
from tests.integration.wal_world import WalWorld, found, wait_until, wal_world

pytestmark = pytest.mark.case("TC-NOM-02")


@pytest.fixture
def world(stack, source_cluster, journal_db, bucket) -> Iterator[WalWorld]:
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        world.cluster.sql("CREATE TABLE note (said text)")
        yield world


def test_a_busy_source_whose_wal_goes_elsewhere_is_named(world: WalWorld, tmp_path: Path):
    elsewhere = WalSpool(directory=tmp_path)
    closer = SegmentCloser(server=world.cluster.server, spool=elsewhere, receiver_patience_s=0.5)

    for _ in range(2):
        world.segments(2)
        world.cluster.write(0.2)
        with pytest.raises(ReceiverDown, match=r"writes \w{24}, of which nothing is in .*writes elsewhere"):
            closer.close_if_due()


def test_a_closed_segment_that_never_came_is_asked_for_again_and_again(world: WalWorld, tmp_path: Path):
    elsewhere = WalSpool(directory=tmp_path)
    world.cluster.sql("INSERT INTO note VALUES ('waits')")
    for older_than_s in (0, 60, 60):
        closer = SegmentCloser(
            server=world.cluster.server, spool=elsewhere, older_than_s=older_than_s, receiver_patience_s=0.5
        )
        with pytest.raises(ReceiverDown, match="was closed, and is not in"):
            closer.close_if_due()


def test_a_closed_segment_that_was_late_is_not_asked_for_once_it_came(world: WalWorld):
    world.cluster.sql("INSERT INTO note VALUES ('late')")
    receiver = psutil.Process(world.cluster.receiver._daemon.process().pid)
    receiver.suspend()
    late = world.run(closer=world.closer(older_than_s=0, receiver_patience_s=0.5))
    receiver.resume()
    wait_until(lambda: len(world.waiting()) > 0, meaning="received what was closed")

    assert found(late) == [("WAL-RECEIVER", "")]
    assert found(world.run(closer=world.closer())) == []
    assert found(world.run(closer=world.closer())) == []


def test_a_clock_that_was_ahead_keeps_no_segment_open(world: WalWorld):
    closer = world.closer(older_than_s=0)
    closer.close_if_due()
    notes = world.cluster.wal_directory / ".pv_backup.json"
    ahead = json.loads(notes.read_text())
    ahead["open_segment"]["since"] = time.time() + 3600
    notes.write_text(json.dumps(ahead))
    world.cluster.sql("INSERT INTO note VALUES ('soon')")

    assert closer.close_if_due() is not None


def test_files_are_shipped_while_the_source_hangs(world: WalWorld):
    names = world.segments(2)
    postmaster = psutil.Process(world.cluster.postgres._daemon.process().pid)
    postmaster.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        report = world.run(closer=world.closer(), source_patience_s=1)
        took = time.monotonic() - started
    finally:
        postmaster.send_signal(signal.SIGCONT)

    assert set(names) <= set(world.shipped())
    assert found(report) == [("ERR-47-01", "")]
    assert "has not answered for 1 s" in report.problems[0].error.what
    assert took < 30
    assert report.source_seen is False


def test_a_slot_that_lost_its_wal_is_named_and_its_remedy_helps(world: WalWorld):
    cluster = world.cluster
    world.segments(1)
    assert world.run().problems == []
    cluster.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    cluster.sql("SELECT pg_reload_conf()")
    cluster.receiver.stop()
    for _ in range(6):
        cluster.write(0.5)
        cluster.switch_wal()
    cluster.sql("CHECKPOINT")

    report = world.run(closer=world.closer())

    assert found(report) == [("WAL-RECEIVER", "")]
    assert "has removed WAL that slot pv_backup still needed" in report.problems[0].error.what
    assert "move *.partial and every WAL file that was kept out of the WAL directory" in report.problems[0].error.remedy

    cluster.sql("SELECT pg_drop_replication_slot('pv_backup')")
    for path in cluster.wal_directory.glob("*.partial"):
        path.rename(path.with_name(f"{path.name}.aside"))
    cluster.start_receiving()
    cluster.write(0.2)
    cluster.wait_until_received(cluster.switch_wal())

    assert [code for code, _ in found(world.run(closer=world.closer()))] == ["WAL-GAP"]
