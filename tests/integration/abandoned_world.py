"""A source that went back in time: a promotion from a state older than its newest base backup, and what came after."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from pv_backup.services.artefacts import manifest_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.cluster import ClusterRestore, Restored
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.wal import parse_lsn
from tests.integration.command_line import CommandLine
from tests.integration.wal_world import Moment, WalWorld, wal_world
from tests.support.clusters import ClusterTemplate
from tests.support.restored_server import RestoredServer
from tests.support.servers import TestStack

OLD_BASE, DEAD_BASE = "2026/03/basebackup_20260322.enc", "2026/03/basebackup_20260329.enc"
_A_STRETCH = 4


@dataclass(frozen=True)
class Abandoned:
    """What is in the bucket. The ledger's entries say when they were made.

    :ivar common: moments after the old base backup that both timelines share; `dead` after them on timeline 1, `live`
        on timeline 2.
    :ivar dead_base_at: the moment right after the base backup that timeline 2 does not come from.
    :ivar unwritten_at: when timeline 1 was over, and timeline 2 had not begun.
    """

    world: WalWorld
    common: list[Moment]
    dead: list[Moment]
    live: list[Moment]
    dead_base_at: Moment
    unwritten_at: datetime

    #: What the ledger holds at the end of either timeline.
    COMMON = tuple(f"common {n}" for n in range(_A_STRETCH))
    DEAD = (*COMMON, *(f"dead {n}" for n in range(2 * _A_STRETCH)))
    LIVE = (*COMMON, *(f"live {n}" for n in range(_A_STRETCH)))

    def restore(self, directory: Path, *, base_key: str | None = None) -> ClusterRestore:
        bench = self.world.bench
        return ClusterRestore(
            store=bench.store, keys=bench.keys, tools=Server({}), directory=directory, base_key=base_key
        )

    def entries_at(
        self, target: RecoveryTarget, folder: Path, *, base_key: str | None = None
    ) -> tuple[tuple[str, ...], Restored]:
        """What the ledger of a cluster holds that was restored to there."""
        restored = self.restore(folder / "data", base_key=base_key).run(target)
        return entries(folder / "data"), restored

    @contextmanager
    def without_manifest(self, key: str) -> Iterator[None]:
        """The bucket as if that backup had never been published."""
        bucket, manifest = self.world.bucket, self.world.bucket.manifest(key)
        assert manifest
        bucket.delete(manifest_key(key))
        try:
            yield
        finally:
            bucket.put_manifest(key, manifest)


def entries(data: Path) -> tuple[str, ...]:
    """The ledger of a restored cluster."""
    with RestoredServer(data) as server:
        return tuple(entry for (entry,) in server.sql("SELECT entry FROM ledger ORDER BY number"))


@contextmanager
def abandoned_base(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Abandoned]:
    """A base backup, a copy of the cluster, another base backup; then the copy is promoted in the cluster's place."""
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    older = cluster.home / "older"
    try:
        with wal_world(stack, cluster, journal, bucket) as world:
            cluster.sql("CREATE TABLE ledger (number serial, entry text, filler text)")
            world.backup.back_up(BasebackupSource(server=cluster.server), day=date(2026, 3, 22))
            common = _commits(world, "common", _A_STRETCH)
            cluster.stop()
            subprocess.run(["cp", "-a", cluster.postgres.data_directory, older], check=True)
            cluster.start()
            dead = _commits(world, "dead", _A_STRETCH)
            world.backup.back_up(BasebackupSource(server=cluster.server), day=date(2026, 3, 29))
            dead_base_at = _now(world)
            dead += _commits(world, "dead", _A_STRETCH, first=_A_STRETCH)
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run().problems == []

            cluster.destroy()
            cluster.receiver.stop()
            unwritten_at = datetime.now(UTC)
            # Its newer segments are of a history that the promoted server knows nothing of.
            shutil.rmtree(cluster.wal_directory)
            older.rename(cluster.postgres.data_directory)
            cluster.start()
            cluster.promote()
            live = _commits(world, "live", _A_STRETCH)
            cluster.wait_until_received("00000002.history")
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run().problems == []
            cluster.destroy()
            yield Abandoned(world, common, dead, live, dead_base_at, unwritten_at)
    finally:
        cluster.discard()


@contextmanager
def promoted_by_mistake(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[WalWorld]:
    """A copy was promoted and given up soon after; the source lives on, on the timeline with the lower number."""
    cluster = cluster_template.copied()
    data = cluster.postgres.data_directory
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            cluster.sql("CREATE TABLE ledger (number serial, entry text, filler text)")
            world.backup.back_up(BasebackupSource(server=cluster.server), day=date(2026, 3, 22))
            _commits(world, "common", 1)
            cluster.stop()
            subprocess.run(["cp", "-a", data, cluster.home / "source"], check=True)
            cluster.start()
            cluster.promote()
            _commits(world, "mistaken", 1)
            cluster.wait_until_received("00000002.history")
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run().problems == []

            cluster.destroy()
            cluster.receiver.stop()
            shutil.rmtree(cluster.wal_directory)
            (cluster.home / "source").rename(data)
            cluster.start()
            _commits(world, "kept", 1)
            world.backup.back_up(BasebackupSource(server=cluster.server), day=date(2026, 3, 29))
            _commits(world, "kept", 1, first=1)
            cluster.wait_until_received(cluster.switch_wal())
            world.run()
            yield world
    finally:
        cluster.discard()


@contextmanager
def promoted_at_the_base_backups_end(
    stack: TestStack, cluster_template: ClusterTemplate, folder: Path
) -> Iterator[WalWorld]:
    """A base backup was brought back as it was, and lives on; what its source went on to commit is abandoned.

    :param folder: empty, and open to PostgreSQL's user.
    """
    cluster, data = cluster_template.copied(), folder / "brought back"
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            cluster.sql("CREATE TABLE ledger (number serial, entry text)")
            attempt = world.backup.back_up(BasebackupSource(server=cluster.server))
            cluster.sql("INSERT INTO ledger (entry) VALUES ('dead')")
            cluster.wait_until_received(cluster.switch_wal())
            assert world.run().problems == []
            cluster.destroy()
            cluster.receiver.stop()
            data.mkdir()
            tar = CommandLine(world.backup)("fetch", attempt.object_key).stdout
            subprocess.run(["tar", "--extract", f"--directory={data}"], input=tar, check=True)
            (folder / "nothing").mkdir()
            at_once = {"recovery_target": "immediate"}
            with RestoredServer(data, wal_directory=folder / "nothing", settings=at_once) as server:
                server.sql("INSERT INTO ledger (entry) VALUES ('live')")
                ((last,),) = server.sql("SELECT pg_walfile_name(pg_switch_wal())")
            for path in (data / "pg_wal").iterdir():
                if path.name == "00000002.history" or "00000002" < path.name <= last:
                    shutil.copyfile(path, cluster.wal_directory / path.name)
            assert world.run().problems == []
            yield world
    finally:
        cluster.discard()


def _commits(world: WalWorld, name: str, count: int, *, first: int = 0) -> list[Moment]:
    """Commit rows one by one, with enough between them to fill segments."""
    made = []
    for number in range(first, first + count):
        filler = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 20000))"
        world.cluster.sql(f"INSERT INTO ledger (entry, filler) VALUES (%s, {filler})", f"{name} {number}")
        made.append(_now(world))
    return made


def _now(world: WalWorld) -> Moment:
    ((at, lsn),) = world.cluster.sql("SELECT clock_timestamp(), pg_current_wal_lsn()::text")
    return Moment(at, parse_lsn(lsn))
