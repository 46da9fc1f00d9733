"""The source of the physical tests is what it claims: its WAL is really received, and its destruction really one."""

from __future__ import annotations

import stat
import subprocess
import time
from collections.abc import Callable

import psutil
import pytest

from dev.servers.receivewal import SLOT
from tests.support.clusters import SourceCluster

pytestmark = pytest.mark.case("TC-NOM-02")


def held_back(cluster: SourceCluster) -> int:
    """Bytes of WAL that the server keeps for the slot."""
    ((behind,),) = cluster.sql(
        "SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::int"
        " FROM pg_replication_slots WHERE slot_name = %s",
        SLOT,
    )
    return behind


def becomes_true(holds: Callable[[], bool], *, within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def test_what_is_received_is_what_the_server_wrote(source_cluster: SourceCluster):
    source_cluster.write(3)
    closed = source_cluster.switch_wal()
    source_cluster.wait_until_received(closed)

    received = source_cluster.finished()
    assert len(received) >= 3
    assert received[-1] == closed
    for name in received:
        written = source_cluster.postgres.data_directory / "pg_wal" / name
        assert (source_cluster.wal_directory / name).read_bytes() == written.read_bytes(), name


def test_the_open_segment_is_partial_and_the_slot_holds_nothing_back(source_cluster: SourceCluster):
    source_cluster.sql("CREATE TABLE committed AS SELECT 1")
    ((still_open,),) = source_cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")

    assert becomes_true(lambda: held_back(source_cluster) == 0)
    assert (source_cluster.wal_directory / f"{still_open}.partial").exists()
    assert still_open not in source_cluster.finished()


def test_pg_receivewal_follows_a_promotion(source_cluster: SourceCluster):
    before = source_cluster.switch_wal()
    source_cluster.promote()
    after = source_cluster.switch_wal()
    source_cluster.wait_until_received(after)

    received = source_cluster.finished()
    assert {before, "00000002.history", after} <= set(received)
    assert (before[:8], after[:8]) == ("00000001", "00000002")
    assert "switched to timeline 2" in source_cluster.receiver.log.read_text()


def test_pg_receivewal_comes_back_by_itself_after_the_server_crashed(source_cluster: SourceCluster):
    receiver = source_cluster.receiver
    source_cluster.postgres.kill()
    assert becomes_true(lambda: "waiting 5 seconds to try again" in receiver.log.read_text())
    source_cluster.postgres.start()
    source_cluster.write(2)
    source_cluster.wait_until_received(source_cluster.switch_wal())

    numbers = [int(name[8:], 16) for name in source_cluster.finished()]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "1 MiB segments below 4 GiB count by one"
    assert receiver.log.read_text().count("starting log streaming") == 2


def test_the_slot_keeps_what_a_killed_pg_receivewal_misses(source_cluster: SourceCluster):
    source_cluster.receiver.kill()
    source_cluster.write(2)
    missed = source_cluster.switch_wal()
    source_cluster.sql("CHECKPOINT")
    assert missed not in source_cluster.finished()
    assert held_back(source_cluster) > 2 * 2**20

    source_cluster.start()
    source_cluster.wait_until_received(missed)
    assert becomes_true(lambda: held_back(source_cluster) == 0)


@pytest.mark.case("TC-INV-02")
def test_wal_is_closed_to_others_and_no_password_is_on_the_command_line(source_cluster: SourceCluster):
    assert stat.S_IMODE(source_cluster.wal_directory.stat().st_mode) == 0o700
    (receiver,) = [process for process in psutil.process_iter() if _receives_into(process, source_cluster)]
    password = receiver.environ()["PGPASSWORD"]
    assert len(password) > 20
    assert password not in " ".join(receiver.cmdline())


@pytest.mark.case("TC-ERR-08")
def test_a_destroyed_source_leaves_only_the_wal_that_was_received(source_cluster: SourceCluster):
    closed = source_cluster.switch_wal()
    source_cluster.wait_until_received(closed)
    data = source_cluster.postgres.data_directory
    location = source_cluster.add_tablespace("elsewhere")
    segment = (data / "postmaster.pid").read_text().splitlines()[6].split()[1]
    family = [int(pid) for (pid,) in source_cluster.sql("SELECT pid FROM pg_stat_activity")]

    source_cluster.destroy()

    assert not any(_lives(pid) for pid in family)
    assert not data.exists()
    assert not location.exists()
    assert segment not in subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout.split()
    assert source_cluster.receiver.is_running()
    assert closed in source_cluster.finished()


def test_new_clusters_are_no_copies_of_each_other(
    source_cluster: SourceCluster, new_cluster: Callable[..., SourceCluster]
):
    other = new_cluster(receiving=False)

    identity = "SELECT system_identifier, bytes_per_wal_segment FROM pg_control_system(), pg_control_init()"
    ((one, small),), ((another, usual),) = source_cluster.sql(identity), other.sql(identity)
    assert one != another
    assert (small, usual) == (2**20, 16 * 2**20)
    assert other.sql("SELECT 1 FROM pg_replication_slots") == []
    assert not other.wal_directory.exists()


def _receives_into(process: psutil.Process, cluster: SourceCluster) -> bool:
    try:
        return str(cluster.wal_directory) in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
