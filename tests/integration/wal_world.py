"""What the tests of WAL shipping share: files that a pg_receivewal wrote, and runs of the service on real servers."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import sessionmaker

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.compression import decompress
from pv_backup.services.database import engine_for
from pv_backup.services.journal import Journal
from pv_backup.services.manifest import stored_header
from pv_backup.services.progress import Progress
from pv_backup.services.verification import open_artefact
from pv_backup.services.wal import SegmentName, segment_of
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_run import WalReport, WalRun
from pv_backup.services.wal_spool import WalSpool, segment_header
from pv_backup.services.workbench import Workbench
from tests.integration.backup_world import MEBIBYTE, BackupWorld, backup_world
from tests.integration.bucket_view import BucketView
from tests.support.clusters import SourceCluster
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack

# xlp_pageaddr and xlp_seg_size, in the header of a segment's first page (XLogLongPageHeaderData of PostgreSQL 15).
_ADDRESS, _ADDRESS_OFFSET = struct.Struct("=Q"), 8
_SEGMENT_BYTES, _SEGMENT_BYTES_OFFSET = struct.Struct("=I"), 32
_PAGE_BYTES = 8192


@dataclass(frozen=True)
class RecordedWal:
    """What a pg_receivewal wrote of a cluster that was promoted once, kept for tests that need no server behind it.

    :ivar first: its finished segments of timeline 1, in their order; the one of the promotion is none of them.
    :ivar second: its segments of timeline 2.
    """

    directory: Path
    first: list[str]
    second: list[str]
    history: str = "00000002.history"

    def bytes(self, name: str) -> bytes:
        return (self.directory / name).read_bytes()

    @property
    def system_identifier(self) -> str:
        header = segment_header(self.directory / self.first[0])
        assert header is not None
        return header.system_identifier


@dataclass(frozen=True)
class ShippingWorld:
    """A directory of WAL files, and the bucket and journal that they go to."""

    backup: BackupWorld
    directory: Path

    @property
    def spool(self) -> WalSpool:
        return WalSpool(directory=self.directory)

    @property
    def bench(self) -> Workbench:
        return self.backup.bench

    @property
    def bucket(self) -> BucketView:
        return self.backup.bucket

    def queue(self, recorded: RecordedWal, *names: str) -> None:
        """Put files into the directory, as pg_receivewal left them."""
        for name in names:
            shutil.copy2(recorded.directory / name, self.directory)

    def waiting(self) -> list[str]:
        """Names of the finished files in the directory."""
        return [file.name for file in self.spool.files()]

    def run(self, *, bench: Workbench | None = None, closer: SegmentCloser | None = None, **options: Any) -> WalReport:
        """One run, by default without touching the source."""
        return WalRun(bench=bench or self.bench, spool=self.spool, closer=closer, **options).run()

    def shipped(self) -> list[str]:
        """Names of the WAL files in the bucket, sorted."""
        keys = [key for key in self.backup.bucket.keys() if key.startswith("wal/")]  # noqa: SIM118 - a view of ours
        return [key.removeprefix("wal/").removesuffix(".enc") for key in keys]

    def fetched(self, name: str) -> bytes:
        """A WAL file out of the bucket, by the services."""
        key = wal_object_key(name)
        with open_artefact(self.bench.store, self.bench.keys, key, Progress(label=key)) as artefact:
            return b"".join(decompress(artefact.plaintext))

    def events(self) -> list[dict[str, Any]]:
        """The journal's events of WAL files, oldest first."""
        return self.backup.journal.sql(
            "SELECT * FROM pv_backup.backup_journal_events WHERE type = 'wal' ORDER BY object_key, id"
        )

    def backup_id_of(self, name: str) -> str:
        """Which artefact the bucket has of a WAL file."""
        return stored_header(self.bench.store, wal_object_key(name)).context.backup_id

    def with_bench(self, **parts: Any) -> Workbench:
        return replace(self.bench, **parts)


