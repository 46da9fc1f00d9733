"""A base backup out of the bucket into a directory: its hash verified before tar sees a byte (INV-47-08)."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

from pv_backup.services.errors import ReadBackMismatch, RestoreFailed
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server
from pv_backup.services.progress import Progress
from pv_backup.services.restoration.server import as_user
from pv_backup.services.verification import Expected, open_artefact, unpacked, verify_object

log = logging.getLogger(__name__)

_TAIL_CHARACTERS = 2000


def unpack_cluster(
    store: ObjectStore, keys: KeyWrapper, manifest: Manifest, directory: Path, *, run_as: str | None
) -> None:
    """Unpack a published base backup; only what it unpacks to is ever on the disk.

    :param directory: empty, and of the user that the server will run as.
    :param run_as: that user, None for ourselves.
    :raises IntegrityError: if the artefact is not what its manifest says; nothing was unpacked then.
    :raises RestoreFailed: if tar fails: a full disk, a right that is missing.
    """
    key = manifest.key
    verify_object(store, keys, key, Expected.by_manifest(manifest))
    command = ["tar", "--extract", "--file=-", f"--directory={directory}", "--no-same-owner"]
    progress = Progress(label=f"unpacking {key}", downloads=True, total_bytes=manifest.size_bytes)
    with progress.reporting(), open_artefact(store, keys, key, progress) as artefact:
        if artefact.header.tag.hex() != manifest.header_tag:
            raise ReadBackMismatch(
                f"{key} was replaced between its verification and its reading",
                remedy="find out who writes to the bucket, then restore again",
            )
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, **as_user(run_as)) as tar:
            assert tar.stdin is not None  # noqa: S101 - Popen was told PIPE
            assert tar.stderr is not None  # noqa: S101 - Popen was told PIPE
            try:
                tar.stdin.writelines(unpacked(artefact.header, artefact.plaintext))
                tar.stdin.close()
            except BrokenPipeError:
                pass  # its exit status and message tell why
            except BaseException:
                tar.kill()
                raise
            said = tar.stderr.read().decode(errors="replace")[-_TAIL_CHARACTERS:].strip()
    if tar.returncode != 0:
        raise RestoreFailed(
            f"tar could not unpack {key} into {directory}: {said}",
            remedy="see that the disk has room for the whole cluster, then restore into an empty directory again",
        )


def verify_unpacked(tools: Server, directory: Path) -> None:
    """Let PostgreSQL compare every file with its own backup_manifest (pg_verifybackup).

    :raises RestoreFailed: with what it says.
    """
    answer = subprocess.run(
        [tools.tool("pg_verifybackup"), "--quiet", str(directory)],
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise RestoreFailed(
            f"pg_verifybackup refuses {directory}: {answer.stderr.strip()[-_TAIL_CHARACTERS:]}",
            remedy="the artefact's hash was right, so look at this machine's disk and memory; then restore again",
        )
    log.info("pg_verifybackup: every file of %s is as it was backed up", directory)
