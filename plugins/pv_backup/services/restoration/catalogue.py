"""What the bucket holds, by its manifests: all that anyone knows once journal and Airflow are gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime
from functools import partial
from typing import Final

from pv_backup.services.artefacts import WAL_PREFIX, ArtefactType, manifest_key
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.validation import artefact_type_of

OF_A_DAY: Final = (ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP)

_MANIFEST: Final = manifest_key(".enc")
_READ_AT_ONCE: Final = 8


def keys_with_manifest(store: ObjectStore, types: Collection[ArtefactType] = OF_A_DAY) -> list[str]:
    """The keys of these types that a manifest stands beside, whatever it says, the oldest day first.

    :raises StoreUnavailable: if S3 does not answer.
    """
    # Keys of days begin with the year; those of WAL with a letter.
    listed = store.keys_between("", "0000/", "9999~")
    objects = (key.removesuffix(_MANIFEST) + ".enc" for key in listed if key.endswith(_MANIFEST))
    return [key for key in objects if artefact_type_of(key) in types]


def published_backups(store: ObjectStore, types: Collection[ArtefactType] = OF_A_DAY) -> list[Manifest]:
    """The published backups of these types, the oldest export first.

    What has no manifest, one that does not speak for its object, or a mark of ERR-47-04 is no backup and not listed.

    :raises StoreUnavailable: if S3 does not answer.
    """
    wanted = keys_with_manifest(store, types)
    with ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="catalogue") as pool:
        found = [manifest for manifest in pool.map(partial(published, store), wanted) if manifest]
    return sorted(found, key=lambda manifest: (manifest.exported_at, manifest.key))


def wal_keys(store: ObjectStore) -> Iterator[str]:
    """The keys of all WAL files, in their order.

    :raises StoreUnavailable: if S3 does not answer.
    """
    listed = store.keys_between(WAL_PREFIX, f"{WAL_PREFIX}0", f"{WAL_PREFIX}G")
    return (key for key in listed if artefact_type_of(key) is ArtefactType.WAL)


def day_of(manifest: Manifest) -> date:
    """The day that a backup was filed under, as its key says."""
    return datetime.strptime(manifest.key[-len("YYYYMMDD.enc") :], "%Y%m%d.enc").date()
