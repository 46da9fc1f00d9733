"""The content of a published artefact, verified as a whole before a restore tool sees a byte of it (INV-47-08).

That takes two readings: one for the hash, one for the tool. The object is fetched once for both: a copy, encrypted as
it came, waits on the disk in between, in a file without a name. Where the disk has no room to spare for it, the object
is fetched twice.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Self

from pv_backup.services.ahead import Ahead
from pv_backup.services.errors import ReadBackMismatch
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_reader import ObjectReader, StoredObject
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.restoration.steps import step
from pv_backup.services.restoration.tools import Place
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object

log = logging.getLogger(__name__)


class VerifiedContent:
    """An artefact whose hash is right; a context, which reads it once on entry and drops the copy at its end.

    :param place: where the copy may lie.
    :param spare_bytes: what must remain free beside it.
    :raises IntegrityError: on entry, if the artefact is not what its manifest says.
    """

    def __init__(
        self, *, store: ObjectStore, keys: KeyWrapper, manifest: Manifest, place: Place, spare_bytes: int
    ) -> None:
        self._store = _FetchedOnce(store)
        self._keys = keys
        self._manifest = manifest
        self._place = place
        self._spare_bytes = spare_bytes

    @property
    def key(self) -> str:
        """Its key, for messages."""
        return self._manifest.key

    def __enter__(self) -> Self:
        directory, manifest = self._place.directory, self._manifest
        if shutil.disk_usage(directory).free >= self._spare_bytes + manifest.size_bytes:
            self._store.copy = tempfile.TemporaryFile(dir=directory)
        try:
            with step(f"SHA3-256 of {manifest.key}"):
                verify_object(self._store, self._keys, manifest.key, Expected.by_manifest(manifest))
        except BaseException:
            self._store.drop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._store.drop()

    @contextmanager
    def read(self, *, label: str) -> Iterator[Iterator[bytes]]:
        """What was exported, piece by piece, each authenticated anew, and none of them on a disk.

        :param label: what is done with it, as progress names it.
        :raises IntegrityError: if it is another artefact by now, or breaks off.
        """
        manifest = self._manifest
        progress = Progress(label=f"{label} {manifest.key}", downloads=True, total_bytes=manifest.size_bytes)
        with progress.reporting(), open_artefact(self._store, self._keys, manifest.key, progress) as artefact:
            if artefact.header.tag.hex() != manifest.header_tag:
                raise ReadBackMismatch(
                    f"{manifest.key} was replaced between its verification and its reading",
                    remedy="find out who writes to the bucket, then restore again",
                )
            with Ahead(unpacked(artefact.header, artefact.plaintext), name="decompression") as pieces:
                yield iter(pieces)


class _FetchedOnce:
    """A store that keeps what it reads.

    :ivar copy: an empty file to keep it in, None: nothing is kept.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._metadata: Mapping[str, str] = {}
        self._is_whole = False
        self.bucket = store.bucket
        self.copy: IO[bytes] | None = None

    def head(self, key: str) -> StoredObject | None:
        return self._store.head(key)

    def read(self, key: str) -> _Fetching | _Copied:
        if self.copy is not None and self._is_whole:
            self.copy.seek(0)
            return _Copied(self.copy, self._metadata)
        if self.copy is not None and self.copy.tell():
            self.drop()
        return _Fetching(self._store.read(key), self)

    def keep(self, data: bytes, metadata: Mapping[str, str]) -> None:
        """Take the next bytes; none at all: these were the last."""
        if self.copy is None:
            return
        self._metadata, self._is_whole = metadata, not data
        try:
            self.copy.write(data)
            if not data:
                self.copy.flush()
        except OSError as error:
            log.warning("no copy is kept of what is verified (%s): it is fetched again", error.strerror)
            self.drop()

    def drop(self) -> None:
        copy, self.copy = self.copy, None
        if copy is not None:
            copy.close()


class _Fetching:
    """Reads from S3, and hands on to the copy what it reads."""

    def __init__(self, reader: ObjectReader, kept: _FetchedOnce) -> None:
        self._reader = reader
        self._kept = kept

    @property
    def position(self) -> int:
        return self._reader.position

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._reader.metadata

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if size:
            self._kept.keep(data, self._reader.metadata)
        return data


class _Copied:
    """Reads from the copy."""

    def __init__(self, copy: IO[bytes], metadata: Mapping[str, str]) -> None:
        self._copy = copy
        self.metadata = metadata
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._copy.read(size)
        self.position += len(data)
        return data
