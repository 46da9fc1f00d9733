"""A source that is destroyed after a load and a promotion; bucket and key are left, and what people remember."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import PvBackupError
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore, Restored
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.wal import SegmentName, parse_lsn
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate
from tests.support.restored_server import RestoredServer
from tests.support.servers import TestStack

COMMITS_A_STRETCH = 20
RESTORE_POINT = "after the promotion"


@dataclass(frozen=True)
class Commit:
    """A row of the ledger, and where its server stood right after its commit."""

    entry: int
    at: datetime
    lsn: int


@dataclass(frozen=True)
class Lost:
    """What is left when the source is gone: the bucket, the key, and what people remember of their commits.

    :ivar named: how many commits there were at :data:`RESTORE_POINT`.
    """

    world: WalWorld
    ledger: list[Commit]
    named: int

    def restore(self, directory: Path) -> ClusterRestore:
        bench = self.world.bench
        return ClusterRestore(store=bench.store, keys=bench.keys, tools=Server({}), directory=directory)

    def entries_at(self, target: RecoveryTarget, folder: Path) -> tuple[list[int], Restored]:
        """What the ledger of a cluster holds that was restored to there."""
        restored = self.restore(folder / "data").run(target)
        with RestoredServer(folder / "data") as server:
            return [entry for (entry,) in server.sql("SELECT entry FROM ledger ORDER BY entry")], restored

    def refusal(self, target: RecoveryTarget, folder: Path) -> PvBackupError:
        with pytest.raises(PvBackupError) as refused:
            self.restore(folder / "data").run(target)
        return refused.value

    @contextmanager
    def without(self, name: str, *, instead: str | None = None) -> Iterator[None]:
        """The bucket with one WAL file missing, or with another file's object in its place."""
        bucket, key = self.world.bucket, wal_object_key(name)
        body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
        if instead is None:
            bucket.delete(key)
        else:
            other = wal_object_key(instead)
            bucket.put(key, bucket.body(other), bucket.head(other)["Metadata"])
        try:
            yield
        finally:
            bucket.put(key, body, metadata)

    def needed(self) -> list[str]:
        """The segments that recovery must read from the bucket: the base backup brings the first ones along."""
        (manifest,) = published_backups(self.world.bench.store)
        assert manifest.wal_files
        own = manifest.wal_files[-1]
        return [name for name in self.world.shipped() if SegmentName.parse(name) and name > own]


@contextmanager
def lost_source(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Lost]:
    """A base backup, a load, a promotion, more load, all of it shipped; then the machine is lost."""
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    try:
        with wal_world(stack, cluster, journal, bucket) as world:
            cluster.sql("CREATE TABLE ledger (entry int PRIMARY KEY, filler text)")
            ledger = commits(world, first=0)
            world.backup.back_up(BasebackupSource(server=cluster.server))
            ledger += commits(world, first=len(ledger))
            assert world.run(closer=world.closer(older_than_s=0)).problems == []
            cluster.promote()
            ledger += commits(world, first=len(ledger))
            cluster.sql("SELECT pg_create_restore_point(%s)", RESTORE_POINT)
            named = len(ledger)
            ledger += commits(world, first=len(ledger))
            cluster.wait_until_received("00000002.history")
            assert world.run(closer=world.closer(older_than_s=0)).problems == []
            cluster.receiver.stop()
            cluster.destroy()
            shutil.rmtree(cluster.wal_directory)
            yield Lost(world, ledger, named)
    finally:
        cluster.discard()


def commits(world: WalWorld, *, first: int) -> list[Commit]:
    """Commit rows one by one, with enough between them to fill several segments."""
    made = []
    for entry in range(first, first + COMMITS_A_STRETCH):
        world.cluster.sql(
            "INSERT INTO ledger SELECT %s, string_agg(md5(random()::text), '') FROM generate_series(1, 4000)", entry
        )
        ((at, lsn),) = world.cluster.sql("SELECT clock_timestamp(), pg_current_wal_lsn()::text")
        made.append(Commit(entry, at, parse_lsn(lsn)))
    return made
