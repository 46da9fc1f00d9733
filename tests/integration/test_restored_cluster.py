"""Clusters as Debian and containers make them come back too: configuration elsewhere, no role called `postgres`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
import psycopg
import pytest

from dev.ports import free_ports
from dev.servers.postgres import RUN_AS
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import RestoreFailed
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.cluster import ClusterRestore, Restored
from pv_backup.services.restoration.configuration import add_missing_configuration
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import is_history_name
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-NOM-03", "TC-NOM-04")

CONFIGURATION = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")


@dataclass(frozen=True)
class Odd:
    """What was backed up, and what a restoration made of it.

    :ivar between: before and after the last commit, by the source's clock.
    """

    world: WalWorld
    between: tuple[datetime, datetime]
    data: Path
    restored: Restored

    def restore(self, sandbox: Sandbox) -> ClusterRestore:
        bench = self.world.bench
        return ClusterRestore(
            store=bench.store, keys=bench.keys, tools=Server({}), directory=sandbox.data, sandbox=sandbox
        )


@pytest.fixture(scope="module")
def odd(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Odd]:
    """The superuser is called `evidence`, nobody may connect to `template1`, and the backup holds no configuration."""
    cluster, folder = cluster_template.copied(), open_directory()
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            cluster.add_tablespace("apart")
            with psycopg.connect(cluster.dump_dsn) as connection:
                connection.execute("ALTER ROLE postgres RENAME TO evidence")
                connection.execute("ALTER DATABASE template1 ALLOW_CONNECTIONS false")
            for name in CONFIGURATION:  # the running server has read them
                (cluster.postgres.data_directory / name).unlink()
            server = Server({**cluster.server.params, "user": "evidence"})
            with server.connect() as connection:
                connection.execute("CREATE TABLE ledger TABLESPACE apart AS SELECT generate_series(1, 1000) AS n")
            world.backup.back_up(BasebackupSource(server=server))
            with server.connect() as connection:
                (before,) = one_row(connection, "SELECT clock_timestamp()")
                connection.execute("INSERT INTO ledger VALUES (1001)")
            with server.connect() as connection:
                after, segment = one_row(connection, "SELECT clock_timestamp(), pg_walfile_name(pg_switch_wal())")
            cluster.wait_until_received(segment)
            assert world.run().problems == []
            bench, data = world.bench, folder / "data"
            restored = ClusterRestore(store=bench.store, keys=bench.keys, tools=Server({}), directory=data).run(
                RecoveryTarget()
            )
            yield Odd(world, (before, after), data, restored)
    finally:
        cluster.discard()
        shutil.rmtree(folder)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, cwd="/")


def as_owner(*command: object) -> subprocess.CompletedProcess[str]:
    return run("runuser", "-u", RUN_AS, "--", *command) if RUN_AS else run(*command)


def test_a_superuser_of_another_name_is_found_and_a_database_that_lets_it_in(odd: Odd):
    with Sandbox(odd.data.parent) as sandbox, odd.restore(sandbox).recovered(RecoveryTarget()) as (server, restored):
        assert (server.superuser, restored.superuser) == ("evidence", "evidence")
        assert (server.database, restored.database) == ("postgres", "postgres")
        with server.connect() as connection:
            assert connection.execute("SELECT count(*) FROM ledger").fetchone() == (1001,)
    assert sorted(path.name for path in odd.data.parent.iterdir()) == ["data"]


def test_the_last_commit_is_known_although_the_server_was_started_twice(odd: Odd):
    before, after = odd.between
    assert odd.restored.last_commit is not None
    assert before < odd.restored.last_commit == odd.restored.reached_at < after


def test_it_starts_by_pg_ctl_alone_and_lets_its_owner_in_and_nobody_else(odd: Odd, open_path: Path):
    tools, port = Server({}), free_ports(["postgres"])["postgres"]
    open_path.chmod(0o777)  # the socket lies where everybody can connect
    control = [tools.tool("pg_ctl"), "-s", "-D", odd.data]
    as_owner(*control, "start", "-w", "-l", "/dev/null", "-o", f"-p {port} -k {open_path}")
    try:
        ask = [tools.tool("psql"), "-XAtw", "-p", port, "-d", "postgres", "-U", "evidence"]
        ask += ["-c", "SELECT count(*), max(n) FROM ledger", "-h"]
        owner, by_network = as_owner(*ask, open_path), run(*ask, "127.0.0.1")
        assert (owner.stdout, owner.stderr) == ("1001|1001\n", "")
        assert "no pg_hba.conf entry" in by_network.stderr
        if RUN_AS:
            assert run(*ask, open_path).stdout == "1001|1001\n", "root is let in"
            assert "Peer authentication failed" in run("runuser", "-u", "nobody", "--", *ask, open_path).stderr
    finally:
        as_owner(*control, "stop", "-m", "immediate")


def test_what_is_there_stays_and_what_is_missing_is_written_for_its_owner_alone(odd: Odd):
    configuration, access = (odd.data / name for name in CONFIGURATION[:2])
    text = configuration.read_text()
    assert "allow_in_place_tablespaces = on" in text
    assert configuration.stat().st_mode & 0o777 == 0o600
    access.unlink()
    configuration.write_text("port = 5433\n")

    assert add_missing_configuration(odd.data, user=RUN_AS, superuser="evidence", in_place=True) == ["pg_hba.conf"]

    assert configuration.read_text() == "port = 5433\n"


def test_a_server_that_is_lost_right_after_recovery_is_a_failed_restoration(odd: Odd, monkeypatch):
    def lose(connection: psycopg.Connection, query: str) -> None:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    monkeypatch.setattr("pv_backup.services.restoration.cluster.one_row", lose)
    with (
        Sandbox(odd.data.parent) as sandbox,
        pytest.raises(RestoreFailed, match="the restored server failed a query: terminating connection"),
        odd.restore(sandbox).recovered(RecoveryTarget()),
    ):
        pass


def test_a_file_whose_fetch_fails_as_nobody_foresaw_ends_recovery(odd: Odd, monkeypatch):
    fetch = WalArchive.fetch

    def fail_on_segments(archive: WalArchive, name: str, path: Path) -> None:
        if not is_history_name(name):
            raise RuntimeError("can't start new thread")
        fetch(archive, name, path)

    monkeypatch.setattr(WalArchive, "fetch", fail_on_segments)
    with (
        Sandbox(odd.data.parent) as sandbox,
        pytest.raises(RestoreFailed, match=r"0{7}1[0-9A-F]{16} could not be fetched: RuntimeError: can't start new"),
        odd.restore(sandbox).recovered(RecoveryTarget()),
    ):
        pass


def test_what_we_write_for_the_server_is_read_by_its_user_whatever_the_umask(odd: Odd):
    before = os.umask(0o077)
    try:
        with Sandbox(odd.data.parent) as sandbox, odd.restore(sandbox).recovered(RecoveryTarget()) as (_, restored):
            assert restored.wal_files > 0
    finally:
        os.umask(before)


def test_a_disk_that_fails_while_recovery_goes_on_ends_what_shall_stay(odd: Odd, open_path: Path, monkeypatch):
    folder, begun = open_path / "bin", open_path / "begun"
    folder.mkdir()
    begun.mkdir(mode=0o777)
    begun.chmod(0o777)
    (folder / "sync").write_text(f"#!/bin/sh\ntouch {begun}/$$; sleep 2; echo Input/output error >&2; exit 1\n")
    (folder / "sync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    bench, data = odd.world.bench, open_path / "data"

    with pytest.raises(RestoreFailed, match="brought to the disk: sync ended with status 1: Input/output error"):
        ClusterRestore(store=bench.store, keys=bench.keys, tools=Server({}), directory=data).run(RecoveryTarget())

    (pid,) = (int(path.name) for path in begun.iterdir())
    assert not psutil.pid_exists(pid)
    with Sandbox(open_path) as sandbox, odd.restore(sandbox).recovered(RecoveryTarget()):
        pass
    assert len(list(begun.iterdir())) == 1, "what goes again is not synced"


def test_a_failing_start_leaves_nothing(open_path: Path):
    def refuse(pid: int) -> None:
        raise RuntimeError("the guard is gone")

    home = open_path / "run"
    server = RestoredServer(data=open_path / "absent", tools=Server({}), settings={}, home=home, started=refuse)
    with pytest.raises(RuntimeError), server:
        pass
    assert list(open_path.iterdir()) == []
