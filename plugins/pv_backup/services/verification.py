"""Read back what was uploaded: download, decrypt, hash, compare (INV-47-04). Never the ETag."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

from pv_backup.services.ahead import Ahead
from pv_backup.services.compression import decompress
from pv_backup.services.envelope import Header, decrypt, read_header
from pv_backup.services.envelope_header import Read
from pv_backup.services.errors import IntegrityError, PvBackupError, ReadBackMismatch
from pv_backup.services.hashing import Sha3
from pv_backup.services.key_wrapping import KeyWrapper, wiped
from pv_backup.services.manifest import InvalidMark, Manifest, mark_invalid
from pv_backup.services.naming import naming
from pv_backup.services.object_reader import Objects, StoredObject
from pv_backup.services.progress import Progress
from pv_backup.services.timestamps import rfc3339

if TYPE_CHECKING:  # who restores has no journal database, and need not wait for SQLAlchemy
    from pv_backup.services.lease_keeper import LeaseKeeper
    from pv_backup.services.object_store import ObjectStore
    from pv_backup.services.state import Attempt, RecordedArtefact
    from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)

_FETCHED_AT_ONCE = 1024 * 1024


@dataclass(frozen=True)
class Expected:
    """What an object must be, whoever says so: the journal for an upload, the manifest for a published backup.

    :ivar header_tag: hex, the `auth_tag` of row and metadata.
    :ivar further_metadata: what S3 keeps beside it besides the header's own fields.
    """

    backup_id: str
    hash_sha3_256: str
    size_bytes: int
    header_tag: str
    further_metadata: dict[str, str] = field(default_factory=dict)

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
    """An artefact being read: its header, and its plaintext, each piece authenticated before it is given.

    :ivar metadata: what S3 keeps beside it.
    """

    header: Header
    plaintext: Iterator[bytes]
    metadata: Mapping[str, str]


def unpacked(header: Header, plaintext: Iterable[bytes]) -> Iterator[bytes]:
    """The content as it was exported, whatever its header says of compression.

    :raises ArtefactDamaged: from the iterator, if the compressed bytes are no whole frame.
    """
    return decompress(plaintext) if header.context.compression == "zstd" else iter(plaintext)


@contextmanager
def open_artefact(store: Objects, keys: KeyWrapper, key: str, progress: Progress) -> Iterator[OpenedArtefact]:
    """Open an object for decryption; a context, so that the DEK is wiped when the reading ends, however.

    :raises ArtefactDamaged: if the object is not an artefact of this key, or not whole.
    :raises ReadBackMismatch: if there is no object.
    :raises FailClosedError: if Vault does not unwrap the DEK.
    """
    reader = store.read(key)
    with naming(key):
        header = read_header(reader.read)
        progress.read_bytes = reader.position
        with (
            wiped(keys.unwrap(header.context.wrapped_dek)) as dek,
            # Hashing takes as long as fetching: side by side they take half.
            Ahead(iter(lambda: reader.read(_FETCHED_AT_ONCE), b""), name=f"fetching {key}") as pieces,
        ):
            yield OpenedArtefact(header, decrypt(_counted(pieces, progress), header=header, dek=dek), reader.metadata)


def _counted(pieces: Iterable[bytes], progress: Progress) -> Read:
    """Read from pieces, and note how far."""
    following = iter(pieces)
    rest = memoryview(b"")

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or memoryview(next(following, b""))
        data, rest = bytes(rest[:size]), rest[size:]
        progress.read_bytes += len(data)
        return data

    return read


def verify_object(store: Objects, keys: KeyWrapper, key: str, expected: Expected) -> None:
    """Prove that what S3 returns is what was uploaded, or say which of it is not.

    :raises IntegrityError: ERR-47-04, naming the difference.
    """
    there = store.head(key)
    if there is None:
        raise ReadBackMismatch(
            f"s3://{store.bucket}/{key} is not there although its upload was completed",
            remedy="find out who deletes from the bucket; then run the day again",
        )
    # Asked before the download: S3's own encryption may hang on the same Vault, and ERR-47-02 is due in seconds.
    with naming(key):
        demand_vault(keys, there)
    progress = Progress(label=f"reading back {key}", downloads=True, total_bytes=there.size)
    with progress.reporting():
        compare_stored(store, keys, key, expected, progress=progress)
    log.info("%s verified: %d bytes read back in %.1f s, SHA3-256 equal", key, progress.read_bytes, progress.elapsed_s)


def demand_vault(keys: KeyWrapper, there: StoredObject) -> None:
    """Make sure that Vault unwraps the DEK of an object.

    :raises FailClosedError: ERR-47-02.
    """
    with wiped(keys.unwrap(there.metadata.get("wrapped_dek", ""))):
        pass


def compare_stored(
    store: Objects,
    keys: KeyWrapper,
    key: str,
    expected: Expected,
    *,
    progress: Progress,
) -> None:
    """Download, decrypt, hash and compare in one pass.

    :raises IntegrityError: ERR-47-04, naming the difference.
    """
    with _compared(store, keys, key, expected, progress) as artefact:
        for _ in artefact.plaintext:
            pass


def copy_verified(
    store: Objects, keys: KeyWrapper, key: str, expected: Expected, sink: BinaryIO, *, progress: Progress
) -> None:
    """Compare as :func:`compare_stored` and write the content in the same pass, for a sink that nobody reads yet.

    :raises IntegrityError: ERR-47-04; what was written so far must be thrown away.
    """
    with _compared(store, keys, key, expected, progress) as artefact:
        sink.writelines(unpacked(artefact.header, artefact.plaintext))


@contextmanager
def _compared(
    store: Objects, keys: KeyWrapper, key: str, expected: Expected, progress: Progress
) -> Iterator[OpenedArtefact]:
    """An artefact that is compared with what it must be once its plaintext was read to the end."""
    hasher = Sha3()

    def hashed(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            hasher.update(piece)
            yield piece

    with open_artefact(store, keys, key, progress) as artefact:
        _compare_header(artefact, key, expected)
        yield replace(artefact, plaintext=hashed(artefact.plaintext))
        _same("SHA3-256", hasher.hexdigest(), expected.hash_sha3_256, key)
    _same("size in bytes", progress.read_bytes, expected.size_bytes, key)


def read_back(bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> None:
    """Verify an attempt's upload and record that it was; what fails is marked invalid before the error goes on.

    :raises IntegrityError: ERR-47-04.
    :raises LeaseLost: if another worker has taken over; its object is not ours to mark.
    """
    expected = Expected.by_journal(attempt, bench.machine.artefact_of(attempt))
    try:
        verify_object(bench.store, bench.keys, attempt.object_key, expected)
    except IntegrityError as error:
        keeper.confirm()
        _mark(bench.store, attempt.object_key, expected, error)
        raise
    bench.machine.record_verified(keeper.lease)


def _mark(store: ObjectStore, key: str, expected: Expected, error: IntegrityError) -> None:
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


def _compare_header(artefact: OpenedArtefact, key: str, expected: Expected) -> None:
    header = artefact.header
    context = header.context
    _same("backup_id in the header", context.backup_id, expected.backup_id, key)
    _same("object key in the header", context.object_key, key, key)
    _same("header tag", header.tag.hex(), expected.header_tag, key)
    _same("S3 metadata", artefact.metadata, header.metadata | expected.further_metadata, key)


def _same(what: str, found: object, wanted: object, key: str) -> None:
    if found != wanted:
        raise ReadBackMismatch(
            f"{key}: {what} is {found!r}, must be {wanted!r}",
            remedy="the object was changed after its upload; keep it for inspection and run the day again",
        )
