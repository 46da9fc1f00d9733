"""A set of finished WAL segments, as pg_receivewal wrote them, for every contender alike.

The load writes, in rounds: scattered updates of pgbench's accounts, which log a whole page where it is the first change
after a checkpoint (3 MiB of WAL); rows of text and JSON (2 MiB); documents that do not compress (1 MiB).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import psycopg

from dev.bench.dataset import DOCUMENT_BYTES, MEBIBYTE, statements
from dev.bench.world import DATABASE, World
from dev.servers.postgres import BIN_DIR
from pv_backup.services.wal import SegmentName

# 380 MiB: a table that does not pass by as a whole between two checkpoints.
_PGBENCH_SCALE = 30
# Comes again after three segments; each is compressed by itself.
_TEXT_BYTES = 16 * MEBIBYTE
# 200 accounts a round, each on a page of its own; the golden section spreads the rounds over the other pages.
_STRIDE, _STEP = 15013, 9279
_UPDATE = """
UPDATE pgbench_accounts SET abalance = abalance + 1
 WHERE aid IN (SELECT generate_series(%s::int, (SELECT max(aid) FROM pgbench_accounts), %s))
"""


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
    pgbench: list[str | Path] = [BIN_DIR / "pgbench", "--initialize", "--quiet", f"--scale={_PGBENCH_SCALE}", dsn]
    subprocess.run(pgbench, check=True, capture_output=True)
    # The slot comes after the tables: what filled them is not part of the set.
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE wal_statement (id bigint, taken_at timestamptz, attributes jsonb, body text)")
        connection.execute("CREATE TABLE wal_document (content bytea)")
        connection.execute("ALTER TABLE wal_document ALTER content SET STORAGE EXTERNAL")
        connection.execute("CHECKPOINT")
        world.source.start_receiving()
        rows = cycle(statements(_TEXT_BYTES))
        turn = 0
        while len(_finished(world.source.wal_directory)) < count:
            turn += 1
            connection.execute(_UPDATE, [turn * _STEP % _STRIDE, _STRIDE])
            with connection.cursor().copy("COPY wal_statement FROM STDIN") as copy:
                for _ in range(2048):
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
