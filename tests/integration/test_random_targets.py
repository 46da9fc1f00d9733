"""Any target at all: through a load, a base backup with a tablespace in the middle of it, and a timeline switch.

`RANDOM_TARGETS_SEED` draws others; a failure names the seed that it was drawn by.
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - to draw targets, reproducibly; no identifier comes from it
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import IntegrityError
from pv_backup.services.manifest import stored_header
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.cluster import ClusterRestore
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import SegmentName, parse_lsn
from tests.integration.wal_world import Moment, WalWorld, wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-NOM-02")]

SEED = int(os.environ.get("RANDOM_TARGETS_SEED", "47"))
COMMITS_A_STRETCH = 40
TABLES = """
CREATE TABLE near (entry int PRIMARY KEY, filler text);
CREATE TABLE far (entry int PRIMARY KEY USING INDEX TABLESPACE vault, filler text) TABLESPACE vault;
"""
FILLER = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 2000))"


@dataclass(frozen=True)
class Commit:
    """A transaction of the ledger.

    :ivar before: right before it began.
    :ivar within: while it had written something, and was about to write more.
    :ivar after: right after its commit.
    :ivar near: the entries that were in the default tablespace from then on, and in the other one.
    """

    before: Moment
    within: Moment
    after: Moment
    near: frozenset[int]
    far: frozenset[int]


class Ledger:
    """Commits, one after the other, and remembers what was there after each."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.commits: list[Commit] = []
        self._near: set[int] = set()
        self._far: set[int] = set()

    def write(self, count: int, *, until: Event | None = None) -> None:
        """So many commits, or more, until somebody says that it is enough."""
        with psycopg.connect(self._dsn) as connection:
            while count > 0 or (until and not until.is_set()):
                self._commit(connection, len(self.commits))
                count -= 1

    def _commit(self, connection: psycopg.Connection, entry: int) -> None:
        before = _moment(connection)
        connection.execute(f"INSERT INTO near VALUES (%s, {FILLER})", [entry])
        within = _moment(connection)
        connection.execute(f"INSERT INTO far VALUES (%s, {FILLER})", [entry])
        self._near.add(entry)
        self._far.add(entry)
        if entry % 7 == 3:
            connection.execute("DELETE FROM near WHERE entry = %s", [entry - 2])
            connection.execute("UPDATE far SET entry = -entry WHERE entry = %s", [entry - 1])
            self._near.discard(entry - 2)
            self._far ^= {entry - 1, 1 - entry}
        connection.commit()
        self.commits.append(Commit(before, within, _moment(connection), frozenset(self._near), frozenset(self._far)))
        if entry % 5 == 4:
            connection.execute("INSERT INTO near VALUES (1000000, 'never committed'); DELETE FROM far")
        connection.rollback()


def _moment(connection: psycopg.Connection) -> Moment:
    at, lsn = one_row(connection, "SELECT clock_timestamp(), pg_current_wal_insert_lsn()::text")
    return Moment(at, parse_lsn(lsn))


