"""A bucket with Object Lock: S3 demands a checksum of each upload there, and keeps every version (TC-INF-01)."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session

from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from dev.servers.seaweedfs import REGION
from pv_backup.hooks.backup_store import BackupStoreHook
from pv_backup.services.progress import Progress
from pv_backup.services.settings import Settings
from tests.integration.backup_world import KEY, MEBIBYTE
from tests.support.servers import Bucket, TestStack

pytestmark = pytest.mark.case("TC-INF-01")

PART_BYTES = 5 * MEBIBYTE
DOCUMENT = "2026/03/backup_20260329.manifest.json"
# Of AWS's own: what an upload to such a bucket is refused without.
CHECKSUM = "x-amz-checksum-crc32"
WITH_CHECKSUMS = {"config_kwargs": {"request_checksum_calculation": "when_supported"}}


@pytest.fixture
def locked(stack: TestStack, bucket: Bucket) -> Bucket:
    name = f"{bucket.name}-locked"
    bucket.admin.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    retention = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    bucket.admin.put_object_lock_configuration(
        Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": retention}
    )
    return Bucket(name=name, admin=bucket.admin, user=bucket.user)


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The headers of each request that carries bytes of ours, as they are sent."""
    seen: list[dict[str, str]] = []
    send = URLLib3Session.send

    def watched(self: URLLib3Session, request: Any) -> Any:
        if request.method == "PUT":
            seen.append({name.lower(): value for name, value in request.headers.items()})
        return send(self, request)

    monkeypatch.setattr(URLLib3Session, "send", watched)
    return seen


def write_both(stack: TestStack, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any]) -> bytes:
    """An artefact of two parts and a document, through the hook; gives the artefact's bytes."""
    key = stack.backup_user
    connection = {
        "conn_type": "aws",
        "login": key.access_key,
        "password": key.secret_key,
        "extra": {"endpoint_url": stack.s3.endpoint, "region_name": REGION} | extra,
    }
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_S3", json.dumps(connection))
    store = BackupStoreHook().object_store(Settings(bucket=bucket.name, kms_key_id=SSE_KEY, transit_key=TRANSIT_KEY))
    body = os.urandom(PART_BYTES + MEBIBYTE)
    upload = store.begin_upload(
        KEY, metadata={}, replace_etag=None, part_bytes=PART_BYTES, expected_bytes=0, progress=Progress(label=KEY)
    )
    for start in range(0, len(body), MEBIBYTE):
        upload.write(body[start : start + MEBIBYTE])
    upload.complete(permit=lambda: None)
    store.put_document(DOCUMENT, {"day": "2026-03-29"}, replace_etag=None, permit=lambda: None)
    return body


def test_a_connection_that_asks_for_checksums_sends_one_with_each_upload(stack, locked, monkeypatch, uploads):
    body = write_both(stack, locked, monkeypatch, WITH_CHECKSUMS)

    assert len(uploads) == 3
    assert all(CHECKSUM in headers for headers in uploads)
    assert locked.user.get_object(Bucket=locked.name, Key=KEY)["Body"].read() == body


def test_what_was_uploaded_can_be_deleted_by_nobody(stack, locked, monkeypatch):
    write_both(stack, locked, monkeypatch, WITH_CHECKSUMS)

    for version in locked.admin.list_object_versions(Bucket=locked.name)["Versions"]:
        with pytest.raises(ClientError, match="AccessDenied"):
            locked.admin.delete_object(Bucket=locked.name, Key=version["Key"], VersionId=version["VersionId"])
        with pytest.raises(ClientError, match="AccessDenied"):
            locked.admin.delete_object(
                Bucket=locked.name, Key=version["Key"], VersionId=version["VersionId"], BypassGovernanceRetention=True
            )


def test_without_being_asked_none_is_computed(stack, bucket, monkeypatch, uploads):
    write_both(stack, bucket, monkeypatch, {})

    assert len(uploads) == 3
    assert not any(name.startswith("x-amz-checksum") for headers in uploads for name in headers)
