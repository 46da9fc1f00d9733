"""`verify` and `fetch`: one artefact, read back or decrypted."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pv_backup.services.artefacts import WAL_PREFIX
from pv_backup.services.errors import NotPublished, ReadBackMismatch
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object
from pv_backup.services.wal_objects import expected_of_wal

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_commands(commands: Commands) -> None:
    """Add this room's commands to the parser."""
    verify = commands.add_parser("verify", help="read an artefact back: decrypt, hash, compare with its manifest")
    verify.add_argument("key", help="object key, such as 2026/11/backup_20261122.enc or wal/…enc")
    verify.set_defaults(run=_verify)
    fetch = commands.add_parser("fetch", help="verify an artefact, then write it decrypted and decompressed")
    fetch.add_argument("key", help="object key, such as 2026/11/backup_20261122.enc")
    fetch.add_argument("--output", default="-", help="file to write, made new; - is standard output (default)")
    fetch.set_defaults(run=_fetch)


def _published(store: ObjectStore, key: str) -> Manifest:
    manifest = published(store, key)
    if manifest is None:
        raise NotPublished(
            f"s3://{store.bucket}/{key} is not a published backup: no manifest speaks for what is there, if anything",
            remedy="see what there is: `python -m pv_backup info --day …`",
        )
    return manifest


def _expected(store: ObjectStore, key: str) -> Expected:
    """What the object must be: by its manifest, or for a WAL file, which has none, by its metadata."""
    return expected_of_wal(store, key) if key.startswith(WAL_PREFIX) else Expected.by_manifest(_published(store, key))


def _verify(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    expected = _expected(store, options.key)
    verify_object(store, keys_from_environment(settings), options.key, expected)
    print(f"verified: s3://{store.bucket}/{options.key}, SHA3-256 {expected.hash_sha3_256}")


def _fetch(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    keys = keys_from_environment(settings)
    expected = _expected(store, options.key)
    with _opened(options.output) as out:
        # The whole hash first: no restore tool may see a byte before it is known to be right (INV-47-08).
        verify_object(store, keys, options.key, expected)
        progress = Progress(label=f"writing {options.key}", downloads=True, total_bytes=expected.size_bytes)
        with progress.reporting(), open_artefact(store, keys, options.key, progress) as artefact:
            if artefact.header.tag.hex() != expected.header_tag:
                raise ReadBackMismatch(
                    f"{options.key} was replaced between its verification and its reading",
                    remedy="find out who writes to the bucket, then fetch again",
                )
            for piece in unpacked(artefact.header, artefact.plaintext):
                out.write(piece)
        out.flush()


@contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """Standard output, or a new file that only its owner may read and that is gone again if the fetch fails."""
    if output == "-":
        yield sys.stdout.buffer
        return
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
    except BaseException:
        Path(output).unlink(missing_ok=True)
        raise
