"""Publish: write the manifest beside a verified object, last, which makes it a backup (SPEC F1.6)."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from pv_backup.services.artefacts import manifest_key
from pv_backup.services.errors import ReadBackMismatch, RefusedError
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.manifest import Manifest, StoredManifest, read_manifest
from pv_backup.services.state import Attempt, RecordedArtefact
from pv_backup.services.timestamps import rfc3339
from pv_backup.services.workbench import Workbench

log = logging.getLogger(__name__)


def publish(bench: Workbench, attempt: Attempt, keeper: LeaseKeeper) -> Manifest:
    """Write the manifest of an attempt whose object was verified.

    A second try finds its own manifest and is content. A manifest of an earlier attempt, which says
    nothing about today's object, is replaced on condition that it is still the one that was read.

    :raises LeaseLost: if another worker has taken over; nothing is written then.
    :raises RefusedError: if the object was not read back, or somebody else published.
    :raises ReadBackMismatch: if the object under the key is no longer the verified one.
    """
    recorded = bench.machine.artefact_of(attempt)
    recorded.demand_verified()
    _still_ours(bench, attempt, recorded)
    manifest = _manifest(attempt, recorded)
    standing = read_manifest(bench.store, attempt.object_key)
    if (own := _own(standing, manifest)) is not None:
        log.info("%s is published already, by an earlier try of this task", attempt.object_key)
        return own
    try:
        bench.store.put_document(
            manifest_key(attempt.object_key),
            manifest.to_json(),
            replace_etag=standing.etag if standing else None,
            permit=keeper.confirm,
        )
    except RefusedError:
        # A lost answer makes the second PUT fail on what the first one wrote.
        if _own(read_manifest(bench.store, attempt.object_key), manifest) is None:
            raise
    log.info("published: %s", manifest_key(attempt.object_key))
    return manifest


def _own(standing: StoredManifest | None, manifest: Manifest) -> Manifest | None:
    """What stands beside the object, if it is of this very artefact."""
    there = standing.manifest if standing else None
    if there is None or (there.backup_id, there.header_tag) != (manifest.backup_id, manifest.header_tag):
        return None
    return there


def _still_ours(bench: Workbench, attempt: Attempt, recorded: RecordedArtefact) -> None:
    there = bench.store.head(attempt.object_key)
    if there is None or there.metadata.get("auth_tag") != recorded.artefact.auth_tag:
        raise ReadBackMismatch(
            f"{attempt.object_key} is no longer the object that was verified",
            remedy="find out who writes to the bucket besides this system; then run the day again",
        )


def _manifest(attempt: Attempt, recorded: RecordedArtefact) -> Manifest:
    artefact = recorded.artefact
    facts = {key: value for key, value in recorded.facts.items() if key in Manifest.model_fields}
    return Manifest.model_validate(
        {
            "backup_id": attempt.backup_id,
            "backup_type": attempt.artefact_type,
            "key": attempt.object_key,
            "size_bytes": artefact.size_bytes,
            "hash_sha3_256": artefact.hash_sha3_256,
            "header_tag": artefact.auth_tag,
            "wrapped_dek": artefact.wrapped_dek,
            "k_backup_version": artefact.k_backup_version,
            "finished_at": rfc3339(datetime.now(UTC)),
            **facts,
        }
    )
