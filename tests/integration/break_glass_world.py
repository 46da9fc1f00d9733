"""Source, journal and Airflow are gone: the bucket of a night, and the command that shall do with it and the key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
import pytest

from dev.airflow_env import ROOT
from dev.provisioning.databases import drop_database
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from tests.integration.bare_python import modules_beyond, packages_named
from tests.integration.command_line import CommandLine
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate
from tests.support.servers import TestStack

OK, FAILED, DAMAGED = 0, 1, 2
BASE = "2026/03/basebackup_20260329.enc"
SEGMENTS = 6
SUPERUSER = "evidence"
# What ALTER SYSTEM may have set on a source, and a server on what is restored from it must not do.
OF_THE_SOURCE = {
    "archive_mode": "on",
    "archive_command": "cp %p {folder}/%f",
    "port": "6543",
    "listen_addresses": "*",
    "unix_socket_directories": "{folder}",
    "hba_file": "{folder}/pg_hba.conf",
    "ident_file": "{folder}/pg_ident.conf",
    "external_pid_file": "{folder}/pid",
    "shared_preload_libraries": "nowhere",
    "session_preload_libraries": "nowhere",
    "synchronous_standby_names": "nobody",
    "max_logical_replication_workers": "4",
    "ssl": "on",
    "logging_collector": "on",
    "log_directory": "{folder}",
}


@dataclass(frozen=True)
class Left:
    """What is left: the bucket, and a machine on which only the runbook's packages are installed.

    :ivar events: what the lost journal said of the published backups, by object.
    :ivar last_entry_at: the source's clock right after the last commit.
    """

    world: WalWorld
    command: CommandLine
    events: dict[str, dict[str, object]]
    last_entry_at: datetime

    @contextmanager
    def damaged(self, key: str) -> Iterator[None]:
        """The bucket with one bit of an object turned."""
        bucket = self.world.bucket
        body = bucket.body(key)
        bucket.overwrite(key, body[:-1] + bytes([body[-1] ^ 1]))
        try:
            yield
        finally:
            bucket.overwrite(key, body)

    @contextmanager
    def without(self, key: str) -> Iterator[None]:
        bucket = self.world.bucket
        body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
        bucket.delete(key)
        try:
            yield
        finally:
            bucket.put(key, body, metadata)


@contextmanager
def what_is_left(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    """A night's artefacts and the WAL after them; then the source, its journal and Airflow are lost."""
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    archive = tmp_path_factory.mktemp("archive")
    with wal_world(stack, cluster, journal, bucket) as world:
        cluster.sql("CREATE TABLE ledger (entry int PRIMARY KEY)")
        for name, value in OF_THE_SOURCE.items():  # for a next start, which this server does not live to see
            cluster.sql(f"ALTER SYSTEM SET {name} = '{value.format(folder=archive)}'")
        for source in (GlobalsSource, DumpSource, BasebackupSource):
            world.backup.back_up(source(server=cluster.server))
        with psycopg.connect(cluster.dump_dsn) as connection:
            connection.execute(f"ALTER ROLE postgres RENAME TO {SUPERUSER}".encode())
            connection.execute("ALTER DATABASE template1 ALLOW_CONNECTIONS false")
        cluster.dsn = cluster.dsn.replace("//postgres:", f"//{SUPERUSER}:")
        for entry in range(SEGMENTS):
            cluster.sql("INSERT INTO ledger VALUES (%s)", entry)
            if entry == SEGMENTS - 1:
                ((at,),) = cluster.sql("SELECT clock_timestamp()")
            name = cluster.switch_wal()
        cluster.wait_until_received(name)
        assert world.run().problems == []
        events = world.backup.journal.sql("SELECT * FROM pv_backup.backup_journal_events")
        cluster.destroy()
        drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])
        command = CommandLine(world.backup)
        page = (ROOT / "docs" / "disaster.md").read_text()
        command.without(tmp_path_factory.mktemp("bare"), modules_beyond(packages_named(page)))
        yield Left(world, command, {str(event["object_key"]): event for event in events}, at)
    cluster.discard()
