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
from pv_backup.services.progress import Progress, human_bytes
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object
from pv_backup.services.wal_objects import expected_of_wal

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


_VERIFY_HELP = """\
Read an artefact back: download, decrypt, hash, compare with its manifest, or a WAL file with its metadata.

  python -m pv_backup verify 2026/11/backup_20261122.enc
  python -m pv_backup verify wal/000000010000000000000003.enc
  python -m pv_backup verify --all          everything that the bucket holds, and a summary

Nothing is written, here or there. --all names what is damaged and goes on with the rest.

exit status: 0 as it was uploaded, 1 not possible (the message says why and what to do), 2 damaged
"""

_FETCH_HELP = """\
Verify an artefact, then write it decrypted and decompressed, to a file or into the program that restores it.

  1. the roles        python -m pv_backup fetch 2026/11/globals_20261122.enc | psql -d postgres
  2. the database     createdb restored
                      python -m pv_backup fetch 2026/11/backup_20261122.enc | pg_restore -d restored
     a WAL file       python -m pv_backup fetch wal/000000010000000000000003.enc --output 000000010000000000000003

The object is read twice: nobody sees a byte before the hash of all of it is known to be right. A file is made new, for
its owner alone, and is gone again if the fetch fails. In a pipe, `set -o pipefail` lets the shell see that.

exit status: 0 done, 1 not possible (the message says why and what to do), 2 damaged, 141 the reader left
"""


def add_commands(commands: Commands) -> None:
    """Add this room's commands to the parser."""
    verify = commands.add_parser(
        "verify",
        help="read an artefact back, or all of them: decrypt, hash, compare",
        description=_VERIFY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = verify.add_mutually_exclusive_group(required=True)
    which.add_argument("key", nargs="?", help="object key, such as 2026/11/backup_20261122.enc or wal/…enc")
    which.add_argument("--all", action="store_true", help="every published backup and every WAL file")
    verify.set_defaults(run=_verify)
    fetch = commands.add_parser(
        "fetch",
        help="verify an artefact, then write it decrypted and decompressed",
        description=_FETCH_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    if options.all:
        _verify_all(settings, store)
        return
    expected = _expected(store, options.key)
    verify_object(store, keys_from_environment(settings), options.key, expected)
    print(f"verified: s3://{store.bucket}/{options.key}, SHA3-256 {expected.hash_sha3_256}")


def _verify_all(settings: Settings, store: ObjectStore) -> None:
    """Say of each backup how it is, of WAL files only what is wrong with them: there may be 40,000.

    :raises ReadBackMismatch: if anything is damaged, once all was read.
    """
    from pv_backup.services.restoration.sweep import read_back_backups, read_back_wal

    keys = keys_from_environment(settings)
    sound, size, damaged = 0, 0, []
    for number, sweep in enumerate((read_back_backups, read_back_wal)):
        for found in sweep(store, keys):
            if found.error is not None:
                damaged.append(found.key)
                print(f"damaged   {found.key}: {found.error.what}")
                continue
            sound += 1
            size += found.expected.size_bytes if found.expected else 0
            if number == 0:
                print(f"verified  {found.key}")
    print(f"{sound} artefacts verified, {human_bytes(size)}; {len(damaged)} damaged")
    if damaged:
        raise ReadBackMismatch(
            f"{len(damaged)} artefacts of s3://{store.bucket} are damaged; they are named above",
            remedy="look for earlier versions (`aws s3api list-object-versions`), and find out who writes there",
        )


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
