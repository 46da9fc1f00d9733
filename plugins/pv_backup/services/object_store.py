"""The bucket, as the backup sees it: stream up, stream down, documents beside the objects.

Every write carries SSE-KMS with the backup's own key and a condition, so that nothing that stands is
overwritten unseen (SPEC sections 2 and 3). Nothing here deletes an object: the backup user may not.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_exponential_jitter

from pv_backup.services import s3_errors
from pv_backup.services.errors import (
    ConfigurationError,
    RefusedError,
    StoreUnavailable,
)
from pv_backup.services.multipart import ArtefactUpload, Target
from pv_backup.services.object_reader import ObjectReader, StoredObject, stored_object
from pv_backup.services.part_sizes import part_sizes
from pv_backup.services.progress import Progress

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_SHORT_CALL_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Document:
    """A JSON document beside an object, with the ETag under which it may be replaced."""

    body: Mapping[str, Any]
    etag: str


@dataclass(frozen=True)
class OpenUpload:
    """A multipart upload that was begun and neither completed nor aborted.

    :ivar open_for: since its beginning, by the bucket's own clock.
    """

    key: str
    upload_id: str
    open_for: timedelta


class ObjectStore:
    """Reads and writes artefacts and their documents in one bucket.

    :param client: a boto3 S3 client whose own retries are off; retrying is decided here.
    :param kms_key_id: the KMS key of `SSEKMSKeyId`.
    :param timeout_s: `timeout_upload_s`, seconds without progress after which a stream gives up.
    """

    def __init__(self, *, client: Any, bucket: str, kms_key_id: str, timeout_s: float) -> None:
        self._client = client
        self._bucket = bucket
        self._encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id}
        self._timeout_s = timeout_s

    @property
    def bucket(self) -> str:
        """The bucket's name, for messages and manifests."""
        return self._bucket

    def head(self, key: str) -> StoredObject | None:
        """Look whether an object is there, and what its metadata says.

        :raises StoreUnavailable: if S3 does not answer.
        :raises ConfigurationError: if S3 refuses.
        """
        try:
            answer = self._short(key, lambda: self._client.head_object(Bucket=self._bucket, Key=key))
        except FileNotFoundError:
            return None
        return stored_object(key, answer)

    def begin_upload(
        self,
        key: str,
        *,
        metadata: Mapping[str, str],
        replace_etag: str | None,
        part_bytes: int,
        expected_bytes: int,
        progress: Progress,
    ) -> ArtefactUpload:
        """Start writing an object; nothing is visible until the upload is completed.

        :param replace_etag: the remnant that may be replaced; None: the key must be free.
        :param expected_bytes: upper estimate of the object's size, 0 when unknown; it only sizes the parts.
        """
        return ArtefactUpload(
            client=self._client,
            target=Target(self._bucket, key, metadata, self._encryption, replace_etag),
            sizes=part_sizes(part_bytes, expected_bytes),
            timeout_s=self._timeout_s,
            progress=progress,
        )

    def read(self, key: str) -> ObjectReader:
        """Open an object for streaming; a broken connection is resumed where it stopped."""
        return ObjectReader(store=self, key=key, timeout_s=self._timeout_s)

    def get_range(self, key: str, start: int, etag: str | None) -> tuple[Any, StoredObject]:
        """Open the body from an offset on, of that very version when its ETag is given."""
        condition = {"IfMatch": etag} if etag else {}
        ranged = {"Range": f"bytes={start}-"} if start else {}
        answer = self._client.get_object(Bucket=self._bucket, Key=key, **ranged, **condition)
        return answer["Body"], stored_object(key, answer)

    def keys_between(self, prefix: str, first: str, last: str) -> Iterator[str]:
        """List the keys of a prefix from one to another, both included, in their order.

        :raises StoreUnavailable: if S3 does not answer.
        """
        # S3 begins after a key and not at one: no key lies between this text and `first`.
        after = first[:-1] + chr(ord(first[-1]) - 1) + "~"
        while True:
            page = self._short(prefix, partial(self._list_page, prefix, after))
            for entry in page.get("Contents", []):
                after = str(entry["Key"])
                if after > last:
                    return
                if after >= first:
                    yield after
            if not page.get("IsTruncated"):
                return

    def _list_page(self, prefix: str, after: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, StartAfter=after)
        return answer

    def patient_for(self, seconds: float) -> ObjectStore:
        """The same bucket for work that is tried again soon anyway, and need not wait out an outage here."""
        return ObjectStore(
            client=self._client,
            bucket=self._bucket,
            kms_key_id=self._encryption["SSEKMSKeyId"],
            timeout_s=min(seconds, self._timeout_s),
        )

    def put_document(
        self, key: str, body: Mapping[str, Any], *, replace_etag: str | None, permit: Callable[[], None]
    ) -> None:
        """Write a manifest: canonical JSON, on condition that the key is free or still holds what we read.

        :param permit: asked before each try; it raises when this worker may no longer publish.
        :raises RefusedError: if somebody else wrote there first.
        """
        condition = {"IfMatch": replace_etag} if replace_etag else {"IfNoneMatch": "*"}
        self._put(key, _as_document(body), "application/json", condition, permit)

    def overwrite_document(self, key: str, body: Mapping[str, Any]) -> None:
        """Write a mark that the newest finding always replaces."""
        self._put(key, _as_document(body), "application/json", {}, lambda: None)

    def put_once(self, key: str, raw: bytes, *, content_type: str) -> None:
        """Write these very bytes where nothing is; the same bytes that are there already are as good.

        :raises RefusedError: if other bytes are there.
        """
        try:
            self._put(key, raw, content_type, {"IfNoneMatch": "*"}, lambda: None)
        except RefusedError:
            # A lost answer makes the second PUT fail on what the first one wrote.
            if b"".join(self.read(key).chunks()) != raw:
                raise

    def get_document(self, key: str) -> Document | None:
        """Read a JSON document, None where there is none; what is no JSON object reads as an empty one."""

        def fetch() -> tuple[bytes, str]:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            return answer["Body"].read(), str(answer["ETag"])

        try:
            raw, etag = self._short(key, fetch)
        except FileNotFoundError:
            return None
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        return Document(body if isinstance(body, dict) else {}, etag)

    def abort_open_uploads(self, key: str) -> None:
        """Abort what dead or locked-out workers left unfinished under this key: it costs money, unseen.

        Only for whoever holds the key's lease: nobody else's upload may complete then.
        """
        for upload_id in self.open_uploads(key):
            self.abort_upload(key, upload_id)

    def open_uploads(self, key: str) -> list[str]:
        """The ids of the unfinished multipart uploads of exactly this key."""
        answer = self._short(key, lambda: self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=key))
        return [str(upload["UploadId"]) for upload in answer.get("Uploads", []) if upload["Key"] == key]

    def all_open_uploads(self) -> list[OpenUpload]:
        """The unfinished multipart uploads of the whole bucket.

        :raises StoreUnavailable: if S3 does not answer.
        """

        def listing() -> list[OpenUpload]:
            found = []
            for page in self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket):
                now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
                for upload in page.get("Uploads", []):
                    found.append(OpenUpload(str(upload["Key"]), str(upload["UploadId"]), now - upload["Initiated"]))
            return found

        return self._short("", listing)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Abort one that nobody will complete; one that is gone already is as good."""
        try:
            self._short(
                key, lambda: self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=upload_id)
            )
        except FileNotFoundError:
            return
        log.warning("aborted the unfinished multipart upload %s of %s", upload_id, key)

    def _put(
        self, key: str, raw: bytes, content_type: str, condition: Mapping[str, str], permit: Callable[[], None]
    ) -> None:
        def put() -> None:
            permit()
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=raw,
                ContentType=content_type,
                **self._encryption,
                **condition,
            )

        self._short(key, put)

    def _short(self, key: str, call: Callable[[], _T]) -> _T:
        """Make a call that moves little, with a minute of patience.

        :raises FileNotFoundError: if S3 says that there is nothing.
        """
        retrying = Retrying(
            retry=retry_if_exception(s3_errors.may_pass),
            wait=wait_exponential_jitter(multiplier=0.2, max=5),
            stop=stop_after_delay(min(_SHORT_CALL_PATIENCE_S, self._timeout_s)),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        try:
            return retrying(call)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self.translate(key, error) from error

    def translate(self, key: str, error: Exception) -> Exception:
        """Turn what S3 said about a key into an error of this system."""
        place = f"s3://{self._bucket}/{key}"
        if s3_errors.is_missing(error) or s3_errors.error_code(error) == "NoSuchUpload":
            return FileNotFoundError(place)
        if s3_errors.is_precondition_failure(error):
            return RefusedError(
                f"{place} was written by somebody else meanwhile",
                remedy="see what is published: `python -m pv_backup info`; a published day is never replaced",
            )
        if s3_errors.may_pass(error):
            return StoreUnavailable(
                f"{place}: S3 does not answer: {s3_errors.describe(error)}",
                remedy="bring the S3 endpoint back; WAL goes on by itself, a backup of a day is triggered again",
            )
        return ConfigurationError(
            f"{place}: S3 refuses: {s3_errors.describe(error)}",
            remedy="check bucket, access key, KMS key and policy of the connection pv_backup_s3 (docs/security.md)",
        )


def _as_document(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, indent=2).encode() + b"\n"
