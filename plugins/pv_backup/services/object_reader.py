"""Read one version of an object to its end, through whatever breaks the connection on the way."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError
from tenacity import Retrying, before_sleep_log, retry_if_exception, stop_after_delay, wait_exponential_jitter

from pv_backup.services import s3_errors
from pv_backup.services.errors import PvBackupError, ReadBackMismatch, RefusedError

if TYPE_CHECKING:
    from pv_backup.services.object_store import ObjectStore

log = logging.getLogger(__name__)

_READ_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class StoredObject:
    """What HEAD tells of an object; the ETag only ever names a version, it proves nothing (TC-NR-02)."""

    key: str
    size: int
    etag: str
    metadata: Mapping[str, str]


def stored_object(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Read boto3's answer to HEAD or GET."""
    return StoredObject(key, int(answer["ContentLength"]), str(answer["ETag"]), dict(answer.get("Metadata", {})))


class Reader(Protocol):
    """An object being read, from wherever it comes."""

    @property
    def position(self) -> int:
        """How many bytes were read."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What S3 keeps beside it."""
        ...

    def read(self, size: int) -> bytes:
        """Read up to that many bytes; empty at the end."""
        ...


class Objects(Protocol):
    """All that a verification asks of a store: to look at an object and to read it."""

    @property
    def bucket(self) -> str:
        """Its name, for messages."""
        ...

    def head(self, key: str) -> StoredObject | None:
        """What is stored there, None if nothing is."""
        ...

    def read(self, key: str) -> Reader:
        """Read it from its beginning."""
        ...


class ObjectReader:
    """A readable stream over one version of an object, which outlives broken connections.

    It holds on to the ETag of the first answer, so that a resumed read can't be of another object.

    :raises StoreUnavailable: when nothing could be read for `timeout_s`.
    :raises ReadBackMismatch: when the object is gone or was replaced meanwhile.
    """

    def __init__(self, *, store: ObjectStore, key: str, timeout_s: float) -> None:
        self._store = store
        self._key = key
        self._timeout_s = timeout_s
        self._body: Any = None
        self._stored: StoredObject | None = None
        self.position = 0

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the version that is being read; nothing before the first byte was asked for."""
        return self._stored.metadata if self._stored else {}

    def read(self, size: int) -> bytes:
        """Read up to that many bytes; empty at the end."""
        retrying = Retrying(
            retry=retry_if_exception(s3_errors.may_pass),
            wait=wait_exponential_jitter(multiplier=0.5, max=15),
            stop=stop_after_delay(self._timeout_s),
            before_sleep=before_sleep_log(log, logging.WARNING),
            reraise=True,
        )
        try:
            data: bytes = retrying(self._read_once, size)
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._failure(error) from error
        self.position += len(data)
        return data

    def chunks(self) -> Iterator[bytes]:
        """Read on to the end, one MiB at a time."""
        while chunk := self.read(_READ_CHUNK):
            yield chunk

    def _read_once(self, size: int) -> bytes:
        if self._body is None:
            etag = self._stored.etag if self._stored else None
            self._body, self._stored = self._store.get_range(self._key, self.position, etag)
        try:
            return bytes(self._body.read(size))
        except Exception:
            self._body = None
            raise

    def _failure(self, error: Exception) -> PvBackupError | Exception:
        failure = self._store.translate(self._key, error)
        if isinstance(failure, FileNotFoundError | RefusedError):
            return ReadBackMismatch(
                f"s3://{self._store.bucket}/{self._key} is gone or was replaced while it was read",
                remedy="find out who writes to the bucket besides this system; then run the day again",
            )
        return failure
