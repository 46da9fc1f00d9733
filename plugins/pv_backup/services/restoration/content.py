"""The content of a published artefact, verified as a whole before a restore tool sees a byte of it (INV-47-08)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pv_backup.services.errors import ReadBackMismatch
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object


def verify_content(store: ObjectStore, keys: KeyWrapper, manifest: Manifest) -> None:
    """Read the artefact once, for its hash alone.

    :raises IntegrityError: if it is not what its manifest says.
    """
    verify_object(store, keys, manifest.key, Expected.by_manifest(manifest))


@contextmanager
def verified_content(
    store: ObjectStore, keys: KeyWrapper, manifest: Manifest, *, label: str
) -> Iterator[Iterator[bytes]]:
    """What was exported, piece by piece, of an artefact that :func:`verify_content` has read.

    Each piece is authenticated anew, and never lies on a disk.

    :param label: what is done with it, as progress names it.
    :raises IntegrityError: if it is another artefact by now, or breaks off.
    """
    progress = Progress(label=f"{label} {manifest.key}", downloads=True, total_bytes=manifest.size_bytes)
    with progress.reporting(), open_artefact(store, keys, manifest.key, progress) as artefact:
        if artefact.header.tag.hex() != manifest.header_tag:
            raise ReadBackMismatch(
                f"{manifest.key} was replaced between its verification and its reading",
                remedy="find out who writes to the bucket, then restore again",
            )
        yield unpacked(artefact.header, artefact.plaintext)
