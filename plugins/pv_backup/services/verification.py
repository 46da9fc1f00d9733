"""Read back what was uploaded: download, decrypt, hash, compare (INV-47-04). Never the ETag."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from pv_backup.services.envelope import ArtefactContext, Header, decrypt, read_header
from pv_backup.services.errors import IntegrityError, PvBackupError, ReadBackMismatch
from pv_backup.services.export_sources import rfc3339
from pv_backup.services.hashing import Sha3
from pv_backup.services.key_wrapping import KeyWrapper, wiped
from pv_backup.services.manifest import InvalidMark, Manifest, mark_invalid
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.state import Attempt, RecordedArtefact

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Expected:
    """What an object must be, whoever says so: the journal for an upload, the manifest for a published backup.

    :ivar header_tag: hex, the `auth_tag` of row and metadata.
    """

    backup_id: str
    hash_sha3_256: str
    size_bytes: int
    header_tag: str

    @classmethod
    def by_journal(cls, attempt: Attempt, recorded: RecordedArtefact) -> Expected:
        """What the attempt recorded when its upload was complete."""
        artefact = recorded.artefact
        return cls(attempt.backup_id, artefact.hash_sha3_256, artefact.size_bytes, artefact.auth_tag)

    @classmethod
    def by_manifest(cls, manifest: Manifest) -> Expected:
        """What the published manifest says, with no database at hand."""
        return cls(manifest.backup_id, manifest.hash_sha3_256, manifest.size_bytes, manifest.header_tag)


@dataclass(frozen=True)
class OpenedArtefact:
    """An artefact being read: its header, and its plaintext, each piece authenticated before it is given."""

    header: Header
    plaintext: Iterator[bytes]


@contextmanager
def open_artefact(store: ObjectStore, keys: KeyWrapper, key: str, progress: Progress) -> Iterator[OpenedArtefact]:
    """Open an object for decryption; a context, so that the DEK is wiped when the reading ends, however.

    :raises ArtefactDamaged: if the object is not an artefact of this key, or not whole.
    :raises ReadBackMismatch: if there is no object.
    :raises FailClosedError: if Vault does not unwrap the DEK.
    """
    reader = store.read(key)

    def read(size: int) -> bytes:
        data = reader.read(size)
        progress.read_bytes = reader.position
        return data

    header = read_header(read)
    with wiped(keys.unwrap(header.context.wrapped_dek)) as dek:
        yield OpenedArtefact(header, decrypt(read, header=header, dek=dek))


def verify_object(store: ObjectStore, keys: KeyWrapper, key: str, expected: Expected) -> None:
    """Prove that what S3 returns is what was uploaded, or say which of it is not.

    :raises IntegrityError: ERR-47-04, naming the difference.
    """
    there = store.head(key)
    if there is None:
        raise ReadBackMismatch(
            f"s3://{store.bucket}/{key} is not there although its upload was completed",
            remedy="find out who deletes from the bucket; then run the day again",
        )
    progress = Progress(label=f"reading back {key}")
    with progress.reporting(), open_artefact(store, keys, key, progress) as artefact:
        _compare_header(artefact.header, there.metadata, key, expected)
        hasher = Sha3()
        for piece in artefact.plaintext:
            hasher.update(piece)
        _same("SHA3-256", hasher.hexdigest(), expected.hash_sha3_256, key)
    _same("size in bytes", progress.read_bytes, expected.size_bytes, key)
    log.info("%s verified: %d bytes read back in %.1f s, SHA3-256 equal", key, progress.read_bytes, progress.elapsed_s)


def verify_or_mark(store: ObjectStore, keys: KeyWrapper, key: str, expected: Expected) -> None:
    """Verify after upload; what fails is marked invalid beside the object before the error goes on.

    :raises IntegrityError: ERR-47-04.
    """
    try:
        verify_object(store, keys, key, expected)
    except IntegrityError as error:
        mark = InvalidMark(
            backup_id=expected.backup_id,
            key=key,
            hash_sha3_256=expected.hash_sha3_256,
            header_tag=expected.header_tag,
            reason=error.what,
            found_at=rfc3339(datetime.now(UTC)),
        )
        try:
            mark_invalid(store, mark)
        except PvBackupError:
            log.exception("%s could not be marked invalid; it stays without a manifest, thus no backup", key)
        raise


def _compare_header(header: Header, metadata: object, key: str, expected: Expected) -> None:
    context: ArtefactContext = header.context
    _same("backup_id in the header", context.backup_id, expected.backup_id, key)
    _same("object key in the header", context.object_key, key, key)
    _same("header tag", header.tag.hex(), expected.header_tag, key)
    of_header = {
        "wrapped_dek": context.wrapped_dek,
        "iv": header.iv.hex(),
        "auth_tag": header.tag.hex(),
        "k_backup_version": str(context.k_backup_version),
    }
    _same("S3 metadata", metadata, of_header, key)


def _same(what: str, found: object, wanted: object, key: str) -> None:
    if found != wanted:
        raise ReadBackMismatch(
            f"{key}: {what} is {found!r}, must be {wanted!r}",
            remedy="the object was changed after its upload; keep it for inspection and run the day again",
        )
