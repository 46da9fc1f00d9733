"""The bucket as its administrator sees it, who can also do to it what must never happen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pv_backup.services.artefacts import invalid_mark_key, manifest_key
from tests.support.servers import Bucket


class BucketView:
    """Looks into a bucket past the code under test, and tampers with it.

    :param bucket: the test's own bucket.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.name = bucket.name
        self._s3: Any = bucket.admin

    def keys(self) -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return sorted(entry["Key"] for page in pages for entry in page.get("Contents", []))

    def open_uploads(self) -> list[str]:
        """Keys of the multipart uploads that nobody has completed or aborted."""
        listing = self._s3.list_multipart_uploads(Bucket=self.name)
        return [upload["Key"] for upload in listing.get("Uploads", [])]

    def is_untouched(self) -> bool:
        """Whether nothing was ever left here: no object, no old version, no open upload."""
        return not self.keys() and not self.versions() and not self.open_uploads()

    def versions(self, key: str = "") -> list[str]:
        listing = self._s3.list_object_versions(Bucket=self.name, Prefix=key)
        return [version["Key"] for version in listing.get("Versions", []) if not key or version["Key"] == key]

    def head(self, key: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._s3.head_object(Bucket=self.name, Key=key)
        return answer

    def body(self, key: str) -> bytes:
        raw: bytes = self._s3.get_object(Bucket=self.name, Key=key)["Body"].read()
        return raw

    def manifest(self, object_key: str) -> dict[str, Any] | None:
        return self._document(manifest_key(object_key))

    def mark(self, object_key: str) -> dict[str, Any] | None:
        return self._document(invalid_mark_key(object_key))

    def overwrite(self, key: str, body: bytes | None = None, metadata: Mapping[str, str] | None = None) -> None:
        """Put other bytes or other metadata in the place of what is there, and keep the rest."""
        standing = self.head(key)["Metadata"]
        self.put(key, self.body(key) if body is None else body, standing | dict(metadata or {}))

    def put(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> None:
        self._s3.put_object(Bucket=self.name, Key=key, Body=body, Metadata=dict(metadata or {}))

    def copy_in_parts(self, key: str) -> None:
        """Store the same bytes and metadata as a multipart upload, whose ETag is no digest of the bytes."""
        upload = {"Bucket": self.name, "Key": key}
        body = self.body(key)
        upload["UploadId"] = self._s3.create_multipart_upload(**upload, Metadata=self.head(key)["Metadata"])["UploadId"]
        part = {"PartNumber": 1, "ETag": self._s3.upload_part(**upload, PartNumber=1, Body=body)["ETag"]}
        self._s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": [part]})

    def put_manifest(self, object_key: str, document: Mapping[str, Any]) -> None:
        self.put(manifest_key(object_key), json.dumps(document).encode())

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self.name, Key=key)

    def bring_back(self, key: str) -> None:
        """Remove the delete marker, as an administrator does with what should not have gone."""
        for marker in self._s3.list_object_versions(Bucket=self.name, Prefix=key)["DeleteMarkers"]:
            self._s3.delete_object(Bucket=self.name, Key=key, VersionId=marker["VersionId"])

    def empty(self) -> None:
        """Delete every object, as a lifecycle does: older versions stay."""
        standing = self.keys()
        for key in standing:
            self.delete(key)

    def begin_upload(self, key: str) -> None:
        """What a worker leaves that died in the middle of an upload."""
        upload_id = self._s3.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        self._s3.upload_part(Bucket=self.name, Key=key, UploadId=upload_id, PartNumber=1, Body=b"half an artefact")

    def _document(self, key: str) -> dict[str, Any] | None:
        if key not in self.keys():
            return None
        document: dict[str, Any] = json.loads(self.body(key))
        return document
