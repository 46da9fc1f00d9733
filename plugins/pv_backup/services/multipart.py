"""Stream an artefact into one S3 object whose size nobody knows beforehand.

boto3's transfer manager was looked at first: it holds up to ten parts, cannot grow parts of a stream of
unknown length, and completes by itself, where we must ask for the lease between the last part and the
completion. So parts are cut here, and retried here, until `timeout_upload_s` pass without progress.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from pv_backup.services import s3_errors
from pv_backup.services.errors import RefusedError, UploadFailed
from pv_backup.services.part_sizes import MAX_PART_BYTES, MEBIBYTE
from pv_backup.services.progress import Progress

log = logging.getLogger(__name__)

PARTS_IN_FLIGHT = 2
# A part ends with the write that fills it, and a write is a segment of at most 1 MiB and its tag.
_OVERSHOOT = 2 * MEBIBYTE


def _freely() -> None:
    """The permit of calls that make nothing visible."""


class S3Client(Protocol):
    """The calls of boto3's S3 client that an upload makes."""

    def put_object(self, **kwargs: Any) -> dict[str, Any]: ...
    def create_multipart_upload(self, **kwargs: Any) -> dict[str, Any]: ...
    def upload_part(self, **kwargs: Any) -> dict[str, Any]: ...
    def complete_multipart_upload(self, **kwargs: Any) -> dict[str, Any]: ...
    def head_object(self, **kwargs: Any) -> dict[str, Any]: ...
    def abort_multipart_upload(self, **kwargs: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Target:
    """Where an object goes, and on what condition.

    :param replace_etag: the ETag of the unpublished remnant to replace; None demands that nothing is there.
    """

    bucket: str
    key: str
    metadata: Mapping[str, str]
    encryption: Mapping[str, str]
    replace_etag: str | None = None

    @property
    def address(self) -> dict[str, str]:
        """Bucket and key, as every S3 call names them."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def creation(self) -> dict[str, Any]:
        """What S3 wants to know when an object is created."""
        return {"Metadata": dict(self.metadata), "ContentType": "application/octet-stream", **self.encryption}

    @property
    def condition(self) -> dict[str, str]:
        """`If-None-Match: *` for a new object, `If-Match` for a remnant (SPEC section 3)."""
        return {"IfMatch": self.replace_etag} if self.replace_etag else {"IfNoneMatch": "*"}


class StallClock:
    """How long nothing has completed although something was tried.

    ERR-47-03 counts from the last success, not from a call's own start, so that two parts in flight
    cannot keep each other waiting for ever; but a source that was silent for an hour is no stalled upload.
    """

    def __init__(self, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._last_success = time.monotonic()

    def restart(self) -> None:
        """Count anew: a part completed."""
        self._last_success = time.monotonic()

    def stalled_since(self, first_try: float) -> bool:
        """Whether nothing has completed for too long, for a call first tried at that monotonic time."""
        return time.monotonic() - max(self._last_success, first_try) > self.timeout_s


class ArtefactUpload:
    """One object being written: `write` until the end, then `complete`; anything else must `abort`.

    Up to the first part the bytes wait in memory and go as one PutObject; past it as a multipart upload,
    with two parts in flight while a third fills. A part that fails is sent again until no part has
    completed for `timeout_s`.

    :raises UploadFailed: ERR-47-03, from `write` or `complete`.
    """

    def __init__(
        self, *, client: S3Client, target: Target, sizes: Iterator[int], timeout_s: float, progress: Progress
    ) -> None:
        self._client = client
        self._target = target
        self._sizes = sizes
        self._progress = progress
        self._clock = StallClock(timeout_s=timeout_s)
        self._cancelled = threading.Event()
        self._pool = ThreadPoolExecutor(PARTS_IN_FLIGHT, thread_name_prefix="s3-part")
        self._in_flight: deque[tuple[int, Future[dict[str, Any]]]] = deque()
        self._done: list[dict[str, Any]] = []
        self._upload_id: str | None = None
        self._filling = bytearray()
        self._limit = next(sizes)
        self._budget = PARTS_IN_FLIGHT * (self._limit + _OVERSHOOT)

    @property
    def upload_id(self) -> str | None:
        """S3's id of the multipart upload, None while everything fits into one part."""
        return self._upload_id

    def write(self, data: bytes) -> None:
        """Take the next bytes; blocks while two parts are on their way."""
        self._filling += data
        if len(self._filling) >= self._limit:
            self._send_part()

    def complete(self, *, permit: Callable[[], None]) -> None:
        """Make the object appear, whole and on the target's condition.

        :param permit: asked after the last part, right before each try to make the object appear; it raises
            when this worker may no longer do that (SPEC section 3: a worker that lost its lease).
        :raises RefusedError: if another object took the key meanwhile.
        """
        if self._upload_id is None:
            # tenacity's cycles keep this object until the garbage collector comes; not its bytes, of many objects.
            body, self._filling = self._filling, bytearray()
            self._finish(permit, "put_object", Body=body, **self._target.creation, **self._target.condition)
            self._progress.stored_bytes = len(body)
        else:
            if self._filling:
                self._send_part()
            self._drain(0)
            self._finish(
                permit,
                "complete_multipart_upload",
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._done},
                **self._target.condition,
            )
        self._pool.shutdown()

    def cancel(self) -> None:
        """Stop sending and waiting, from any thread; the caller of `write` then gets an error and aborts."""
        self._cancelled.set()

    def abort(self) -> None:
        """Leave nothing behind: no object, and no open multipart upload that costs money unseen."""
        self.cancel()
        self._pool.shutdown(cancel_futures=True)
        if self._upload_id is None:
            return
        try:
            self._client.abort_multipart_upload(**self._target.address, UploadId=self._upload_id)
        except (ClientError, BotoCoreError, OSError) as error:
            if s3_errors.error_code(error) != "NoSuchUpload":
                log.warning(
                    "multipart upload %s of %s could not be aborted (%s); reconciliation aborts it later",
                    self._upload_id,
                    self._target.key,
                    s3_errors.describe(error),
                )

    def _send_part(self) -> None:
        if self._upload_id is None:
            created = self._call("create_multipart_upload", _freely, **self._target.address, **self._target.creation)
            self._upload_id = str(created["UploadId"])
        body, self._filling = self._filling, bytearray()
        # Bytes and not parts are bounded: where parts are twice the size, one at a time is on its way.
        self._drain(max(0, self._budget - len(body)))
        number = len(self._done) + len(self._in_flight) + 1
        self._progress.part_number = number
        self._in_flight.append((len(body), self._pool.submit(self._upload_part, number, body)))
        self._limit = next(self._sizes, MAX_PART_BYTES)

    def _upload_part(self, number: int, body: bytearray) -> dict[str, Any]:
        answer = self._call(
            "upload_part", _freely, **self._target.address, UploadId=self._upload_id, PartNumber=number, Body=body
        )
        self._clock.restart()
        self._progress.stored_bytes += len(body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def _finish(self, permit: Callable[[], None], operation: str, **kwargs: Any) -> None:
        """Complete, knowing that a lost answer makes the second try fail on what the first one did."""
        try:
            self._call(operation, permit, **self._target.address, **kwargs)
        except (RefusedError, UploadFailed) as error:
            if not self._is_there():
                raise
            log.info("%s of %s had succeeded, its answer was lost: %s", operation, self._target.key, error.what)

    def _is_there(self) -> bool:
        """Whether the key holds this very artefact: no other has its IV and header tag."""
        try:
            head = self._client.head_object(**self._target.address)
        except (ClientError, BotoCoreError, OSError):
            return False
        return dict(head.get("Metadata", {})) == dict(self._target.metadata)

    def _drain(self, allowed_bytes: int) -> None:
        """Wait for the oldest parts until no more than that many bytes are on their way."""
        while sum(size for size, _ in self._in_flight) > allowed_bytes:
            _, part = self._in_flight.popleft()
            self._done.append(part.result())

    def _call(self, operation: str, permit: Callable[[], None], **kwargs: Any) -> dict[str, Any]:
        started = time.monotonic()

        def permitted() -> dict[str, Any]:
            permit()
            answer: dict[str, Any] = getattr(self._client, operation)(**kwargs)
            return answer

        def gave_up(state: RetryCallState) -> bool:
            return self._cancelled.is_set() or self._clock.stalled_since(started)

        retrying = Retrying(
            retry=retry_if_exception(s3_errors.may_pass),
            wait=wait_exponential_jitter(multiplier=0.5, max=15),
            stop=gave_up,
            sleep=self._pause,
            before_sleep=partial(self._log_retry, operation),
            reraise=True,
        )
        try:
            return retrying(permitted)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._failure(operation, error) from error

    def _pause(self, seconds: float) -> None:
        self._cancelled.wait(seconds)

    def _log_retry(self, operation: str, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning(
            "S3 %s of %s failed, try %d: %s; trying again until nothing has completed for %.0f s",
            operation,
            self._target.key,
            state.attempt_number,
            s3_errors.describe(error) if error else "unknown",
            self._clock.timeout_s,
        )

    def _failure(self, operation: str, error: Exception) -> Exception:
        key = self._target.key
        if s3_errors.is_precondition_failure(error):
            return RefusedError(
                f"{key} was written by somebody else during this upload",
                remedy="see who: `python -m pv_backup info`; a published day is never replaced",
            )
        if s3_errors.may_pass(error):
            return UploadFailed(
                f"upload of {key}: nothing completed for {self._clock.timeout_s:.0f} s, "
                f"last: {s3_errors.describe(error)}",
                remedy="bring the S3 endpoint back; WAL goes on by itself, a backup of a day is triggered again",
            )
        return UploadFailed(
            f"upload of {key}: {operation} was refused: {s3_errors.describe(error)}",
            remedy="check the bucket, the KMS key and the backup user's policy (docs/security.md)",
        )
