"""A source that another tool recovered once: what that left in `postgresql.auto.conf` rules no recovery of ours."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.wal import parse_lsn
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.restored_server import RestoredServer
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-NOM-03", "TC-NOM-04")

AUTO_CONF = "postgresql.auto.conf"


@dataclass(frozen=True)
class Recovered:
    """Backed up, and gone.

    :ivar middle: an LSN between the second row and the third, which is the last.
    :ivar ran: what the source's shell commands would leave.
    """

    world: WalWorld
    middle: int
    ran: Path

    def restore(self, directory: Path, sandbox: Sandbox | None = None) -> ClusterRestore:
        bench = self.world.bench
        return ClusterRestore(
            store=bench.store, keys=bench.keys, tools=Server({}), directory=directory, sandbox=sandbox
        )


def leftovers(ran: Path) -> dict[str, str]:
    return {
        "recovery_target_time": "2020-01-01 00:00:00+00",
        "recovery_target_inclusive": "off",
        "recovery_target_action": "pause",
        "recovery_target_timeline": "7",
        "recovery_min_apply_delay": "1h",
        "recovery_end_command": f"touch {ran}",
        "archive_cleanup_command": f"touch {ran}",
        "restore_command": "false",
        "primary_conninfo": "host=192.0.2.1 user=replicator",
        "primary_slot_name": "of_a_standby",
        "archive_mode": "on",
        "archive_command": f"touch {ran}",
        # What this machine need not have.
        "shared_buffers": "1000GB",
        "huge_pages": "on",
        "ssl": "on",
        "work_mem": "7MB",
    }


@pytest.fixture(scope="module")
def recovered(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Recovered]:
    cluster, folder = cluster_template.copied(), open_directory()
    folder.chmod(0o777)
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            cluster.sql("CREATE TABLE ledger AS SELECT 1 AS n")
            with psycopg.connect(cluster.dsn, autocommit=True) as connection:
                for name, value in leftovers(folder / "ran").items():
                    command = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
                    connection.execute(command)
            world.backup.back_up(BasebackupSource(server=cluster.server))
            cluster.sql("INSERT INTO ledger VALUES (2)")
            ((middle,),) = cluster.sql("SELECT pg_current_wal_lsn()::text")
            cluster.sql("INSERT INTO ledger VALUES (3)")
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run().problems == []
            cluster.destroy()
            yield Recovered(world, parse_lsn(middle), folder / "ran")
    finally:
        cluster.discard()
        shutil.rmtree(folder)


def test_it_is_drilled(recovered: Recovered, open_path: Path):
    with (
        Sandbox(open_path) as sandbox,
        recovered.restore(sandbox.data, sandbox).recovered(RecoveryTarget()) as (server, _),
        server.connect("postgres") as connection,
    ):
        assert connection.execute("SELECT max(n) FROM ledger").fetchone() == (3,)
    assert not recovered.ran.exists()


def test_it_is_rescued_at_an_lsn_and_starts_without_the_leftovers(recovered: Recovered, open_path: Path):
    data = open_path / "data"

    recovered.restore(data).run(RecoveryTarget(lsn=recovered.middle))

    foreign = ("recovery_", "restore_", "archive_c", "primary_")
    written = (data / AUTO_CONF).read_text()
    assert [line for line in written.splitlines() if line.startswith(foreign)] == []
    assert "recovery_target_time" in (data / f"{AUTO_CONF}.source").read_text()
    with RestoredServer(data, settings={"shared_buffers": "16MB", "huge_pages": "off", "ssl": "off"}) as server:
        assert server.sql("SELECT max(n) FROM ledger") == [(2,)]
        names = ("archive_mode", "archive_command", "primary_conninfo", "recovery_target_time", "work_mem")
        values = {name: server.sql(f"SHOW {name}")[0][0] for name in names}
        server.sql("SELECT pg_switch_wal()")
    assert values == {
        "archive_mode": "off",
        "archive_command": "(disabled)",
        "primary_conninfo": "",
        "recovery_target_time": "",
        "work_mem": "7MB",
    }
    assert not recovered.ran.exists()
