"""What the tests of a whole backup share: the steps of a run on real servers, with the rights that production has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import boto3
import hvac
import psycopg
from botocore.config import Config
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.orm import sessionmaker

from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from dev.servers.seaweedfs import REGION
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.database import engine_for
from pv_backup.services.export_sources import DumpSource, ExportSource
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.key_wrapping import TransitKeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.pipeline import Streamed
from pv_backup.services.postgres import Server
from pv_backup.services.publication import publish
from pv_backup.services.run_start import start_attempt
from pv_backup.services.s3_client import CLIENT_OPTIONS
from pv_backup.services.settings import Settings
from pv_backup.services.state import Attempt
from pv_backup.services.verification import read_back
from pv_backup.services.workbench import Workbench
from tests.integration.bucket_view import BucketView
from tests.integration.journal_world import JournalWorld
from tests.support.servers import Bucket, JournalDatabase, Source, TestStack

DAY = date(2026, 3, 29)
KEY = "2026/03/backup_20260329.enc"
MEBIBYTE = 1024 * 1024


class _Watched:
    """A real export during which something happens: after so many bytes of the tool's output the incident is called.

    :ivar started: whether the tool was ever started.
    :ivar passed_bytes: how far the stream took its output.
    """

    def __init__(self, *, after_bytes: int = 0, incident: Callable[[], None] = lambda: None, **source: Any) -> None:
        super().__init__(**source)
        self._after_bytes = after_bytes
        self._incident = incident
        self.started = False
        self.passed_bytes = 0

    def chunks(self) -> Iterator[bytes]:
        self.started = True
        happened = False
        for chunk in super().chunks():
            yield chunk
            self.passed_bytes += len(chunk)
            if self.passed_bytes >= self._after_bytes and not happened:
                happened = True
                self._incident()


class WatchedDump(_Watched, DumpSource):
    """A dump with an incident."""


class WatchedBasebackup(_Watched, BasebackupSource):
    """A base backup with an incident."""


@dataclass(frozen=True, kw_only=True)
class BackupWorld:
    """The steps of a run, and what they left in bucket and journal."""

    bench: Workbench
    server: Server
    source: Source
    journal: JournalWorld
    bucket: BucketView
    stack: TestStack

    def fill(self, mebibytes: int = 1) -> None:
        """A table of that many MiB that zstd cannot shrink: a dump writes it as twice as many hex digits."""
        with psycopg.connect(self.source.superuser_dsn) as connection:
            connection.execute("CREATE TABLE document (id int PRIMARY KEY, sealed bytea NOT NULL)")
            connection.execute("ALTER TABLE document ALTER sealed SET STORAGE EXTERNAL")
            rows = ((n, os.urandom(MEBIBYTE // 4)) for n in range(4 * mebibytes))
            connection.cursor().executemany("INSERT INTO document VALUES (%s, %s)", rows)

    def open(
        self, *, artefact_type: ArtefactType = ArtefactType.PG_DUMP, day: date = DAY, run_id: str = "run 1"
    ) -> Attempt:
        return start_attempt(self.bench, artefact_type=artefact_type, day=day, run_id=run_id, reason="a test")

    def export(self, attempt: Attempt, source: ExportSource | None = None) -> Streamed:
        held, keeper = self.bench.keep_lease(attempt.backup_id)
        with keeper:
            return ArtefactExport(
                bench=self.bench, attempt=held, source=source or DumpSource(server=self.server), keeper=keeper
            ).run()

    def verify(self, attempt: Attempt) -> None:
        held, keeper = self.bench.keep_lease(attempt.backup_id)
        with keeper:
            read_back(self.bench, held, keeper)

    def publish(self, attempt: Attempt) -> Manifest:
        held, keeper = self.bench.keep_lease(attempt.backup_id)
        with keeper:
            return publish(self.bench, held, keeper)

    def succeed(self, attempt: Attempt) -> None:
        self.bench.machine.succeed(self.bench.leases.acquire(attempt.backup_id, self.bench.settings.lease_s))

    def exported(self) -> Attempt:
        """An attempt whose object is in the bucket and neither verified nor published."""
        attempt = self.open()
        self.export(attempt)
        return attempt

    def back_up(self, source: ExportSource | None = None, *, day: date = DAY) -> Attempt:
        """All steps of a run, from the opened day to SUCCESS."""
        source = source or DumpSource(server=self.server)
        attempt = self.open(artefact_type=source.artefact_type, day=day)
        self.export(attempt, source)
        self.verify(attempt)
        self.publish(attempt)
        self.succeed(attempt)
        return attempt

    def watched(self, incident: Callable[[], None], *, after_bytes: int = MEBIBYTE) -> WatchedDump:
        return WatchedDump(server=self.server, after_bytes=after_bytes, incident=incident)

    def with_bench(self, **parts: Any) -> BackupWorld:
        """The same world seen by a worker whose workbench differs in those parts."""
        return replace(self, bench=replace(self.bench, **parts))

    def store_at(self, endpoint: str, *, timeout_s: float = 60) -> ObjectStore:
        """The bucket through another address, such as a network that can be cut."""
        return ObjectStore(
            client=s3_client(self.stack, endpoint), bucket=self.bucket.name, kms_key_id=SSE_KEY, timeout_s=timeout_s
        )


def s3_client(stack: TestStack, endpoint: str) -> Any:
    """A client as the backup makes it, with the least-privilege credentials of `backup_user`."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name=REGION,
        aws_access_key_id=stack.backup_user.access_key,
        aws_secret_access_key=stack.backup_user.secret_key,
        config=Config(**CLIENT_OPTIONS),
    )


@contextmanager
def backup_world(
    stack: TestStack,
    source_db: Source,
    journal_db: JournalDatabase,
    bucket: Bucket,
    *,
    journal_dsn: str | None = None,
    **settings: int,
) -> Iterator[BackupWorld]:
    """The world on those fixtures, its connections closed at the end.

    :param journal_dsn: another way to the journal, such as a network that can be cut.
    :param settings: of SPEC section 5, where a test wants other values than the defaults.
    """
    rules = Settings(bucket=bucket.name, kms_key_id=SSE_KEY, transit_key=TRANSIT_KEY, **settings)
    vault = hvac.Client(url=stack.vault.address, token=stack.backup_token, timeout=10)
    engine = engine_for(journal_dsn or journal_db.service_dsn)
    sessions = sessionmaker(engine)
    store = ObjectStore(
        client=s3_client(stack, stack.s3.endpoint),
        bucket=bucket.name,
        kms_key_id=SSE_KEY,
        timeout_s=rules.timeout_upload_s,
    )
    bench = Workbench.over(
        rules, store=store, keys=TransitKeyWrapper(client=vault, key_name=TRANSIT_KEY), sessions=sessions
    )
    try:
        yield BackupWorld(
            bench=bench,
            server=Server(conninfo_to_dict(source_db.dump_dsn)),
            source=source_db,
            journal=JournalWorld(sessions, journal_db.superuser_dsn),
            bucket=BucketView(bucket),
            stack=stack,
        )
    finally:
        engine.dispose()
