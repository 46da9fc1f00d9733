"""The object of a WAL file: whose it is, and whether it is this file's (SPEC F2).

It has no manifest. Its metadata holds what one would say: the hash, and the cluster that wrote the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pv_backup.services.artefacts import ArtefactType, wal_object_key
from pv_backup.services.envelope import Header
from pv_backup.services.errors import IntegrityError, NotPublished, WalConflict, WalDamaged
from pv_backup.services.hashing import Sha3
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import stored_header
from pv_backup.services.object_reader import StoredObject
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.verification import Expected, OpenedArtefact, open_artefact, unpacked

if TYPE_CHECKING:  # who restores has no journal database, and need not wait for SQLAlchemy
    from pv_backup.services.journal import JournalEvent
    from pv_backup.services.wal_spool import WalFile

SYSTEM_IDENTIFIER: Final = "system_identifier"
HASH: Final = "hash_sha3_256"
_BOTH_KEPT: Final = (
    "both are kept: find out which cluster wrote each (system_identifier in the object's metadata), "
    "then move the file away, or point this cluster at a bucket of its own"
)


def expected_of_wal(store: ObjectStore, key: str) -> Expected:
    """What a WAL object must be: it has no manifest, its own header and metadata say it.

    :raises NotPublished: if there is none.
    :raises ArtefactDamaged: if its header is none; what else is wrong shows when it is compared.
    """
    there = store.head(key)
    if there is None:
        raise NotPublished(
            f"s3://{store.bucket}/{key} is not there", remedy="that file was never shipped, or has expired"
        )
    further = {name: there.metadata.get(name, "") for name in (HASH, SYSTEM_IDENTIFIER)}
    header = stored_header(store, key)
    return Expected(header.context.backup_id, further[HASH], there.size, header.tag.hex(), further_metadata=further)


def event_of_same_file(
    store: ObjectStore, keys: KeyWrapper, file: WalFile, there: StoredObject, metadata: Mapping[str, str]
) -> JournalEvent:
    """Open the object that is there and give its journal event, if it is this file's.

    :param there: the object, as HEAD tells of it.
    :param metadata: hash and cluster of the file, as they stand beside its object.
    :raises WalDamaged: if it does not open, or its metadata is not what its header says.
    :raises WalConflict: if it opens and is another file's, or says that it is another cluster's.
    """
    key = wal_object_key(file.name)
    hasher, progress = Sha3(), Progress(label=key, downloads=True)
    try:
        with open_artefact(store, keys, key, progress) as artefact:
            same = _equals(_plain(artefact, hasher), file.path)
    except IntegrityError as error:
        # Another cluster's may open under its own key only: what is not ours is not ours to replace.
        if there.metadata.get(SYSTEM_IDENTIFIER, metadata[SYSTEM_IDENTIFIER]) != metadata[SYSTEM_IDENTIFIER]:
            raise _conflict(file, there.metadata[SYSTEM_IDENTIFIER], metadata, error.what) from error
        raise _damaged(key, error.what) from error
    header = artefact.header
    if header.context.object_key != key:
        raise _damaged(key, f"it is the artefact of {header.context.object_key}, copied here")
    stored_identifier = artefact.metadata.get(SYSTEM_IDENTIFIER)
    # A segment's own bytes name its cluster; a history's do not.
    foreign = file.segment is None and stored_identifier not in (None, metadata[SYSTEM_IDENTIFIER])
    if foreign or not same:
        raise _conflict(file, stored_identifier, metadata, "it opens")
    if artefact.metadata != header.metadata | dict(metadata) | {HASH: hasher.hexdigest()}:
        raise _damaged(key, "its metadata is not what its header and bytes say")
    return journal_event(header, hasher.hexdigest(), progress.read_bytes)


def _plain(artefact: OpenedArtefact, hasher: Sha3) -> Iterator[bytes]:
    def hashed() -> Iterator[bytes]:
        for piece in artefact.plaintext:
            hasher.update(piece)
            yield piece

    return unpacked(artefact.header, hashed())


def _equals(pieces: Iterator[bytes], path: Path) -> bool:
    """Compare to the end, also past the first difference: only an object that opens as a whole is another one."""
    same = True
    with path.open("rb") as file:
        for piece in pieces:
            same = same and file.read(len(piece)) == piece
        return same and not file.read(1)


def journal_event(header: Header, hash_sha3_256: str, size_bytes: int) -> JournalEvent:
    """What the journal keeps of a WAL object: that it is verified, under the backup_id of its own header."""
    from pv_backup.services.journal import JournalEvent
    from pv_backup.services.models import Outcome

    return JournalEvent(
        backup_id=header.context.backup_id,
        artefact_type=ArtefactType.WAL,
        day=None,
        outcome=Outcome.SUCCESS,
        object_key=header.context.object_key,
        hash_sha3_256=hash_sha3_256,
        size_bytes=size_bytes,
        k_backup_version=header.context.k_backup_version,
    )


def _conflict(file: WalFile, theirs: str | None, ours: Mapping[str, str], state: str) -> WalConflict:
    return WalConflict(
        f"{wal_object_key(file.name)} is another file than {file.path}: cluster {theirs} wrote it, "
        f"cluster {ours[SYSTEM_IDENTIFIER]} wrote the file; {state}",
        remedy=_BOTH_KEPT,
    )


def _damaged(key: str, what: str) -> WalDamaged:
    return WalDamaged(
        f"the object {key} is damaged: {what}",
        remedy="it was replaced from the file, which was still there; find out who or what changed it",
    )
