"""The backup's flows on a real S3 server, done by a user who has one policy of terraform/policies and nothing else."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass, replace
from typing import Any

import boto3
from botocore.config import Config

from dev.provisioning import buckets
from dev.provisioning.keys import SSE_KEY
from dev.servers.seaweedfs import REGION, AccessKey
from pv_backup.services.artefacts import ArtefactType, manifest_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import RefusedError
from pv_backup.services.left_behind import LeftBehind
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.orphan_uploads import abort_orphans
from pv_backup.services.progress import Progress
from pv_backup.services.restoration.catalogue import published_backups, wal_keys
from pv_backup.services.s3_client import CLIENT_OPTIONS
from pv_backup.services.verification import Expected, copy_verified, verify_object
from tests.integration.backup_world import BackupWorld
from tests.integration.wal_world import WalWorld
from tests.support.servers import TestStack

FORGOTTEN = "2026/03/backup_20260330.enc"


def policy(user: str, *, bucket: str, without: str = "") -> str:
    """A user's policy for this one bucket, all of it or all but one action."""
    document = json.loads(buckets.policy_document(user, bucket_pattern=bucket))
    for statement in document["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        statement["Action"] = [action for action in actions if action != without]
    document["Statement"] = [statement for statement in document["Statement"] if statement["Action"]]
    return json.dumps(document)


def new_client(stack: TestStack, document: str, **options: Any) -> Any:
    """A client as the backup makes it, for a new user with that policy; the user goes with the stack.

    :param options: of botocore, which the connection may set.
    """
    key: AccessKey = buckets.ensure_user(stack.s3, f"limited-{uuid.uuid4().hex[:12]}", document)
    return boto3.client(
        "s3",
        endpoint_url=stack.s3.endpoint,
        region_name=REGION,
        aws_access_key_id=key.access_key,
        aws_secret_access_key=key.secret_key,
        config=Config(**CLIENT_OPTIONS | options),
    )


@dataclass(frozen=True)
class Flows:
    """What the system does with its bucket, by its own services; each ends in an assertion or in our own error."""

    world: WalWorld

    @classmethod
    def of(cls, world: WalWorld, client: Any) -> Flows:
        """The flows of a world, by that client instead of the one that all tests have."""
        settings = world.bench.settings
        store = ObjectStore(
            client=client, bucket=settings.bucket, kms_key_id=SSE_KEY, timeout_s=settings.timeout_upload_s
        )
        return cls(replace(world, backup=world.backup.with_bench(store=store)))

    @property
    def backup(self) -> BackupWorld:
        return self.world.backup

    @property
    def store(self) -> ObjectStore:
        return self.world.bench.store

    def daily_dump(self) -> None:
        """Upload in parts, read back, publish."""
        attempt = self.backup.back_up()
        assert self.backup.bucket.manifest(attempt.object_key) is not None

    def base_backup(self) -> None:
        attempt = self.backup.back_up(BasebackupSource(server=self.world.cluster.server))
        assert self.backup.bucket.manifest(attempt.object_key) is not None

    def wal_shipping(self) -> None:
        names = self.world.segments(2)
        report = self.world.run()
        for problem in report.problems:
            raise problem.error
        assert set(names) <= set(self.world.shipped())

    def reconciliation(self) -> None:
        """Find what a dead worker left half uploaded, and abort it."""
        self.backup.bucket.begin_upload(FORGOTTEN)
        left_behind = LeftBehind(self.backup.journal.sessions)
        abort_orphans(self.store, left_behind, timeout_upload_s=60, attempt=lambda act: act())
        assert FORGOTTEN not in self.backup.bucket.open_uploads()

    def listing(self) -> None:
        """As `list`, the drill and a recovery do: every published backup, every WAL file."""
        assert {backup.backup_type for backup in published_backups(self.store)} == {
            ArtefactType.PG_DUMP,
            ArtefactType.BASEBACKUP,
        }
        assert list(wal_keys(self.store))

    def restoring(self) -> None:
        """Verify the dump, then read it as pg_restore gets it."""
        dump = self._dump()
        keys, content = self.world.bench.keys, io.BytesIO()
        verify_object(self.store, keys, dump.key, Expected.by_manifest(dump))
        progress = Progress(label=dump.key, downloads=True)
        copy_verified(self.store, keys, dump.key, Expected.by_manifest(dump), content, progress=progress)
        assert content.getvalue().startswith(b"PGDMP")

    def writing_once(self) -> None:
        """What is published stands, whoever comes second."""
        dump = self._dump()
        before = self.backup.bucket.body(manifest_key(dump.key))
        try:
            self.store.put_once(manifest_key(dump.key), b"{}", content_type="application/json")
        except RefusedError:
            pass
        else:
            raise AssertionError("a published manifest was replaced")
        assert self.backup.bucket.body(manifest_key(dump.key)) == before

    def parts_of_the_dump(self) -> int:
        """In how many parts it was uploaded, as its ETag says."""
        etag = self.backup.bucket.head(self._dump().key)["ETag"].strip('"')
        return int(etag.rpartition("-")[2])

    def _dump(self) -> Manifest:
        (dump,) = published_backups(self.store, (ArtefactType.PG_DUMP,))
        return dump
