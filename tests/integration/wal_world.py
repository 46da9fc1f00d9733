"""What the tests of WAL shipping share: a cluster with pg_receivewal, and runs of the service on the real servers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.compression import decompress
from pv_backup.services.progress import Progress
from pv_backup.services.verification import open_artefact
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_run import WalReport, WalRun
from pv_backup.services.wal_spool import WalSpool
from pv_backup.services.workbench import Workbench
from tests.integration.backup_world import BackupWorld, backup_world
from tests.support.clusters import SourceCluster
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack


@dataclass(frozen=True)
class WalWorld:
    """A cluster, the directory of its pg_receivewal, and the bucket that its WAL goes to."""

    backup: BackupWorld
    cluster: SourceCluster

    @property
    def spool(self) -> WalSpool:
        return WalSpool(directory=self.cluster.wal_directory)

    @property
    def bench(self) -> Workbench:
        return self.backup.bench

    def closer(self, **options: float) -> SegmentCloser:
        return SegmentCloser(server=self.cluster.server, spool=self.spool, **options)

    def run(self, *, bench: Workbench | None = None, closer: SegmentCloser | None = None, **options: Any) -> WalReport:
        """One run, by default without touching the source."""
        return WalRun(bench=bench or self.bench, spool=self.spool, closer=closer, **options).run()

    def segments(self, count: int) -> list[str]:
        """So many finished segments, received and not yet shipped; their names."""
        names = []
        for _ in range(count):
            self.cluster.write(0.2)
            names.append(self.cluster.switch_wal())
        self.cluster.wait_until_received(names[-1])
        return names

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

    def with_bench(self, **parts: Any) -> Workbench:
        return replace(self.bench, **parts)


@contextmanager
def wal_world(
    stack: TestStack,
    source_db: SourceDatabase,
    journal_db: JournalDatabase,
    bucket: Bucket,
    cluster: SourceCluster,
    **settings: Any,
) -> Iterator[WalWorld]:
    with backup_world(stack, source_db, journal_db, bucket, **settings) as backup:
        yield WalWorld(replace(backup, server=cluster.server), cluster)


def wait_until(what: Callable[[], Any], *, meaning: str, timeout_s: float = 30) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := what()):
        assert time.monotonic() < deadline, f"in {timeout_s:.0f} s never {meaning}"
        time.sleep(0.05)
    return answer
