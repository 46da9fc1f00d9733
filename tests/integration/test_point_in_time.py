"""The proof that it is enough: the source is destroyed, and bucket and key bring it back to any commit."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from pv_backup.services.artefacts import ArtefactType, object_key_of_day, wal_object_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.compression import decompress
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.progress import Progress
from pv_backup.services.verification import Expected, open_artefact, verify_object
from pv_backup.services.wal_objects import expected_of_wal
from tests.integration.backup_world import DAY
from tests.integration.wal_world import WalWorld, wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.restored_server import RestoredServer
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-02"), pytest.mark.case("TC-NOM-03")]

COMMITS_A_STRETCH = 20


@dataclass(frozen=True)
class Lost:
    """What is left when the source is gone: the bucket, the key, and what people remember of their commits.

    :ivar ledger: (row, the server's clock right after its commit), in the order of the commits.
    """

    world: WalWorld
    ledger: list[tuple[int, datetime]]

    def manifest(self) -> Manifest:
        manifest = published(self.world.bench.store, object_key_of_day(ArtefactType.BASEBACKUP, DAY))
        assert manifest is not None
        return manifest

    def fetch_cluster(self, data: Path) -> None:
        """The base backup's tar out of the bucket, its hash verified before it is unpacked."""
        bench, key = self.world.bench, self.manifest().key
        verify_object(bench.store, bench.keys, key, Expected.by_manifest(self.manifest()))
        archive = data.with_suffix(".tar")
        with archive.open("wb") as file, open_artefact(bench.store, bench.keys, key, Progress(label=key)) as artefact:
            file.writelines(decompress(artefact.plaintext))
        data.mkdir(mode=0o700)
        with tarfile.open(archive) as tar:
            tar.extractall(data)

    def fetch_wal(self, folder: Path) -> None:
        """Every WAL file of the bucket, each verified."""
        folder.mkdir()
        bench = self.world.bench
        for name in self.world.shipped():
            key = wal_object_key(name)
            verify_object(bench.store, bench.keys, key, expected_of_wal(bench.store, key))
            (folder / name).write_bytes(self.world.fetched(name))

    def restored(self, folder: Path, **settings: str) -> RestoredServer:
        self.fetch_cluster(folder / "data")
        self.fetch_wal(folder / "wal")
        return RestoredServer(folder / "data", wal_directory=folder / "wal", settings=settings)


@pytest.fixture(scope="module")
def lost(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Lost]:
    """A base backup, a load, a promotion, more load, all of it shipped; then the machine is lost."""
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    with wal_world(stack, cluster, journal, bucket) as world:
        cluster.sql("CREATE TABLE ledger (entry int PRIMARY KEY, filler text)")
        ledger = commits(world, first=0)
        world.backup.back_up(BasebackupSource(server=cluster.server))
        ledger += commits(world, first=len(ledger))
        assert world.run(closer=world.closer(older_than_s=0)).problems == []
        cluster.promote()
        ledger += commits(world, first=len(ledger))
        cluster.wait_until_received("00000002.history")
        assert world.run(closer=world.closer(older_than_s=0)).problems == []
        cluster.receiver.stop()
        cluster.destroy()
        shutil.rmtree(cluster.wal_directory)
        yield Lost(world, ledger)
    cluster.discard()


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_directory()
    yield folder
    shutil.rmtree(folder)


def commits(world: WalWorld, *, first: int) -> list[tuple[int, datetime]]:
    """Commit rows one by one, with enough between them to fill several segments."""
    made = []
    for entry in range(first, first + COMMITS_A_STRETCH):
        world.cluster.sql("INSERT INTO ledger VALUES (%s, repeat(md5(random()::text), 4000))", entry)
        ((at,),) = world.cluster.sql("SELECT clock_timestamp()")
        made.append((entry, at))
    return made


def entries(server: RestoredServer) -> list[int]:
    return [entry for (entry,) in server.sql("SELECT entry FROM ledger ORDER BY entry")]


def test_the_last_shipped_commit_is_reached_across_the_promotion(lost: Lost, folder: Path):
    with lost.restored(folder) as server:
        assert entries(server) == [entry for entry, _ in lost.ledger]


@pytest.mark.parametrize("place", [COMMITS_A_STRETCH + 3, 2 * COMMITS_A_STRETCH + 7], ids=["before", "after"])
def test_a_second_in_between_is_reached_to_the_row(lost: Lost, folder: Path, place: int):
    target = lost.ledger[place][1].isoformat()

    with lost.restored(folder, recovery_target_time=target) as server:
        assert entries(server) == [entry for entry, _ in lost.ledger[: place + 1]]


def test_the_wal_that_the_manifest_asks_for_is_in_the_bucket(lost: Lost):
    manifest = lost.manifest()

    assert manifest.wal_files
    assert set(manifest.wal_files) <= set(lost.world.shipped())