@dataclass(frozen=True)
class WalWorld(ShippingWorld):
    """The same with a living cluster, whose pg_receivewal fills the directory."""

    cluster: SourceCluster

    def closer(self, **options: float) -> SegmentCloser:
        return SegmentCloser(server=self.cluster.server, spool=self.spool, **options)

    def segments(self, count: int) -> list[str]:
        """So many finished segments, received and not yet shipped; their names."""
        names = []
        for _ in range(count):
            self.cluster.write(0.2)
            names.append(self.cluster.switch_wal())
        self.cluster.wait_until_received(names[-1])
        return names


@contextmanager
def wal_world(
    stack: TestStack, cluster: SourceCluster, journal_db: JournalDatabase, bucket: Bucket, **settings: Any
) -> Iterator[WalWorld]:
    with backup_world(stack, cluster, journal_db, bucket, **settings) as backup:
        yield WalWorld(replace(backup, server=cluster.server), cluster.wal_directory, cluster)


@contextmanager
def shipping_world(
    stack: TestStack,
    source_db: SourceDatabase,
    journal_db: JournalDatabase,
    bucket: Bucket,
    directory: Path,
    **settings: Any,
) -> Iterator[ShippingWorld]:
    """The world without a cluster: 0.3 s where one with a cluster takes 1 s."""
    with backup_world(stack, source_db, journal_db, bucket, **settings) as backup:
        yield ShippingWorld(backup, directory)


def record(cluster: SourceCluster, directory: Path, *, segments: int = 12) -> RecordedWal:
    """Let a cluster write, be promoted, and write on; keep what its pg_receivewal made of it."""
    for _ in range(segments):
        cluster.write(0.1)
        cluster.switch_wal()
    cluster.promote()
    for _ in range(3):
        cluster.write(0.1)
        last = cluster.switch_wal()
    cluster.wait_until_received(last)
    names = cluster.finished()
    for name in names:
        shutil.copy2(cluster.wal_directory / name, directory)
    return RecordedWal(
        directory,
        first=[name for name in names if name.startswith("00000001") and SegmentName.parse(name)],
        second=[name for name in names if name.startswith("00000002") and SegmentName.parse(name)],
    )


def numbered(
    recorded: RecordedWal, directory: Path, *, first: int, count: int, segment_bytes: int = MEBIBYTE
) -> list[str]:
    """Put segments into the directory whose first page is a recorded one, with the address that each must have.

    The rest is random, hence incompressible, and no two are alike.

    :param first: the number of the first of them, counted from the beginning of all WAL.
    :returns: their names.
    """
    template = bytearray(recorded.bytes(recorded.first[0])[:_PAGE_BYTES] + os.urandom(segment_bytes - _PAGE_BYTES))
    _SEGMENT_BYTES.pack_into(template, _SEGMENT_BYTES_OFFSET, segment_bytes)
    names = []
    for lsn in range(first * segment_bytes, (first + count) * segment_bytes, segment_bytes):
        _ADDRESS.pack_into(template, _ADDRESS_OFFSET, lsn)
        template[-16:] = secrets.token_bytes(16)
        names.append(str(segment_of(lsn, 1, segment_bytes)))
        (directory / names[-1]).write_bytes(template)
    return names


@contextmanager
def journal_at(address: str) -> Iterator[Journal]:
    """A journal whose database is expected at another address."""
    engine = engine_for(f"postgresql://pv_backup_service@{address}/journal")
    try:
        yield Journal(sessionmaker(engine))
    finally:
        engine.dispose()


def found(report: WalReport) -> list[tuple[str, str]]:
    """(code, file) of each problem that a run met."""
    return [(problem.error.code, problem.subject) for problem in report.problems]


@dataclass(frozen=True)
class Moment:
    """Where a source stood, by its clock and its log."""

    at: datetime
    lsn: int


def wait_until(what: Callable[[], Any], *, meaning: str, timeout_s: float = 120) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < deadline, f"in {timeout_s:.0f} s never {meaning}"
        time.sleep(0.05)
    return answer
