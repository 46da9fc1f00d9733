"""A base backup out of the bucket into a directory: its hash verified before tar sees a byte (INV-47-08)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.content import VerifiedContent
from pv_backup.services.restoration.steps import step
from pv_backup.services.restoration.tools import ToolRunner

log = logging.getLogger(__name__)

# 1 MiB at a time instead of 10 KiB: a quarter of tar's time goes otherwise into asking the pipe.
_LARGE_READS: Final = ("--blocking-factor=2048", "--read-full-records")


def unpack_cluster(
    store: ObjectStore,
    keys: KeyWrapper,
    manifest: Manifest,
    directory: Path,
    *,
    runner: ToolRunner,
    needed_bytes: int = 0,
) -> None:
    """Unpack a published base backup; only what it unpacks to is ever on the disk.

    :param directory: empty, and of the user that the server will run as.
    :param runner: runs tar as that user.
    :param needed_bytes: what the restoration takes of the disk beside the artefact.
    :raises IntegrityError: if the artefact is not what its manifest says; nothing was unpacked then.
    :raises RestoreFailed: if tar fails: a full disk, a right that is missing.
    """
    with (
        VerifiedContent(
            store=store, keys=keys, manifest=manifest, place=runner.place, spare_bytes=needed_bytes
        ) as artefact,
        artefact.read(label="unpacking") as content,
        step("tar"),
    ):
        runner.run(
            ["tar", "--extract", "--file=-", f"--directory={directory}", "--no-same-owner", *_LARGE_READS],
            failing=f"tar could not unpack {manifest.key} into {directory}",
            remedy="read its message; see that the disk is well and has room, then restore into an empty directory",
            stdin=content,
        )


def verify_unpacked(directory: Path, *, runner: ToolRunner) -> None:
    """Let PostgreSQL compare every file with its own backup_manifest (pg_verifybackup).

    :raises RestoreFailed: with what it says.
    """
    with step("pg_verifybackup"):
        runner.run(
            [runner.tools.tool("pg_verifybackup"), "--quiet", str(directory)],
            failing=f"pg_verifybackup refuses {directory}",
            remedy="the artefact's hash was right, so look at this machine's disk and memory; then restore again",
        )
    log.info("pg_verifybackup: every file of %s is as it was backed up", directory)
