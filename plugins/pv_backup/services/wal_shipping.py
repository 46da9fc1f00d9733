"""Ship one WAL file: encrypted under a key of its own, uploaded, read back, journaled, and only then removed (SPEC F2).

Each step may be the last before a crash, and the next run does the rest: an object that is there already is
opened and its decompressed bytes are compared with the file. The same is done, damaged is replaced, different
is an integrity error that keeps both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import uuid4

from pv_backup.services.artefacts import ArtefactType, wal_object_key
from pv_backup.services.compression import compress_whole
from pv_backup.services.errors import IntegrityError, ReadBackMismatch, RefusedError, WalDamaged
from pv_backup.services.hashing import sha3_256_hex
from pv_backup.services.journal import JournalEvent
from pv_backup.services.key_wrapping import new_dek, wiped
from pv_backup.services.part_sizes import MEBIBYTE
from pv_backup.services.pipeline import fail_closed
from pv_backup.services.progress import Progress
from pv_backup.services.sealing import begin_artefact
from pv_backup.services.verification import Expected, compare_stored
from pv_backup.services.wal import branches_of
from pv_backup.services.wal_objects import HASH, SYSTEM_IDENTIFIER, event_of_same_file, journal_event
from pv_backup.services.wal_spool import KEEP_FILE, WalFile, WalSpool, segment_header
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

# A segment of the usual 16 MiB is one PutObject, which leaves nothing behind when its worker dies.
_PART_BYTES: Final = 90 * MEBIBYTE


_WAITS: Final = "the file waits, and the next run replaces the object; find out what alters objects on the way to S3"


class Fate(StrEnum):
    """What became of a file."""

    SHIPPED = "shipped"
    ALREADY_THERE = "already there"
    REPLACED = "replaced"


@dataclass(frozen=True)
class Shipment:
    """A file that is out of the queue.

    :ivar size_bytes: of its object.
    :ivar damage: why an object that was there had to be replaced.
    """

    file: WalFile
    fate: Fate
    size_bytes: int
    damage: IntegrityError | None = None


@dataclass(frozen=True)
class _Packed:
    """A file's compressed bytes, whose hash its object's metadata carries from the start."""

    compressed: bytes
    hash_sha3_256: str
    system_identifier: str

    @property
    def metadata(self) -> dict[str, str]:
        """What stands beside the header's four fields: without a manifest, HEAD must tell whose bytes these are."""
        return {HASH: self.hash_sha3_256, SYSTEM_IDENTIFIER: self.system_identifier}


class WalShipper:
    """Ships single files, from as many threads at once as the caller likes.

    :param system_identifier: of the cluster, for histories, which do not carry it as segments do.
    """

    def __init__(self, *, bench: Workbench, spool: WalSpool, system_identifier: str) -> None:
        self._bench = bench
        self._spool = spool
        self._system_identifier = system_identifier

    def ship(self, file: WalFile, *, expected_there: bool) -> Shipment:
        """Bring one file into the bucket, verified and journaled, and remove it.

        :param expected_there: that a listing has shown an object of this name.
        :raises WalConflict: if the object there opens and is another one.
        :raises WalDamaged: if the file itself is not what its name says.
        :raises IntegrityError: ERR-47-04, if what was just uploaded does not read back; the next run replaces it.
        :raises UploadFailed, StoreUnavailable, FailClosedError, JournalUnavailable: the file waits.
        """
        key = wal_object_key(file.name)
        try:
            packed = self._pack(file)
        except OSError as error:
            raise WalDamaged(f"{file.path} cannot be read: {error.strerror}", remedy=KEEP_FILE) from error
        there = self._bench.store.head(key) if expected_there else None
        event, damage = None, None
        if there is not None:
            try:
                event = event_of_same_file(self._bench.store, self._bench.keys, file, there, packed.metadata)
            except WalDamaged as error:
                damage = error
        fate = Fate.SHIPPED if there is None else Fate.REPLACED if damage else Fate.ALREADY_THERE
        try:
            event = event or self._upload(key, packed, replace_etag=there.etag if there else None)
        except RefusedError:
            if expected_there:
                raise
            # It came while we packed, from a worker that was thought dead.
            return self.ship(file, expected_there=True)
        self._bench.journal.record(event)
        self._spool.remove(file)
        log.info("%s %s: %d bytes, stored as %d", file.name, fate, file.size, event.size_bytes)
        return Shipment(file, fate, event.size_bytes or 0, damage)

    def _pack(self, file: WalFile) -> _Packed:
        """Compress the file, and refuse one whose first page contradicts its name."""
        system_identifier = self._system_identifier
        if (segment := file.segment) is not None:
            header = segment_header(file.path)
            # A timeline's first segment begins with pages of its parent.
            if (
                header is None
                or (header.address, header.segment_bytes) != (segment.start(header.segment_bytes), file.size)
                or header.timeline > segment.timeline
            ):
                raise WalDamaged(
                    f"{file.path} is not the segment that its name says, or not whole: {header}, {file.size} bytes",
                    remedy=KEEP_FILE,
                )
            system_identifier = header.system_identifier
        elif not branches_of(file.path.read_text(errors="replace")):
            raise WalDamaged(f"{file.path} is no timeline history", remedy=KEEP_FILE)
        compressed = compress_whole(file.path.read_bytes())
        return _Packed(compressed, sha3_256_hex(compressed), system_identifier)

    def _upload(self, key: str, packed: _Packed, *, replace_etag: str | None) -> JournalEvent:
        """Encrypt, upload, read back."""
        store, progress = self._bench.store, Progress(label=key)
        if len(packed.compressed) > _PART_BYTES:
            store.abort_open_uploads(key)
        dek = new_dek()
        with wiped(dek):
            envelope = begin_artefact(
                self._bench.keys, dek, backup_id=str(uuid4()), artefact_type=ArtefactType.WAL, object_key=key
            )
            header = envelope.header
            upload = store.begin_upload(
                key,
                metadata=header.metadata | packed.metadata,
                replace_etag=replace_etag,
                part_bytes=_PART_BYTES,
                expected_bytes=len(packed.compressed),
                progress=progress,
            )
            try:
                upload.write(header.raw)
                for segment in fail_closed(envelope.update, packed.compressed):
                    upload.write(segment)
                upload.write(fail_closed(envelope.finish))
                upload.complete(permit=_freely)
            except BaseException:
                upload.abort()
                raise
        size = progress.stored_bytes
        expected = Expected(
            header.context.backup_id, packed.hash_sha3_256, size, header.tag.hex(), further_metadata=packed.metadata
        )
        try:
            compare_stored(store, self._bench.keys, key, expected, progress=Progress(label=key, downloads=True))
        except IntegrityError as error:
            raise ReadBackMismatch(error.what, remedy=_WAITS) from error
        return journal_event(header, packed.hash_sha3_256, size)


def _freely() -> None:
    """Nobody's lease is needed: the key must be free, or hold the damaged object still."""
