"""Read all of the bucket back, each artefact by itself: what is damaged must not keep the rest from being known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from pv_backup.services.errors import IntegrityError, NotPublished, ReadBackMismatch
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.restoration.catalogue import keys_with_manifest, wal_keys
from pv_backup.services.verification import Expected, compare_stored, verify_object
from pv_backup.services.wal_objects import expected_of_wal

_WAL_AT_ONCE: Final = 4


@dataclass(frozen=True)
class ReadBack:
    """One artefact that was looked at.

    :ivar expected: what it had to be, None where nothing says so any more.
    :ivar manifest: of a published backup; a WAL file has none.
    :ivar error: what is wrong with it, None if it was read back and found equal.
    """

    key: str
    expected: Expected | None
    manifest: Manifest | None = None
    error: IntegrityError | None = None


def read_back_backups(
    store: ObjectStore, keys: KeyWrapper, skip: Callable[[str], bool] = lambda key: False
) -> Iterator[ReadBack]:
    """Verify each backup that has a manifest.

    :param skip: keys that need not be read again.
    :raises PvBackupError: what keeps all the others from being read too: an outage, a key that Vault refuses.
    """
    for key in keys_with_manifest(store):
        if skip(key):
            continue
        manifest = published(store, key)
        if manifest is None:
            error = ReadBackMismatch(
                f"s3://{store.bucket}/{key} has a manifest that does not speak for it, or was marked invalid",
                remedy="restore another day; look for an earlier version of the object and its manifest",
            )
            yield ReadBack(key, None, error=error)
            continue
        expected = Expected.by_manifest(manifest)
        try:
            verify_object(store, keys, key, expected)
        except IntegrityError as error:
            yield ReadBack(key, expected, manifest, error)
        else:
            yield ReadBack(key, expected, manifest)


def read_back_wal(
    store: ObjectStore, keys: KeyWrapper, skip: Callable[[str], bool] = lambda key: False
) -> Iterator[ReadBack]:
    """Verify each WAL file, several at once; their order is kept.

    :raises PvBackupError: as :func:`read_back_backups`.
    """
    names = list(wal_keys(store))
    progress = Progress(label=_label(0, names), downloads=True)

    def read(key: str) -> ReadBack | None:
        if skip(key):
            return None
        expected = None
        try:
            expected = expected_of_wal(store, key)
            compare_stored(store, keys, key, expected, progress=Progress(label=key, downloads=True))
        except NotPublished:
            return None  # the lifecycle took it since it was listed
        except IntegrityError as error:
            return ReadBack(key, expected, error=error)
        return ReadBack(key, expected)

    pool = ThreadPoolExecutor(_WAL_AT_ONCE, thread_name_prefix="sweep")
    try:
        with progress.reporting():
            yield from _counted(pool.map(read, names), names, progress)
    finally:
        # An outage, or a reader that left, need not wait for a month of WAL.
        pool.shutdown(cancel_futures=True)


def _counted(found: Iterable[ReadBack | None], names: list[str], progress: Progress) -> Iterator[ReadBack]:
    for number, each in enumerate(found, 1):
        progress.label = _label(number, names)
        if each is not None:
            progress.read_bytes += each.expected.size_bytes if each.expected else 0
            yield each


def _label(number: int, names: list[str]) -> str:
    return f"reading back WAL, {number} of {len(names)} files"
