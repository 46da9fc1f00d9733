"""What a test of physical backups gets: PostgreSQL clusters of its own, whose WAL a real pg_receivewal keeps."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dev.ports import free_ports
from dev.servers.postgres import RUN_AS, Postgres
from dev.servers.source import SourceServer
from pv_backup.services.postgres import Server
from tests.support.places import new_directory

# What a base backup reads must be what production's server would have written.
_AS_IN_PRODUCTION = {"full_page_writes": "on", "synchronous_commit": "on"}
# SIGKILL leaves no dynamic shared memory behind when it lies in the data directory.
_GONE_WITH_THE_DATA = {"dynamic_shared_memory_type": "mmap"}
_SETTINGS = _AS_IN_PRODUCTION | _GONE_WITH_THE_DATA
_FINISHED = re.compile(r"[0-9A-F]{24}|[0-9A-F]{8}\.history")
_ROW_BYTES = 64 * 1024
_MEBIBYTE = 1024 * 1024


class SourceCluster(SourceServer):
    """A PostgreSQL cluster to back up and its pg_receivewal, in a directory of its own.

    :param home: a directory that PostgreSQL's user may pass through (:func:`open_directory`).
    :param passwords: of superuser, dumping role and pg_receivewal's role, by :class:`SourceServer`'s names for them.
    :param receiving: False: no pg_receivewal and no slot.
    :ivar dsn: libpq URI of the superuser, database ``postgres``.
    :ivar server: the same for the services.
    """

    def __init__(self, *, home: Path, passwords: dict[str, str], wal_segment_mb: int, receiving: bool = True) -> None:
        super().__init__(
            home=home,
            port=free_ports(["postgres"])["postgres"],
            durable=False,
            wal_segment_mb=wal_segment_mb,
            settings=_SETTINGS,
            **passwords,
        )
        self.home = home
        self._receiving = receiving
        self.superuser_dsn = self.dsn = self.postgres.dsn("postgres")
        self.dump_dsn = self.dsn_of_dump("postgres")
        self.server = Server({key: str(value) for key, value in conninfo_to_dict(self.dsn).items()})

    def start(self, *, receiving: bool | None = None) -> list[str]:
        """Start what does not run, pg_receivewal as the constructor was told."""
        return super().start(receiving=self._receiving if receiving is None else receiving)

    def sql(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, committed at once."""
        return query_all(self.dsn, query, *params)

    def write(self, megabytes: float) -> None:
        """Write that much WAL, in committed rows that do not compress."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS ballast (content bytea)")
            connection.execute("ALTER TABLE ballast ALTER content SET STORAGE EXTERNAL")
            with connection.cursor().copy("COPY ballast FROM STDIN (FORMAT binary)") as copy:
                copy.set_types(["bytea"])
                for _ in range(max(1, int(megabytes * _MEBIBYTE / _ROW_BYTES))):
                    copy.write_row([os.urandom(_ROW_BYTES)])

    def switch_wal(self) -> str:
        """Close the open segment, with at least one record in it; the name of the segment."""
        # Without a record since the last switch, pg_switch_wal does nothing.
        self.sql("SELECT pg_create_restore_point('switch')")
        ((name,),) = self.sql("SELECT pg_walfile_name(pg_switch_wal())")
        return str(name)

    def finished(self) -> list[str]:
        """The finished segments and timeline histories that pg_receivewal has written, sorted."""
        return sorted(path.name for path in self.wal_directory.iterdir() if _FINISHED.fullmatch(path.name))

    def wait_until_received(self, name: str, timeout_s: float = 60) -> None:
        """Wait until that file is finished in the WAL directory."""
        deadline = time.monotonic() + timeout_s
        while name not in self.finished():
            tail = "\n".join(self.receiver.log.read_text().splitlines()[-10:])
            assert time.monotonic() < deadline, f"no {name} in {timeout_s} s, but {self.finished()}:\n{tail}"
            time.sleep(0.02)

    def promote(self) -> None:
        """Switch the timeline: the same data directory comes back as a standby and is promoted."""
        self.postgres.stop()
        signal_file = self.postgres.data_directory / "standby.signal"
        signal_file.touch()
        _hand_to_postgres(signal_file)
        # It would wait for 5 s before it connects again.
        self.receiver.stop()
        self.postgres.start()
        if self._receiving:
            self.start_receiving()
        assert self.sql("SELECT pg_promote(true, 180)") == [(True,)], "the promotion did not end in 180 s"

    def add_tablespace(self, name: str) -> Path:
        """Make a tablespace outside the data directory; where it lies."""
        location = self.home / "tablespaces" / name
        location.mkdir(parents=True)
        _hand_to_postgres(location)
        self.sql(f"CREATE TABLESPACE {name} LOCATION '{location}'")
        return location

    def destroy(self) -> None:
        """Lose the machine: SIGKILL for every process of the server, no file of it left; pg_receivewal lives on."""
        self.postgres.destroy()
        shutil.rmtree(self.home / "tablespaces", ignore_errors=True)

    def discard(self) -> None:
        """Leave nothing behind, as fast as possible."""
        self.receiver.kill()
        self.postgres.kill()
        shutil.rmtree(self.home)


class ClusterTemplate:
    """Makes clusters: as copies of one that was made once (0.1 s), or anew, with another system identifier (1 s)."""

    def __init__(self) -> None:
        self._home = open_directory()
        roles = ("password", "dump_password", "receiver_password")
        self._passwords = {name: secrets.token_urlsafe(24) for name in roles}

    def copied(self) -> SourceCluster:
        """A cluster with WAL files of 1 MiB, so that a few rows make many; all copies are the same cluster."""
        cluster = SourceCluster(home=open_directory(), passwords=self._passwords, wal_segment_mb=1)
        cluster.postgres.home.mkdir()
        subprocess.run(["cp", "-a", self._data(), cluster.postgres.data_directory], check=True)
        cluster.start()
        return cluster

    def new(self, *, wal_segment_mb: int = 16, receiving: bool = True) -> SourceCluster:
        """A cluster that is the copy of no other."""
        cluster = SourceCluster(
            home=open_directory(), passwords=self._passwords, wal_segment_mb=wal_segment_mb, receiving=receiving
        )
        cluster.start()
        return cluster

    @cache  # noqa: B019 - one template a session
    def _data(self) -> Path:
        template = Postgres(
            home=self._home / "template",
            port=free_ports(["postgres"])["postgres"],
            password=self._passwords["password"],
            durable=False,
            wal_segment_mb=1,
        )
        template.start()
        template.stop()
        return template.data_directory

    def discard(self) -> None:
        """Remove the template."""
        shutil.rmtree(self._home)


def open_directory() -> Path:
    """A new directory that PostgreSQL's user may pass through; pytest's own are closed to it."""
    directory = new_directory("pv-backup-cluster-")
    directory.chmod(0o711)
    return directory


def query_all(dsn: str, query: str, *params: Any) -> list[tuple[Any, ...]]:
    """The rows of one statement, in a connection of its own, committed at once."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query, params or None)
        return cursor.fetchall() if cursor.description else []


def _hand_to_postgres(path: Path) -> None:
    if RUN_AS:
        shutil.chown(path, RUN_AS, RUN_AS)
