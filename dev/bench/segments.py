"""A set of finished WAL segments, as pg_receivewal wrote them, for every contender alike.

The load writes, in rounds: scattered updates of an accounts table (pgbench's, of scale 10), which after each checkpoint
log whole pages first; rows of text and JSON; documents that do not compress. Of each of the two latter 1 MiB for about
2 MiB of the first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from dev.bench.dataset import DOCUMENT_BYTES, MEBIBYTE, statements
from dev.bench.world import DATABASE, World
from dev.servers.postgres import BIN_DIR
from pv_backup.services.wal import SegmentName

_PGBENCH_SCALE = 10
# One account in 4001 is one on every 66th page or so.
_STRIDE = 4001
_UPDATE = f"UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid %% {_STRIDE} = %s"


@dataclass(frozen=True)
class SegmentSet:
    """Finished segments of 16 MiB, in order, and what belongs to the cluster that wrote them.

    :ivar data_directory: PGDATA of that cluster.
    """

    segments: list[Path]
    data_directory: Path

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments."""
        return sum(path.stat().st_size for path in self.segments)

    def compressed_bytes(self) -> int:
        """What `zstd -1` makes of them, each on its own."""
        return sum(
            len(subprocess.run(["zstd", "-q", "-1", "-c", path], check=True, capture_output=True).stdout)
            for path in self.segments
        )

    @contextmanager
    def as_spool(self, home: Path) -> Iterator[Path]:
        """The segments in a directory of their own, by hard links: a contender may remove its names of them."""
        directory = home / "spool"
        directory.mkdir(mode=0o700)
        try:
            for path in self.segments:
                (directory / path.name).hardlink_to(path)
            yield directory
        finally:
            shutil.rmtree(directory)

    @contextmanager
    def as_data_directory(self, home: Path) -> Iterator[Path]:
        """As much of a data directory as an `archive_command` looks at, with each segment ready to be archived."""
        data = home / "data"
        status = data / "pg_wal" / "archive_status"
        status.mkdir(parents=True)
        try:
            for needed in ("PG_VERSION", "global/pg_control"):
                (data / needed).parent.mkdir(exist_ok=True)
                shutil.copy(self.data_directory / needed, data / needed)
            for path in self.segments:
                (data / "pg_wal" / path.name).hardlink_to(path)
                (status / f"{path.name}.ready").touch()
            yield data
        finally:
            shutil.rmtree(data)


def write_segments(world: World, count: int) -> SegmentSet:
    """Put the load on the source until pg_receivewal has that many segments."""
    dsn = world.source.postgres.dsn(DATABASE)
    pgbench = [BIN_DIR / "pgbench", "--initialize", "--quiet", f"--scale={_PGBENCH_SCALE}", dsn]
    subprocess.run(pgbench, check=True, capture_output=True)
    # Before the slot exists: what made the tables is not part of the set.
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE wal_statement (id bigint, taken_at timestamptz, attributes jsonb, body text)")
        connection.execute("CREATE TABLE wal_document (content bytea)")
        connection.execute("ALTER TABLE wal_document ALTER content SET STORAGE EXTERNAL")
        world.source.start_receiving()
        rows = statements(count * 16 * MEBIBYTE)
        turn = 0
        while len(_finished(world.source.wal_directory)) < count:
            turn += 1
            connection.execute(_UPDATE, [turn % _STRIDE])
            with connection.cursor().copy("COPY wal_statement FROM STDIN") as copy:
                for _ in range(1024):
                    copy.write_row(next(rows))
            with connection.cursor().copy("COPY wal_document FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["bytea"])
                for _ in range(MEBIBYTE // DOCUMENT_BYTES):
                    copy.write_row([os.urandom(DOCUMENT_BYTES)])
    world.source.receiver.stop()
    segments = _finished(world.source.wal_directory)[:count]
    return SegmentSet(segments, world.source.postgres.data_directory)


def _finished(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if SegmentName.parse(path.name))
