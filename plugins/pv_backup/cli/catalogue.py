"""`list` and `info`: what the bucket holds, by its manifests."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from pv_backup.cli.coverage import covered
from pv_backup.services.artefacts import object_key_of_day
from pv_backup.services.days import choose_day
from pv_backup.services.manifest import Manifest, published
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import human_bytes
from pv_backup.services.restoration.catalogue import OF_A_DAY, day_of, published_backups
from pv_backup.services.settings import Settings

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


_LIST_HELP = """\
List every published backup, the oldest first, and how far the WAL leads from each base backup.

  python -m pv_backup list                what there is to restore, and to which moment
  python -m pv_backup list --json         the same for programs, with hashes, sizes and key versions

The times of last commits want Vault, and pg_waldump of Debian's postgresql-15; without them the rest is told.

exit status: 0 done, 1 not possible (the message says why and what to do)
"""


def add_commands(commands: Commands) -> None:
    """Add this room's commands to the parser."""
    listing = commands.add_parser(
        "list",
        help="every published backup in the bucket, and how far recovery can go",
        description=_LIST_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listing.add_argument("--json", action="store_true", help="all that the manifests say but row counts and file lists")
    listing.set_defaults(run=_list)
    info = commands.add_parser("info", help="what is published for a day, in full")
    info.add_argument("--day", default="today", help="today, yesterday or YYYY-MM-DD (default: today)")
    info.set_defaults(run=_info)


def _list(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    backups = published_backups(store)
    wal = covered(settings, store, backups)
    if options.json:
        document = {"bucket": store.bucket, "backups": list(map(_as_json, backups)), "wal": wal.to_json()}
        print(json.dumps(document, indent=1))
        return
    if not backups:
        print(f"s3://{store.bucket} holds no published backup")
    else:
        rows = [("KEY", "EXPORTED", "SIZE", "OF")]
        rows += [(each.key, each.exported_at, human_bytes(each.size_bytes), _subject(each)) for each in backups]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(wal.text)


def _as_json(manifest: Manifest) -> dict[str, Any]:
    """What row and journal event of the backup said, and where it lies in the WAL."""
    told = manifest.to_json()
    for long in ("row_counts", "row_counts_absent", "backup_manifest"):
        told.pop(long, None)
    return {"type": told.pop("backup_type"), "day": day_of(manifest).isoformat(), **told}


def _info(options: argparse.Namespace, settings: Settings, store: ObjectStore) -> None:
    day = _day(options.day)
    for artefact_type in OF_A_DAY:
        key = object_key_of_day(artefact_type, day)
        manifest = published(store, key)
        print(f"s3://{store.bucket}/{key}")
        print(aligned(describe(manifest)) if manifest else "  not published")


def describe(manifest: Manifest) -> dict[str, str]:
    """What a person wants to know of a published backup, in the order in which they ask."""
    facts = {
        "backup": f"{manifest.backup_id} ({manifest.backup_type})",
        "of": _subject(manifest),
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


def _subject(manifest: Manifest) -> str:
    return f"{manifest.database or 'the whole cluster'}, PostgreSQL {manifest.server_version}"


def _day(text: str) -> date:
    if text in {"today", "yesterday"}:
        return choose_day(datetime.now(UTC), text)
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SystemExit(f"--day: {text!r} is neither today, yesterday nor YYYY-MM-DD") from None