@dataclass(frozen=True)
class Lost:
    """What is left of the cluster, and the commits since its base backup, each with the one after it."""

    world: WalWorld
    steps: list[tuple[Commit, Commit]]
    switched_at: int

    @contextmanager
    def restored(self, target: RecoveryTarget) -> Iterator[psycopg.Connection]:
        """A cluster that was recovered to there; it goes again."""
        bench, folder = self.world.bench, open_directory()
        try:
            restore = ClusterRestore(store=bench.store, keys=bench.keys, tools=Server({}), directory=folder / "data")
            with restore.recovered(target) as (server, _), server.connect("postgres") as connection:
                yield connection
        finally:
            shutil.rmtree(folder)

    def drawn(self, count: int) -> Iterator[tuple[RecoveryTarget, Commit]]:
        """Random targets, and the last commit that must be there: by turns a time and an LSN, two before and two after
        the timeline switch."""
        draw = random.Random(SEED)
        sides = [[step for step in self.steps if (step[0].after.lsn >= self.switched_at) == later] for later in (0, 1)]
        for number in range(count):
            last, following = draw.choice(sides[number // 2 % 2])
            if number % 2 == 0:
                between = following.before.at - last.after.at
                yield RecoveryTarget(time=last.after.at + draw.random() * between), last
            else:
                # Recovery goes on to the end of the record there, which is not the commit as long as more was written.
                yield RecoveryTarget(lsn=draw.randint(last.after.lsn, following.within.lsn)), last


@pytest.fixture(scope="module")
def lost(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lost]:
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    with wal_world(stack, cluster, journal, bucket) as world:
        cluster.add_tablespace("vault")
        cluster.sql(TABLES)
        ledger, enough = Ledger(cluster.dsn), Event()
        ledger.write(10)
        load = Thread(target=ledger.write, args=[10], kwargs={"until": enough})
        load.start()
        try:
            world.backup.back_up(BasebackupSource(server=cluster.server, staging=tmp_path_factory.mktemp("staging")))
        finally:
            enough.set()
            load.join()
        ledger.write(COMMITS_A_STRETCH)
        assert world.run(closer=world.closer(older_than_s=0)).problems == []
        cluster.promote()
        ((switched_at,),) = cluster.sql("SELECT pg_current_wal_lsn()::text")
        ledger.write(COMMITS_A_STRETCH)
        cluster.wait_until_received("00000002.history")
        assert world.run(closer=world.closer(older_than_s=0)).problems == []
        cluster.receiver.stop()
        cluster.destroy()
        shutil.rmtree(cluster.wal_directory)
        (manifest,) = published_backups(world.bench.store)
        assert manifest.tablespaces
        assert manifest.stopped_at
        stopped_at = datetime.fromisoformat(manifest.stopped_at)
        steps = [(last, after) for last, after in pairwise(ledger.commits) if last.after.at > stopped_at]
        yield Lost(world, steps, parse_lsn(switched_at))
    cluster.discard()


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_at_any_target_the_rows_are_those_of_the_ledger(lost: Lost, count: int):
    timelines = set()
    for number, (target, expected) in enumerate(lost.drawn(count)):
        where = f"target {number} of seed {SEED}: {target}"
        with lost.restored(target) as connection:
            found = {
                table: frozenset(entry for (entry,) in connection.execute(f"SELECT entry FROM {table}"))
                for table in ("near", "far")
            }
            (space,) = one_row(connection, "SELECT reltablespace <> 0 FROM pg_class WHERE relname = 'far'")
        assert found == {"near": expected.near, "far": expected.far}, where
        assert space, where
        timelines.add(expected.after.lsn >= lost.switched_at)
    assert timelines == {False, True}


@contextmanager
def changed(lost: Lost, key: str, place: int, bit: int) -> Iterator[str]:
    """The bucket with one bit of an object changed; what was done, in words."""
    bucket = lost.world.bucket
    body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
    bucket.put(key, body[:place] + bytes([body[place] ^ bit]) + body[place + 1 :], metadata)
    try:
        yield f"seed {SEED}: bit {bit} of byte {place} of {key}"
    finally:
        bucket.put(key, body, metadata)


@pytest.mark.parametrize("count", [3, pytest.param(20, marks=pytest.mark.soak)])
def test_a_byte_that_changed_anywhere_in_the_shipped_wal_ends_the_restoration_by_name(lost: Lost, count: int):
    draw = random.Random(SEED)
    (manifest,) = published_backups(lost.world.bench.store)
    assert manifest.wal_files
    needed = [name for name in lost.world.shipped() if SegmentName.parse(name) and name > manifest.wal_files[-1]]
    for _ in range(count):
        key = wal_object_key(draw.choice(needed))
        place, bit = draw.randrange(len(lost.world.bucket.body(key))), 1 << draw.randrange(8)
        with changed(lost, key, place, bit) as where:
            with pytest.raises(IntegrityError) as refused, lost.restored(RecoveryTarget()):
                pytest.fail(f"restored in spite of {where}")
            assert key in refused.value.what, where


@pytest.mark.parametrize("share", [10, pytest.param(1, marks=pytest.mark.soak)])
def test_whatever_byte_of_its_header_changed_the_file_is_named(lost: Lost, tmp_path: Path, share: int):
    bench, name = lost.world.bench, lost.world.shipped()[-1]
    key = wal_object_key(name)
    header = stored_header(bench.store, key)
    (manifest,) = published_backups(bench.store)
    archive = WalArchive(
        store=bench.store,
        keys=bench.keys,
        timeline=1,
        segment_bytes=1024 * 1024,
        system_identifier=manifest.system_identifier,
    )
    for place in range(SEED % share, len(header.raw), share):
        with changed(lost, key, place, 1 << place % 8) as where:
            with pytest.raises(IntegrityError) as refused:
                archive.fetch(name, tmp_path / name)
            assert key in refused.value.what, where
            assert not (tmp_path / name).exists(), where
