"""A restored server that ends itself says why: of what it read, or for want of room, which is no finding."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.fitness import demand_fit
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from tests.support.clusters import ClusterTemplate

pytestmark = pytest.mark.case("TC-NOM-04", "TC-ERR-07")

MEBIBYTE = 1024 * 1024
# By itself it writes when it likes, and what fails then is no query.
SETTINGS = {"wal_writer_delay": "10s", "force_parallel_mode": "on"}
WAL_ONLY = f"SELECT pg_logical_emit_message(false, '', repeat('x', {MEBIBYTE})) FROM generate_series(1, 100)"


@pytest.fixture
def data(cluster_template: ClusterTemplate) -> Iterator[Path]:
    """Of a cluster that was shut down."""
    cluster = cluster_template.copied()
    try:
        cluster.receiver.kill()
        cluster.postgres.stop()
        yield cluster.postgres.data_directory
    finally:
        cluster.discard()


def lost(server: RestoredServer, query: str) -> str:
    """What there is to say of a query amid which the server ends."""
    server.wait_until_recovered()
    with pytest.raises(psycopg.OperationalError), server.connect() as connection:
        connection.execute(query)
    return demand_fit(server)("the query was lost")


def crash_a_parallel_worker(postmaster: Path) -> None:
    while True:
        time.sleep(0.05)
        with suppress(OSError, ValueError, IndexError, psutil.Error):
            for child in psutil.Process(int(postmaster.read_text().split()[0])).children():
                if "parallel worker" in " ".join(child.cmdline()):
                    child.send_signal(signal.SIGSEGV)
                    return


def test_a_parallel_worker_that_crashes_died_of_what_it_read(data: Path):
    with RestoredServer(data=data, tools=Server({}), settings=SETTINGS) as server:
        threading.Thread(target=crash_a_parallel_worker, args=[data / "postmaster.pid"], daemon=True).start()

        found = lost(server, "SELECT pg_sleep(120)")

    assert found.startswith('the server died of what it read: background worker "parallel worker" (PID ')
    assert "terminated by signal 11" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_one_that_has_no_room_for_its_wal_ends_itself_and_found_nothing(data: Path, disk: Callable[[float], Path]):
    size = sum(path.lstat().st_blocks * 512 for path in data.rglob("*"))
    with Sandbox(disk(size / MEBIBYTE + 16)) as sandbox:
        subprocess.run(["cp", "-a", data, sandbox.data], check=True)
        with sandbox.new_server(Server({}), data=sandbox.data, settings=SETTINGS) as server:
            with pytest.raises(StagingFull) as full:
                lost(server, WAL_ONLY)

            assert "terminated by signal 6" in server.log_text

    assert "the query was lost; the end of the server's log:" in full.value.what
    assert "No space left on device" in full.value.what
