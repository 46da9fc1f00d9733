"""The command line for when Airflow is not there, or not wanted.

Everything comes from the bucket and the key: settings from `PV_BACKUP_…`, S3 credentials and endpoint from
the AWS variables, Vault from `VAULT_ADDR` and `VAULT_TOKEN`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

from pv_backup.services.artefacts import WAL_PREFIX, ArtefactType, object_key_of_day
from pv_backup.services.days import choose_day
from pv_backup.services.errors import IntegrityError, NotPublished, PvBackupError, ReadBackMismatch
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress, human_bytes
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment, store_from_environment
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object
from pv_backup.services.wal_objects import expected_of_wal

EXIT_OK, EXIT_FAILED, EXIT_DAMAGED, EXIT_READER_LEFT = 0, 1, 2, 128 + signal.SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 not possible, 2 an artefact is damaged, 141 the reader of our output left."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        settings = Settings.load()
        options.run(options, settings, store_from_environment(settings))
    except IntegrityError as error:
        print(f"damaged: {error}", file=sys.stderr)
        return EXIT_DAMAGED
    except PvBackupError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        # `fetch … | pg_restore --list` reads the beginning only; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_READER_LEFT
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)  # the output's: a file that exists, a full disk
        return EXIT_FAILED
    return EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pv_backup", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    info = commands.add_parser("info", help="what is published for a day, from the manifests in the bucket")
    info.add_argument("--day", default="today", help="today, yesterday or YYYY-MM-DD (default: today)")
    info.set_defaults(run=_info)
    verify = commands.add_parser("verify", help="read an artefact back: decrypt, hash, compare with its manifest")
    verify.add_argument("key", help="object key, such as 2026/11/backup_20261122.enc or wal/…enc")
    verify.set_defaults(run=_verify)
    fetch = commands.add_parser("fetch", help="verify an artefact, then write it decrypted and decompressed")
    fetch.add_argument("key", help="object key, such as 2026/11/backup_20261122.enc")
    fetch.add_argument("--output", default="-", help="file to write, made new; - is standard output (default)")
    fetch.set_defaults(run=_fetch)
    return parser


def _info(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    day = _day(options.day)
    for artefact_type in (ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP):
        key = object_key_of_day(artefact_type, day)
        manifest = published(store, key)
        print(f"s3://{store.bucket}/{key}")
        print(aligned(describe(manifest)) if manifest else "  not published")


def describe(manifest: Manifest) -> dict[str, str]:
    """What a person wants to know of a published backup, in the order in which they ask."""
    facts = {
        "backup": f"{manifest.backup_id} ({manifest.backup_type})",
        "of": f"{manifest.database or 'the whole cluster'}, PostgreSQL {manifest.server_version}",
        "exported": manifest.exported_at,
        "published": manifest.finished_at,
        "size": f"{human_bytes(manifest.size_bytes)} ({manifest.size_bytes} bytes)",
        "SHA3-256": manifest.hash_sha3_256,
        "key": f"Vault Transit, version {manifest.k_backup_version}",
    }
    if manifest.row_counts is not None:
        facts["rows"] = f"{sum(manifest.row_counts.values())} in {len(manifest.row_counts)} tables"
    if manifest.tablespaces:
        facts["tablespaces"] = ", ".join(manifest.tablespaces.values())
    if manifest.wal_files:
        facts["WAL"] = f"timeline {manifest.timeline}, {manifest.start_lsn} to {manifest.stop_lsn}"
        facts["WAL files"] = f"{len(manifest.wal_files)}, from {manifest.wal_files[0]} to {manifest.wal_files[-1]}"
    return facts


def aligned(facts: dict[str, str]) -> str:
    """One fact a line; never folded, since hashes and keys are there to be copied."""
    width = max(map(len, facts))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in facts.items())


def _day(text: str) -> date:
    if text in {"today", "yesterday"}:
        return choose_day(datetime.now(UTC), text)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SystemExit(f"--day: {text!r} is neither today, yesterday nor YYYY-MM-DD") from None


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
        with open_artefact(store, keys, options.key, Progress(label=options.key)) as artefact:
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
